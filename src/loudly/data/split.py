"""Splits as values: what was held out can be recorded, and made again from the record."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import polars as pl

from loudly.core.canon import Json
from loudly.errors import DataError


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """Rows after `cut` (event time, µs) judge; older ones fit. Never at random: that flatters a model badly."""

    column: str
    cut: int

    def apply(self, table: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """(older, newer). Raises: DataError where one side is empty."""
        late = table[self.column].dt.epoch("us") > self.cut
        return _both(table, late, f"time {self.cut}")

    def plain(self) -> dict[str, Json]:
        """As the record of it."""
        return {"by": "time", "column": self.column, "cut": self.cut}


@dataclass(frozen=True, slots=True)
class GroupSplit:
    """Whole groups (customers, machines) are held out: a share of them, chosen by their name and the seed alone."""

    column: str
    share: float
    seed: int = 0

    def apply(self, table: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """(fit, held out); a group is never on both sides. Raises: DataError where one side is empty."""
        names = table[self.column].cast(pl.String)
        out = {n: _draw(n, self.seed) < self.share for n in names.unique().to_list() if n is not None}
        return _both(table, names.replace_strict(out, default=False, return_dtype=pl.Boolean), f"group {self.column}")

    def plain(self) -> dict[str, Json]:
        """As the record of it."""
        return {"by": "group", "column": self.column, "share": self.share, "seed": self.seed}


def newest(table: pl.DataFrame, column: str, *, stretch: int, rows: int, most: float) -> TimeSplit:
    """The split that holds out the newest `stretch` µs, more where that has fewer than `rows`, at most the share `most`."""
    at = table[column].dt.epoch("us")
    last = int(at.max() or 0)  # type: ignore[arg-type]
    enough = int(at.sort(descending=True)[min(rows, table.height - 1)])
    floor = int(at.quantile(1 - most) or enough)
    return TimeSplit(column, max(min(last - stretch, enough), floor))


def rolling(table: pl.DataFrame, column: str, folds: int) -> tuple[tuple[pl.DataFrame, pl.DataFrame], ...]:
    """(older, newer) pairs that move on in time: each fits on all rows before it and is judged on the stretch that follows.

    Three folds fit on 40, 60 and 80 % of the rows; a fold with an empty side is left out.
    Source: rolling-origin evaluation, Tashman 2000.

    >>> from datetime import datetime, timedelta
    >>> days = pl.DataFrame({"at": [datetime(2024, 1, 1) + timedelta(days=i) for i in range(11)]})
    >>> [(older.height, newer.height) for older, newer in rolling(days, "at", 3)]
    [(4, 2), (6, 2), (8, 3)]
    """
    at = table[column].dt.epoch("us")
    order = at.sort()
    cuts = [order[max(0, table.height * (i + 2) // (folds + 2) - 1)] for i in range(folds)]
    pairs = []
    for cut, end in zip(cuts, [*cuts[1:], order[-1]], strict=True):
        older, newer = table.filter(at <= cut), table.filter((at > cut) & (at <= end))
        if older.height and newer.height:
            pairs.append((older, newer))
    return tuple(pairs)


def _draw(name: str, seed: int) -> float:
    return int.from_bytes(hashlib.blake2b(f"{seed}\x1f{name}".encode(), digest_size=8).digest(), "big") / 2**64


def _both(table: pl.DataFrame, late: pl.Series, what: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    older, newer = table.filter(~late), table.filter(late)
    if older.is_empty() or newer.is_empty():
        raise DataError(f"The split by {what} leaves one side empty.", seen=f"{older.height} and {newer.height} rows")
    return older, newer
