"""Late labels joined to the predictions they judge, in event time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loudly.core.clock import DAY, HOUR
from loudly.errors import DataError
from loudly.labels.delays import Delays
from loudly.labels.waiting import Mask, Waiting
from loudly.store.shelf import Shelf

CAME = "_came"
EVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a batch of labels was.

    joined: the predictions with their label, in order of arrival.  unknown: keys nobody asked about (or too long ago).
    duplicate: keys already labelled the same.  changed: keys already labelled otherwise.  lateness: (n,) µs.
    later: rows that are not looked at yet; they are safe, and joined later.  unfollowed: keys of units whose traffic nobody logs.
    strange: values by which nothing can be judged, of rows that were set aside: their keys still wait.
    """

    joined: pl.DataFrame
    unknown: tuple[str, ...]
    duplicate: tuple[str, ...]
    changed: tuple[str, ...]
    lateness: NDArray[np.int64]
    later: int = 0
    unfollowed: int = 0
    strange: tuple[str, ...] = ()

    @property
    def last(self) -> int:
        """When the last label that is joined came, µs."""
        return int(self.joined["_predicted_at"][-1] + self.lateness[-1])


class LabelBook:
    """Predictions that wait for their label. `sweep` forgets those that have waited for `keep` µs; they are overdue.

    shelf: where they wait beyond its room in memory, as do the keys that have met their label.
    Cost: a batch of labels costs about the same however many predictions wait (`benchmarks/labels.py`).
    """

    def __init__(self, key: str, label: str, keep: int = 30 * DAY, shelf: Shelf | None = None) -> None:
        self.key, self.label, self.keep = key, label, keep
        self._waiting = Waiting(key, shelf, ("_predicted_at", "_rollout"))
        self._shelf, self._answered, self._earlier = shelf, Waiting(key, shelf), Waiting(key, shelf)
        self._swept = self._turned = 0
        self.overdue = 0
        self.delays = Delays(keep)

    @property
    def waiting(self) -> int:
        """How many predictions have no label yet."""
        return len(self._waiting)

    def waiting_of(self, column: str, value: object, since: int = 0, until: Sequence[int] = (EVER,)) -> tuple[int, ...]:
        """How many predictions with that value in a column have no label yet: made from `since` on and by each `until` (µs).

        Cost: one pass over those that were made since, some ns a row.
        """

        def kinds(rows: pl.DataFrame) -> Sequence[Mask]:
            made = rows["_predicted_at"].to_numpy()
            if column not in rows.columns or made.max() < since:
                return [np.zeros(rows.height, dtype=np.bool_)] * len(until)
            mine: Mask = (rows[column].to_numpy() == value) & (made >= since)
            return [mine & (made <= one) for one in until]

        return self._waiting.count(kinds) or (0,) * len(until)

    def predicted(self, rows: pl.DataFrame, at: int | pl.Series) -> None:
        """Remembers rows answered at `at` (µs; one for all, or one each); `rows` carries whatever the label should meet."""
        if self.key not in rows.columns:
            raise DataError(f"Rows without the key column {self.key!r} can never be labelled.", seen=str(rows.columns))
        if not rows.is_empty():
            when = pl.lit(at, pl.Int64) if isinstance(at, int) else at.cast(pl.Int64)
            self._waiting.add(made := rows.with_columns(when.alias("_predicted_at")))
            self.delays.answered(made["_predicted_at"].to_numpy())

    def arrived(self, labels: pl.DataFrame, at: int) -> Arrival:
        """Joins labels (key, label) that came at `at` (µs) with their predictions and forgets those.

        Those of several calls say in `_call` of which, in order, and in `_at` when it came; all is as if they had come one by one.
        """
        calls = [labels["_at"].alias(CAME), labels["_call"]] if "_call" in labels.columns else []
        labels = pl.DataFrame([labels[self.key].cast(pl.String), labels[self.label], *calls])
        labels = labels.drop_nulls(self.label) if labels[self.label].null_count() else labels
        once = labels[self.key].n_unique() == labels.height
        fresh = labels if once else labels.unique(self.key, keep="first", maintain_order=True)
        joined = self._waiting.take(fresh)
        if not calls:
            return self._arrival(labels, joined, at)
        joined = joined.sort("_call", maintain_order=True)
        return self._arrival(labels, joined.drop(CAME, "_call"), joined[CAME].to_numpy())

    def later(self, labels: pl.DataFrame) -> Arrival:
        """Labels that wait elsewhere to be joined."""
        return Arrival(labels.clear(), (), (), (), np.zeros(0, dtype=np.int64), labels.height)

    def expects(self, keys: pl.Series) -> pl.Series:
        """Which of the keys wait for their label."""
        return self._waiting.holds(keys.cast(pl.String))

    def sweep(self, now: int) -> None:
        """Forgets predictions older than `keep`, which `overdue` counts (their labels would be unknown now), and old labelled keys.

        Looks once an hour of `now` at most.
        """
        if now - self._swept < HOUR:
            return
        self._swept = now
        self.overdue += self._waiting.drop(lambda rows: rows["_predicted_at"] < now - self.keep)
        if now - self._turned >= self.keep:
            self._turned, self._earlier, self._answered = now, self._answered, Waiting(self.key, self._shelf)

    def forget(self, gone: Callable[[pl.DataFrame], pl.Series]) -> int:
        """Forgets predictions and labelled keys. gone: table -> (n,) booleans. Returns how many predictions went."""
        self._answered.erase(gone)
        self._earlier.erase(gone)
        return self._waiting.erase(gone)

    def _arrival(self, labels: pl.DataFrame, joined: pl.DataFrame, came: int | NDArray[np.int64]) -> Arrival:
        keys = joined[self.key].cast(pl.String) if self.key in joined.columns else pl.Series(dtype=pl.String)
        matched = set(keys)
        unknown: list[str] = []
        duplicate: list[str] = []
        changed: list[str] = []
        odd = labels.height != len(matched)
        seen = self._met(labels[self.key]) if odd else {}
        for key, value, *_ in labels.iter_rows() if odd else ():
            before = seen.get(key)
            if before is not None:
                (duplicate if before == value else changed).append(key)
            elif key not in matched:
                unknown.append(key)
            seen[key] = value
        if matched:
            self._answered.add(pl.DataFrame([keys.alias(self.key), joined[self.label]]))
        made = joined["_predicted_at"].to_numpy() if matched else np.zeros(0, dtype=np.int64)
        late = np.asarray(came - made if matched else made, dtype=np.int64)
        if matched:
            self.delays.came(made, late, joined[self.label])
        return Arrival(joined, tuple(unknown), tuple(duplicate), tuple(changed), late)

    def _met(self, keys: pl.Series) -> dict[str, object]:
        """The labels that have come of these keys before, the newest of each."""
        known = (rows for book in (self._earlier, self._answered) for rows in book.find(keys))
        return {key: value for rows in known for key, value in rows.iter_rows()}
