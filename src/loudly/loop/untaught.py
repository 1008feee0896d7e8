"""Labelled rows between the label call that brought them and the time that is told next."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from loudly.core.clock import HOUR
from loudly.store.shelf import Pile, Shelf


class Untaught:
    """Rows that came within an hour, in the order in which they came, until all of them are taken as one table.

    shelf: where they are beyond its room in memory.
    """

    def __init__(self, shelf: Shelf | None = None) -> None:
        self._rows, self._at = Pile(shelf), 0

    def __len__(self) -> int:
        """Rows that wait."""
        return len(self._rows)

    def add(self, rows: pl.DataFrame, at: int) -> None:
        """Takes rows that came at `at` (µs); columns that one table lacks are missing there."""
        self._rows.add(rows)
        self._at = at

    def closed(self, at: int) -> bool:
        """Whether there are rows, of an hour that is over at `at` (µs): a strategy tells days by when labels came."""
        return len(self) > 0 and self._at // HOUR != at // HOUR

    def take(self, now: int) -> tuple[pl.DataFrame, int]:
        """All of them and when the last came (µs), or a table without columns and `now`; they wait no more."""
        rows = self._rows.take()
        return rows, self._at if rows.height else now

    def forget(self, gone: Callable[[pl.DataFrame], pl.Series]) -> None:
        """Without some rows. gone: a table -> (n,) booleans."""
        self._rows.erase(gone)
