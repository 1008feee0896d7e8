"""Rows that wait for something to come by their key: taken out by key in a time that does not grow with how many wait.

Rows stay in tables, in the order in which they came. The hashes of their keys are held sorted, in runs that are merged as they
grow (a log-structured merge tree: O'Neil et al. 1996, Acta Informatica 33): 16 bytes a row, a dozen binary searches a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Ids = NDArray[np.int64]
MOST_SMALL = 16
SMALL_ROWS = (4_096, 65_536)
MOST_GONE = 65_536


class Waiting:
    """Tables of rows with a text in the column `key`.

    >>> waiting = Waiting("k")
    >>> waiting.add(pl.DataFrame({"k": ["a", "b"], "x": [1, 2]}))
    >>> waiting.take(pl.DataFrame({"k": ["b", "c"], "y": [0, 1]})).rows(), len(waiting)
    ([('b', 2, 0)], 1)
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._batches: list[_Batch] = []
        self._runs: list[tuple[NDArray[np.uint64], Ids]] = []
        self._next = self._gone = 0

    def __len__(self) -> int:
        return sum(batch.left for batch in self._batches)

    def count(self, kinds: Callable[[pl.DataFrame], Sequence[Mask]]) -> tuple[int, ...]:
        """How many rows are of each kind, () where none waits; in one pass.

        kinds: a table -> masks (n,), asked of rows that have left, too.
        """
        counts = [[np.count_nonzero(mask & batch.waits) for mask in kinds(batch.rows)] for batch in self._batches]
        return tuple(map(sum, zip(*counts, strict=True)))

    def add(self, rows: pl.DataFrame) -> None:
        """Takes rows; there may be several of one key. Cost: about half a µs a row."""
        ids = np.arange(self._next, self._next + rows.height, dtype=np.int64)
        self._next += rows.height
        self._batches.append(_Batch(rows, ids))
        for small in SMALL_ROWS:
            last = _tail(self._batches, small)
            if len(last) >= MOST_SMALL:
                self._batches[-len(last) :] = [_one_of(last)]
        self._index(self._hashes(rows), ids)

    def take(self, found: pl.DataFrame) -> pl.DataFrame:
        """The rows whose key is in `found` (one row a key), joined with it; they wait no more.

        Cost: grows with how many are found, hardly with how many wait (`benchmarks/labels.py`).
        """
        hits = list(self._hits(found[self._key]))
        if not hits:
            return found.clear()
        whole = pl.concat([batch.rows[at] for batch, at in hits], how="diagonal_relaxed")
        joined = whole.join(found, on=self._key, how="inner", maintain_order="left")
        for batch, at in hits:
            batch.leave(at)
        self._tidy(sum(len(at) for _, at in hits))
        return joined

    def holds(self, keys: pl.Series) -> pl.Series:
        """(n,) which of the keys wait."""
        waiting: set[str] = set()
        for batch, at in self._hits(keys):
            waiting.update(batch.rows[self._key][at])
        return pl.Series([key in waiting for key in keys], dtype=pl.Boolean)

    def drop(self, gone: Callable[[pl.DataFrame], pl.Series]) -> int:
        """Forgets rows. gone: a table -> (n,) booleans. Returns how many."""
        before = len(self)
        for batch in self._batches:
            batch.leave(np.flatnonzero(gone(batch.rows).to_numpy() & batch.waits))
        self._tidy(before - len(self))
        return before - len(self)

    def _hits(self, keys: pl.Series) -> Iterator[tuple[_Batch, Ids]]:
        """The batches with rows of these keys, and the places of those rows, in order."""
        ids = self._known_as(self._hashes(keys.to_frame(self._key)))
        if not len(ids) or not self._batches:
            return
        known = set(keys.drop_nulls())
        numbers = np.searchsorted([batch.ids[0] for batch in self._batches], ids, side="right") - 1
        for number in np.unique(numbers).tolist():
            batch = self._batches[number]
            at = batch.places(ids[numbers == number])
            at = at[[key in known for key in batch.rows[self._key][at]]] if len(at) else at
            if len(at):
                yield batch, at

    def _hashes(self, rows: pl.DataFrame) -> NDArray[np.uint64]:
        return rows[self._key].cast(pl.String).hash().to_numpy()

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
            self._runs, self._gone = [], 0
            for batch in self._batches:
                self._index(self._hashes(batch.table()), batch.ids[batch.waits])


class _Batch:
    """Rows with ids that grow. waits: (n,) which of them still wait."""

    __slots__ = ("ids", "left", "rows", "waits")

    def __init__(self, rows: pl.DataFrame, ids: Ids) -> None:
        self.rows, self.ids, self.left = rows, ids, rows.height
        self.waits: Mask = np.ones(rows.height, dtype=bool)

    def table(self) -> pl.DataFrame:
        """Those that wait."""
        return self.rows if self.left == self.rows.height else self.rows.filter(self.waits)

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
        """Lets go of rows that have left, where they are most."""
        if 2 * self.left < self.rows.height:
            self.rows, self.ids = self.table(), self.ids[self.waits]
            self.waits = np.ones(self.left, dtype=bool)


def _tail(batches: list[_Batch], small: int) -> list[_Batch]:
    """The last batches that are small."""
    count = next((i for i, batch in enumerate(reversed(batches)) if batch.rows.height >= small), len(batches))
    return batches[len(batches) - count :]


def _one_of(batches: list[_Batch]) -> _Batch:
    rows = pl.concat([batch.table() for batch in batches], how="diagonal_relaxed", rechunk=True)
    return _Batch(rows, np.concatenate([batch.ids[batch.waits] for batch in batches]))
