"""Shapley values of one row against a background: what each column contributed to the score, for any function of a matrix.

The value of a set of columns is the mean score with those columns of the row and the others of the background's rows
(interventional). Contributions add up to the row's score minus the background's mean score, exactly in both ways of counting.

Source: Shapley 1953; Strumbelj & Kononenko 2014, "Explaining prediction models and individual predictions with feature
contributions", KAIS 41 (sampling by permutations); Mitchell, Cooper, Frank & Holmes 2022, "Sampling permutations for Shapley
value estimation", JMLR 23, section 4 (a permutation and its reverse).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from loudly.core.seams import Floats

Score = Callable[["Floats"], "Floats"]
MOST_EXACT = 8


def shapley(score: Score, row: Floats, background: Floats, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Base, contributions and their standard errors. Counted exactly up to MOST_EXACT columns, beyond that by sampling.

    Shapes: row (d,), background (m, d); score takes (n, d) and gives (n,) or (n, k). Returns (k,), (d, k), (d, k), k = 1 for (n,).
    Cost: 2^d·m rows scored, or 2·m·(d + 1).

    >>> rng = np.random.default_rng(0)
    >>> base, parts, _ = shapley(lambda X: X[:, 0] * X[:, 1], np.array([2.0, 3.0]), np.zeros((4, 2)), rng)
    >>> base.tolist(), parts.ravel().tolist()
    ([0.0], [3.0, 3.0])
    """
    return exact(score, row, background) if len(row) <= MOST_EXACT else sampled(score, row, background, rng)


def exact(score: Score, row: Floats, background: Floats) -> tuple[Floats, Floats, Floats]:
    """All sets of columns. Shapes and returns as `shapley`; the errors are zero."""
    d, m = len(row), len(background)
    sets = np.arange(2**d)
    inside = (sets[:, None] >> np.arange(d)) & 1 == 1
    mixed = np.where(inside[:, None, :], row, background).reshape(-1, d)
    value = _wide(score(mixed)).reshape(2**d, m, -1).mean(axis=1)
    size = inside.sum(axis=1)
    weight = np.array([math.factorial(s) * math.factorial(d - s - 1) / math.factorial(d) for s in range(d)])
    parts = np.empty((d, value.shape[1]))
    for i in range(d):
        without = sets[~inside[:, i]]
        parts[i] = weight[size[without]] @ (value[without | (1 << i)] - value[without])
    return value[0], parts, np.zeros_like(parts)


def sampled(score: Score, row: Floats, background: Floats, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """A random order of the columns and its reverse for each row of the background. Shapes and returns as `shapley`."""
    d, m = len(row), len(background)
    forward = rng.permuted(np.tile(np.arange(d), (m, 1)), axis=1)
    orders = np.stack([forward, forward[:, ::-1]], axis=1).reshape(2 * m, d)
    rank = np.argsort(orders, axis=1)
    inside = rank[:, None, :] < np.arange(d + 1)[None, :, None]
    mixed = np.where(inside, row, np.repeat(background, 2, axis=0)[:, None, :]).reshape(-1, d)
    value = _wide(score(mixed)).reshape(2 * m, d + 1, -1)
    steps = np.diff(value, axis=1)
    each = np.take_along_axis(steps, rank[:, :, None], axis=1).reshape(m, 2, d, -1).mean(axis=1)
    error = each.std(axis=0, ddof=1) / math.sqrt(m) if m > 1 else np.full(each.shape[1:], np.inf)
    return value[::2, 0].mean(axis=0), each.mean(axis=0), error


def _wide(made: Floats) -> Floats:
    return np.asarray(made, dtype=np.float64).reshape(len(made), -1)
