"""MMD-FUSE: many kernels at once, no split, no tuning; the statistic is a soft maximum of normalised MMDs.

Cost: as MMD, times the number of kernels (10 Gaussian bandwidths, and 10 Laplace where `laplace` is set). Source: Biggs, Schrab &
Gretton 2023 (NeurIPS), with the bandwidths of their code: half the 5 % and twice the 95 % quantile of the distances.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy

from loudly.core.seams import Floats
from loudly.core.values import Evidence
from loudly.shift.two_sample.kernels import Kernel, gaussian, squared_distances
from loudly.shift.two_sample.kernels import laplace as laplace_kernel
from loudly.shift.two_sample.samples import FARTHEST, two_samples
from loudly.stats.permutation import p_value, quadratic, subsets

BANDWIDTHS = 10


def mmd_fuse(reference: Any, window: Any, *, rng: np.random.Generator, permutations: int = 500, laplace: bool = False) -> Evidence:
    """The fused statistic and its p-value. Shapes: (n, d), (m, d); at most about 5,000 rows fit the patience of a caller.

    >>> rng = np.random.default_rng(0)
    >>> mmd_fuse(rng.normal(size=(60, 2)), rng.normal(size=(60, 2)) * 3, rng=rng, permutations=99).p_value
    0.01
    """
    one, two = two_samples(reference, window, farthest=FARTHEST)
    rows = np.concatenate([one, two])
    windows = subsets(len(rows), len(two), permutations, rng)
    n = min(len(one), len(two))
    terms = [_normalised(kernel, windows) for kernel in _kernels(rows, laplace=laplace)]
    scale = np.sqrt(n * (n - 1))
    fused: Floats = scipy.special.logsumexp(scale * np.stack(terms), axis=0, b=1 / len(terms)) / scale
    return Evidence("MMD-FUSE, permuted", float(fused[0]), n=len(two), about="rows", unit="fused MMD", p_value=p_value(fused))


def _kernels(rows: Floats, *, laplace: bool) -> Iterator[Kernel]:
    squared = squared_distances(rows)
    for width in bandwidths(np.sqrt(squared)):
        yield gaussian(squared, float(width))
    if laplace:
        l1 = scipy.spatial.distance.cdist(rows, rows, "cityblock").astype(np.float32)
        for width in bandwidths(l1):
            yield laplace_kernel(l1, float(width))


def bandwidths(distances: Kernel) -> Floats:
    """From half the 5 % to twice the 95 % quantile of the distances above zero, evenly in the logarithm."""
    known = distances[distances > 0]
    if not len(known):
        return np.ones(1)
    low, high = np.quantile(known, 0.05) / 2, np.quantile(known, 0.95) * 2
    out: Floats = np.geomspace(low, high, BANDWIDTHS, dtype=np.float64)
    return out


def _normalised(kernel: Kernel, windows: Any) -> Floats:
    """MMD² over the root mean square of the kernel off its diagonal: the same for every permutation."""
    p = len(kernel)
    off = float(np.einsum("ij,ij->", kernel, kernel, dtype=np.float64)) - float((np.diagonal(kernel) ** 2).sum())
    out: Floats = quadratic(kernel, windows) / np.sqrt(off / (p * (p - 1)))
    return out
