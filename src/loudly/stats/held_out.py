"""How a model scores rows that it has not learned from, told by those that were held out.

A forest is nearly sure of the rows that it has learned from and of no others, so in a world that stands still its answers would
look shifted from the first day on. How the scores of held-out rows lie beside those of the seen rows next to them is kept with
the model, as quantiles of both, and scores of training rows are moved by it before answers are compared with them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy

from loudly.core.canon import Json
from loudly.core.seams import Floats, Ints

QUANTILES, FEWEST = 257, 200
# Scores of seen and of held-out rows are taken as different from this Kolmogorov-Smirnov distance on, where it is none of chance.
APART, BY_CHANCE = 0.05, 0.01
# Scores as far apart as this share of the largest are equal: the mean of a hundred ones may be a little less than one.
SAME = 1e-9

# Scores of seen rows and of held-out ones, at the same ranks; nothing where they are alike.
Quantiles = Sequence[Sequence[float]]


def held_out_scores(seen: Floats, held_out: Floats) -> list[Json]:
    """What is kept with a model: quantiles of both; of several classes those of each. Nothing where all are alike.

    Shapes: (n,) and (m,), or (n, k) and (m, k).
    """
    if seen.ndim == 1:
        return [*quantiles_of(seen, held_out)]
    kept = [quantiles_of(a, b) for a, b in zip(seen.T, held_out.T, strict=True)]
    return [[*pair] for pair in kept] if any(kept) else []


def quantiles_of(seen: Floats, held_out: Floats) -> list[list[float]]:
    """Both at 257 ranks; nothing where they are alike, or are few.

    >>> rng = np.random.default_rng(0)
    >>> len(quantiles_of(rng.beta(0.2, 0.2, 4000), rng.random(1000))), quantiles_of(rng.random(4000), rng.random(4000))
    (2, [])
    """
    if min(len(seen), len(held_out)) < FEWEST or not np.isfinite(np.append(seen, held_out)).all():
        return []
    found = scipy.stats.ks_2samp(seen, held_out, method="asymp")
    if found.statistic <= APART or found.pvalue > BY_CHANCE:
        return []
    at = np.linspace(0, 1, QUANTILES)
    return [np.quantile(scores, at).tolist() for scores in (seen, held_out)]


def as_held_out(score: Floats, quantiles: Quantiles) -> Floats:
    """What held-out rows of the same ranks score, in the order of the scores; as they are without quantiles. Shapes: (n,) -> (n,).

    Beyond the quantiles they are moved as the outermost are. Equal scores share the ranks that seen rows of that score had.

    >>> as_held_out(np.array([0.0, 0.5, 1.0, 1.0]), [[0.0, 1.0, 1.0], [0.2, 0.4, 0.8]]).round(2)
    array([0.2, 0.3, 0.5, 0.7])
    """
    if not quantiles:
        return score
    seen, held_out = map(np.asarray, quantiles)
    unit, at = float(np.abs(seen).max()) * SAME or 1.0, np.linspace(0, 1, len(seen))
    order = np.argsort(score, kind="stable")
    score, seen = (np.round(scores / unit) * unit for scores in (score, seen))
    left, right = np.searchsorted(seen, score, "left"), np.searchsorted(seen, score, "right")
    alike = right - left > 1  # a score that many seen rows had
    rank = np.interp(score, seen, at)
    rank[alike] = at[left[alike]] + (at[right[alike] - 1] - at[left[alike]]) * _shares(score, order)[alike]
    moved = np.interp(rank, at, held_out)
    beyond = np.minimum(score - seen[0], 0.0) + np.maximum(score - seen[-1], 0.0)
    return np.asarray(moved + beyond)


def _shares(score: Floats, order: Ints) -> Floats:
    """Where each score stands among those equal to it, in (0, 1). order: (n,) of all of them."""
    _, first, count = np.unique(score[order], return_index=True, return_counts=True)
    shares = np.empty(len(score))
    shares[order] = (np.arange(len(score)) - np.repeat(first, count) + 0.5) / np.repeat(count, count)
    return shares
