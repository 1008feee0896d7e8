"""Event time of rows: zones are honoured, a naive time is refused until somebody says what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from loudly.core.seams import Ints
from loudly.errors import DataError
from loudly.shift.table import as_table

NO_TIME = -(2**63)
BEGINNING = -(2**62)
FOREVER = 2**62


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows as they came from one source.

    Shapes: `at` (n,) event times in µs UTC, `NO_TIME` where a row has none; `offsets` (n,) never falling: where each row
    stands in its source (None: the source cannot tell, so nothing guards against folding it twice). `part` names the file
    of a source that has several; offsets count within a part, the watermark is that of the source.
    Raises: DataError where lengths differ or offsets fall.
    """

    rows: pl.DataFrame
    at: Ints
    source: str = "table"
    offsets: Ints | None = None
    part: str = ""

    def __post_init__(self) -> None:
        lengths = {self.rows.height, len(self.at), self.rows.height if self.offsets is None else len(self.offsets)}
        if len(lengths) > 1:
            raise DataError("Rows, times and offsets of a batch differ in length.", seen=str(sorted(lengths)))
        if self.offsets is not None and len(self.offsets) and (np.diff(self.offsets) < 0).any():
            raise DataError("Offsets of a batch fall.", seen=self.place, do="Give rows in the order of their source.")

    @property
    def place(self) -> str:
        """What offsets count within."""
        return f"{self.source}/{self.part}" if self.part else self.source

    def after(self, offset: int) -> Batch:
        """The rows from `offset` on; all of them where the source knows no offsets."""
        if self.offsets is None or not len(self.offsets) or self.offsets[0] >= offset:
            return self
        begin = int(np.searchsorted(self.offsets, offset))
        return Batch(self.rows[begin:], self.at[begin:], self.source, self.offsets[begin:], self.part)


def batch_of(
    table: Any, time: str, *, naive: str | None = None, source: str = "table", first: int | None = 0, part: str = ""
) -> Batch:
    """A batch of any table whose rows stand one after another in their source, from offset `first` on (None: not known).

    Raises: DataError, as `event_times`; also where there is no column `time`.

    >>> from datetime import datetime
    >>> made = batch_of(pl.DataFrame({"at": [datetime(2024, 1, 1), None]}), "at", naive="UTC")
    >>> made.at.tolist() == [1704067200000000, NO_TIME], made.offsets.tolist()
    (True, [0, 1])
    """
    table = as_table(table)[0]
    if time not in table.columns:
        raise DataError(f"There is no time column {time!r}.", seen=", ".join(table.columns), do="Name the column of event time.")
    offsets = None if first is None else np.arange(first, first + table.height, dtype=np.int64)
    return Batch(table, event_times(table[time], naive), source, offsets, part)


def event_times(column: pl.Series, naive: str | None = None) -> Ints:
    """Event times of a column in µs UTC; `NO_TIME` where it is null.

    Times with a zone are converted. Times and dates without one are refused unless `naive` names the zone they are meant in.
    Integers are taken as µs since 1970-01-01 UTC, loudly's own spelling.
    Raises: DataError for a naive time, a local time that is twice or never in its zone, or a column of no time at all.

    >>> at = pl.Series("at", ["2024-03-01T12:00+01:00"]).str.to_datetime(time_zone="Europe/Paris")
    >>> event_times(at)[0] == event_times(pl.Series("at", ["2024-03-01T11:00"]).str.to_datetime(), naive="UTC")[0]
    np.True_
    """
    dtype = column.dtype
    if dtype.is_integer():
        return _filled(column.cast(pl.Int64))
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return _filled(column.dt.epoch("us"))
    if not (isinstance(dtype, pl.Datetime) or dtype == pl.Date):
        raise DataError(
            f"The column {column.name!r} is no event time.", seen=str(dtype), do="Parse it first, e.g. `.str.to_datetime()`."
        )
    if naive is None:
        raise DataError(
            f"The times of {column.name!r} have no zone.",
            seen=f"{dtype}, e.g. {column.drop_nulls().first()!s}",
            do="Say what they mean: naive='UTC', or naive='America/New_York' for local time.",
        )
    try:
        return _filled(column.cast(pl.Datetime("us")).dt.replace_time_zone(naive).dt.epoch("us"))
    except pl.exceptions.ComputeError as wrong:
        raise DataError(
            f"The times of {column.name!r} are not all times of {naive}.",
            seen=str(wrong).splitlines()[0],
            do="A local time can be twice or never in the night the clocks change: store UTC, or resolve those rows.",
        ) from wrong


def _filled(column: pl.Series) -> Ints:
    return column.fill_null(NO_TIME).to_numpy().astype(np.int64)
