"""One call with late labels, by how many predictions wait: through the book's index, and by a Polars join with all that waits.

Predictions come in batches of 64 with 30 features, as a server folds them; a call brings 50 labels, of predictions made at any
time. Both take the rows out that have found their label. Exits 1 where the book's time grows with what waits.
Run: python benchmarks/labels.py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import polars as pl

from loudly.labels.book import LabelBook

BATCH, LABELS, CALLS = 64, 50, 60
SIZES = (10_000, 100_000, 1_000_000)
MOST_GROWTH = 4.0


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


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one run."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(n: int) -> tuple[float, float]:
    """Median seconds of a call: the book's, and the join's."""
    rng = np.random.default_rng(0)
    book, waiting = filled(n, rng)
    keys = rng.permutation(n)[: LABELS * CALLS].reshape(CALLS, LABELS)
    ours, joins = [], []
    for call in keys:
        labels = pl.DataFrame({"id": [f"order-{i:09d}" for i in call], "y": rng.integers(0, 2, LABELS)})

        def by_join(labels: pl.DataFrame = labels) -> None:
            nonlocal waiting
            found = waiting.join(labels, on="id", how="inner", maintain_order="left")
            assert found.height == LABELS
            waiting = waiting.join(labels, on="id", how="anti", maintain_order="left")

        ours.append(seconds(lambda labels=labels: book.arrived(labels, at=n)))  # type: ignore[misc]
        joins.append(seconds(by_join))
    assert book.waiting == waiting.height == n - LABELS * CALLS
    return statistics.median(ours), statistics.median(joins)


def main() -> int:
    """Prints the table and its ratios."""
    print(f"{LABELS} labels a call{'waiting':>15}{'book, ms':>12}{'join, ms':>12}{'ratio':>9}")
    found = []
    for n in SIZES:
        ours, join = measure(n)
        found.append(ours)
        print(f"{n:>29,}{ours * 1e3:12.2f}{join * 1e3:12.2f}{join / ours:8.1f}x", flush=True)
    growth, more = found[-1] / found[0], SIZES[-1] // SIZES[0]
    held = growth <= MOST_GROWTH
    print(f"{'holds' if held else 'FAILS':<6} a call with {more} times as many waiting takes {growth:.1f} times as long")
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
