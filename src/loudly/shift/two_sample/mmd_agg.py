"""MMDAgg: MMD at many bandwidths, aggregated by exact permutation p-values instead of a choice.

Cost: as MMD, times the number of bandwidths. Source: Schrab et al. 2023 (JMLR 24), with uniform weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from loudly.core.values import Evidence
from loudly.shift.two_sample.kernels import gaussian, squared_distances
from loudly.shift.two_sample.mmd_fuse import bandwidths
from loudly.shift.two_sample.samples import FARTHEST, two_samples
from loudly.stats.permutation import aggregate, quadratic, subsets


def mmd_agg(reference: Any, window: Any, *, rng: np.random.Generator, permutations: int = 500) -> Evidence:
    """The least of the p-values over bandwidths, calibrated. Shapes: (n, d), (m, d). `detail` names the bandwidth that spoke.

    >>> rng = np.random.default_rng(0)
    >>> mmd_agg(rng.normal(size=(60, 2)), rng.normal(size=(60, 2)) * 3, rng=rng, permutations=99).p_value < 0.05
    True
    """
    one, two = two_samples(reference, window, farthest=FARTHEST)
    rows = np.concatenate([one, two])
    windows = subsets(len(rows), len(two), permutations, rng)
    squared = squared_distances(rows)
    widths = bandwidths(np.sqrt(squared))
    found = [quadratic(gaussian(squared, float(width)), windows) for width in widths]
    p, each = aggregate(found)
    best = int(np.argmin(each))
    detail = {"bandwidth": float(widths[best]), "permutations": permutations}
    return Evidence("MMDAgg, permuted", float(found[best][0]), n=len(two), about="rows", unit="MMD²", p_value=p, detail=detail)
