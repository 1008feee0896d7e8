"""What each column contributed to each of many answers: told by the model itself, or sampled for any function of rows.

A model that is a sum of its columns tells its own (`contributions` of a loaded model: exact for boosted trees and linear models).
For any other, each row meets a few rows of a background; one row against all of a background is `loudly.stats.shapley`.

Source: Lundberg & Lee 2017 (NeurIPS); Štrumbelj & Kononenko 2014 (sampling), with each order also taken backwards (Mitchell et al.
2022). Cost: 2 (d + 1) calls a pair of orders, each of all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loudly.core.seams import Contributions
from loudly.errors import DataError

if TYPE_CHECKING:
    from loudly.core.seams import Floats


@dataclass(frozen=True, slots=True)
class RowContributions:
    """values: (n, d), or (n, d, k) for k classes.  base: (n,) or (n, k), the score of no row in particular."""

    values: Floats
    base: Floats

    @property
    def score(self) -> Floats:
        """The raw scores that base and values add up to."""
        return np.asarray(self.base + self.values.sum(axis=1))


def rows_of(told: Contributions) -> RowContributions:
    """What a loaded model tells of its rows, one output without its axis.

    >>> rows_of(Contributions("linear", "output", np.array([1.0]), np.ones((2, 3, 1)))).score.tolist()
    [4.0, 4.0]
    """
    base = np.broadcast_to(told.base, (len(told.parts), len(told.base)))
    return RowContributions(told.parts[:, :, 0], base[:, 0]) if len(told.base) == 1 else RowContributions(told.parts, base)


def sampled_contributions(
    predict: Callable[[Floats], Any], rows: Any, background: Any, *, rng: np.random.Generator, pairs: int = 16
) -> RowContributions:
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
    return RowContributions(np.moveaxis(np.mean(values, axis=0), 0, 1), np.mean(base, axis=0))
