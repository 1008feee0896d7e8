"""What a check of a window is made of: each pass over a span by itself, in ns a value of processor time, least of many runs.

The first table is a number's way into its bin (`loudly.shift.fold`), beside what numpy and Polars take for the same; the
second is a row's way into the embedding once its steps are known. Their sums are the floor under `benchmarks/shift.py`.
Run: python benchmarks/floor.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import polars as pl
from scipy.sparse import csc_array
from threadpoolctl import threadpool_limits

from loudly.shift.bins import DROP, STEP_BITS, bins_of, cells_of, lookup_of
from loudly.shift.embedding import Embedding, projections
from loudly.shift.fold import ROUND

ROWS, RUNS, COLUMNS = 50_000, 200, 50


def nanoseconds(work: Callable[[], object], values: int) -> float:
    """Processor time a value, of the quickest run."""
    work()
    least = float("inf")
    for _ in range(RUNS):
        begun = time.process_time_ns()
        work()
        least = min(least, time.process_time_ns() - begun)
    return least / values


def numbers() -> dict[str, Callable[[], object]]:
    """The passes of one span of a number column, in order; those in brackets are what they replace."""
    raw = np.random.default_rng(0).normal(size=ROWS)
    series = pl.Series("x", raw)
    bins = bins_of(series, 1024)
    table, edges = lookup_of(bins).table, np.asarray(bins.edges)
    d, w, step = np.empty(ROWS), np.empty(ROWS), np.empty(ROWS, dtype=np.int8)
    np.multiply(raw - bins.centre, 2.0**-bins.exponent, out=d)
    cell = cells_of(raw, bins.centre, bins.exponent)
    entry = table.take(cell, mode="wrap")
    code = entry >> STEP_BITS
    wide, one, other = code.astype(np.int64), np.ones(1, dtype=np.int64), np.empty_like(code)
    words = np.add(d, ROUND).view(np.int64)
    counter = csc_array((words, code, np.array([0, ROWS], dtype=np.int32)), shape=(bins.size + 4, 1))
    return {
        "read (sum)": raw.sum,
        "subtract the centre": lambda: np.subtract(raw, bins.centre, out=w),
        "scale": lambda: np.multiply(d, 1.0, out=w),
        "upper 21 bits": lambda: np.right_shift(d.view(np.uint64), DROP, out=cell.view(np.uint64)),
        "table: cell to bin and step": lambda: table.take(cell, out=other, mode="wrap"),
        "step for the embedding": lambda: np.copyto(step, entry, casting="unsafe"),
        "bin": lambda: np.right_shift(entry, STEP_BITS, out=other),
        "round": lambda: np.add(d, ROUND, out=w),
        "count and sum by bin (sparse product)": lambda: counter @ one,
        "back to a number": lambda: np.subtract(d, ROUND, out=w),
        "squares": lambda: np.dot(d, d),
        "[numpy.bincount, weighted]": lambda: np.bincount(wide, w, bins.size + 4),
        "[numpy.searchsorted in 1,024 bins]": lambda: np.searchsorted(edges, raw),
        "[Polars: sort]": series.sort,
    }


def embedding() -> dict[str, Callable[[], object]]:
    """A row of 50 columns: 16 projections with cosine and sine."""
    rng = np.random.default_rng(0)
    made = Embedding(projections(COLUMNS, 16, 7.0, 0), (), 7.0)
    steps = rng.integers(-40, 40, (COLUMNS, ROWS)).astype(np.int8)
    numbers = steps[:, :4096].astype(np.float32)
    return {
        "16 projections, cosines, sines, sums": lambda: made.sums(steps),
        "[of that: the matrix product]": lambda: [made.weights @ numbers for _ in range(ROWS // 4096)],
    }


def main() -> None:
    """Prints both tables."""
    for about, works in (("a number", numbers()), ("a row of 50 columns", embedding())):
        spent = {name: nanoseconds(work, ROWS) for name, work in works.items()}
        total = sum(value for name, value in spent.items() if not name.startswith(("[", "read")))
        print(f"{about}: {total:.2f} ns in all")
        for name, value in spent.items():
            print(f"  {name:<40}{value:8.2f} ns")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
