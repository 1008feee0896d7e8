"""One call with late labels, by how many predictions wait: through the book's index, and by a Polars join with all that waits.

Predictions come in batches of 64 with 30 features, as a server folds them; a call brings 50 labels, of predictions made at any
time. Both take the rows out that have found their label. Then the same where 100,000 rows may wait in memory and the others wait in
files, for labels of any time (each call reads from as many places) and of rows that were answered together, as labels mostly come.
Exits 1 where the time of a book grows with what waits, or memory with what waits in files by more than a quarter of a row's size.
Run: python benchmarks/labels.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from loudly.labels.book import LabelBook
from loudly.store.shelf import Shelf

BATCH, LABELS, CALLS = 64, 50, 60
SIZES = (10_000, 100_000, 1_000_000)
MOST_GROWTH = (5.0, 40.0, 5.0)


def predictions(first: int, n: int, rng: np.random.Generator) -> pl.DataFrame:
    """Rows with keys from `first` on."""
    features = {f"x{i}": rng.normal(size=n) for i in range(30)}
    return pl.DataFrame({"id": [f"order-{first + i:09d}" for i in range(n)], **features})


def fill(book: LabelBook, first: int, n: int, rng: np.random.Generator) -> list[pl.DataFrame]:
    """Predictions come, batch by batch. Returns them."""
    parts = [predictions(at, min(BATCH, first + n - at), rng) for at in range(first, first + n, BATCH)]
    for part in parts:
        book.predicted(part, at=first)
    return parts


def bytes_a_row(n: int, shelf: Shelf | None) -> float:
    """How much this process grows for each further row that waits: 32 columns, of which 30 numbers of 8 bytes and one key."""
    rng, book, first = np.random.default_rng(0), LabelBook("id", "y", shelf=shelf), 2 * 10**5
    before = 0
    for at in range(0, first + n, BATCH):
        before = before or (resident() if at >= first else 0)
        fill(book, at, BATCH, rng)
    return (resident() - before) / n


def memory_of(kind: str) -> float:
    """The same, in a process of its own: memory that something else has left is no memory that it takes."""
    return float(subprocess.run([sys.executable, __file__, kind], check=True, capture_output=True, text=True).stdout)


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one run."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


class Side:
    """A book in which n predictions wait, and who is labelled in each call: anybody, or rows that were answered together."""

    def __init__(self, n: int, shelf: Shelf | None = None, *, together: bool = False, joined: bool = False) -> None:
        self._rng = np.random.default_rng(0)
        self._n, self._book = n, LabelBook("id", "y", shelf=shelf)
        parts = fill(self._book, 0, n, self._rng)
        self._table = pl.concat(parts, rechunk=True) if joined else pl.DataFrame()
        keys = np.arange(n) if together else self._rng.permutation(n)
        self._keys = keys[: LABELS * CALLS].reshape(CALLS, LABELS)
        self.ours: list[float] = []
        self.joins: list[float] = []

    def call(self, number: int) -> None:
        """Labels, to the book and to the join."""
        keys = [f"order-{i:09d}" for i in self._keys[number]]
        labels = pl.DataFrame({"id": keys, "y": self._rng.integers(0, 2, LABELS)})
        self.ours.append(seconds(lambda: self._book.arrived(labels, at=self._n)))
        if self._table.height:
            self.joins.append(seconds(lambda: self._join(labels)))
            assert self._book.waiting == self._table.height

    def _join(self, labels: pl.DataFrame) -> None:
        found = self._table.join(labels, on="id", how="inner", maintain_order="left")
        assert found.height == LABELS
        self._table = self._table.join(labels, on="id", how="anti", maintain_order="left")


def told(said: str, holds: bool) -> bool:
    """Prints whether a promise holds."""
    print(f"{'holds' if holds else 'FAILS':<6} {said}")
    return holds


def main() -> int:
    """Prints the table and its ratios."""
    memory = {kind: memory_of(kind) for kind in ("in memory", "in files")}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        shelf = Shelf(Path(folder))
        sides = [(Side(n, joined=True), Side(n, shelf), Side(n, shelf, together=True)) for n in SIZES]
        for number in range(CALLS):
            for side in (side for row in sides for side in row):
                side.call(number)
    print(f"{LABELS} labels a call, ms{'waiting':>11}{'in memory':>12}{'a join':>9}{'ratio':>8}{'in files':>11}{'together':>11}")
    times = [[statistics.median(side.ours) * 1e3 for side in row] for row in sides]
    for n, (ours, filed, together), row in zip(SIZES, times, sides, strict=True):
        join = statistics.median(row[0].joins) * 1e3
        print(f"{n:>33,}{ours:12.2f}{join:9.2f}{join / ours:7.1f}x{filed:11.2f}{together:11.2f}")
    more = SIZES[-1] // SIZES[0]
    held = [
        told(f"with {more} times as many waiting a call takes {last / first:.1f} times as long: {name}", last / first <= most)
        for name, most, first, last in zip(("in memory", "in files", "in files, together"), MOST_GROWTH, *times[::2], strict=True)
    ]
    for name, bytes_ in memory.items():
        print(f"       a row of 32 columns that waits {name} takes {bytes_:.0f} bytes of memory, 240 are its numbers")
    held.append(told("in files it takes a quarter at most", memory["in files"] <= memory["in memory"] / 4))
    return int(not all(held))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(bytes_a_row(SIZES[-1], Shelf(Path()) if sys.argv[1] == "in files" else None))
        sys.exit(0)
    sys.exit(main())
