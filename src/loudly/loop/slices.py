"""The user's slices as row masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loudly.core.whence import asked
from loudly.errors import DataError
from loudly.loop.system import System

MOST_VALUES = 50


def slice_rows(system: System, rows: pl.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Slice name -> (n,) membership. A slice function that returns values makes one slice for each (at most 50)."""
    made: dict[str, NDArray[np.bool_]] = {}
    for function in system.slices:
        series = _values(function, rows)
        if series.dtype == pl.Boolean:
            made[function.__name__] = series.fill_null(False).to_numpy()
            continue
        text = series.cast(pl.String)
        counts = text.value_counts(sort=True).head(MOST_VALUES)
        for value in sorted(v for v in counts[series.name].to_list() if v is not None):
            made[f"{function.__name__}={value}"] = (text == value).fill_null(False).to_numpy()
    return made


def unjudged_slices(system: System, rows: pl.DataFrame) -> tuple[tuple[str, str], ...]:
    """What is said LOUD of slice functions with more values than are judged: (what, reason)."""
    told = []
    for function in system.slices:
        series = _values(function, rows)
        values = series.drop_nulls().n_unique()
        if series.dtype != pl.Boolean and values > MOST_VALUES:
            reason = f"{function.__name__} has {values:,} values, and the {MOST_VALUES} with the most rows are judged; give fewer"
            told.append(("slices", f"{reason}, such as ranges of a number"))
    return tuple(told)


def _values(function: Callable[[pl.DataFrame], Any], rows: pl.DataFrame) -> pl.Series:
    """(n,) what a slice function gives. Raises: TrainingError where it fails, DataError where that is not one plain value a row."""
    given = asked("slice", function, rows)
    what, do = f"The slice {function.__name__!r} must give one value a row.", 'return rows["region"] == "west"'
    if isinstance(given, pl.DataFrame):
        raise DataError(what, seen="a table", do=do)
    try:
        series = given if isinstance(given, pl.Series) else pl.Series(function.__name__, given)
    except (TypeError, ValueError) as wrong:
        raise DataError(what, seen=type(given).__name__, do=do) from wrong
    if len(series) != rows.height:
        raise DataError(what, seen=f"{len(series):,} values for {rows.height:,} rows", do=do)
    if series.dtype.is_nested() or series.dtype == pl.Object:
        raise DataError(what, seen=str(series.dtype), do=do)
    return series
