"""Which kind of shift it is, as far as the evidence at hand can tell: covariate, label, concept, none, or cannot tell yet.

Covariate shift means P(label | inputs) has stayed, label shift that P(inputs | class) has stayed; concept shift is what is left
when labels refute both. Without labels concept shift cannot be seen at all: label shift can only be found sufficient (the
reference, its classes mixed anew, cannot be told from the window), and anything else waits for labels.

Source: Lipton, Wang & Smola 2018 and Rabanser 2019 (the kinds); Shah & Peters 2020 and Scheidegger, Hörrmann & Bühlmann 2022
(weighted generalised covariance measure for label ⟂ window | inputs; read as a difference of P(label), Robinson 1988); Lopez-Paz &
Oquab 2017 (classifier two-sample test, within classes for inputs ⟂ window | label).
Cost: without labels one density ratio or two, with labels one a class and one fit of P(label | inputs) a class more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import scipy
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from loudly.core.late import late
from loudly.core.seams import Floats
from loudly.core.values import Evidence
from loudly.errors import DataError
from loudly.shift.estimate.density import Inputs, columns_of, density, folds, out_of_fold
from loudly.shift.estimate.labelled import FEWEST, Labelled, labelled, labels, scores, sound
from loudly.shift.estimate.pape import with_score
from loudly.shift.label_shift import LabelShift

sklearn = late("sklearn")

APART, MOVED, MIX = 0.04, 0.02, 0.02
LABELS = "labels of the window"


class ShiftKind(StrEnum):
    """What moved."""

    NONE = "none"
    COVARIATE = "covariate shift"
    LABEL = "label shift"
    CONCEPT = "concept shift"
    UNKNOWN = "cannot tell yet"


@dataclass(frozen=True, slots=True)
class KindOfShift:
    """The answer: its reason, what is missing to tell more, and the evidence it rests on."""

    kind: ShiftKind
    reason: str
    missing: str
    evidence: tuple[Evidence, ...]


def kind_of_shift(
    reference_score: ArrayLike,
    reference_truth: ArrayLike,
    window_score: ArrayLike,
    *,
    reference_inputs: Inputs | None = None,
    window_inputs: Inputs | None = None,
    window_truth: ArrayLike | None = None,
    confidence: float = 0.95,
) -> KindOfShift:
    """Which kind of shift a window shows against a labelled reference, by all that is given of it.

    window_truth: (n,) labels, NaN where they have not come.  Without inputs the scores stand for them, and the reason says so.
    Raises: DataError for a reference that cannot teach, and for scores of other classes than the reference's.

    >>> rng = np.random.default_rng(0)
    >>> s = rng.random(3000)
    >>> y = (rng.random(3000) < s).astype(float)
    >>> kind_of_shift(s[:2000], y[:2000], s[2000:]).kind.value
    'cannot tell yet'
    """
    given, s = labelled(reference_score, reference_truth), scores(window_score)
    if s.shape[1:] != given.score.shape[1:]:
        raise DataError("Scores of another number of classes than the reference's.", seen=f"{s.shape} and {given.score.shape}")
    kept = sound(s)
    if kept.sum() < FEWEST:
        return KindOfShift(ShiftKind.UNKNOWN, f"{kept.sum()} rows with scores", f"at least {FEWEST} rows in the window", ())
    ours, theirs = (given.score, s) if given.score.ndim == 2 else (given.score[:, None], s[:, None])
    if reference_inputs is not None and window_inputs is not None:
        columns = columns_of(reference_inputs)
        ours = with_score(columns.array(reference_inputs, len(given.kept))[given.kept], given.score)
        theirs = with_score(columns.array(window_inputs, len(s)), s)
    by = "inputs and scores" if reference_inputs is not None and window_inputs is not None else "scores alone"
    y = np.full(len(s), np.nan) if window_truth is None else labels(window_truth, s)
    seen = kept & np.isfinite(y)
    lacking = sorted(set(range(given.classes)) - set(y[seen].astype(int).tolist()))
    if seen.sum() < FEWEST or lacking:
        found = _without_labels(given, s[kept], ours, theirs[kept], by, confidence)
        why = f"{FEWEST} are the least" if seen.sum() < FEWEST else f"none is of class {', '.join(map(str, lacking))}"
        told = f"{found.reason}; its {seen.sum():,} labelled rows are not used: {why}" if seen.any() else found.reason
        return replace(found, reason=told)
    return _with_labels(given, ours, theirs[seen], y[seen], by, confidence)


def _without_labels(given: Labelled, s: Floats, ours: Floats, theirs: Floats, by: str, confidence: float) -> KindOfShift:
    raw = _apart("inputs: classifier two-sample", "inputs", ours, theirs, None, confidence)
    mix = LabelShift.fit(given.score, given.truth, confidence=confidence).estimate(s)
    if not _over(raw, APART):
        reason = f"{by} have not moved by more than is tolerated; whether P(label | inputs) has, only labels tell"
        return KindOfShift(ShiftKind.UNKNOWN, reason, LABELS, (raw, *mix))
    moved = [e for e in mix if e.low is not None and e.high is not None and not e.low - MIX <= _before(e) <= e.high + MIX]
    if not moved:
        reason = f"{by} moved, the mix of classes that the scores suggest did not: covariate shift, with or without concept shift"
        return KindOfShift(ShiftKind.UNKNOWN, reason, LABELS, (raw, *mix))
    ratio = np.array([(e.effect or 0.0) / _before(e) for e in mix])
    mixed = _apart(
        "inputs: classifier two-sample, classes mixed anew", "inputs", ours, theirs, ratio[given.truth.astype(int)], confidence
    )
    if _over(mixed, APART):
        reason = f"{by} moved, and no mix of the reference's classes explains it: covariate or concept shift"
        return KindOfShift(ShiftKind.UNKNOWN, reason, LABELS, (raw, mixed, *mix))
    told = ", ".join(f"{e.about} {_before(e):.2f} -> {e.effect:.2f}" for e in moved)
    reason = f"{by} moved as another mix of classes would move them ({told}); without labels, concept shift is not ruled out"
    return KindOfShift(ShiftKind.LABEL, reason, f"{LABELS}, to rule out concept shift", (raw, mixed, *mix))


def _with_labels(given: Labelled, ours: Floats, theirs: Floats, y: Floats, by: str, confidence: float) -> KindOfShift:
    share = 1 - (1 - confidence) / given.classes
    raw = _apart("inputs: classifier two-sample", "inputs", ours, theirs, None, confidence)
    concept = [_conditional(ours, given.truth == c, theirs, y == c, c, share) for c in range(given.classes)[given.classes == 2 :]]
    within = [_apart("inputs within a class", f"class {c}", ours[given.truth == c], theirs[y == c], None, share)
              for c in range(given.classes) if min((given.truth == c).sum(), (y == c).sum()) >= FEWEST]  # fmt: skip
    mix = [_mix(given.truth == c, y == c, c, share) for c in range(given.classes)]
    evidence = (raw, *concept, *within, *mix)
    inputs, conditional, inside = _over(raw, APART), any(_over(e, MOVED) for e in concept), any(_over(e, APART) for e in within)
    labels = any(_over(e, MIX) for e in mix)
    if conditional and (inside or not labels):
        reason = f"P(label | inputs) moved and no new mix of classes explains it, by {by}: concept shift"
        return KindOfShift(ShiftKind.CONCEPT, reason, "", evidence)
    if conditional:
        return KindOfShift(ShiftKind.LABEL, f"the mix of classes moved, the {by} within each class did not", "", evidence)
    if inputs and (inside or not labels):
        return KindOfShift(ShiftKind.COVARIATE, f"{by} moved, P(label | inputs) did not by more than is tolerated", "", evidence)
    if inputs or labels:
        reason = f"{by} or labels moved; both covariate and label shift would explain it"
        return KindOfShift(ShiftKind.UNKNOWN, reason, "more labelled rows", evidence)
    return KindOfShift(ShiftKind.NONE, f"neither {by} nor labels moved by more than is tolerated", "", evidence)


def _over(found: Evidence, tolerance: float) -> bool:
    return found.low is not None and found.low > tolerance


def _before(found: Evidence) -> float:
    return float(str(found.detail["reference"]))


def _apart(method: str, about: str, ours: Floats, theirs: Floats, weight: Floats | None, confidence: float) -> Evidence:
    """How far a classifier tells window from reference: AUC above one half."""
    found = density(ours, theirs, weight)
    reach = float(scipy.special.ndtri(confidence)) * found.error * (1.0 if weight is None else np.sqrt(2.0))
    effect = float(found.auc) - 0.5
    return Evidence(method, effect, effect - reach, effect + reach, len(theirs), about, "auc - 0.5", confidence, APART)


def _mix(ours: Floats, theirs: Floats, c: int, confidence: float) -> Evidence:
    """How far the share of a class moved, by labels."""
    p, q = float(ours.mean()), float(theirs.mean())
    reach = float(scipy.special.ndtri(0.5 + confidence / 2)) * float(np.sqrt(p * (1 - p) / len(ours) + q * (1 - q) / len(theirs)))
    gap = abs(q - p)
    return Evidence("labels: share of a class", gap, gap - reach, gap + reach, len(theirs), f"class {c}", "share", confidence, MIX)


def _conditional(ours: Floats, our_label: Floats, theirs: Floats, their_label: Floats, c: int, confidence: float) -> Evidence:
    """How far P(label = c | inputs) moved where both tables have rows: the surer of its mean, and of its mean in the direction
    that the other fold learned for each row."""
    X = np.concatenate([ours, theirs])
    from_window = np.concatenate([np.zeros(len(ours)), np.ones(len(theirs))])
    label = np.concatenate([our_label, their_label]).astype(np.float64)
    one = np.ones(len(X))
    gap = label - out_of_fold(X, label, one)
    surprise = from_window - out_of_fold(X, from_window, one, seed=1)
    product = gap * surprise
    sign = _direction(X, product)
    scale = float((surprise**2).mean())
    z = float(scipy.special.ndtri(1 - (1 - confidence) / 2))
    tried = []
    for way in (np.full(len(X), np.sign(product.mean()) or 1.0), sign):
        effect = float((way * product).mean()) / scale
        tried.append((effect - z * float((way * product).std()) / np.sqrt(len(X)) / scale, effect))
    low, effect = (float(v) for v in max(tried))
    return Evidence(
        "labels given inputs: weighted generalised covariance", effect, low, 2 * effect - low, len(theirs), f"class {c}",
        "P(label)", confidence, MOVED,
    )  # fmt: skip


def _direction(X: Floats, product: Floats) -> Floats:
    """(n,) +1 or -1: which way the product points at a row, learned on the other fold."""
    fold, way = folds(len(X), 2, 2), np.zeros(len(X))
    for number in range(2):
        trees = sklearn.ensemble.HistGradientBoostingRegressor(
            max_iter=40, max_leaf_nodes=8, min_samples_leaf=50, early_stopping=False, random_state=0
        )
        with threadpool_limits(1, user_api="openmp"):
            trees.fit(X[fold != number], product[fold != number])
            way[fold == number] = np.sign(trees.predict(X[fold == number]))
    return way
