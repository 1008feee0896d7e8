"""The fast form of a model: the same function on another engine, served only where it was shown to be the same.

A fitted scikit-learn model costs 300 to 5,000 µs a row, of which its trees are less than ten. At registration it is compiled
and held against the original: on rows of the training sample, with holes, with values never seen, and exactly at the
thresholds of its trees and one step beside, where two forms of one model part if they part at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from loudly.core.canon import Json
from loudly.core.seams import FastForm, Floats, Model
from loudly.core.values import Decision, Evidence, Verdict
from loudly.errors import ModelError, one_line

TOLERANCE = 1e-6
ROWS, CUTS, ALONE = 1_000, 3_000, 50
HOLES, UNSEEN = 0.1, (-1.0, 1e6, -1e6)
OVER_FLOAT32 = 1e39
SUBJECT = "fast form"


@dataclass(frozen=True, slots=True)
class Fast:
    """What became of the wish for a fast form. `data` is empty unless the verdict is a PASS.

    form: its name.  runs: the model format that reads `data`, or "" where the form itself does.
    refuses: what the original refuses to answer and so must the form ("nan", "infinite", "over float32").
    """

    verdict: Verdict
    form: str = ""
    runs: str = ""
    data: bytes = b""
    refuses: tuple[str, ...] = ()

    def plain(self) -> dict[str, Json]:
        """What the artefact says of it."""
        gap = max((e.effect for e in self.verdict.evidence if e.effect is not None), default=None)
        said: dict[str, Json] = {"form": self.form, "runs": self.runs, "refuses": list(self.refuses)}
        return {**said, "passed": self.verdict.passed, "gap": gap, "reason": self.verdict.reason}


class Guarded:
    """A fast form that refuses what its original refuses: an engine that answers NaN rows where the model would not is another
    model."""

    def __init__(self, model: Model, refuses: Sequence[str]) -> None:
        self._model, self._nan = model, "nan" in refuses
        self._limit = np.finfo(np.float32).max if "over float32" in refuses else np.inf
        self._bounded = bool({"infinite", "over float32"} & set(refuses))
        self._strict = "infinite" in refuses

    def predict(self, X: Floats) -> Floats:
        """Raises: ModelError for a row that the original refuses."""
        if self._nan and np.isnan(X).any():
            raise ModelError("The model takes no missing values.", do="Fill them in a feature, or train with some.")
        if self._bounded:
            far = np.abs(X)
            if (far > self._limit).any() or (self._strict and np.isinf(far).any()):
                raise ModelError("The model takes no values so large.", seen=f"{np.nanmax(far):g}")
        return self._model.predict(X)


def fasten(
    fitted: object, original: Model, X: Floats, forms: Iterable[FastForm], *, tolerance: float = TOLERANCE, seed: int = 0
) -> Fast:
    """The first fast form that takes the estimator and answers as the original does.

    X: (n, d) rows of the training sample.  tolerance: largest absolute difference, for answers up to 1 in size; relative beyond.
    """
    X, tried = np.asarray(X, dtype=np.float64), []
    for form in forms:
        if form.accepts(fitted):
            tried.append(_attempt(form, fitted, original, X, tolerance, seed))
            if tried[-1].verdict.passed:
                return tried[-1]
    return tried[0] if tried else none(f"no fast form at hand takes a {type(fitted).__name__}")


def none(reason: str, missing: str = "a fast form") -> Fast:
    """No fast form, and why. Nothing is missing where none is wanted."""
    return Fast(Verdict(Decision.UNDECIDED, SUBJECT, reason, missing=missing))


def _attempt(form: FastForm, fitted: object, original: Model, X: Floats, tolerance: float, seed: int) -> Fast:
    try:
        data = form.compile(fitted, X.shape[1])
        cuts = form.cuts(fitted)
        loaded = form.load(data)
    except Exception as wrong:  # noqa: BLE001 - converters fail in words of their own; the original then answers, and it is said
        return Fast(Verdict(Decision.FAIL, SUBJECT, f"{form.name} could not be made: {one_line(wrong, 140)}"), form.name)
    with np.errstate(all="ignore"):  # infinities and values over float32 are probed on purpose
        return _compare(form, data, cuts, loaded, original, X, tolerance, seed)


def _compare(
    form: FastForm,
    data: bytes,
    cuts: Sequence[tuple[int, float]],
    loaded: Model,
    original: Model,
    X: Floats,
    tolerance: float,
    seed: int,
) -> Fast:
    rng = np.random.default_rng(seed)
    rows = X[np.unique(np.linspace(0, len(X) - 1, ROWS).astype(np.int64))]
    refuses = _refused(original, rows)
    fast = Guarded(loaded, refuses)
    probes = {"training rows": rows, "rows with values never seen": _unseen(rows, rng), "values at the cuts": _at(cuts, rows, rng)}
    if "nan" not in refuses:
        probes["rows with holes"] = np.where(rng.random(rows.shape) < HOLES, np.nan, rows)
    evidence = []
    for about, probe in probes.items():
        try:
            evidence.append(_held(about, original, fast, probe, tolerance))
        except Exception as wrong:  # noqa: BLE001 - either side may refuse in words of its own
            reason = f"{form.name} and the original do not both answer {about}: {one_line(wrong, 140)}"
            return Fast(Verdict(Decision.FAIL, SUBJECT, reason, tuple(evidence)), form.name)
    evidence.append(_alone(original, fast, rows, tolerance))
    worst = max(evidence, key=lambda e: e.effect / e.tolerance)  # type: ignore[operator]
    told = f"{form.name} differs by {worst.effect:.2g} at most ({worst.about}; tolerance {worst.tolerance:.2g})"
    if any(e.effect > e.tolerance for e in evidence):  # type: ignore[operator]
        return Fast(Verdict(Decision.FAIL, SUBJECT, told, tuple(evidence)), form.name)
    return Fast(Verdict(Decision.PASS, SUBJECT, told, tuple(evidence)), form.name, form.runs, data, refuses)


def _held(about: str, original: Model, fast: Model, probe: Floats, tolerance: float) -> Evidence:
    if not len(probe):
        return Evidence("largest difference", 0.0, about=about, tolerance=tolerance)
    return _gap(about, original.predict(probe), fast.predict(probe), tolerance)


def _alone(original: Model, fast: Model, rows: Floats, tolerance: float) -> Evidence:
    """One row at a time takes another path in most engines."""
    some = rows[:ALONE]
    return _gap("one row at a time", original.predict(some), np.concatenate([fast.predict(row[None]) for row in some]), tolerance)


def _gap(about: str, expected: Floats, answered: Floats, tolerance: float) -> Evidence:
    if expected.shape != answered.shape:
        raise ModelError("The fast form answers in another shape.", seen=f"{answered.shape} for {expected.shape}")
    differs = np.abs(expected - answered)
    gap = float(np.max(differs)) if np.isfinite(differs).all() else np.inf
    allowed = tolerance * max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    return Evidence("largest difference", gap, n=len(expected), about=about, tolerance=allowed)


def _refused(original: Model, rows: Floats) -> tuple[str, ...]:
    """What the original will not answer."""
    found = []
    for name, value in (("nan", np.nan), ("infinite", np.inf), ("over float32", OVER_FLOAT32)):
        for column in range(rows.shape[1]):
            probe = rows[:1].copy()
            probe[0, column] = value
            try:
                answer = original.predict(probe)
            except Exception:  # noqa: BLE001 - that it refuses is what is asked
                found.append(name)
                break
            if not np.isfinite(answer).all():
                found.append(name)
                break
    return tuple(found)


def _unseen(rows: Floats, rng: np.random.Generator) -> Floats:
    """Codes and sizes that training never had, and halves between codes, one column a row."""
    made = rows.copy()
    column = rng.integers(rows.shape[1], size=len(rows))
    value = np.array([*UNSEEN, np.nan])[np.arange(len(rows)) % (len(UNSEEN) + 1)]
    here = np.arange(len(rows))
    made[here, column] = np.where(np.isnan(value), made[here, column] + 0.5, value)
    return made


def _at(cuts: Sequence[tuple[int, float]], rows: Floats, rng: np.random.Generator) -> Floats:
    """Rows moved to a threshold, one float64 beside it, or to what float32 makes of it."""
    if not cuts:
        return rows[:0]
    picked = rng.permutation(len(cuts))[:CUTS]
    made = rows[rng.integers(len(rows), size=len(picked))].copy()
    for i, place in enumerate(picked):
        column, cut = cuts[place]
        made[i, column] = (cut, np.nextafter(cut, np.inf), np.nextafter(cut, -np.inf), float(np.float32(cut)))[i % 4]
    return made
