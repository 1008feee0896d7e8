"""Metrics of scores whose labels are only known as probabilities, with the two derivatives that intervals are made of.

Every metric here is a ratio of sums linear in P(y) (or, for AUC, a sum over pairs), so its expectation, its influence
function over rows and its gradient in the probabilities are closed forms. With probabilities of 0 and 1 it is the metric.

Source: Bialek, Kuberski, Perrakis & Bifet 2024 (CBPE: the expected confusion matrix); Hampel 1974 (influence functions);
DeLong, DeLong & Clarke-Pearson 1988 for AUC.  Cost: O(n log n) for AUC, O(n) otherwise, per class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loudly.core.seams import Floats, Ints
from loudly.errors import ConfigError, nearest

Mask = NDArray[np.bool_]

TINY = 1e-15
# metric -> +1 where more is better, -1 where less is
BETTER = {"roc_auc": 1, "accuracy": 1, "f1": 1, "precision": 1, "recall": 1, "log_loss": -1, "brier": -1}
MACRO = ("roc_auc", "f1", "precision", "recall")


@dataclass(frozen=True, slots=True)
class Expected:
    """A metric and its derivatives.

    influence: (n,) what one row more of each kind changes, summing to 0; its sum of squares is the sampling variance.
    gradient: (n,) or (n, k) derivative of the value in each row's probability.
    """

    value: float
    influence: Floats
    gradient: Floats

    @property
    def error(self) -> float:
        """Standard error over rows drawn anew."""
        return float(np.sqrt((self.influence**2).sum()))


def known(metric: str) -> str:
    """The metric's name. Raises: ConfigError with the nearest valid one."""
    if metric not in BETTER:
        raise ConfigError(f"No estimate is defined for the metric {metric!r}.", do=nearest(metric, BETTER))
    return metric


def expected(metric: str, score: Floats, chance: Floats, weight: Floats | None = None) -> Expected:
    """The metric of `score` where row i has the label with probability `chance`; NaN where the rows cannot tell.

    Shapes: score, chance (n,) for two classes or (n, k); weight (n,).  Decisions at 0.5 or the likeliest class; for (n, k)
    AUC, F1, precision and recall are one-against-the-rest averages.
    Raises: ConfigError for a metric without an estimate.

    >>> s = np.array([0.1, 0.4, 0.35, 0.8])
    >>> expected("roc_auc", s, np.array([0.0, 0.0, 1.0, 1.0])).value
    0.75
    """
    w = np.ones(len(score)) if weight is None else np.asarray(weight, dtype=np.float64)
    if score.ndim == 1:
        return _two(known(metric), score, score >= 0.5, chance, w)
    return _macro(metric, score, chance, w) if known(metric) in MACRO else _rows(metric, score, chance, w)


def _two(metric: str, score: Floats, called: Mask, p: Floats, w: Floats) -> Expected:
    if metric == "roc_auc":
        return _auc(score, p, w)
    d, one, zero = called.astype(np.float64), np.ones(len(score)), np.zeros(len(score))
    s = np.clip(score, TINY, 1 - TINY)
    # value = sum w (a p + b) / sum w (c p + e)
    a, b, c, e = {
        "accuracy": (2 * d - 1, 1 - d, zero, one),
        "brier": (1 - 2 * score, score**2, zero, one),
        "log_loss": (np.log1p(-s) - np.log(s), -np.log1p(-s), zero, one),
        "precision": (d, zero, zero, d),
        "recall": (d, zero, one, zero),
        "f1": (2 * d, zero, one, d),
    }[metric]
    return _ratio(a * p + b, c * p + e, a, c, w)


def _ratio(top: Floats, bottom: Floats, top_slope: Floats, bottom_slope: Floats, w: Floats) -> Expected:
    whole = float((w * bottom).sum())
    if whole <= 0:
        return _nothing(top_slope.shape)
    value = float((w * top).sum()) / whole
    influence = w * (top - value * bottom) / whole
    wide = w if top_slope.ndim == 1 else w[:, None]
    return Expected(value, influence, wide * (top_slope - value * bottom_slope) / whole)


def _rows(metric: str, score: Floats, p: Floats, w: Floats) -> Expected:
    if metric == "accuracy":
        slope = np.eye(score.shape[1])[score.argmax(axis=1)]
    elif metric == "log_loss":
        slope = -np.log(np.clip(score, TINY, 1.0))
    else:
        slope = 1 - 2 * score + (score**2).sum(axis=1, keepdims=True)
    return _ratio((slope * p).sum(axis=1), np.ones(len(score)), slope, np.zeros_like(slope), w)


def _macro(metric: str, score: Floats, p: Floats, w: Floats) -> Expected:
    k, called = score.shape[1], score.argmax(axis=1)
    each = [_two(metric, score[:, c], called == c, p[:, c], w) for c in range(k)]
    if metric == "roc_auc":
        if not all(np.isfinite(e.value) for e in each):
            return _nothing(score.shape)
    else:
        each = [e if np.isfinite(e.value) else Expected(0.0, np.zeros(len(score)), np.zeros(len(score))) for e in each]
    influence = np.mean([e.influence for e in each], axis=0)
    return Expected(float(np.mean([e.value for e in each])), influence, np.stack([e.gradient for e in each], axis=1) / k)


def _auc(score: Floats, p: Floats, w: Floats) -> Expected:
    """P(a positive scores above a negative), ties half; a row is never paired with itself."""
    positive, negative = w * p, w * (1 - p)
    whole_positive, whole_negative = float(positive.sum()), float(negative.sum())
    own = w * w * p * (1 - p)
    pairs = whole_positive * whole_negative - float(own.sum())
    if not (whole_positive > 0 and whole_negative > 0 and pairs > TINY * whole_positive * whole_negative):
        return _nothing(score.shape)
    group = np.unique(score, return_inverse=True)[1].astype(np.int64)
    below = _below(group, negative)
    above = whole_positive - _below(group, positive)
    value = float((positive * below).sum() - own.sum() / 2) / pairs
    influence = w * (p * below + (1 - p) * above - value * (p * whole_negative + (1 - p) * whole_positive)) / pairs
    gradient = w * (below - above - value * (whole_negative - whole_positive)) / pairs
    return Expected(value, influence - influence.mean(), gradient)


def _below(group: Ints, mass: Floats) -> Floats:
    """The mass at lower scores, and half of that at the same score."""
    at: Floats = np.bincount(group, weights=mass).astype(np.float64)
    return np.asarray((np.cumsum(at) - at / 2)[group])


def _nothing(shape: tuple[int, ...]) -> Expected:
    return Expected(float("nan"), np.zeros(shape[0]), np.zeros(shape))
