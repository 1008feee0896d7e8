"""Scores made into probabilities: isotonic or Platt, whichever has the smaller held-out calibration error.

Both are kept as values on a grid of knots, linear in between, together with replicates that were fitted to the reference
drawn anew: what the calibration does not know travels with it, and costs one matrix product when it is asked for.

Source: Platt 1999; Zadrozny & Elkan 2002; ECE in bins of equal mass (Nixon et al. 2019); Poisson bootstrap (Chamandy 2012).
Cost: O(n log n) and some 60 fits to at most 200 bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from loudly.core.seams import Floats, Ints

METHODS = ("isotonic", "platt")
MOST_KNOTS, ROWS_A_KNOT, ECE_BINS = 100, 100, 20
REPLICATES, FOLDS = 60, 5
EDGE = 1e-6


@dataclass(frozen=True, slots=True)
class Calibration:
    """How scores become probabilities.

    knots: (m,) scores, increasing.  chances: (m,) P(y = 1) there.  replicates: (r, m) the same from the reference drawn
    anew; none where the scores are taken as given.  ece: held-out calibration error by method.
    """

    method: str
    knots: Floats
    chances: Floats
    replicates: Floats
    ece: dict[str, float]

    def __call__(self, score: Floats) -> Floats:
        """(n,) probabilities, linear between knots and flat outside."""
        return np.asarray(np.interp(score, self.knots, self.chances))

    def spread(self, score: Floats, gradient: Floats) -> Floats:
        """(r,) how much a quantity moves over the replicates, given its gradient in each row's probability."""
        if not len(self.replicates):
            return np.zeros(0)
        right = np.clip(np.searchsorted(self.knots, score), 1, len(self.knots) - 1)
        room = self.knots[right] - self.knots[right - 1]
        share = np.clip((score - self.knots[right - 1]) / room, 0, 1)
        pull = np.bincount(right, weights=gradient * share, minlength=len(self.knots))
        pull += np.bincount(right - 1, weights=gradient * (1 - share), minlength=len(self.knots))
        return np.asarray((self.replicates - self.chances) @ pull)


AS_GIVEN = Calibration("as given", np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.zeros((0, 2)), {})


def calibrate(
    score: Floats, truth: Floats, weight: Floats | None = None, *, method: str = "", replicates: int = REPLICATES, seed: int = 0
) -> Calibration:
    """The calibration of scores by labels. Shapes: all (n,); truth in {0, 1}; at least two different scores.

    method: "isotonic" or "platt"; without one, the smaller held-out ECE decides (five interleaved folds).
    replicates: how many times it is fitted again to the reference drawn anew.

    >>> rng = np.random.default_rng(0)
    >>> p = rng.random(4000)
    >>> found = calibrate(p**2, (rng.random(4000) < p).astype(float))
    >>> bool(abs(found(np.array([0.25]))[0] - 0.5) < 0.05)
    True
    """
    w = np.ones(len(score)) if weight is None else weight
    tried = {} if method else {m: held_out(score, truth, w, m) for m in METHODS}
    chosen = method or min(METHODS, key=lambda m: tried[m])
    rng = np.random.default_rng(seed)
    knots, place = _knots(score)
    drawn = rng.poisson(1.0, (replicates, len(score))).astype(np.float64)
    fitted = [_fit(chosen, knots, place, truth, w * d) for d in (np.ones(len(score)), *drawn)]
    return Calibration(chosen, knots, fitted[0], np.array(fitted[1:]).reshape(replicates, len(knots)), tried)


def held_out(score: Floats, truth: Floats, weight: Floats, method: str) -> float:
    """Expected calibration error on rows that the calibration has not seen."""
    fold, made = np.arange(len(score)) % FOLDS, np.full(len(score), np.nan)
    for number in range(FOLDS):
        rest = fold != number
        if np.ptp(score[rest]) == 0:
            made[~rest] = np.average(truth[rest], weights=weight[rest] + EDGE)
            continue
        knots, place = _knots(score[rest])
        made[~rest] = np.interp(score[~rest], knots, _fit(method, knots, place, truth[rest], weight[rest]))
    return ece(made, truth, weight)


def ece(chance: Floats, truth: Floats, weight: Floats | None = None) -> float:
    """Expected calibration error over bins of equal mass: the mean of |P(y = 1) - share of y = 1|.

    >>> ece(np.array([0.5, 0.5]), np.array([0.0, 1.0]))
    0.0
    """
    w = np.ones(len(chance)) if weight is None else weight
    edges = np.unique(np.quantile(chance, np.linspace(0, 1, ECE_BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, chance)
    gap = np.bincount(bins, weights=w * (truth - chance))
    return float(np.abs(gap).sum() / w.sum())


def _knots(score: Floats) -> tuple[Floats, Ints]:
    """Lowest score, mean of each quantile bin, highest score; and the bin of each row. Ties collapse: an atom is its own bin."""
    count = int(np.clip(len(score) // ROWS_A_KNOT, 2, MOST_KNOTS))
    edges = np.unique(np.quantile(score, np.linspace(0, 1, count + 1)[1:-1], method="lower"))
    raw = np.searchsorted(edges, score)
    place = np.unique(raw, return_inverse=True)[1].astype(np.int64)
    knots = np.bincount(place, weights=score) / np.bincount(place)
    low, high = float(score.min()), float(score.max())
    before = [low] if low < knots[0] else []
    after = [high] if high > knots[-1] else []
    return np.concatenate([before, knots, after]), place + len(before)


def _fit(method: str, knots: Floats, place: Ints, truth: Floats, weight: Floats) -> Floats:
    mass: Floats = np.bincount(place, weights=weight, minlength=len(knots)).astype(np.float64)
    positive: Floats = np.bincount(place, weights=weight * truth, minlength=len(knots)).astype(np.float64)
    return _isotonic(mass, positive) if method == "isotonic" else _platt(knots, mass, positive)


def _isotonic(mass: Floats, positive: Floats) -> Floats:
    """Steps at the knots that carry rows; the others, and both ends, take their neighbours' value."""
    filled = np.flatnonzero(mass > 0)
    if not len(filled):
        return np.full(len(mass), 0.5)
    steps = scipy.optimize.isotonic_regression(positive[filled] / mass[filled], weights=mass[filled]).x
    return np.asarray(np.interp(np.arange(len(mass)), filled, steps))


def _platt(knots: Floats, mass: Floats, positive: Floats) -> Floats:
    """P(y = 1) = sigmoid(a logit(s) + b) by Newton, with Platt's softened targets."""
    x = scipy.special.logit(np.clip(knots, EDGE, 1 - EDGE))
    X = np.stack([x, np.ones(len(x))], axis=1)
    whole = mass.sum()
    high, low = (positive.sum() + 1) / (positive.sum() + 2), 1 / (whole - positive.sum() + 2)
    target = positive * high + (mass - positive) * low
    beta = np.array([1.0, 0.0])
    for _ in range(30):
        p = scipy.special.expit(X @ beta)
        slope = X.T @ (target - mass * p)
        bend = (X * (mass * p * (1 - p))[:, None]).T @ X + 1e-9 * max(whole, 1.0) * np.eye(2)
        step = np.linalg.solve(bend, slope)
        beta = beta + step * min(1.0, 2.0 / max(float(np.abs(step).max()), EDGE))
        if np.abs(step).max() < 1e-8:
            break
    return np.asarray(scipy.special.expit(X @ beta))
