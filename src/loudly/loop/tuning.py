"""The search for parameters: each point is fitted on older rows and judged on newer ones, time split after time split.

What is surely no better than its neighbours is stopped after the first splits, where the search knows how (Optuna's median
pruner). The champion's parameters and the function's own defaults are asked first, so a search never ends below them. The rows
that judge the candidate stay unseen.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from loudly.core.canon import Json, finite
from loudly.core.seams import Floats, Search
from loudly.data.split import rolling
from loudly.errors import TrainingError
from loudly.features.feature_set import FeatureSet, FrozenFeatures
from loudly.loop.candidate import encode, model_inputs, split, table_schema, task_of
from loudly.loop.system import System
from loudly.loop.tally import Tally
from loudly.metrics.table import metric
from loudly.register.skops_format import SklearnModel
from loudly.train.fit import fit_once

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
    """

    params: Mapping[str, Json]
    value: float | None
    first: float | None
    trials: int
    stopped: int
    failed: int
    folds: int

    def plain(self) -> dict[str, Json]:
        """As the record of it."""
        value, first = finite(self.value), finite(self.first)
        counts: dict[str, Json] = {"trials": self.trials, "stopped": self.stopped, "failed": self.failed, "folds": self.folds}
        return {"params": dict(self.params), "value": value, "first": first, **counts}


@dataclass(frozen=True, slots=True)
class _Fold:
    """One time split, ready to fit on: features frozen on its older rows."""

    features: FrozenFeatures
    X: Any
    y: Floats
    X_newer: Any
    truth: Floats


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
    *,
    first: Sequence[Mapping[str, Json]] = (),
    side: Sequence[str] = (),
    progress: Progress = silent,
) -> Tuned:
    """The best of `trials` points. Of those that were not stopped; the first asked where none could be judged.

    first: points to ask before all others.  Raises: TrainingError where the train function refused every point.
    Cost: at most three fits a point, on 40, 60 and 80 % of the rows.
    """
    spec = metric(system.metric)
    folds = _folds(system, labelled, side)
    for point in first:
        search.start_from(point)
    told: list[tuple[dict[str, Json], float, bool]] = []
    refused: TrainingError | None = None
    for trial in range(system.train.trials):
        progress("searching", trial, system.train.trials)
        params = search.ask()
        try:
            loss, stopped = _judge(system, folds, params, search, tally)
        except TrainingError as wrong:
            loss, stopped, refused = float("nan"), False, wrong
        search.tell(params, loss)
        told.append((params, loss, stopped))
    progress("searching", system.train.trials, system.train.trials)
    whole = [(loss, i) for i, (_, loss, stopped) in enumerate(told) if not stopped and np.isfinite(loss)]
    if refused is not None and not whole:
        raise refused
    best = min(whole)[1] if whole else 0
    failed = sum(not np.isfinite(loss) for _, loss, _ in told)
    value, begun = (-spec.better * told[i][1] for i in (best, 0))
    return Tuned(told[best][0], value, begun, len(told), sum(s for *_, s in told), failed, len(folds))


def _judge(system: System, folds: Sequence[_Fold], params: Mapping[str, Json], search: Search, tally: Tally) -> tuple[float, bool]:
    """(mean loss over the splits so far, whether the search stopped it before the last)."""
    spec, losses = metric(system.metric), []
    for step, fold in enumerate(folds):
        with tally.spend("fit"):
            fitted = fit_once(
                system.train.fit,
                fold.X,
                fold.y,
                params,
                seed=system.train.seed,
                names=fold.features.names,
                categories=fold.features.categories,
            )
        with tally.spend("predict"):
            losses.append(-spec.better * spec(fold.truth, SklearnModel(fitted.estimator).predict(fold.X_newer)))
        loss = float(np.mean(losses))
        if step + 1 < len(folds) and search.report(params, step, loss):
            return loss, True
    return loss, False


def _folds(system: System, labelled: pl.DataFrame, side: Sequence[str]) -> tuple[_Fold, ...]:
    """Time splits of the rows that fit; those with one class in their older rows are left out, one split is always there."""
    rows, _held_out = split(labelled, system).apply(labelled)
    _task, classes = task_of(labelled[system.label], system)
    pairs = [(o, n) for o, n in rolling(rows, system.time, FOLDS) if not classes or o[system.label].n_unique() == len(classes)]
    made = []
    for older, newer in pairs or [split(rows, system).apply(rows)]:
        features = FeatureSet(system.features, table_schema(older, system, side)).fit(older)
        X, X_newer = (model_inputs(features, part, system) for part in (older, newer))
        made.append(_Fold(features, X, encode(older[system.label], classes), X_newer, encode(newer[system.label], classes)))
    return tuple(made)
