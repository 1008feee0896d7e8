"""Labelled rows that wait until labels of every kind have had their time, kept in the order in which that is over.

Labels come one a call, and hundreds of thousands of rows may wait: whoever asks what is ripe pays for what is new and what ripens.
Rows are kept in runs, each ordered by when they ripen and more than twice as long as the next: a row is merged a few times in its
life, and the ripe rows of a run are its head.

Source: the logarithmic method of Bentley & Saxe 1980 (runs of doubling size).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

RIPE, NUMBER = "_ripe", "_number"


class Unripe:
    """The rows of a rollout. group: the column whose rows ripen together, when the newest of those that wait does; "" for none."""

    def __init__(self, group: str = "") -> None:
        self._group = group
        self._runs: list[pl.DataFrame] = []
        self._newest: dict[Any, int] = {}
        self._added = 0

    def __len__(self) -> int:
        """Rows that wait."""
        return sum(run.height for run in self._runs)

    def add(self, rows: pl.DataFrame, ripe: pl.Expr) -> None:
        """Rows more. ripe: when each is, µs; a row without a time never is, and is left out.

        Cost: of these rows, and some sorting of those before that were added lately.
        """
        number = pl.int_range(self._added, self._added + rows.height, dtype=pl.Int64)
        self._added += rows.height
        made = rows.with_columns(ripe.alias(RIPE), number.alias(NUMBER))
        made = made.drop_nulls(RIPE) if made[RIPE].null_count() else made
        for group, at in made.select(self._group, RIPE).iter_rows() if self._group else ():
            self._newest[group] = max(at, self._newest.get(group, at))
        self._put(made)

    def forget(self, gone: Callable[[pl.DataFrame], pl.Series]) -> None:
        """Without some rows. gone: a table -> (n,) booleans."""
        self._runs = [left for run in self._runs if (left := run.filter(~gone(run))).height]

    def due(self, now: int) -> bool:
        """Whether a row is ripe by now (µs)."""
        return any(run[RIPE][0] <= now for run in self._runs)

    def take(self, now: int) -> pl.DataFrame:
        """The rows that are ripe by now (µs), in the order in which they came; they wait no more. Cost: of these rows."""
        if not self.due(now):
            return pl.DataFrame()
        ripe = [int(np.searchsorted(run[RIPE].to_numpy(), now, side="right")) for run in self._runs]
        heads = [run.head(n) for run, n in zip(self._runs, ripe, strict=True)]
        self._runs = [run.slice(n) for run, n in zip(self._runs, ripe, strict=True) if n < run.height]
        found = pl.concat(heads, how="diagonal_relaxed").sort(NUMBER)
        return (self._together(found, now) if self._group else found).drop(RIPE, NUMBER)

    def _together(self, found: pl.DataFrame, now: int) -> pl.DataFrame:
        """Those of them whose group is ripe; the others wait for its newest row."""
        newest = pl.Series(RIPE, [self._newest[group] for group in found[self._group]], dtype=pl.Int64)
        found, ripe = found.with_columns(newest), newest <= now
        for group in found.filter(ripe)[self._group].unique():
            del self._newest[group]
        self._put(found.filter(~ripe))
        return found.filter(ripe)

    def _put(self, rows: pl.DataFrame) -> None:
        if rows.height:
            self._runs.append(rows.sort(RIPE) if rows.height > 1 else rows)
        while len(self._runs) > 1 and self._runs[-2].height <= 2 * self._runs[-1].height:
            last = self._runs.pop()
            self._runs[-1] = pl.concat([self._runs[-1], last], how="diagonal_relaxed").sort(RIPE)
