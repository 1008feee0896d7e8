"""How a model scores rows that it has not learned from, told by those that were held out.

A forest is nearly sure of the rows that it has learned from and of no others, so in a world that stands still its answers would
look shifted from the first day on. The shape that its scores had on held-out rows is kept with it, as quantiles, and the scores of
its training rows are given that shape, each in its rank, before answers are compared with them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy

from loudly.core.seams import Floats

Quantiles = Sequence[float]
QUANTILES, FEWEST = 257, 200
# The Kolmogorov-Smirnov distance from which on scores of seen and of held-out rows are taken as different.
APART = 0.05


def held_out_scores(seen: Floats, held_out: Floats) -> list[float]:
    """Quantiles of the scores of held-out rows; none where they are as those of seen rows, are few, or are of several classes.

    >>> rng = np.random.default_rng(0)
    >>> len(held_out_scores(rng.beta(0.2, 0.2, 4000), rng.random(1000))), held_out_scores(rng.random(4000), rng.random(4000))
    (257, [])
    """
    if held_out.ndim != 1 or min(len(seen), len(held_out)) < FEWEST or not np.isfinite(np.append(seen, held_out)).all():
        return []
    if scipy.stats.ks_2samp(seen, held_out, method="asymp").statistic <= APART:
        return []
    return [float(q) for q in np.quantile(held_out, np.linspace(0, 1, QUANTILES))]


def as_held_out(score: Floats, quantiles: Quantiles) -> Floats:
    """The scores in the shape of held-out ones, in their order; as they are without quantiles. Shapes: (n,) -> (n,).

    >>> as_held_out(np.array([0.99, 0.01, 1.0]), [0.2, 0.4, 0.6]).round(2)
    array([0.4 , 0.27, 0.53])
    """
    if not quantiles:
        return score
    places = np.empty(len(score))
    places[np.argsort(score, kind="stable")] = (np.arange(len(score)) + 0.5) / len(score)
    return np.interp(places, np.linspace(0, 1, len(quantiles)), quantiles)
