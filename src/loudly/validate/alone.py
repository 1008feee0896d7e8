"""A model of one column: what the column alone knows of the label. It finds leaks and names the columns that carry the skill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from loudly.core.canon import Json
from loudly.core.seams import Floats, Ints
from loudly.stats.auc import Auc, auc

BINS = 64
MOST_VALUES = 1000


@dataclass(frozen=True, slots=True)
class Alone:
    """The mean of the label in each cell of a column: quantile bins of a number, or values of a category.

    edges: between the bins of a number.  values: categories in order.  rates: a mean for each cell; the last two cells are
    "missing" and "never seen".
    """

    edges: tuple[float, ...]
    values: tuple[str, ...]
    rates: tuple[float, ...]

    def score(self, column: pl.Series) -> Floats:
        """(n,) the expected label of each row by this column alone."""
        return np.asarray(self.rates)[_cells(column, np.asarray(self.edges), self.values)]

    def plain(self) -> dict[str, Json]:
        """As JSON."""
        return {"edges": list(self.edges), "values": list(self.values), "rates": list(self.rates)}


def alone_of(data: Mapping[str, Any]) -> Alone:
    """The inverse of `Alone.plain`."""
    return Alone(tuple(data["edges"]), tuple(data["values"]), tuple(data["rates"]))


def fit_alone(column: pl.Series, truth: Floats) -> Alone:
    """Fitted on (n,) values and labels as numbers; each mean is drawn to the prior by one row.

    Of a category the 1,000 most frequent values are kept.  Cost: one sort.
    """
    edges, values = np.zeros(0), ()
    if _is_number(column):
        numbers = _numbers(column)
        sound = numbers[np.isfinite(numbers)]
        edges = np.unique(np.quantile(sound, np.linspace(0, 1, BINS + 1)[1:-1])) if len(sound) else edges
    else:
        counts = column.cast(pl.String).drop_nulls().value_counts(sort=True).sort(["count", column.name], descending=[True, False])
        values = tuple(counts.head(MOST_VALUES)[column.name].to_list())
    cells = _cells(column, edges, values)
    size = (len(edges) + 1 if _is_number(column) else len(values)) + 2
    prior = float(truth.mean())
    sums, rows = np.bincount(cells, weights=truth, minlength=size), np.bincount(cells, minlength=size)
    return Alone(tuple(edges.tolist()), values, tuple(((sums + prior) / (rows + 1)).tolist()))


def skill(scores: Floats, truth: Floats) -> Auc:
    """The AUC of a column's scores; of a number as the label, for being above its median."""
    positive = (truth > np.median(truth)).astype(float) if len(np.unique(truth)) > 2 else truth
    return auc(positive, scores)


def has_label(label: pl.Series) -> pl.Series:
    """(n,) which rows have one. A NaN is none: it would make every rate NaN, and no column would know anything."""
    return label.is_finite().fill_null(False) if label.dtype.is_float() else label.is_not_null()


def top_class(label: pl.Series) -> str:
    """The most frequent of several classes (of two as frequent, the first by name); nothing where the label is a number."""
    if label.dtype == pl.Boolean or label.dtype.is_numeric():
        return ""
    counts = label.cast(pl.String).drop_nulls().value_counts()
    return str(counts.sort(["count", label.name], descending=[True, False])[label.name][0])


def truth_of(label: pl.Series, top: str) -> Floats:
    """The label as numbers; of several classes, whether it is `top`."""
    if label.dtype == pl.Boolean or label.dtype.is_numeric():
        return np.asarray(label.cast(pl.Float64).to_numpy())
    return np.asarray((label.cast(pl.String) == top).cast(pl.Float64).to_numpy())


def _is_number(column: pl.Series) -> bool:
    return column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)


def _numbers(column: pl.Series) -> Floats:
    return np.asarray(column.cast(pl.Float64).to_numpy())


def _cells(column: pl.Series, edges: Floats, values: tuple[str, ...]) -> Ints:
    """The cell of each row: the last but one is "missing", the last "never seen"."""
    if not values:
        numbers = _numbers(column) if _is_number(column) else np.full(len(column), np.nan)
        cells = np.searchsorted(edges, numbers)
        cells[~np.isfinite(numbers)] = len(edges) + 1
        return cells.astype(np.int64)
    text = column.cast(pl.String)
    where = {value: i for i, value in enumerate(values)}
    codes = text.replace_strict(where, default=len(values) + 1, return_dtype=pl.Int64)
    return np.asarray(pl.select(pl.when(text.is_null()).then(len(values)).otherwise(codes)).to_series().to_numpy())
