"""Point-in-time joins of side tables: each row sees the newest side row that was known at its own time, and no later one.

One index and one join for the training table, for a replay and for one live row, so all three give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from loudly.core.clock import MINUTE
from loudly.core.seams import Ints
from loudly.errors import DataError, UserFileError, nearest

SHOWN = 3


@dataclass(frozen=True, slots=True)
class Side:
    """A side table as the user's file names it. `read` returns the table.

    on: its column with the time from which a row was known.  by: columns that both tables have; rows must agree on them.
    within: µs; an older side row counts as missing.  refresh: µs after which a server reads the table again.
    """

    name: str
    read: Callable[[], object]
    on: str
    by: tuple[str, ...]
    within: int
    refresh: int = 5 * MINUTE


@dataclass(frozen=True, slots=True)
class SideIndex:
    """A side table ready to be asked. `values` are its columns in the order of `keys`; `times` are µs of the same rows.

    keys: (m,) group code and rank of the time among `moments`, as one ascending integer.  codes: group -> code.
    """

    side: Side
    values: pl.DataFrame
    codes: Mapping[tuple[str, ...], int]
    moments: Ints
    keys: Ints
    times: Ints

    @property
    def columns(self) -> tuple[str, ...]:
        """The names that the join adds."""
        return tuple(self.values.columns)

    def join(self, rows: pl.DataFrame, time: str) -> tuple[pl.DataFrame, int]:
        """The rows, in their order, with the side's columns; and how many found no side row within `within`.

        A column of the same name is replaced.  Raises: UserFileError where the rows lack a `by` column.
        Cost: two binary searches a row, whatever the size of the side table.
        """
        for name in self.side.by:
            if name not in rows.columns:
                told = f"The side table {self.side.name!r} is joined by {name!r}, which the rows do not have."
                raise UserFileError(told, do=nearest(name, rows.columns))
        at, known = _times(rows, time)
        groups = rows.select(pl.col(name).cast(pl.String) for name in self.side.by).rows() if self.side.by else [()] * rows.height
        code = np.fromiter((self.codes.get(group, -1) for group in groups), dtype=np.int64, count=rows.height)
        rank = np.searchsorted(self.moments, at, side="right")
        found = np.searchsorted(self.keys, code * (len(self.moments) + 1) + rank, side="right") - 1
        first = np.searchsorted(self.keys, code * (len(self.moments) + 1), side="left")
        seen = known & (code >= 0) & (found >= first)
        seen[seen] = at[seen] - self.times[found[seen]] <= self.side.within
        picked = pl.select(pl.when(pl.Series(seen)).then(pl.Series(found))).to_series()
        joined = self.values.select(pl.all().gather(picked))
        return rows.drop(joined.columns, strict=False).hstack(joined), int((~seen).sum())


def index_side(side: Side, table: pl.DataFrame) -> SideIndex:
    """The index of a side table; rows without a time or a group can never be seen and are left out.

    Raises: UserFileError for a column that is not there, DataError for an `on` that holds no times, for a table without
    further columns, and for keys that stand twice (which of the two would be true?), which it names.

    >>> from datetime import datetime
    >>> weather = pl.DataFrame({"hour": [datetime(2024, 1, 1, 8), datetime(2024, 1, 1, 9)], "temp": [3.0, 5.0]})
    >>> index = index_side(Side("weather", weather.clone, "hour", (), within=2 * 3_600_000_000), weather)
    >>> flights = pl.DataFrame({"at": [datetime(2024, 1, 1, 8, 59), datetime(2024, 1, 1, 12)]})
    >>> joined, missing = index.join(flights, "at")
    >>> joined["temp"].to_list(), missing
    ([3.0, None], 1)
    """
    for name in (side.on, *side.by):
        if name not in table.columns:
            raise UserFileError(f"The side table {side.name!r} has no column {name!r}.", do=nearest(name, table.columns))
    if not table[side.on].dtype.is_temporal():
        seen = f"{side.on} is {table[side.on].dtype}"
        raise DataError(f"The side table {side.name!r} is joined on a column of times.", seen=seen, do="Parse it.")
    columns = [name for name in table.columns if name not in (side.on, *side.by)]
    if not columns:
        raise DataError(f"The side table {side.name!r} has no columns beside its keys.", do="Return the columns to join.")
    table = table.drop_nulls([side.on, *side.by])
    _refuse_twice(side, table)
    groups = table.select(pl.col(name).cast(pl.String) for name in side.by).rows() if side.by else [()] * table.height
    codes = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    times, _ = _times(table, side.on)
    moments = np.unique(times)
    code = np.fromiter((codes[group] for group in groups), dtype=np.int64, count=len(groups))
    keys = code * (len(moments) + 1) + np.searchsorted(moments, times, side="left") + 1
    order = np.argsort(keys, kind="stable")
    values = table.select(_settled(table[name]) for name in columns)[order]
    return SideIndex(side, values, codes, moments, keys[order], times[order])


def _refuse_twice(side: Side, table: pl.DataFrame) -> None:
    keys = table.select(side.on, *side.by)
    twice = keys.filter(keys.is_duplicated()).unique(maintain_order=True)
    if twice.height:
        shown = "; ".join(", ".join(str(value) for value in row) for row in twice.head(SHOWN).rows())
        raise DataError(
            f"{twice.height:,} keys of the side table {side.name!r} stand twice or more.",
            seen=f"{', '.join(keys.columns)}: {shown}",
            do="Keep one row for each, in the function that returns the table.",
        )


def _times(table: pl.DataFrame, column: str) -> tuple[Ints, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """(µs with 0 for missing, whether there is a time)."""
    at = table[column].cast(pl.Datetime("us")).dt.epoch("us")
    return np.asarray(at.fill_null(0).to_numpy(), dtype=np.int64), at.is_not_null().to_numpy()


def _settled(series: pl.Series) -> pl.Series:
    """In the types of a frozen schema, so that training and serving cannot differ; NaN says missing."""
    if series.dtype.is_integer():
        return series.cast(pl.Int64)
    if series.dtype.is_numeric() or series.dtype == pl.Null:
        return series.cast(pl.Float64).fill_nan(None)
    if series.dtype.is_temporal():
        return series.cast(pl.Datetime("us"))
    return series if series.dtype == pl.Boolean else series.cast(pl.String)
