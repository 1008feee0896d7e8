"""From a table to a judged candidate: split, features, search, fit, ladder, evaluation, gate, final fit, artefact.

The same table, system, seed and champion give the same bytes and the same judgments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import call
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loudly.core.canon import Json
from loudly.core.seams import Executor, Floats, ModelFormat
from loudly.core.values import Decision, Schema, Task, Verdict
from loudly.core.whence import asked
from loudly.data.split import TimeSplit, newest
from loudly.errors import DataError, ModelError, one_line
from loudly.evaluate.compare import compare, compare_slices
from loudly.evaluate.overfit import MUCH, overfit
from loudly.evaluate.report import Report, evaluate
from loudly.features.feature_set import FeatureSet, FrozenFeatures
from loudly.loop.label_values import encode
from loudly.loop.serving import FastForms, Ready, inputs_of, make_ready, opened
from loudly.loop.slices import slice_rows, unjudged_slices
from loudly.loop.system import System
from loudly.loop.tally import Tally
from loudly.loop.tolerances import unfit_tolerances
from loudly.metrics.table import metric
from loudly.register.bundle import pack
from loudly.register.fast_form import Fast, fasten, none
from loudly.stats.held_out import held_out_scores
from loudly.train.fit import answers, fit_once
from loudly.train.ladder import climb
from loudly.validate.schema import infer_schema

SMALLEST_SLICE = 300
MAX_HELD_OUT_SHARE = 0.3
FEWEST_ROWS = 100
MOST_CLASSES, MOST_FLOATS = 1000, 20
SEEN_ROWS = 5_000
FAST_ROWS = 20_000
FAST_ALREADY = ("onnx",)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A fitted, judged, stored-to-be model. `data` are the artefact's bytes."""

    data: bytes
    ready: Ready
    report: Report
    gate: Verdict
    ladder: Verdict | None
    params: Mapping[str, Json]
    rows: int
    fitted_at: int
    weakened: tuple[tuple[str, str], ...]
    split: TimeSplit
    fast: Verdict


@dataclass(frozen=True, slots=True)
class Trial:
    """The rows that a model learns from and those that judge it, of one task."""

    system: System
    fit_rows: pl.DataFrame
    held_out: pl.DataFrame
    task: Task
    classes: tuple[str, ...]
    tally: Tally
    executor: Executor

    def truth(self, rows: pl.DataFrame) -> Floats:
        """(n,) of the label."""
        return encode(rows[self.system.label], self.classes)


def make_candidate(
    system: System,
    labelled: pl.DataFrame,
    formats: Sequence[ModelFormat],
    tally: Tally,
    executor: Executor,
    *,
    champion: Ready | None,
    champion_saw: int,
    params: Mapping[str, Json],
    start: Callable[[], object] | None,
    clean: pl.DataFrame | None = None,
    side: Sequence[str] = (),
    fast: FastForms | None = None,
) -> Candidate:
    """Fits on all but the newest rows, judges on those, and, where the gate passes, fits once more on everything.

    executor: where the model is fitted; all else is done here.
    champion_saw: event time of the newest row the champion has learned from; it is compared on newer rows only.
    start: makes the estimator to continue from, anew for each fit: a fit may change what it is given.
    side: columns that were joined from side tables.
    fast: forms of which the first that answers as the model does is stored beside it and serves; none by default.
    clean: in a rehearsal `labelled` is damaged; the held-out rows that judge are then taken from here.

    Raises: DataError where there are too few labelled rows, TrainingError from the user's function,
    ExecutorError where a worker ended or the function cannot travel to it.
    """
    cut = split(labelled, system)
    fit_rows, held_out = cut.apply(labelled)
    if clean is not None:
        _, held_out = cut.apply(clean)
    schema = table_schema(labelled, system, side)
    task, classes = task_of(labelled[system.label], system)
    trial = Trial(system, fit_rows, held_out, task, classes, tally, executor)
    features = FeatureSet(system.features, schema).fit(fit_rows)
    features.refuse_skew(held_out)
    judged = _fit(trial, features, fit_rows, params, start)
    model, _form, _bytes, _said = _store(judged, formats)
    with tally.spend("predict"):
        score = answers(model, inputs_of(features, held_out, system.train.frame), held_out.height, len(classes))
    report, gate, unheld = _judge(trial, score, champion, champion_saw, continued=start is not None)
    ladder = _climb(trial, features, score) if champion is None else None
    seen_rows = fit_rows.tail(SEEN_ROWS)
    with tally.spend("predict"):
        seen_score = answers(model, inputs_of(features, seen_rows, system.train.frame), seen_rows.height, len(classes))
    most = system.gate.overfit
    learned = overfit(trial.truth(seen_rows), seen_score, report.value, system.metric, MUCH if most is None else most)
    by_heart = (("overfit", learned.reason),) if most is None and learned.failed else ()
    gate = _failed_by(gate, None if by_heart else learned, ladder)
    if gate.passed:
        features = FeatureSet(system.features, schema).fit(labelled)
        judged = _fit(trial, features, labelled, params, start)
    _model, form, model_bytes, weakened = _store(judged, formats)
    meta = {"task": str(task), "classes": list(classes), "metric": system.metric, "frame": system.train.frame}
    quick = _fast(form, model_bytes, features, labelled if gate.passed else fit_rows, system, fast, tally)
    if system.train.recipe:
        meta["recipe"] = system.train.recipe
    said: dict[str, Json] = {**meta, "params": dict(params), "fast": quick.plain()}
    if usual := held_out_scores(seen_score, score):
        said["held_out_scores"] = usual
    data = pack(model_bytes, form.name, schema, features.plain(), said, quick.data)
    ready = make_ready(data, system.features, formats, True, fast)
    if gate.passed:
        gate = _behaves(trial, ready, gate)
    last = labelled[system.time].dt.epoch("us").max()
    rows = labelled.height if gate.passed else fit_rows.height
    seen = int(last or 0)  # type: ignore[arg-type]
    unfit = (*_unseen_texts(features, system), *unfit_tolerances(system, report.value), *unjudged_slices(system, held_out))
    loud = (*unheld, *weakened, *by_heart, *unfit)
    return Candidate(data, ready, report, gate, ladder, params, rows, seen, loud, cut, quick.verdict)


