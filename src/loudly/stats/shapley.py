"""Shapley values of rows against a background: what each column contributed to the score, for any function of a matrix.

The value of a set of columns is the mean score with those columns of the row and the others of the background's rows
(interventional). Contributions add up to the row's score minus the background's mean score, exactly in both ways of counting.

Source: Shapley 1953; Strumbelj & Kononenko 2014, "Explaining prediction models and individual predictions with feature
contributions", KAIS 41 (sampling by permutations); Mitchell, Cooper, Frank & Holmes 2022, "Sampling permutations for Shapley
value estimation", JMLR 23, section 4 (a permutation and its reverse).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from loudly.core.seams import Contributions, Floats, Ints
from loudly.errors import DataError

Score = Callable[["Floats"], "Floats"]
MOST_EXACT = 8
MOST_AT_ONCE = 2**16


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
    base, parts = _walked(score, np.broadcast_to(row, orders.shape), np.repeat(background, 2, axis=0), orders)
    each = parts.reshape(m, 2, d, -1).mean(axis=1)
    error = each.std(axis=0, ddof=1) / math.sqrt(m) if m > 1 else np.full(each.shape[1:], np.inf)
    return base[::2].mean(axis=0), each.mean(axis=0), error


def sampled_rows(score: Score, rows: Floats, background: Floats, *, rng: np.random.Generator, pairs: int = 16) -> Contributions:
    """Many rows at once: each meets one row of the background for each of the `pairs` of orders, which all rows share.

    The rows' sums are exact, their shares have noise; each row has a base of its own. Shapes: rows (n, d), background (m, d).
    Cost: 2·n·(d + 1) rows scored a pair.

    >>> rng = np.random.default_rng(0)
    >>> made = sampled_rows(lambda X: 2 * X[:, 0] + X[:, 1], np.ones((1, 2)), np.zeros((5, 2)), rng=rng)
    >>> made.parts.tolist(), made.base.tolist()
    ([[[2.0], [1.0]]], [[0.0]])
    """
    x, held = np.asarray(rows, dtype=np.float64), np.asarray(background, dtype=np.float64)
    if x.ndim != 2 or held.ndim != 2 or x.shape[1] != held.shape[1] or not len(held):
        raise DataError("Rows and background must be tables of the same columns.", seen=f"{x.shape} and {held.shape}")
    walks = []
    for _ in range(pairs):
        starts = held[rng.integers(len(held), size=len(x))]
        order = rng.permutation(x.shape[1])
        walks += [_walked(score, x, starts, np.broadcast_to(way, x.shape)) for way in (order, order[::-1])]
    base, parts = (np.mean(each, axis=0) for each in zip(*walks, strict=True))
    return Contributions("shapley-sampling", "output", base, parts)


def _walked(score: Score, rows: Floats, starts: Floats, orders: Ints) -> tuple[Floats, Floats]:
    """From each start to its row, column by column in its order: the first score, and what each column changed.

    Shapes: all (n, d) -> (n, k), (n, d, k).
    """
    n, d = rows.shape
    rank = np.argsort(orders, axis=1)
    step = max(1, MOST_AT_ONCE // (d + 1))
    value = np.concatenate([_along(score, rows[i : i + step], starts[i : i + step], rank[i : i + step]) for i in range(0, n, step)])
    return value[:, 0], np.take_along_axis(np.diff(value, axis=1), rank[:, :, None], axis=1)


def _along(score: Score, rows: Floats, starts: Floats, rank: Ints) -> Floats:
    """(n, d + 1, k) scores with the first 0, 1, …, d columns of an order taken from the row."""
    n, d = rows.shape
    inside = rank[:, None, :] < np.arange(d + 1)[None, :, None]
    mixed = np.where(inside, rows[:, None, :], starts[:, None, :]).reshape(-1, d)
    return _wide(score(mixed)).reshape(n, d + 1, -1)


def _wide(made: Floats) -> Floats:
    return np.asarray(made, dtype=np.float64).reshape(len(made), -1)
