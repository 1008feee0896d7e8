"""What a check of a window is made of: each pass over a block by itself, in ns a value of processor time, least of many runs.

The first table is a number's way into its bin (`loudly.shift.fold`), beside what numpy and Polars take for the same; the
second is a row's way into the embedding. Their sums are the floor under `benchmarks/shift.py`.
Run: python benchmarks/floor.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import polars as pl
from scipy.sparse import csc_array
from threadpoolctl import threadpool_limits

from loudly.shift.bins import DROP, bins_of, lookup_of
from loudly.shift.embedding import Embedding, projections
from loudly.shift.fold import ONE, ROUND

ROWS, RUNS, COLUMNS = 25_000, 200, 50


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
    """The passes of one block of a number column, in order; those in brackets are what they replace."""
    raw = np.random.default_rng(0).normal(size=ROWS)
    series = pl.Series("x", raw)
    bins = bins_of(series, 1024)
    table, edges = lookup_of(bins).table, bins.edges
    d, w, y = np.empty(ROWS), np.empty(ROWS), np.empty(ROWS, dtype=np.float32)
    np.multiply(raw - bins.centre, 2.0**-bins.exponent, out=d)
    np.copyto(y, d, casting="unsafe")
    cell, short = (y.view(np.uint32) >> DROP).astype(np.int64), np.empty(ROWS, dtype=np.int16)
    table.take(cell, out=short, mode="wrap")
    code, wide, one = short.astype(np.int32), short.astype(np.int64), np.ones(1)
    np.add(d, ONE, out=w)
    counter = csc_array((w, code, np.array([0, ROWS], dtype=np.int32)), shape=(bins.size + 4, 1))
    return {
        "read (sum)": raw.sum,
        "subtract the centre": lambda: np.subtract(raw, bins.centre, out=w),
        "scale": lambda: np.multiply(d, 1.0, out=w),
        "to float32": lambda: np.copyto(y, d, casting="unsafe"),
        "upper 18 bits": lambda: np.right_shift(y.view(np.uint32), DROP, out=cell),
        "table: cell to bin": lambda: table.take(cell, out=short, mode="wrap"),
        "to int32, largest": lambda: (np.copyto(code, short), short.max()),
        "round (two passes)": lambda: np.subtract(np.add(d, ROUND, out=w), ROUND, out=w),
        "squares": lambda: np.dot(d, d),
        "add one": lambda: np.add(d, ONE, out=w),
        "count and sum by bin (sparse product)": lambda: counter @ one,
        "[numpy.bincount, weighted]": lambda: np.bincount(wide, w, bins.size + 4),
        "[numpy.searchsorted in 1,024 bins]": lambda: np.searchsorted(edges, raw),
        "[Polars: sort]": series.sort,
    }


def embedding() -> dict[str, Callable[[], object]]:
    """A row of 50 columns: places of its bins, then 16 projections with cosine and sine."""
    rng = np.random.default_rng(0)
    made = Embedding(projections(COLUMNS, 16, 7.0, 0), (), 7.0)
    steps = rng.integers(-40, 40, (COLUMNS, ROWS)).astype(np.int8)
    scores, code = rng.integers(-40, 40, 1028).astype(np.int8), rng.integers(0, 1028, ROWS).astype(np.int32)
    numbers = steps[:, :4096].astype(np.float32)
    return {
        "places of 50 bins": lambda: [scores.take(code, out=row, mode="wrap") for row in steps],
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