def split(labelled: pl.DataFrame, system: System) -> TimeSplit:
    """The newest stretch is held out; it grows to the rows that the gate asks for, and to 30 % of all at most."""
    if labelled.height < FEWEST_ROWS:
        raise DataError("Too few labelled rows to fit and judge.", seen=str(labelled.height), do=f"{FEWEST_ROWS} are the least.")
    return newest(labelled, system.time, stretch=system.train.holdout, rows=system.gate.rows, most=MAX_HELD_OUT_SHARE)


def task_of(label: pl.Series, system: System) -> tuple[Task, tuple[str, ...]]:
    """The task and, for classes, their names in order; told from the label and the metric.

    Raises: DataError where the metric does not fit the label.
    """
    tasks = metric(system.metric).tasks
    values = label.drop_nulls()
    if Task.REGRESSION in tasks:
        if not values.dtype.is_numeric():
            raise DataError(f"{system.metric!r} wants a numeric label.", **_no_numbers(values))
        return Task.REGRESSION, ()
    classes = tuple(values.unique().sort().cast(pl.String).to_list())
    if len(classes) < 2:
        raise DataError("The label has one value only; there is nothing to learn.", seen=", ".join(classes) or "none")
    if len(classes) > (MOST_FLOATS if values.dtype.is_float() else MOST_CLASSES):
        seen = f"{len(classes):,} values of type {values.dtype}, e.g. {classes[0]}"
        do = "Choose a regression metric such as 'mae', or make the label a text of few values."
        raise DataError(f"{system.metric!r} wants classes, and the label has too many values for that.", seen=seen, do=do)
    return (Task.BINARY if len(classes) == 2 else Task.MULTICLASS), classes


def _no_numbers(values: pl.Series) -> dict[str, str]:
    """What stands in a label that holds no numbers, and what to do about it."""
    texts = values.cast(pl.String, strict=False)
    numbers = texts.str.strip_chars().cast(pl.Float64, strict=False)
    odd = texts.filter(numbers.is_null())
    if values.dtype != pl.String or len(odd) > len(values) / 2:
        return {"seen": str(values.dtype), "do": "Choose a metric for classes."}
    if not len(odd):
        return {"seen": f"numbers written as text, e.g. {texts[0]!r}", "do": "Make them numbers: pl.col(...).cast(pl.Float64)."}
    told = ", ".join(map(repr, odd.unique(maintain_order=True).head(3)))
    return {"seen": f"{len(odd):,} of {len(values):,} values are no number: {told}", "do": "Mend them, or leave them empty."}


def table_schema(labelled: pl.DataFrame, system: System, side: Sequence[str]) -> Schema:
    """The schema of labelled rows, with the roles that the system gives. side: columns joined from side tables."""
    return infer_schema(
        labelled,
        label=system.label,
        time=system.time,
        key=system.key,
        private=[p for p in system.private if p in labelled.columns],
        ignored=system.ignored,
        side=side,
        group=system.group,
    )


