"""Distances of two distributions from counts in the same bins.

Shapes: counts (k,), any non-negative numbers. An empty side gives NaN: no rows is not "no shift".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
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
    return float(np.sqrt(max(0, bins - 1) / (8 * np.log(2)) * (1 / reference_n + 1 / window_n)))


def _kl(p: Floats, q: Floats) -> float:
    if np.isnan(p).any():
        return float("nan")
    inside = p > 0
    return float((p[inside] * np.log2(p[inside] / q[inside])).sum())
