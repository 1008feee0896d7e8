"""Tables put aside in files without a name: read back some rows at a time, and gone with the process, whatever ends it."""

from __future__ import annotations

import io
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Protocol, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

Places = NDArray[np.int32]
CHUNK_ROWS = 2_048
FILE_BYTES = 2**30
MOST_SMALL = 16
SMALL_ROWS = (4_096, 65_536)


class Shelf:
    """Takes tables of any columns. A file is given back to the disk when none of its tables is in use any more.

    room: how many rows whoever puts them aside should keep in memory.  refused: why the disk refused last, "" where it did not.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     slot = Shelf(Path(folder)).put(pl.DataFrame({"x": [1, 2, 3]}))
    ...     slot.rows(np.array([0, 2]))["x"].to_list(), slot.height
    ([1, 3], 3)
    """

    def __init__(self, folder: Path, room: int = 100_000) -> None:
        self._folder, self.room, self.refused = folder, room, ""
        self._file: _File | None = None

    def put(self, table: pl.DataFrame) -> Slot | None:
        """Writes the rows, as Arrow in chunks of 2,048; None where the disk refuses, which `refused` tells.

        Cost: a copy and a write of the rows; nothing is synced, for it need not outlive the process.
        """
        parts = [io.BytesIO() for _ in range(0, table.height, CHUNK_ROWS)]
        for number, part in enumerate(parts):
            table[number * CHUNK_ROWS : (number + 1) * CHUNK_ROWS].write_ipc(part)
        try:
            if self._file is None or self._file.size > FILE_BYTES:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = _File(self._folder)
            bounds = [self._file.size, *(self._file.add(part.getbuffer()) for part in parts)]
        except OSError as wrong:
            self.refused, self._file = str(wrong), None
            return None
        self.refused = ""
        return Slot(self._file, bounds, table.height)


class _File:
    """A file without a name, closed with the last that uses it."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - it outlives this call
        self._lock, self.size = Lock(), 0
        weakref.finalize(self, self._file.close)

    def add(self, part: memoryview) -> int:
        """Writes at the end; returns where that is then."""
        self.write(self.size, part)
        self.size += len(part)
        return self.size

    def write(self, first: int, part: memoryview) -> None:
        with self._lock:
            self._file.seek(first)
            while part:
                part = part[self._file.write(part) :]

    def read(self, first: int, last: int) -> bytes:
        with self._lock:
            self._file.seek(first)
            return self._file.read(last - first)


@dataclass(frozen=True, slots=True)
class Slot:
    """One table on a shelf. bounds: (chunks + 1,) bytes at which its chunks begin and end."""

    file: _File
    bounds: list[int]
    height: int

    def rows(self, at: Places) -> pl.DataFrame:
        """The rows at these places, in this order. Cost: a read of each chunk that has one of them."""
        chunks, order = np.unique(at // CHUNK_ROWS, return_inverse=True)
        tables = [self._chunk(number) for number in chunks.tolist()]
        starts = np.cumsum([0, *(table.height for table in tables)])[:-1]
        return pl.concat(tables)[starts[order] + at % CHUNK_ROWS] if tables else self._chunk(0).clear()

    def table(self) -> pl.DataFrame:
        """All rows."""
        return pl.concat([self._chunk(number) for number in range(len(self.bounds) - 1)])

    def wipe(self) -> None:
        """Overwrites the rows, which are not to be read again. Raises: OSError."""
        self.file.write(self.bounds[0], memoryview(bytes(self.bounds[-1] - self.bounds[0])))

    def _chunk(self, number: int) -> pl.DataFrame:
        return pl.read_ipc(io.BytesIO(self.file.read(*self.bounds[number : number + 2])))


class Pile:
    """Tables in order, taken away all at once, by any thread; with a shelf, all but the newest of them are in its files.

    >>> pile = Pile()
    >>> pile.add(pl.DataFrame({"x": [1, 2]}))
    >>> len(pile), pile.take()["x"].to_list(), len(pile)
    (2, [1, 2], 0)
    """

    def __init__(self, shelf: Shelf | None = None) -> None:
        self._shelf, self._lock = shelf, Lock()
        self._parts: list[pl.DataFrame | Slot] = []

    def __len__(self) -> int:
        return sum(part.height for part in self._parts)

    def add(self, table: pl.DataFrame) -> None:
        """At the end."""
        with self._lock:
            self._parts.append(table)
            last = small_tail(self._parts, SMALL_ROWS[0])
            if len(last) >= MOST_SMALL:
                self._parts[-len(last) :] = [_together(last)]
            if self._parts[-1].height >= SMALL_ROWS[0]:
                self._put_aside()

    def take(self) -> pl.DataFrame:
        """All of it, as one table; nothing stays. An empty table where there was nothing."""
        with self._lock:
            parts, self._parts = self._parts, []
        return _together(parts) if parts else pl.DataFrame()

    def erase(self, gone: Callable[[pl.DataFrame], pl.Series]) -> None:
        """Without some rows, of which no copy stays. gone: a table -> (n,) booleans."""
        with self._lock:
            before, after = self._parts, [_without(part, gone) for part in self._parts]
            self._parts = [part for part in after if part.height]
            for old, new in zip(before, after, strict=True):
                if isinstance(old, Slot) and new is not old:
                    old.wipe()
            self._put_aside()

    def _put_aside(self) -> None:
        held = {i: part for i, part in enumerate(self._parts) if isinstance(part, pl.DataFrame)}
        rows = sum(part.height for part in held.values())
        for i, part in held.items():
            if self._shelf is None or rows <= self._shelf.room:
                return
            self._parts[i] = self._shelf.put(part) or part
            rows -= part.height


class Tall(Protocol):
    """A table, or what holds one."""

    @property
    def height(self) -> int: ...


T = TypeVar("T", bound=Tall)


def small_tail(tables: Sequence[T], small: int) -> Sequence[T]:
    """The last tables that are smaller than `small` rows."""
    count = next((i for i, table in enumerate(reversed(tables)) if table.height >= small), len(tables))
    return tables[len(tables) - count :]


def _without(part: pl.DataFrame | Slot, gone: Callable[[pl.DataFrame], pl.Series]) -> pl.DataFrame | Slot:
    """What stays of a part; itself where all of it does."""
    table = _table(part)
    mask = gone(table)
    return table.filter(~mask) if mask.any() else part


def _table(part: pl.DataFrame | Slot) -> pl.DataFrame:
    return part.table() if isinstance(part, Slot) else part


def _together(parts: Sequence[pl.DataFrame | Slot]) -> pl.DataFrame:
    return pl.concat([_table(part) for part in parts], how="diagonal_relaxed", rechunk=True)
