"""Labelled rows of a champion, a sample of each window: what the rules of its errors and the kind of a shift are learned from."""

from __future__ import annotations

import numpy as np
import polars as pl

from loudly.core.seams import Floats, Ints
from loudly.monitor.settings import MonitorSettings
from loudly.shift.estimate.labelled import sound
from loudly.shift.hashing import text_hash

DRAW, TRUTH, SCORE, ON = "(draw)", "(truth)", "(score)", "(day)"
KEPT = (DRAW, TRUTH, SCORE, ON)
MOST_WINDOWS = 64
MOST_DUE = 64
# Scores of more are megabytes a window, and the kind of their shift takes half a second a class.
MOST_CLASSES = 10


class Examples:
    """At most `sample` labelled rows of each window, those whose keys hash lowest, whatever the order in which labels come.

    wide: whether the champion has more than ten classes, of which none are kept.
    """

    def __init__(self, settings: MonitorSettings, key: str) -> None:
        self._window, self._keep, self._key, self._block = settings.window, settings.sample, key, settings.block
        self._columns: tuple[str, ...] = ()
        self._rows: dict[int, pl.DataFrame] = {}
        self._due: list[tuple[pl.DataFrame, Floats, Floats, Ints]] = []
        self.wide = False

    def begin(self, columns: tuple[str, ...]) -> None:
        """A new champion: its own rows only."""
        self._columns, self._rows, self._due, self.wide = columns, {}, [], False

    def add(self, rows: pl.DataFrame, truth: Floats, score: Floats, at: Ints) -> None:
        """Labelled rows. Shapes: truth, at (n,), score (n,) or (n, k)."""
        self.wide = score.ndim == 2 and score.shape[1] > MOST_CLASSES
        if self.wide or self._key not in rows.columns or not self._columns:
            return
        self._due.append((rows, truth, score, at))
        if len(self._due) >= MOST_DUE:
            self._fold()

    def _fold(self) -> None:
        """Folds the rows that are due: labels may come one a call."""
        if not self._due:
            return
        tables, *arrays = zip(*self._due, strict=True)
        self._due, rows = [], pl.concat(tables, how="diagonal_relaxed")
        truth, score, at = map(np.concatenate, arrays)
        told = sound(score) & np.isfinite(truth)
        draw = text_hash(rows[self._key].cast(pl.String))
        for start in np.unique(at // self._window * self._window).tolist():
            picked = np.flatnonzero((at // self._window * self._window == start) & told)
            picked = picked[np.argsort(draw[picked], kind="stable")[: self._keep]]
            new = rows.select(c for c in self._columns if c in rows.columns)[picked].with_columns(
                pl.Series(DRAW, draw[picked]),
                pl.Series(TRUTH, truth[picked]),
                pl.Series(SCORE, score[picked]),
                pl.Series(ON, at[picked] // self._block),
            )
            if start in self._rows:
                new = pl.concat([self._rows[start], new], how="diagonal_relaxed").sort(DRAW, maintain_order=True).head(self._keep)
            self._rows[start] = new
        for start in sorted(self._rows)[: -2 * MOST_WINDOWS]:
            del self._rows[start]

    def between(self, first: int, end: int) -> pl.DataFrame:
        """The sample of the windows that begin in [first, end)."""
        self._fold()
        found = [rows for start, rows in sorted(self._rows.items()) if first <= start < end]
        return pl.concat(found, how="diagonal_relaxed") if found else pl.DataFrame()
