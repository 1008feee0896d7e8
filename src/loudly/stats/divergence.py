"""Distances of two distributions from counts in the same bins.

Shapes: counts (k,), any non-negative numbers. An empty side gives NaN: no rows is not "no shift".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from loudly.core.seams import Floats

Counts = Any


def shares(counts: Counts) -> Floats:
    """Counts as shares; NaN where there are none."""
    total = np.sum(counts)
    return np.asarray(counts, dtype=np.float64) / total if total > 0 else np.full(len(counts), np.nan)


def ks(reference: Counts, window: Counts) -> float:
    """Largest gap of the distribution functions at the bin edges; exact up to the mass of one bin."""
    return float(np.abs(np.cumsum(shares(reference)) - np.cumsum(shares(window))).max())


def total_variation(reference: Counts, window: Counts) -> float:
    """Half the sum of absolute share differences, in [0, 1]."""
    return float(np.abs(shares(reference) - shares(window)).sum() / 2)


def js(reference: Counts, window: Counts) -> float:
    """Jensen-Shannon distance (square root of the divergence, base 2), in [0, 1].

    >>> js([1, 0], [0, 1]), js([2, 2], [1, 1])
    (1.0, 0.0)
    """
    p, q = shares(reference), shares(window)
    middle = (p + q) / 2
    return float(np.sqrt(np.maximum(0.0, (_kl(p, middle) + _kl(q, middle)) / 2)))


def hellinger(reference: Counts, window: Counts) -> float:
    """Hellinger distance, in [0, 1]."""
    gap = np.sqrt(shares(reference)) - np.sqrt(shares(window))
    return float(np.sqrt((gap**2).sum() / 2))


def psi(reference: Counts, window: Counts, floor: float = 1e-4) -> float:
    """Population stability index; shares below `floor` count as `floor`."""
    p, q = np.maximum(shares(reference), floor), np.maximum(shares(window), floor)
    return float(((q - p) * np.log(q / p)).sum())


def noise(reference_n: int, window_n: int, bins: int) -> float:
    """Jensen-Shannon distance that sampling alone gives on average: sqrt((k-1)/(8 ln 2) · (1/n + 1/m)).

    Source: second-order expansion of the divergence under equality (8 ln2 · JSD ≈ χ²/n).
    """
    if min(reference_n, window_n) == 0:
        return float("nan")
    return math.sqrt(max(0, bins - 1) / (8 * math.log(2)) * (1 / reference_n + 1 / window_n))


def kl(reference: Counts, window: Counts, floor: float = 1e-4) -> float:
    """Kullback-Leibler divergence of the window from the reference, in nats; shares below `floor` count as `floor`.

    >>> round(kl([1, 1], [3, 1]), 4)
    0.1308
    """
    p, q = np.maximum(shares(reference), floor), np.maximum(shares(window), floor)
    p, q = p / p.sum(), q / q.sum()
    return float((q * np.log(q / p)).sum())


def chi2(reference: Counts, window: Counts) -> tuple[float, int]:
    """Pearson's statistic of the two rows of counts as a table, and its degrees of freedom; bins empty on both sides drop out.

    >>> chi2([10, 10], [20, 20])
    (0.0, 1)
    """
    a, b = np.asarray(reference, dtype=np.float64), np.asarray(window, dtype=np.float64)
    inside = a + b > 0
    a, b = a[inside], b[inside]
    n, m = a.sum(), b.sum()
    if min(n, m) == 0:
        return float("nan"), 0
    gap = a * np.sqrt(m / n) - b * np.sqrt(n / m)
    return float((gap**2 / (a + b)).sum()), len(a) - 1


def all_of(reference: Counts, window: Counts, floor: float = 1e-4) -> dict[str, Floats]:
    """js, hellinger, psi, kl, total_variation and chi2 of many pairs of counts: each as by itself, all in one pass.

    Shapes: (..., k) to (...,). Every row must have counts on both sides.
    """
    a, b = np.asarray(reference, dtype=np.float64), np.asarray(window, dtype=np.float64)
    n, m = a.sum(axis=-1, keepdims=True), b.sum(axis=-1, keepdims=True)
    p, q = a / n, b / m
    gap, root, middle = p - q, np.sqrt(p) - np.sqrt(q), (p + q) / 2
    high, low = np.maximum(q, floor), np.maximum(p, floor)
    log, total = np.log(high / low), high.sum(axis=-1)
    bits = (scipy.special.rel_entr(p, middle) + scipy.special.rel_entr(q, middle)).sum(axis=-1) / (2 * np.log(2))
    both = np.where(middle > 0, a + b, 1.0)
    return {
        "js": np.sqrt(np.maximum(0.0, bits)),
        "hellinger": np.sqrt((root * root).sum(axis=-1) / 2),
        "psi": ((high - low) * log).sum(axis=-1),
        "kl": (high * log).sum(axis=-1) / total - np.log(total / low.sum(axis=-1)),
        "total_variation": np.abs(gap).sum(axis=-1) / 2,
        "chi2": (gap * gap / both).sum(axis=-1) * n[..., 0] * m[..., 0],
    }


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Bins (..., k) of numbers less a centre. low, high: their edges, the outermost twice.  width: 0 where a bin is one value."""

    low: Floats
    high: Floats
    width: Floats
    atoms: NDArray[np.bool_]

    def some(self, rows: list[int]) -> Grid:
        """The bins of some of the columns."""
        return Grid(self.low[rows], self.high[rows], self.width[rows], self.atoms[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Binned:
    """Rows in the bins of a grid (..., k). share: of all rows.  below: shares cumulated.  added: how much a bin's rows, where they
    lie in it, add to the integral of the distribution function beyond its lower edge; in the last bin, of one minus it.
    """

    share: Floats
    below: Floats
    added: Floats

    def some(self, rows: list[int]) -> Binned:
        """Some of the columns."""
        return Binned(self.share[rows], self.below[rows], self.added[rows])


def grid_of(edges: Floats, centre: Floats, atoms: NDArray[np.bool_]) -> Grid:
    """Shapes: edges (..., k-1), centre (...,), atoms (..., k) bins that hold a single value."""
    at = edges - np.asarray(centre)[..., None]
    inner = at if at.shape[-1] else np.zeros_like(atoms, dtype=np.float64)
    low, high = np.concatenate((inner[..., :1], at), axis=-1), np.concatenate((at, inner[..., -1:]), axis=-1)
    return Grid(low, high, np.where(atoms, 0.0, high - low), atoms)


def binned(grid: Grid, counts: Counts, sums: Floats) -> Binned:
    """Rows by their counts and sums of x - centre in each bin (..., k). Every row of counts must have some."""
    n = np.sum(counts, axis=-1, keepdims=True)
    share, sums = counts / n, sums / n
    added = grid.high * share - sums
    added[..., -1] = sums[..., -1] - grid.low[..., -1] * share[..., -1]
    return Binned(share, np.cumsum(share, axis=-1), added)


def ks_bounds(reference: Binned, window: Binned, atoms: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """The least and the largest value that the KS statistic of the rows can have; equal where all bins are atoms.

    Inside a bin of shares p and q the gap D of the distribution functions moves within [D - q, D + p], D at its lower edge.
    Shapes: (..., k), to (...,).
    """
    p, q = reference.share, window.share
    gap = p - q
    after = np.cumsum(gap, axis=-1)
    before = after - gap
    low = np.maximum(after.max(axis=-1), -after.min(axis=-1))
    inside = np.where(atoms, 0.0, np.maximum(before + p, q - before))
    return low, np.maximum(low, inside.max(axis=-1))


def wasserstein(grid: Grid, reference: Binned, window: Binned) -> tuple[Floats, Floats]:
    """Bounds on the Wasserstein-1 distance of the rows, from counts and sums per bin: the lower one is the estimate.

    In each bin the integral of F - G is known exactly from the sums, tails included; it is the bin's part of the distance
    unless F - G changes sign inside, and by how much that can matter is bounded. Shapes: (..., k), to (...,).
    """
    p, q, add_p, add_q, width = reference.share, window.share, reference.added, window.added, grid.width
    if p.shape[-1] == 1:
        gap = np.abs(add_p[..., 0] - add_q[..., 0])
        return gap, np.full_like(gap, np.inf)
    after = reference.below - window.below
    before = np.concatenate((np.zeros_like(after[..., :1]), after[..., :-1]), axis=-1)
    after = before + p - q
    gap = before * width + add_p - add_q
    gap[..., -1] = add_q[..., -1] - add_p[..., -1]
    # The part of the bin where F - G has the other sign: at most what the mass inside can turn, from either edge.
    up = gap >= 0
    signed = np.where(up, before, -before)
    moved = np.where(up, add_q, add_p) + np.maximum(0.0, -signed) * width
    from_below = np.maximum(0.0, np.where(up, q, p) - signed) * width
    from_above = np.maximum(0.0, np.where(up, p - after, q + after)) * width
    turned = np.maximum(0.0, np.minimum(np.minimum(moved, from_below), from_above))
    ends = [0, -1]
    turned[..., ends] = np.maximum(0.0, np.minimum(add_p, add_q)[..., ends])
    value = np.abs(np.where(grid.atoms, 0.0, gap)).sum(axis=-1)
    return value, value + 2 * np.where(grid.atoms, 0.0, turned).sum(axis=-1)


def ks_noise(reference_n: int, window_n: int) -> float:
    """The KS statistic that sampling alone gives on average, for a continuous column: sqrt(π/2) ln 2 · sqrt(1/n + 1/m)."""
    return _root(reference_n, window_n) * math.sqrt(math.pi / 2) * math.log(2)


def wasserstein_noise(edges: Floats, counts: Counts, window_n: int) -> float:
    """The Wasserstein-1 distance that sampling alone gives on average: sqrt(2/π) ∫ sqrt(F (1 - F)) · sqrt(1/n + 1/m).

    Between the outermost edges; the tails beyond are left out.
    """
    cumulated = np.cumsum(shares(counts))[:-1]
    if len(edges) < 2:
        return 0.0
    root = np.sqrt(np.maximum(0.0, cumulated * (1 - cumulated)))
    # Where the reference has no rows between two edges the root stays what it is at the lower one.
    middle = np.where(np.asarray(counts)[1:-1] > 0, (root[:-1] + root[1:]) / 2, root[:-1])
    return float(np.sqrt(2 / np.pi) * (middle * np.diff(edges)).sum()) * _root(int(np.sum(counts)), window_n)


def chi2_noise(reference_n: int, window_n: int, bins: int) -> float:
    """Σ (p - q)² / p under no shift, on average: (k - 1)(1/n + 1/m). PSI and twice KL and eight times Hellinger² follow it."""
    return max(0, bins - 1) * _root(reference_n, window_n) ** 2


def total_variation_noise(reference: Counts, window_n: int) -> float:
    """Total variation that sampling alone gives on average: Σ sqrt(p (1 - p) / 2π) · sqrt(1/n + 1/m)."""
    p = shares(reference)
    return float(np.sqrt(p * (1 - p) / (2 * np.pi)).sum()) * _root(int(np.sum(reference)), window_n)


def _root(n: int, m: int) -> float:
    return math.sqrt(1 / n + 1 / m) if min(n, m) > 0 else math.nan


def _kl(p: Floats, q: Floats) -> float:
    if np.isnan(p).any():
        return float("nan")
    inside = p > 0
    return float((p[inside] * np.log2(p[inside] / q[inside])).sum())
