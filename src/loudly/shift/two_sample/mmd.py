"""Maximum mean discrepancy with a Gaussian kernel and a permutation p-value.

Cost: (n + m)² kernel entries and one matrix product for all permutations. Source: Gretton et al. 2012 (JMLR 13).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from loudly.core.seams import Floats, Ints
from loudly.core.values import Evidence
from loudly.errors import ConfigError
from loudly.shift.two_sample.kernels import gaussian, median_distance, squared_distances
from loudly.shift.two_sample.samples import FARTHEST, two_samples
from loudly.stats.permutation import p_value, quadratic, subsets

GaussianKernel = Callable[[Floats, float, Ints], Floats]


def mmd(
    reference: Any,
    window: Any,
    *,
    rng: np.random.Generator,
    permutations: int = 500,
    bandwidth: float | None = None,
    kernel: GaussianKernel | None = None,
) -> Evidence:
    """Unbiased MMD² and its p-value. Shapes: (n, d), (m, d).

    bandwidth: of exp(-distance² / (2 bandwidth²)); the median distance between the samples where it is not given.
    kernel: where the work is done: numpy on the CPU, or `plugins.resolve("kernel", "torch")("cuda")` on a GPU. The
    permutations are drawn here in either case.

    >>> rng = np.random.default_rng(0)
    >>> mmd(rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 1, rng=rng, permutations=99).p_value
    0.01
    """
    one, two = two_samples(reference, window, farthest=FARTHEST)
    width = median_distance(one, two) if bandwidth is None else bandwidth
    if not width > 0:
        raise ConfigError("A bandwidth is above zero.", seen=str(bandwidth), do="leave it out for the median distance")
    rows = np.concatenate([one, two])
    found = (kernel or on_numpy)(rows, width, subsets(len(rows), len(two), permutations, rng))
    detail = {"bandwidth": width, "permutations": permutations}
    return Evidence("MMD, permuted", float(found[0]), n=len(two), about="rows", unit="MMD²", p_value=p_value(found), detail=detail)


def on_numpy(rows: Floats, bandwidth: float, windows: Ints) -> Floats:
    """Unbiased MMD² of window against rest in each split, on the CPU. Shapes: rows (pool, d), windows (b, n) -> (b,)."""
    return quadratic(gaussian(squared_distances(rows), bandwidth), windows)
