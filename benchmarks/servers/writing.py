"""The writer of the prediction log, alone: rows a second that it sustains, and what an append takes of the request's thread."""

from __future__ import annotations

import statistics
import tempfile
import time

import numpy as np

from loudly.core.values import Field, Kind, Role, Schema
from loudly.loop import traffic
from loudly.serve.replies import CANDIDATE, CONTROL, NOTHING, Replies
from loudly.serve.rows import Rows
from loudly.store.segments import SegmentWriter
from servers.promises import Promises
from servers.world import FEATURES, ROW

SECONDS = 3.0
BATCHES = (1, 16, 64)
NOTE = ("0123456789abcdef0123456789abcdef", "")
AT = 1_767_225_600_000_000


SCHEMA = Schema(
    (Field("id", Kind.TEXT, Role.KEY), Field("at", Kind.TIME, Role.TIME), *(Field(name, Kind.NUMBER) for name in FEATURES))
)


def batch(n: int) -> tuple[Rows, Replies]:
    """Rows as a server has them, and their answers."""
    rows = Rows(SCHEMA, None, n, [[f"r{i}", AT, *ROW] for i in range(n)])
    scores = {CONTROL: np.full(n, 0.5), CANDIDATE: np.full(n, np.nan)}
    whole = np.zeros(n, dtype=np.int64), np.ones(n), np.zeros(n, dtype=bool)
    return rows, Replies(scores[CONTROL], *whole, scores, ("bench/1", ""), {CONTROL: n, CANDIDATE: 0}, NOTHING, (), {})


def sustained(n: int) -> tuple[float, float, int]:
    """Rows a second until all of them are synced, µs of the appending thread a row, and records that had no room."""
    _, replies = batch(n)
    with tempfile.TemporaryDirectory() as folder:
        writer = SegmentWriter(folder)
        begun, spent, rows = time.perf_counter(), 0.0, 0
        while time.perf_counter() - begun < SECONDS:
            fresh = [batch(n)[0] for _ in range(max(1, 256 // n))]
            at = time.thread_time()
            for one in fresh:
                writer.append("predictions", traffic.compact(one, replies, 0, AT, [(*NOTE, 1)] * n))
            spent += time.thread_time() - at
            rows += n * len(fresh)
        writer.flush()
        took = time.perf_counter() - begun
        writer.close()
        return rows / took, spent / rows * 1e6, writer.lost


def run(promises: Promises) -> None:
    """Prints what was found for batches of several sizes."""
    print("\nthe prediction log's writer alone, rows of 30 features, synced every 50 ms")
    for n in BATCHES:
        rates, spent, lost = zip(*(sustained(n) for _ in range(3)), strict=True)
        rate, thread = statistics.median(rates), statistics.median(spent)
        print(
            f"  {n:>3} rows a record  {rate:>9,.0f} rows/s  {thread:5.2f} µs of the request's thread a row  {sum(lost)} lost",
            flush=True,
        )
        if n > 1:
            promises.add(f"prediction log, {n} rows a record: rows a second", 100_000, rate, "rows/s")
        promises.add(f"prediction log, {n} rows a record: of the request's thread a row", 6.0, thread, "µs", most=True)
