"""Rows that wait for something to come by their key: taken out by key in a time that does not grow with how many wait.

Rows stay in tables, in the order in which they came; with a shelf, all but the newest of them in its files. The hashes of their
keys are held sorted, in runs that are merged as they grow (a log-structured merge tree: O'Neil et al. 1996, Acta Informatica 33):
16 bytes a row, a dozen binary searches a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loudly.store.shelf import MOST_SMALL, SMALL_ROWS, Places, Shelf, Slot, small_tail

Mask = NDArray[np.bool_]
Ids = NDArray[np.int64]
MOST_GONE = 65_536
NOWHERE: Places = np.zeros(0, dtype=np.int32)


class Waiting:
    """Tables of rows with a column `key`, of any type: it is asked for as text.

    shelf: where rows beyond its `room` are put; their `told` columns stay in memory beside 40 bytes a row.

    >>> waiting = Waiting("k")
    >>> waiting.add(pl.DataFrame({"k": ["a", "b"], "x": [1, 2]}))
    >>> waiting.take(pl.DataFrame({"k": ["b", "c"], "y": [0, 1]})).rows(), len(waiting)
    ([('b', 2, 0)], 1)
    """

    def __init__(self, key: str, shelf: Shelf | None = None, told: Sequence[str] = ()) -> None:
        self._key, self._shelf, self._told = key, shelf, told
        self._batches: list[_Batch] = []
        self._runs: list[tuple[NDArray[np.uint64], Ids]] = []
        self._next = self._gone = self._patient = 0

    def __len__(self) -> int:
        return sum(batch.left for batch in self._batches)

    def count(self, kinds: Callable[[pl.DataFrame], Sequence[Mask]]) -> tuple[int, ...]:
        """How many rows are of each kind, () where none waits; in one pass.

        kinds: a table of the told columns at least -> masks (n,), asked of rows that have left, too.
        """
        counts = [[np.count_nonzero(mask & batch.waits) for mask in kinds(batch.told)] for batch in self._batches]
        return tuple(map(sum, zip(*counts, strict=True)))

    def add(self, rows: pl.DataFrame) -> None:
        """Takes rows; there may be several of one key. Cost: an index entry a row, and a write where they go on the shelf."""
        ids = np.arange(self._next, self._next + rows.height, dtype=np.int64)
        self._next += rows.height
        self._batches.append(_Batch(rows, ids))
        for small in SMALL_ROWS:
            last = small_tail(self._batches, small)
            if len(last) >= MOST_SMALL:
                self._batches[-len(last) :] = [_one_of(last)]
        self._index(self._hashes(rows), ids)
        self._put_aside()

    def find(self, keys: pl.Series) -> Iterator[pl.DataFrame]:
        """The rows of these keys, in tables, in the order in which they came; they go on waiting."""
        return (rows for *_, rows in self._hits(keys))

    def take(self, found: pl.DataFrame) -> pl.DataFrame:
        """The rows whose key is in `found` (one row a key), joined with it; they wait no more.

        Cost: grows with how many are found, hardly with how many wait (`benchmarks/labels.py`).
        """
        hits = list(self._hits(found[self._key]))
        if not hits:
            return found.clear()
        whole = pl.concat([rows for *_, rows in hits], how="diagonal_relaxed")
        joined = self._with(whole, found)
        for batch, at, _ in hits:
            batch.leave(at)
        self._tidy(sum(len(at) for _, at, _ in hits))
        return joined

    def _with(self, rows: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
        """The rows with the other columns of the one that has their key: as a join, at the cost of a few rows."""
        place = {key: i for i, key in enumerate(found[self._key])}
        at = [place[key] for key in self._texts(rows)]
        beside = found if at == list(range(found.height)) else found[at]
        return rows.hstack([column for column in beside if column.name != self._key])

    def holds(self, keys: pl.Series) -> pl.Series:
        """(n,) which of the keys wait."""
        waiting = {key for rows in self.find(keys) for key in self._texts(rows)}
        return pl.Series([key in waiting for key in keys], dtype=pl.Boolean)

    def drop(self, gone: Callable[[pl.DataFrame], pl.Series]) -> int:
        """Lets rows go. gone: a table of the told columns at least -> (n,) booleans. Returns how many."""
        before = len(self)
        for batch in self._batches:
            batch.leave(np.flatnonzero(gone(batch.told).to_numpy() & batch.waits))
        self._tidy(before - len(self))
        return before - len(self)

    def erase(self, gone: Callable[[pl.DataFrame], pl.Series]) -> int:
        """The same, asked of whole rows; and no copy of them stays, in memory or in a file. Returns how many.

        Cost: reads all rows; tables that hold one of them, and had one that has left, are written anew.
        """
        before = len(self)
        for batch in self._batches:
            rows = batch.table()
            mask = gone(rows).to_numpy()
            if mask.any() or batch.left < batch.height:
                slot = batch.slot
                batch.hold(rows.filter(~mask), batch.ids[batch.waits][~mask])
                if slot is not None:
                    slot.wipe()
        self._tidy(before - len(self))
        self._put_aside()
        return before - len(self)

    def _put_aside(self) -> None:
        """The oldest rows go on the shelf while there are more in memory than it leaves room for; not at once where it refused."""
        if self._shelf is None or self._next < self._patient:
            return
        rows = sum(batch.height for batch in self._batches if batch.slot is None)
        while rows > self._shelf.room:
            first = next(i for i, batch in enumerate(self._batches) if batch.slot is None)
            last, taken = first, 0
            while last < len(self._batches) and self._batches[last].slot is None and taken < SMALL_ROWS[-1]:
                taken += self._batches[last].height
                last += 1
            block = _one_of(self._batches[first:last])
            if not block.put(self._shelf, self._told):
                self._patient = self._next + SMALL_ROWS[-1]
                return
            self._batches[first:last] = [block]
            rows -= taken

    def _hits(self, keys: pl.Series) -> Iterator[tuple[_Batch, Ids, pl.DataFrame]]:
        """The batches with rows of these keys, the places of those rows, in order, and the rows."""
        ids = self._known_as(self._hashes(keys.to_frame(self._key)))
        if not len(ids) or not self._batches:
            return
        known = set(keys) - {None}
        numbers = np.searchsorted([batch.ids[0] for batch in self._batches], ids, side="right") - 1
        for number in np.unique(numbers).tolist():
            batch = self._batches[number]
            at = batch.places(ids[numbers == number])
            if not len(at):
                continue
            rows = batch.rows(at)
            mine = np.array([key in known for key in self._texts(rows)], dtype=np.bool_)
            if mine.all():
                yield batch, at, rows
            elif mine.any():
                yield batch, at[mine], rows.filter(mine)

    def _hashes(self, rows: pl.DataFrame) -> NDArray[np.uint64]:
        return self._texts(rows).hash().to_numpy()

    def _texts(self, rows: pl.DataFrame) -> pl.Series:
        keys = rows[self._key]
        return keys if keys.dtype == pl.String else keys.cast(pl.String)

    def _known_as(self, hashes: NDArray[np.uint64]) -> Ids:
        """Sorted ids under these hashes, of rows that have left too."""
        found: list[Ids] = []
        for known, ids in self._runs:
            first, last = np.searchsorted(known, hashes, side="left"), np.searchsorted(known, hashes, side="right")
            found += [ids[a:b] for a, b in zip(first[last > first].tolist(), last[last > first].tolist(), strict=True)]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)

    def _index(self, hashes: NDArray[np.uint64], ids: Ids) -> None:
        while self._runs and len(self._runs[-1][0]) <= 2 * len(hashes):
            known, before = self._runs.pop()
            hashes, ids = np.concatenate([known, hashes]), np.concatenate([before, ids])
        order = np.argsort(hashes, kind="stable")
        self._runs.append((hashes[order], ids[order]))

    def _tidy(self, gone: int) -> None:
        """Batches of which most has left are made anew, and so is the index."""
        self._gone += gone
        self._batches = [batch for batch in self._batches if batch.left]
        for batch in self._batches:
            batch.shrink()
        if self._gone > max(MOST_GONE, len(self)):
            runs, self._runs, self._gone = self._runs, [], 0
            left = np.concatenate([np.zeros(0, dtype=np.int64), *(batch.ids[batch.waits] for batch in self._batches)])
            for hashes, ids in runs:
                stays = np.isin(ids, left, assume_unique=True)
                self._index(hashes[stays], ids[stays])


class _Batch:
    """Rows with ids that grow, in memory or in a slot. waits: (n,) which of them still wait.

    told: their columns that are in memory.  at: (n,) where they stand in the slot, if there is one.
    """

    __slots__ = ("at", "ids", "left", "slot", "told", "waits")

    def __init__(self, rows: pl.DataFrame, ids: Ids) -> None:
        self.hold(rows, ids)

    def hold(self, told: pl.DataFrame, ids: Ids, slot: Slot | None = None, at: Places = NOWHERE) -> None:
        """These rows and no others; all of them wait."""
        self.told, self.ids, self.slot, self.at = told, ids, slot, at
        self.left = len(ids)
        self.waits: Mask = np.ones(len(ids), dtype=np.bool_)

    @property
    def height(self) -> int:
        """How many rows it keeps, those that have left among them."""
        return len(self.ids)

    def put(self, shelf: Shelf, told: Sequence[str]) -> bool:
        """Puts the rows that wait on a shelf, all but their told columns; false where the disk refuses."""
        slot = shelf.put(rows := self.table())
        if slot is not None:
            kept = rows.select(column for column in told if column in rows.columns)
            self.hold(kept, self.ids[self.waits], slot, np.arange(slot.height, dtype=np.int32))
        return slot is not None

    def rows(self, at: Ids) -> pl.DataFrame:
        """The rows at these places."""
        return self.told[at] if self.slot is None else self.slot.rows(self.at[at])

    def table(self) -> pl.DataFrame:
        """Those that wait."""
        if self.slot is not None:
            return self.slot.rows(self.at[self.waits])
        return self.told if self.left == self.height else self.told.filter(self.waits)

    def places(self, ids: Ids) -> Ids:
        """Where the rows with these ids stand, of those that wait."""
        at = np.searchsorted(self.ids, ids)
        at = at[at < len(self.ids)]
        made: Ids = at[(self.ids[at] == ids[: len(at)]) & self.waits[at]]
        return made

    def leave(self, at: Ids) -> None:
        """These rows wait no more."""
        self.waits[at] = False
        self.left = int(np.count_nonzero(self.waits))

    def shrink(self) -> None:
        """Lets go of rows that have left, where they are most; in a slot they stay until the last of its rows has left."""
        if 2 * self.left < self.height:
            told = self.told.filter(self.waits) if self.told.width else self.told
            self.hold(told, self.ids[self.waits], self.slot, self.at[self.waits] if self.slot is not None else NOWHERE)


def _one_of(batches: Sequence[_Batch]) -> _Batch:
    rows = pl.concat([batch.table() for batch in batches], how="diagonal_relaxed", rechunk=True)
    return _Batch(rows, np.concatenate([batch.ids[batch.waits] for batch in batches]))
