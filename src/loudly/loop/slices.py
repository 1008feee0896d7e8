"""The user's slices as row masks."""

from __future__ import annotations

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
        given = asked("slice", function, rows)
        series = given if isinstance(given, pl.Series) else pl.Series(function.__name__, given)
        if len(series) != rows.height:
            seen = f"{len(series):,} values for {rows.height:,} rows"
            raise DataError(
                f"The slice {function.__name__!r} must give one value a row.", seen=seen, do='return rows["region"] == "west"'
            )
        if series.dtype == pl.Boolean:
            made[function.__name__] = series.fill_null(False).to_numpy()
            continue
        counts = series.cast(pl.String).value_counts(sort=True).head(MOST_VALUES)
        text = series.cast(pl.String)
        for value in sorted(v for v in counts[series.name].to_list() if v is not None):
            made[f"{function.__name__}={value}"] = (text == value).fill_null(False).to_numpy()
    return made
