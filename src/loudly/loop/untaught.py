"""Labelled rows between the label call that brought them and the time that is told next."""

from __future__ import annotations

import polars as pl

from loudly.core.clock import HOUR


class Untaught:
    """Rows that came within an hour, in the order in which they came, until all of them are taken as one table."""

    def __init__(self) -> None:
        self._tables: list[pl.DataFrame] = []
        self._at = self.rows = 0

    def add(self, rows: pl.DataFrame, at: int) -> None:
        """Takes rows that came at `at` (µs); columns that one table lacks are missing there."""
        self._tables.append(rows)
        self._at, self.rows = at, self.rows + rows.height

    def closed(self, at: int) -> bool:
        """Whether there are rows, of an hour that is over at `at` (µs): a strategy tells days by when labels came."""
        return bool(self._tables) and self._at // HOUR != at // HOUR

    def take(self, now: int) -> tuple[pl.DataFrame, int]:
        """All of them and when the last came (µs), or a table without columns and `now`; they wait no more."""
        tables, self._tables, self.rows = self._tables, [], 0
        return (pl.concat(tables, how="diagonal_relaxed"), self._at) if tables else (pl.DataFrame(), now)