def _fit(
    trial: Trial, features: FrozenFeatures, rows: pl.DataFrame, params: Mapping[str, Json], start: Callable[[], object] | None
) -> object:
    system, X, y = trial.system, inputs_of(features, rows, trial.system.train.frame), trial.truth(rows)
    asks: dict[str, Any] = {"seed": system.train.seed, "start": start() if start is not None else None}
    frame = system.train.frame
    asks |= {"names": features.names_of(frame), "categories": features.categories_of(frame)}
    fit = partial(fit_once, system.train.fit, X, y, params, **asks)
    with trial.tally.spend("fit"):
        return trial.executor.map(call, [fit])[0].estimator


def _store(estimator: object, formats: Sequence[ModelFormat]) -> tuple[Any, ModelFormat, bytes, tuple[tuple[str, str], ...]]:
    """The first format that takes the estimator; a format that runs code on load is a weakened guarantee, said aloud."""
    for form in formats:
        if form.accepts(estimator):
            data = form.dump(estimator)
            said = (("safe loading", f"a {type(estimator).__name__} is stored as {form.name}, which runs code when loaded"),)
            return form.load(data), form, data, said if form.executes_code else ()
    raise ModelError(
        "No format stores this estimator.",
        seen=type(estimator).__name__,
        do="Return a scikit-learn, LightGBM or ONNX model, or one that pickles.",
    )


def _fast(
    form: ModelFormat,
    model: bytes,
    features: FrozenFeatures,
    rows: pl.DataFrame,
    system: System,
    fast: FastForms | None,
    tally: Tally,
) -> Fast:
    """The fast form of the stored model, held against it on the newest rows it has learned from."""
    if not fast:
        return none("fast forms are switched off", missing="")
    if form.name in FAST_ALREADY:
        return none(f"the format {form.name!r} is fast already", missing="")
    if system.train.frame != "numpy":
        return none("the model takes a table, and fast forms take a matrix")
    with tally.spend("register"):
        X = features.matrix(rows.tail(FAST_ROWS))
        return fasten(form.restore(model), form.load(model), X, opened(fast), seed=system.train.seed)


def _climb(trial: Trial, features: FrozenFeatures, score: Floats) -> Verdict:
    """Whether the scores of the held-out rows are better than what is simpler says of them."""
    system, fit_rows, held_out = trial.system, trial.fit_rows, trial.held_out
    with trial.tally.spend("fit"):
        return climb(
            features.matrix(fit_rows),
            trial.truth(fit_rows),
            features.matrix(held_out),
            trial.truth(held_out),
            score,
            task=trial.task,
            name=system.metric,
            rules={rule.__name__: _ruled(rule, held_out, len(trial.classes)) for rule in system.rules},
            seed=system.train.seed,
        )


def _ruled(rule: Callable[[pl.DataFrame], Any], rows: pl.DataFrame, classes: int) -> Floats:
    """(n,), of more than two classes (n, classes): what a rule says.

    Raises: TrainingError where it fails, DataError where it is not one score a row, or one a class.
    """
    given = asked("rule", rule, rows)
    try:
        scores = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as wrong:
        raise DataError(f"The rule {rule.__name__!r} gave no numbers.", seen=str(wrong), do="Return one score a row.") from wrong
    if scores.shape != ((rows.height, classes) if classes > 2 else (rows.height,)):
        seen, do = f"shape {scores.shape} for {rows.height:,} rows", "return rows['debt'] / rows['income']"
        each, do = ("row and class", f"return rows.select(...), of {classes} columns") if classes > 2 else ("row", do)
        raise DataError(f"The rule {rule.__name__!r} must give one score a {each}.", seen=seen, do=do)
    return scores


def _failed_by(gate: Verdict, *others: Verdict | None) -> Verdict:
    """The gate's verdict, or that of the last of the others that has failed."""
    for found in others:
        if found is not None and found.failed:
            gate = Verdict(Decision.FAIL, "gate", f"{found.subject}: {found.reason}", (*gate.evidence, *found.evidence))
    return gate


