"""The search for parameters: each point is fitted on older rows and judged on newer ones, time split after time split.

As many points are judged side by side as the executor has workers; the search is told of them in the order in which it was asked,
so what it finds depends on how many these are, and never on which is done first.
What is surely no better than its neighbours is stopped after the first splits, where the search knows how (Optuna's median
pruner). The champion's parameters and the function's own defaults are asked first, so a search never ends below them. The rows
that judge the candidate stay unseen.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from loudly.core.canon import Json, finite
from loudly.core.seams import Executor, Floats, Search
from loudly.data.split import rolling
from loudly.errors import TrainingError
from loudly.features.feature_set import FeatureSet
from loudly.loop.candidate import split, table_schema, task_of
from loudly.loop.label_values import encode
from loudly.loop.serving import inputs_of
from loudly.loop.system import System
from loudly.loop.tally import Tally
from loudly.metrics.table import metric
from loudly.register.skops_format import SklearnModel
from loudly.train.fit import answers, fit_once

FOLDS = 3
Progress = Callable[[str, int, int | None], None]


def silent(what: str, done: int, total: int | None) -> None:
    """Nobody looks on."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How the next training tunes. again: search though the champion has parameters.  progress: told what is being done."""

    again: bool = False
    progress: Progress = silent


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a search found. value: the metric of `params`, the mean over the splits; first: that of the first point asked.

    stopped: points left before their last split.  failed: points that the train function refused or that gave no number.
    workers: how many were judged side by side.
    """

    params: Mapping[str, Json]
    value: float | None
    first: float | None
    trials: int
    stopped: int
    failed: int
    folds: int
    workers: int

    def plain(self) -> dict[str, Json]:
        """As the record of it."""
        value, first = finite(self.value), finite(self.first)
        counts: dict[str, Json] = {"trials": self.trials, "stopped": self.stopped, "failed": self.failed, "folds": self.folds}
        return {"params": dict(self.params), "value": value, "first": first, "workers": self.workers, **counts}


@dataclass(frozen=True, slots=True)
class _Fold:
    """One time split, ready to fit on: features frozen on its older rows. classes: how many the label has, 0 for a quantity."""

    names: tuple[str, ...]
    categories: tuple[int, ...]
    X: Any
    y: Floats
    X_newer: Any
    truth: Floats
    classes: int


@dataclass(slots=True)
class _Point:
    """What is known of a point. refused: why the train function did not take it."""

    params: dict[str, Json]
    losses: list[float] = field(default_factory=list)
    refused: TrainingError | None = None
    stopped: bool = False

    @property
    def loss(self) -> float:
        """The mean over the splits so far; no number where it was refused."""
        return float("nan") if self.refused else float(np.mean(self.losses))

    @property
    def whole(self) -> bool:
        """Whether it was judged on every split."""
        return not self.stopped and bool(np.isfinite(self.loss))


def starts(system: System, champion: Mapping[str, Json]) -> tuple[dict[str, Json], ...]:
    """The points to ask first: what the champion has, and the defaults of the train function, of what is tuned."""
    signature, tuned = inspect.signature(system.train.fit).parameters, system.train.tune
    own = {name: signature[name].default for name in tuned if signature[name].default is not inspect.Parameter.empty}
    points = [{name: value for name, value in champion.items() if name in tuned}, own]
    return tuple(point for i, point in enumerate(points) if point and point not in points[:i])


def tune(
    system: System,
    labelled: pl.DataFrame,
    search: Search,
    tally: Tally,
    executor: Executor,
    *,
    first: Sequence[Mapping[str, Json]] = (),
    side: Sequence[str] = (),
    progress: Progress = silent,
) -> Tuned:
    """The best of `trials` points. Of those that were not stopped; the first asked where none could be judged.

    first: points to ask before all others.
    Raises: TrainingError where the train function refused every point, ExecutorError where a worker ended.
    Cost: at most three fits a point, on 40, 60 and 80 % of the rows.
    """
    spec, trials = metric(system.metric), system.train.trials
    folds = _folds(system, labelled, side)
    for start in first:
        search.start_from(start)
    told: list[_Point] = []
    while len(told) < trials:
        progress("searching", len(told), trials)
        points = [_Point(search.ask()) for _ in range(min(executor.workers, trials - len(told)))]
        with tally.spend("fit"):
            _judge(system, folds, points, search, executor)
        for point in points:
            search.tell(point.params, point.loss)
        told.extend(points)
    progress("searching", trials, trials)
    refused = [point.refused for point in told if point.refused is not None]
    if refused and not any(point.whole for point in told):
        raise refused[-1]
    best = min((point for point in told if point.whole), key=lambda point: point.loss, default=told[0])
    failed, stopped = sum(not np.isfinite(point.loss) for point in told), sum(point.stopped for point in told)
    value, begun = (-spec.better * point.loss for point in (best, told[0]))
    return Tuned(best.params, value, begun, len(told), stopped, failed, len(folds), executor.workers)


def _judge(system: System, folds: Sequence[_Fold], points: Sequence[_Point], search: Search, executor: Executor) -> None:
    """Split after split, those that are left side by side; the search may stop one before the last."""
    for step, fold in enumerate(folds):
        left = [point for point in points if not point.stopped and point.refused is None]
        work = partial(_loss, system.train.fit, system.train.seed, system.metric, fold)
        for point, loss in zip(left, executor.map(work, [point.params for point in left]), strict=True):
            if isinstance(loss, TrainingError):
                point.refused = loss
                continue
            point.losses.append(loss)
            point.stopped = step + 1 < len(folds) and search.report(point.params, step, point.loss)


def _loss(fit: Callable[..., object], seed: int, name: str, fold: _Fold, params: Mapping[str, Json]) -> float | TrainingError:
    """Of one fit, on the newer rows of a split; the error where the train function refuses the point, so that the others go on."""
    spec = metric(name)
    try:
        fitted = fit_once(fit, fold.X, fold.y, params, seed=seed, names=fold.names, categories=fold.categories)
        given = answers(SklearnModel(fitted.estimator), fold.X_newer, len(fold.truth), fold.classes)
        return -spec.better * spec(fold.truth, given)
    except TrainingError as wrong:
        return wrong


def _folds(system: System, labelled: pl.DataFrame, side: Sequence[str]) -> tuple[_Fold, ...]:
    """Time splits of the rows that fit; those with one class in their older rows are left out, one split is always there."""
    rows, _held_out = split(labelled, system).apply(labelled)
    _task, classes = task_of(labelled[system.label], system)
    pairs = [(o, n) for o, n in rolling(rows, system.time, FOLDS) if not classes or o[system.label].n_unique() == len(classes)]
    made, frame = [], system.train.frame
    for older, newer in pairs or [split(rows, system).apply(rows)]:
        features = FeatureSet(system.features, table_schema(older, system, side)).fit(older)
        X, X_newer = (inputs_of(features, part, frame) for part in (older, newer))
        y, truth = (encode(part[system.label], classes) for part in (older, newer))
        made.append(_Fold(features.names_of(frame), features.categories_of(frame), X, y, X_newer, truth, len(classes)))
    return tuple(made)
