"""Late labels joined to the predictions they judge, in event time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loudly.core.clock import DAY, HOUR
from loudly.errors import DataError
from loudly.labels.delays import Delays


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a batch of labels was.

    joined: the predictions with their label, in order of arrival.  unknown: keys nobody asked about (or too long ago).
    duplicate: keys already labelled the same.  changed: keys already labelled otherwise.  lateness: (n,) µs.
    """

    joined: pl.DataFrame
    unknown: tuple[str, ...]
    duplicate: tuple[str, ...]
    changed: tuple[str, ...]
    lateness: NDArray[np.int64]


class LabelBook:
    """Predictions that wait for their label. `sweep` forgets those that have waited for `keep` µs; they are overdue.

    Cost: one hash join a batch of labels against the batches that still wait.
    """

    def __init__(self, key: str, label: str, keep: int = 30 * DAY) -> None:
        self.key, self.label, self.keep = key, label, keep
        self._waiting: list[pl.DataFrame] = []
        self._answered: dict[str, object] = {}
        self._earlier: dict[str, object] = {}
        self._swept = self._turned = 0
        self.overdue = 0
        self.delays = Delays(keep)

    @property
    def waiting(self) -> int:
        """How many predictions have no label yet."""
        return sum(batch.height for batch in self._waiting)

    def waiting_of(self, column: str, value: object, before: int | None = None) -> int:
        """How many predictions have no label yet, of those with that value in a column. before: only those made by then (µs)."""
        until = pl.lit(True) if before is None else pl.col("_predicted_at") <= before
        mine = [b.select(((pl.col(column) == value) & until).sum()).item() for b in self._waiting if column in b.columns]
        return int(sum(mine))

    def predicted(self, rows: pl.DataFrame, at: int | pl.Series) -> None:
        """Remembers rows answered at `at` (µs; one for all, or one each); `rows` carries whatever the label should meet."""
        if self.key not in rows.columns:
            raise DataError(f"Rows without the key column {self.key!r} can never be labelled.", seen=str(rows.columns))
        if not rows.is_empty():
            when = pl.lit(at, pl.Int64) if isinstance(at, int) else at.cast(pl.Int64)
            self._waiting.append(made := rows.with_columns(when.alias("_predicted_at")))
            self.delays.answered(made["_predicted_at"].to_numpy())

    def arrived(self, labels: pl.DataFrame, at: int) -> Arrival:
        """Joins labels (key, label) with their predictions and forgets those."""
        labels = labels.select(pl.col(self.key).cast(pl.String), self.label).drop_nulls(self.label)
        fresh = labels.unique(self.key, keep="first", maintain_order=True)
        found, kept = [], []
        for batch in self._waiting:
            hit = batch.join(fresh, on=self.key, how="inner", maintain_order="left")
            found.append(hit)
            rest = batch if hit.is_empty() else batch.join(fresh, on=self.key, how="anti", maintain_order="left")
            if rest.height:
                kept.append(rest)
        self._waiting = _compact(kept)
        joined = (
            pl.concat([f for f in found if f.height], how="diagonal_relaxed")
            if any(f.height for f in found)
            else found[0]
            if found
            else labels.clear()
        )
        return self._arrival(labels, joined, at)

    def expects(self, keys: pl.Series) -> pl.Series:
        """Which of the keys wait for their label."""
        asked = pl.DataFrame({"key": keys.cast(pl.String)})
        if not self._waiting:
            return pl.Series([False] * len(keys), dtype=pl.Boolean)
        waiting = pl.concat([batch.select(key=self.key) for batch in self._waiting]).unique().with_columns(waits=True)
        return asked.join(waiting, on="key", how="left", maintain_order="left")["waits"].fill_null(False)

    def sweep(self, now: int) -> None:
        """Forgets predictions older than `keep`, which `overdue` counts (their labels would be unknown now), and old labelled keys.

        Looks once an hour of `now` at most.
        """
        if now - self._swept < HOUR:
            return
        self._swept = now
        before = self.waiting
        young = pl.col("_predicted_at") >= now - self.keep
        self._waiting = [kept for batch in self._waiting if (kept := batch.filter(young)).height]
        self.overdue += before - self.waiting
        if now - self._turned >= self.keep:
            self._turned, self._earlier, self._answered = now, self._answered, {}

    def forget(self, gone: Callable[[pl.DataFrame], pl.Series]) -> int:
        """Forgets predictions and labelled keys. gone: table -> (n,) booleans. Returns how many predictions went."""
        before = self.waiting
        self._waiting = [kept for batch in self._waiting if (kept := batch.filter(~gone(batch))).height]
        for answered in (self._answered, self._earlier):
            known = pl.DataFrame({self.key: list(answered)}, schema={self.key: pl.String})
            for key in known.filter(gone(known))[self.key] if known.height else ():
                del answered[key]
        return before - self.waiting

    def _arrival(self, labels: pl.DataFrame, joined: pl.DataFrame, at: int) -> Arrival:
        matched = set(joined[self.key]) if self.key in joined.columns else set()
        unknown: list[str] = []
        duplicate: list[str] = []
        changed: list[str] = []
        seen: dict[str, object] = {}
        for key, value in labels.iter_rows() if labels.height != len(matched) else ():
            before = seen.get(key, self._answered.get(key, self._earlier.get(key)))
            if before is not None:
                (duplicate if before == value else changed).append(key)
            elif key not in matched:
                unknown.append(key)
            seen[key] = value
        self._answered.update(zip(joined[self.key], joined[self.label], strict=True) if matched else ())
        made = joined["_predicted_at"].to_numpy() if matched else np.zeros(0, dtype=np.int64)
        late = np.asarray(at - made, dtype=np.int64)
        if matched:
            self.delays.came(made, late, joined[self.label])
        return Arrival(joined, tuple(unknown), tuple(duplicate), tuple(changed), late)


def _compact(batches: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """Leftovers of old batches as one: rows whose label never comes would otherwise cost a join each."""
    if len(batches) < 8:
        return batches
    return [pl.concat(batches[:-4], how="diagonal_relaxed"), *batches[-4:]]