def _judge(
    trial: Trial, score: Floats, champion: Ready | None, champion_saw: int, *, continued: bool
) -> tuple[Report, Verdict, tuple[tuple[str, str], ...]]:
    """The report, the gate's verdict, and what could not be held against the champion.

    continued: from the champion, so rows that it has learned from are no news to the candidate either, and no part of the report.
    """
    system, rows, task, classes, truth = trial.system, trial.held_out, trial.task, trial.classes, trial.truth(trial.held_out)
    new = (rows[system.time].dt.epoch("us") > champion_saw).to_numpy()
    enough = new.sum() >= system.gate.rows
    told = new if continued and enough else np.ones(len(truth), dtype=np.bool_)
    slices = {name: inside for name, inside in slice_rows(system, rows).items() if inside[told].sum() >= SMALLEST_SLICE}
    shown = {name: inside[told] for name, inside in slices.items()}
    report = evaluate(truth[told], score[told], task=task, main=system.metric, classes=classes, slices=shown)
    if not np.isfinite(score).all():
        return report, Verdict(Decision.FAIL, "gate", "the candidate answers NaN on held-out rows"), ()
    if champion is None:
        return report, system.gate.judge(None, held_out=len(truth)), ()
    if champion.classes != classes:
        return report, *_unheld(trial, "the champion knows other classes")
    if not enough:
        why = f"only {int(new.sum())} held-out rows are new to the champion; the rollout must judge"
        verdict, weakened = _unheld(trial, why)
        known = f"it continues from the champion, which has learned from {int((~new).sum()):,} of the {len(new):,} held-out rows"
        return report, verdict, (*weakened, *((("its expected quality", known),) if continued else ()))
    before, sound, why = _of_champion(trial, champion, rows.filter(new))
    if sound.sum() < system.gate.rows:
        return report, *_unheld(trial, f"{why}; the rollout must judge")
    new[new] = sound
    slices = {name: inside[new] for name, inside in slices.items() if inside[new].sum() >= SMALLEST_SLICE}
    against = compare(truth[new], score[new], before[sound], system.metric)
    by_slice = compare_slices(truth[new], score[new], before[sound], system.metric, slices)
    left_out = (("the gate's comparison with the champion", f"{why}: they are left out"),) if why else ()
    worth = metric(system.metric)(truth[new], before[sound])
    return report, system.gate.judge(against, by_slice, held_out=int(new.sum()), worth=worth), left_out


def _of_champion(trial: Trial, champion: Ready, rows: pl.DataFrame) -> tuple[Floats, NDArray[np.bool_], str]:
    """What the champion answers to rows, (n,) where that is a number, and why it is not everywhere."""
    try:
        with trial.tally.spend("predict"):
            before = champion.predict(rows)
    except Exception as wrong:  # noqa: BLE001 - a model may raise anything; one that is to be replaced keeps nobody out
        why = f"the champion does not answer the held-out rows ({one_line(wrong)})"
        return np.zeros(rows.height), np.zeros(rows.height, dtype=np.bool_), why
    sound = np.asarray(np.isfinite(before if before.ndim == 1 else before.sum(axis=1)))
    lost = rows.height - int(sound.sum())
    return before, sound, f"the champion has no answer to {lost:,} of {rows.height:,} held-out rows" if lost else ""


def _unheld(trial: Trial, why: str) -> tuple[Verdict, tuple[tuple[str, str], ...]]:
    """The gate's verdict where a candidate cannot be held against the champion, which is a weakened guarantee."""
    verdict = trial.system.gate.judge(None, held_out=trial.held_out.height, alone=f"not held against the champion: {why}")
    return verdict, (("the gate's comparison with the champion", why),)


def _unseen_texts(features: FrozenFeatures, system: System) -> tuple[tuple[str, str], ...]:
    """What is said LOUD of features that make texts of too many kinds: a matrix has no column for them."""
    names = [d.__name__ for d in features.definitions if d.__name__ not in features.columns]
    if not names or system.train.frame == "raw":
        return ()
    why = f"the model sees nothing of the feature {', '.join(names)}: it makes texts of too many kinds to be categories"
    return (("inputs", f"{why}; make numbers of them, or read them in the model: @app.train(frame='raw')"),)


def _behaves(trial: Trial, ready: Ready, gate: Verdict) -> Verdict:
    with trial.tally.spend("predict"):
        found = tuple(b.judge(ready.predict, trial.held_out) for b in trial.system.behaviours)
    failed = [v for v in found if v.failed]
    evidence = (*gate.evidence, *(e for v in found for e in v.evidence))
    if failed:
        reason = "; ".join(f"{v.subject}: {v.reason}" for v in failed)
        return Verdict(Decision.FAIL, "gate", reason, evidence)
    return Verdict(gate.decision, gate.subject, gate.reason, evidence, gate.missing)
