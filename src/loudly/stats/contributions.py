"""How much each column adds to each answer: Shapley values, exact for boosted trees, sampled for any other model.

The contributions of a row and its base add up to the row's raw score (for LightGBM the log-odds, for a function what it gives).
Trees weigh absent columns by the training rows in their leaves; the sampled ones replace absent columns by rows of a background.

Source: Lundberg & Lee 2017 (NeurIPS), Lundberg et al. 2020 (TreeSHAP, here LightGBM's own); Štrumbelj & Kononenko 2014 (sampling),
with each order also taken backwards (Mitchell et al. 2022). Cost: trees as LightGBM; sampling 2 (d + 1) calls a pair of orders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loudly.errors import DataError

if TYPE_CHECKING:
    from loudly.core.seams import Floats


@dataclass(frozen=True, slots=True)
class Contributions:
    """values: (n, d), or (n, d, k) for k classes.  base: (n,) or (n, k), the score of no row in particular."""

    values: Floats
    base: Floats

    @property
    def score(self) -> Floats:
        """The raw scores that base and values add up to."""
        return np.asarray(self.base + self.values.sum(axis=1))


def tree_contributions(model: Any, rows: Any) -> Contributions:
    """TreeSHAP of a LightGBM booster or estimator. Shape: (n, d).

    Raises: DataError for a model that has no `pred_contrib`.
    """
    x = np.asarray(rows, dtype=np.float64)
    booster = getattr(model, "booster_", model)
    try:
        told = booster.predict(x, pred_contrib=True)
    except TypeError as wrong:
        do = "Use `sampled_contributions` with its predict."
        raise DataError("This model tells no contributions.", seen=type(model).__name__, do=do) from wrong
    d = x.shape[1]
    made = np.asarray(told, dtype=np.float64).reshape(len(x), -1, d + 1).transpose(0, 2, 1)
    if made.shape[2] == 1:
        return Contributions(made[:, :d, 0], made[:, d, 0])
    return Contributions(made[:, :d], made[:, d])


def sampled_contributions(
    predict: Callable[[Floats], Any], rows: Any, background: Any, *, rng: np.random.Generator, pairs: int = 16
) -> Contributions:
    """Shapley values of any function of rows against a background. Shapes: rows (n, d), background (m, d); predict (n,) or (n, k).

    Each row meets one background row for each of the `pairs` of orders; the rows' sums are exact, their shares have noise.

    >>> rng = np.random.default_rng(0)
    >>> made = sampled_contributions(lambda x: 2 * x[:, 0] + x[:, 1], np.ones((1, 2)), np.zeros((5, 2)), rng=rng)
    >>> made.values.tolist(), made.base.tolist()
    ([[2.0, 1.0]], [0.0])
    """
    x, held = np.asarray(rows, dtype=np.float64), np.asarray(background, dtype=np.float64)
    if x.ndim != 2 or held.ndim != 2 or x.shape[1] != held.shape[1] or not len(held):
        raise DataError("Rows and background must be tables of the same columns.", seen=f"{x.shape} and {held.shape}")
    values, base = [], []
    for _ in range(pairs):
        start = held[rng.integers(len(held), size=len(x))]
        order = rng.permutation(x.shape[1])
        for way in (order, order[::-1]):
            at = start.copy()
            told = [np.asarray(predict(at), dtype=np.float64)]
            for column in way:
                at[:, column] = x[:, column]
                told.append(np.asarray(predict(at), dtype=np.float64))
            values.append(np.diff(np.stack(told), axis=0)[np.argsort(way)])
            base.append(told[0])
    return Contributions(np.moveaxis(np.mean(values, axis=0), 0, 1), np.mean(base, axis=0))
