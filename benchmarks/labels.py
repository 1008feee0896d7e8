"""One call with late labels, by how many predictions wait: through the book's index, and by a Polars join with all that waits.

Predictions come in batches of 64 with 30 features, as a server folds them; a call brings 50 labels, of predictions made at any
time. Both take the rows out that have found their label. Exits 1 where the book's time grows with what waits. Then what a waiting
row costs in memory: all that is answered stays there until its label comes, or is overdue.
Run: python benchmarks/labels.py
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from loudly.labels.book import LabelBook

BATCH, LABELS, CALLS = 64, 50, 60
SIZES = (10_000, 100_000, 1_000_000)
MOST_GROWTH = 5.0


def predictions(first: int, n: int, rng: np.random.Generator) -> pl.DataFrame:
    """Rows with keys from `first` on."""
    features = {f"x{i}": rng.normal(size=n) for i in range(30)}
    return pl.DataFrame({"id": [f"order-{first + i:09d}" for i in range(n)], **features})


def filled(n: int, rng: np.random.Generator) -> tuple[LabelBook, pl.DataFrame]:
    """A book in which n predictions wait, and the same rows as one table."""
    book, parts = LabelBook("id", "y"), []
    for first in range(0, n, BATCH):
        parts.append(predictions(first, min(BATCH, n - first), rng))
        book.predicted(parts[-1], at=first)
    return book, pl.concat(parts, rechunk=True)


def bytes_a_row(n: int) -> float:
    """How much the process grows for each row that waits: 32 columns, of which 30 numbers of 8 bytes and one key."""
    rng, before = np.random.default_rng(0), resident()
    book = LabelBook("id", "y")
    for first in range(0, n, BATCH):
        book.predicted(predictions(first, min(BATCH, n - first), rng), at=first)
    return (resident() - before) / book.waiting


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
    """A book in which n predictions wait, the same rows as one table, and who is labelled in each call."""

    def __init__(self, n: int) -> None:
        self._rng = np.random.default_rng(0)
        self._n, (self._book, self._table) = n, filled(n, self._rng)
        self._keys = self._rng.permutation(n)[: LABELS * CALLS].reshape(CALLS, LABELS)
        self.ours: list[float] = []
        self.joins: list[float] = []

    def call(self, number: int) -> None:
        """Labels, to the book and to the join."""
        keys = [f"order-{i:09d}" for i in self._keys[number]]
        labels = pl.DataFrame({"id": keys, "y": self._rng.integers(0, 2, LABELS)})
        self.ours.append(seconds(lambda: self._book.arrived(labels, at=self._n)))
        self.joins.append(seconds(lambda: self._join(labels)))
        assert self._book.waiting == self._table.height

    def _join(self, labels: pl.DataFrame) -> None:
        found = self._table.join(labels, on="id", how="inner", maintain_order="left")
        assert found.height == LABELS
        self._table = self._table.join(labels, on="id", how="anti", maintain_order="left")


def main() -> int:
    """Prints the table and its ratios."""
    memory, sides = bytes_a_row(SIZES[-1]), [Side(n) for n in SIZES]
    for number in range(CALLS):
        for side in sides:
            side.call(number)
    print(f"{LABELS} labels a call{'waiting':>15}{'book, ms':>12}{'join, ms':>12}{'ratio':>9}")
    times = [(statistics.median(side.ours), statistics.median(side.joins)) for side in sides]
    for n, (ours, join) in zip(SIZES, times, strict=True):
        print(f"{n:>29,}{ours * 1e3:12.2f}{join * 1e3:12.2f}{join / ours:8.1f}x")
    growth, more = times[-1][0] / times[0][0], SIZES[-1] // SIZES[0]
    held = growth <= MOST_GROWTH
    print(f"{'holds' if held else 'FAILS':<6} a call with {more} times as many waiting takes {growth:.1f} times as long")
    print(f"       a row of 32 columns that waits takes {memory:.0f} bytes, {30 * 8} of them its numbers")
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
