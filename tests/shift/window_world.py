"""Summaries of integers (exact, so that the same rows give the same bytes) and streams of rows, for tests of windows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from loudly.shift.event_time import Batch
from loudly.shift.window_state import Codec


@dataclass(frozen=True, slots=True)
class Sums:
    """Rows, their sum and their sum of squares: a group."""

    n: int
    total: int
    squares: int

    def merge(self, other: Sums) -> Sums:
        return Sums(self.n + other.n, self.total + other.total, self.squares + other.squares)

    def subtract(self, other: Sums) -> Sums:
        return Sums(self.n - other.n, self.total - other.total, self.squares - other.squares)


@dataclass(frozen=True, slots=True)
class Largest:
    """A summary that merges and cannot subtract."""

    value: int

    def merge(self, other: Largest) -> Largest:
        return Largest(max(self.value, other.value))


def sums(table: pl.DataFrame) -> Sums:
    x = [int(v) for v in table["x"]]
    return Sums(len(x), sum(x), sum(v * v for v in x))


CODEC: Codec[Sums] = Codec(
    lambda s: json.dumps([s.n, s.total, s.squares]).encode(), lambda b: Sums(*(int(v) for v in json.loads(b)))
)


def batch(at: Sequence[int], x: Sequence[int] | None = None, *, source: str = "table", first: int | None = None) -> Batch:
    """Rows with x = their time unless said otherwise."""
    offsets = None if first is None else np.arange(first, first + len(at), dtype=np.int64)
    return Batch(
        pl.DataFrame({"x": list(at if x is None else x)}, schema={"x": pl.Int64}), np.array(at, dtype=np.int64), source, offsets
    )
