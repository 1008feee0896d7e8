"""Merges of profiles a second, two by two and all at once (`total`), beside the floor: numpy adding the same bytes two by two.

Profiles of 50 columns (40 numbers, 10 categories) with the embedding: of the monitor's 64 bins, of 1,024 bins, and of 1,024
bins with the reservoir of 1,024 rows, whose merging is lazy and settled at the end. A merge of 1,024 bins reads and writes 2 MB:
how many are made a second is how fast memory is, so look at the ratio.
Run: python benchmarks/merge.py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import reduce

import numpy as np
import polars as pl

from loudly.shift.profile import Profile, total
from loudly.shift.reference import Reference

WINDOWS, ROUNDS, PROMISED = 512, 7, 20_000


def table(n: int, seed: int) -> pl.DataFrame:
    """40 numbers and 10 categories."""
    rng = np.random.default_rng(seed)
    numbers = {f"x{i}": rng.normal(size=n) for i in range(40)}
    return pl.DataFrame({**numbers, **{f"c{i}": rng.choice([f"cat{j}" for j in range(20)], n) for i in range(10)}})


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one run."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def folded(parts: list[Profile]) -> Profile:
    """All windows as one, the sample settled."""
    made = reduce(Profile.merge, parts)
    if made.sample is not None:
        made.sample.settled()
    return made


def summed(vectors: list[np.ndarray]) -> np.ndarray:
    """The floor: the same additions of the same bytes."""
    return reduce(np.add, vectors)


def measure(name: str, reference: Reference) -> float:
    """Prints merges a second and the floor beside them."""
    few = [reference.profile(table(1500, seed)) for seed in range(16)]
    parts = few * (WINDOWS // len(few))
    vectors = [p.vector for p in parts]
    ours, once, floor = [], [], []
    for _ in range(ROUNDS):
        ours.append(seconds(lambda: folded(parts)))
        once.append(seconds(lambda: total(parts)))
        floor.append(seconds(lambda: summed(vectors)))
    rates = [(WINDOWS - 1) / statistics.median(t) for t in (ours, once)]
    ratios = [statistics.median([a / b for a, b in zip(t, floor, strict=True)]) for t in (ours, once)]
    print(f"{name:<46} {vectors[0].nbytes / 1e3:>6.0f} kB", end="")
    print(
        "".join(f"   {what} {r:>9,.0f}/s = {x:.2f} x floor" for what, r, x in zip(("merge", "total"), rates, ratios, strict=True))
    )
    return max(rates)


if __name__ == "__main__":
    before = table(50_000, 99)
    rates = [
        measure("50 columns, 64 bins, embedding", Reference.fit(before, bins=64, keep=0)),
        measure("50 columns, 256 bins, embedding", Reference.fit(before, bins=256, keep=0)),
        measure("50 columns, 1,024 bins, embedding", Reference.fit(before, keep=0)),
        measure("50 columns, 1,024 bins, embedding, 1,024 rows", Reference.fit(before)),
    ]
    holds = min(rates) >= PROMISED
    print(f"{'holds' if holds else 'FAILS'}  {PROMISED:,} merges a second, with 64, 256 and 1,024 bins, and with 1,024 rows")
    sys.exit(0 if holds else 1)
