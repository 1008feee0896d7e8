"""Columns as small numbers: the bin of each row, by quantiles of the reference; the combination of values of each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from loudly.core.seams import Ints

MOST_BINS = 64


def keys(table: pl.DataFrame, names: Sequence[str]) -> Ints:
    """(n,) a number for each combination of values, null included; 0 for all rows where no column is named.

    >>> keys(pl.DataFrame({"a": ["x", "y", "x", None]}), ["a"]).tolist()
    [1, 2, 1, 0]
    """
    if not names or table.height == 0:
        return np.zeros(table.height, dtype=np.int64)
    ranks = table.select(pl.struct(names).rank("dense").cast(pl.Int64) - 1).to_series()
    return ranks.to_numpy()


def number_bins(values: pl.Series, reference: Any) -> Ints:
    """(n,) quantile bins of the reference's finite values; missing and infinite values have a bin of their own, the last.

    Shapes: values (n,), reference (n,) booleans: which rows make the bins.
    """
    numbers = values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    sound = np.isfinite(numbers)
    held = numbers[sound & reference]
    edges = np.unique(np.quantile(held, np.linspace(0, 1, MOST_BINS + 1)[1:-1])) if len(held) else np.zeros(1)
    return np.where(sound, np.searchsorted(edges, np.where(sound, numbers, 0.0), side="left"), len(edges) + 1)
