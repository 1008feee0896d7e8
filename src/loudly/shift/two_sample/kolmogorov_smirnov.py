"""Kolmogorov-Smirnov on each column, with Bonferroni or Holm over the columns.

Cost: one sort a column. Source: Hodges 1958 for the exact p-values; Rabanser et al. 2019, who find it the best
single test on a classifier's softmax outputs ("BBSDs").
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy

from loudly.core.seams import Floats
from loudly.core.values import Evidence
from loudly.shift.two_sample.samples import two_samples

# Lattices of so many points are counted.
EXACT = 10_000


def kolmogorov_smirnov(reference: Any, window: Any) -> Evidence:
    """The largest KS distance over columns and its Bonferroni p-value. Shapes: (n, d), (m, d).

    `detail` has the column, and how many columns Holm rejects at 5 %.

    >>> rng = np.random.default_rng(0)
    >>> kolmogorov_smirnov(rng.normal(size=(200, 3)), rng.normal(size=(200, 3)) + [0, 0, 1]).detail["column"]
    2
    """
    one, two = two_samples(reference, window, fewest=1)
    distances = ks_distances(one, two)
    p = ks_p_values(distances, len(one), len(two))
    least = int(np.argmin(p))
    found = min(1.0, float(p[least]) * len(p))
    detail = {"column": least, "holm_rejections": int(holm(p, 0.05).sum()), "columns": len(p)}
    return Evidence(
        "Kolmogorov-Smirnov, Bonferroni", float(distances[least]), n=len(two), about=f"column {least}", unit="KS distance",
        p_value=found, detail=detail,
    )  # fmt: skip


def ks_distances(reference: Floats, window: Floats) -> Floats:
    """Exact KS distance of each column; ties are handled. Shapes: (n, d), (m, d) -> (d,)."""
    out = np.empty(reference.shape[1])
    for j in range(reference.shape[1]):
        a, b = np.sort(reference[:, j]), np.sort(window[:, j])
        both = np.concatenate([a, b])
        gap = np.searchsorted(a, both, side="right") / len(a) - np.searchsorted(b, both, side="right") / len(b)
        out[j] = np.abs(gap).max()
    return out


def ks_p_values(distances: Floats, n: int, m: int) -> Floats:
    """Two-sided p-values: exact for n = m and for nm <= 10,000, else from the one-sample distribution at nm / (n + m).

    The last is scipy's "asymp", a little too small where both samples are: of 6 and 9 rows .063 of them are below .05.
    """
    known, where = np.unique(distances, return_inverse=True)
    if n == m:
        p = np.array([_exact(round(d * n), n) for d in known])
    elif n * m <= EXACT:
        p = np.array([_exact_apart(round(d * n * m), max(n, m), min(n, m)) for d in known])
    else:
        p = scipy.stats.kstwo.sf(known, max(1, round(n * m / (n + m))))
    out: Floats = np.clip(p, 0.0, 1.0)[where]
    return out


def _exact(h: int, n: int) -> float:
    """P(D >= h / n) for two samples of n without ties: 2 Σ (-1)^(j-1) C(2n, n - jh) / C(2n, n)."""
    if h <= 0:
        return 1.0
    j = np.arange(1, n // h + 1)
    logs = 2 * scipy.special.gammaln(n + 1) - scipy.special.gammaln(n - j * h + 1) - scipy.special.gammaln(n + j * h + 1)
    return float(2 * np.sum(np.where(j % 2 == 1, 1.0, -1.0) * np.exp(logs)))


def _exact_apart(h: int, n: int, m: int) -> float:
    """P(D >= h / nm) for samples of n > m without ties: the share of lattice paths from (0, 0) to (n, m) that leave |im - jn| < h.

    Ways are counted row by row, and those that leave are summed where they do: nothing cancels, however small the share is.
    """
    if h <= 0:
        return 1.0
    binom, every = scipy.special.binom, scipy.special.binom(n + m, m)
    low, ways, left = 0, np.ones(-(-h // m)), 0.0
    for j in range(m + 1):
        high = low + len(ways) - 1
        if high < n:
            left += float(ways[-1] * binom(n - high - 1 + m - j, m - j))
        if j == m:
            break
        lower, higher = max(0, ((j + 1) * n - h) // m + 1), min(n, -(-((j + 1) * n + h) // m) - 1)
        gone = ways[: lower - low]
        left += float(gone @ binom(n - np.arange(low, low + len(gone)) + m - j - 1, m - j - 1))
        if lower > higher:
            break
        arrived = np.zeros(higher - lower + 1)
        arrived[: len(ways) - len(gone)] = ways[len(gone) :]
        low, ways = lower, np.cumsum(arrived)
    return left / float(every)


def holm(p: Floats, alpha: float) -> Any:
    """Which hypotheses Holm's procedure rejects. Shape: (d,) bool.

    >>> holm(np.array([0.01, 0.2, 0.02]), 0.05).tolist()
    [True, False, True]
    """
    return holm_p_values(p) <= alpha


def holm_p_values(p: Floats) -> Floats:
    """Holm's adjusted p-values, to be held against alpha as they are. Shape: (d,).

    >>> holm_p_values(np.array([0.01, 0.2, 0.02])).tolist()
    [0.03, 0.2, 0.04]
    """
    order, out = np.argsort(p), np.empty(len(p))
    out[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    return out
