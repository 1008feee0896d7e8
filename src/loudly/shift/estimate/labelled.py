"""A labelled reference that is fit to learn from: what every estimator of performance begins with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loudly.core.seams import Floats
from loudly.errors import DataError

Mask = NDArray[np.bool_]

FEWEST = 50


@dataclass(frozen=True, slots=True)
class Labelled:
    """Sound rows of a reference.

    score: (n,) or (n, k) in [0, 1].  truth: (n,) class codes 0..k-1.  kept: which of the given rows these are.
    """

    score: Floats
    truth: Floats
    kept: Mask

    @property
    def classes(self) -> int:
        """How many classes the scores are of."""
        return 2 if self.score.ndim == 1 else self.score.shape[1]

    @property
    def onehot(self) -> Floats:
        """The truth as probabilities, in the shape of the scores."""
        return self.truth if self.score.ndim == 1 else np.eye(self.classes)[self.truth.astype(int)]


def labelled(score: ArrayLike, truth: ArrayLike) -> Labelled:
    """The rows of a reference that have a score and a label.

    Raises: DataError for shapes that do not fit, scores outside [0, 1], fewer than 50 sound rows, a class without rows,
    or scores that are all the same.

    >>> labelled([0.2, 0.8] * 30, [0, 1] * 30).classes
    2
    """
    s = scores(score)
    y = labels(truth, s)
    kept = sound(s) & np.isfinite(y)
    s, y = s[kept], y[kept]
    if len(y) < FEWEST:
        raise DataError(
            f"A reference of {len(y)} rows with score and label cannot be learned from.", do=f"give at least {FEWEST} such rows"
        )
    given = Labelled(s, y, kept)
    codes = np.unique(y)
    if len(codes) < given.classes:
        lacking = sorted(set(range(given.classes)) - set(codes.astype(int).tolist()))
        raise DataError(
            "The reference has no row of one class.",
            seen=f"none of class {lacking}",
            do="give a reference with rows of every class",
        )
    if np.ptp(s, axis=0).max() == 0:
        raise DataError("The scores of the reference are all the same: they say nothing about the label.", seen=str(s[0]))
    return given


def labels(truth: ArrayLike, score: Floats) -> Floats:
    """(n,) labels of the rows of these scores as codes; NaN where one has not come.

    Raises: DataError for another length, and for labels that are not the codes 0..k-1 of the scores' classes.

    >>> labels([1, None], np.array([0.3, 0.4])).tolist()
    [1.0, nan]
    """
    try:
        y = np.asarray(truth, dtype=np.float64)
    except (TypeError, ValueError) as wrong:
        raise DataError("Labels must be numbers.", seen=str(wrong), do="Give the codes 0..k-1 of the scores' classes.") from wrong
    if y.shape != score.shape[:1]:
        raise DataError("Scores and labels differ in length.", seen=f"{score.shape} and {y.shape}")
    codes = np.unique(y[np.isfinite(y)])
    if not np.isin(codes, np.arange(2 if score.ndim == 1 else score.shape[1])).all():
        raise DataError("Labels must be the codes 0..k-1 of the classes that the scores are of.", seen=str(codes[:10].tolist()))
    return y


def scores(score: ArrayLike) -> Floats:
    """Scores as an array. Raises: DataError where they are no probabilities. NaN is let through: it is a missing score."""
    s = np.asarray(score, dtype=np.float64)
    if s.ndim == 2 and s.shape[1] == 1:
        s = s[:, 0]
    if s.ndim not in (1, 2):
        raise DataError("Scores must be (n,) or (n, classes).", seen=str(s.shape))
    finite = s[np.isfinite(s)]
    if len(finite) and (finite.min() < 0 or finite.max() > 1):
        raise DataError(
            "Scores must be probabilities.", seen=f"from {finite.min():g} to {finite.max():g}", do="give scores in [0, 1]"
        )
    return s


def sound(score: Floats) -> Mask:
    """(n,) rows whose scores are all there."""
    return np.isfinite(score if score.ndim == 1 else score.sum(axis=1))
