"""Permutation tests: random splits of pooled rows, quadratic and linear statistics of all of them at once, exact p-values.

Row 0 of every result is the split as it was observed; the others are random, so under exchangeability the observed one is one
among equals and (1 + number at least as large) / (1 + permutations) is a p-value for any statistic, at any sample size.

Source: Hemerik & Goeman 2018 (TEST 27) for the level of random permutations; Schrab et al. 2023 (JMLR 24) for aggregated ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loudly.core.seams import Floats, Ints
from loudly.errors import DataError

Kernel = NDArray[np.float32] | NDArray[np.float64]

# Up to so many pooled rows kernels are summed in double precision; of more, where ties are rare, in their own.
EXACT = 2048


def subsets(pool: int, size: int, permutations: int, rng: np.random.Generator) -> Ints:
    """Which pooled rows make the window in each split. Shape: (permutations + 1, size); row 0 is the last `size` rows.

    Cost: one random key a row and permutation, partitioned.
    """
    if permutations < 1:
        raise DataError("Without permutations there is no p-value.", seen=f"{permutations}", do="draw a hundred or more")
    keys = rng.random((permutations, pool), dtype=np.float32)
    drawn = np.argpartition(keys, size - 1, axis=1)[:, :size] if size < pool else np.tile(np.arange(pool), (permutations, 1))
    return np.concatenate([np.arange(pool - size, pool)[None, :], drawn])


def window_means(features: Floats, windows: Ints) -> Floats:
    """Mean feature of the window in each split. Shapes: features (pool, k), windows (b, n) -> (b, k). One matrix product."""
    inside = np.zeros((len(windows), len(features)))
    np.put_along_axis(inside, windows, 1.0, axis=1)
    out: Floats = inside @ features.astype(np.float64) / windows.shape[1]
    return out


def quadratic(kernel: Kernel, windows: Ints) -> Floats:
    """Unbiased MMD² of window against rest in each split. Shapes: kernel (pool, pool) symmetric, windows (b, n) -> (b,).

    Cost: 2 b pool² flops in one matrix product, in the precision of the kernel (double for up to 2,048 rows).
    """
    pool, n = len(kernel), windows.shape[1]
    kernel = kernel.astype(np.float64) if pool <= EXACT else kernel
    m = pool - n
    inside = np.zeros((len(windows), pool), dtype=kernel.dtype)
    np.put_along_axis(inside, windows, kernel.dtype.type(1.0), axis=1)
    sums = inside @ kernel
    within = np.einsum("bi,bi->b", sums, inside, dtype=np.float64)
    window_rows = sums.sum(axis=1, dtype=np.float64)
    diagonal = np.diagonal(kernel).astype(np.float64)
    own = inside.astype(np.float64) @ diagonal
    total, trace = float(kernel.sum(dtype=np.float64)), float(diagonal.sum())
    across = window_rows - within
    rest = total - within - 2 * across
    out: Floats = (within - own) / (n * (n - 1)) + (rest - (trace - own)) / (m * (m - 1)) - 2 * across / (n * m)
    return out


def p_value(statistics: Floats) -> float:
    """The p-value of the observed split (entry 0) among all; large is extreme.

    >>> p_value(np.array([3.0, 1.0, 2.0, 0.5]))
    0.25
    """
    compared = np.asarray(statistics, dtype=np.float32)
    return float((compared >= compared[0]).mean())


def aggregate(families: Sequence[Floats]) -> tuple[float, tuple[float, ...]]:
    """One exact p-value for several statistics of the same splits, and the p-value of each: the least p, calibrated by itself.

    Each split gets the least of its p-values among the splits; how often others' least is as small is the p-value.
    """
    ranks = np.stack([_at_least(np.asarray(f)) for f in families])
    least = ranks.min(axis=0)
    total = ranks.shape[1]
    return float((least <= least[0]).mean()), tuple(float(r) / total for r in ranks[:, 0])


def _at_least(statistics: Floats) -> Ints:
    """For each entry, how many entries are at least as large."""
    compared = statistics.astype(np.float32)
    ordered = np.sort(compared)
    return len(ordered) - np.searchsorted(ordered, compared, side="left")
