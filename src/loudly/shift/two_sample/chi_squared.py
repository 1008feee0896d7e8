"""χ² on the counts of categories, such as a classifier's decisions ("BBSDh").

Cost: one count. Categories that neither sample has are left out: they have no say (the code of *Failing Loudly* gave a random
p-value there). Source: Pearson 1900; Lipton, Wang & Smola 2018 (ICML).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy

from loudly.core.values import Evidence
from loudly.errors import DataError


def chi_squared(reference: Any, window: Any) -> Evidence:
    """Homogeneity of two samples of categories. Shapes: (n,), (m,) of anything; None is a category of its own.

    Effect: Cramér's V, in [0, 1].

    >>> chi_squared(["a"] * 50 + ["b"] * 50, ["a"] * 90 + ["b"] * 10).p_value < 1e-8
    True
    """
    one, two = _categories(reference), _categories(window)
    if not len(one) or not len(two):
        raise DataError("A sample has no rows.", seen=f"{len(one)} and {len(two)}")
    names, codes = np.unique(np.concatenate([one, two]), return_inverse=True)
    counts = np.stack([np.bincount(codes[: len(one)], minlength=len(names)), np.bincount(codes[len(one) :], minlength=len(names))])
    statistic, freedom = _statistic(counts.astype(np.float64))
    p = float(scipy.special.gammaincc(freedom / 2, statistic / 2)) if freedom else 1.0
    effect = float(np.sqrt(statistic / counts.sum())) if freedom else 0.0
    return Evidence("chi-squared", effect, n=len(two), about="categories", unit="Cramér's V", p_value=p)


def _categories(given: Any) -> Any:
    """A flat array that can be sorted; values of several types, such as texts and None, by their text."""
    made = np.asarray(given).ravel()
    return np.array([str(value) for value in made]) if made.dtype == object else made


def _statistic(counts: Any) -> tuple[float, int]:
    kept = counts[:, counts.sum(axis=0) > 0]
    expected = kept.sum(axis=1, keepdims=True) * kept.sum(axis=0, keepdims=True) / kept.sum()
    return float(((kept - expected) ** 2 / expected).sum()), kept.shape[1] - 1
