"""A traffic log folded again after a restart: answers alone, with labels one a call or sixteen a call, and in a rollout.

Answers come sixteen at once, with 30 features, some seven rows a second; their labels come a hundred answers later, between
others. A rollout is told the time every five seconds, and learns then from what has come. One side folds the log as a restart does,
the other record by record, which is what it costs where records are not put together. Processor time; medians of
rounds that take turns. Exits 1 where a labelled row costs a restart more than four times an answered one, outside of a rollout.
Run: python benchmarks/restart.py [--rows 8000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from servers.world import FEATURES, table
from sklearn.linear_model import LogisticRegression

import loudly
from loudly.app.app import App
from loudly.app.verbs import memory_stores
from loudly.cli.main import COLLECT
from loudly.core.clock import SECOND, DataClock, WallClock
from loudly.loop.calls import CALLS, told_of
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.loop.records import batches
from loudly.loop.restart import Folding, Found, watch_again
from loudly.loop.stores import Stores
from loudly.serve.attempt import Attempt
from loudly.serve.rows import of_table
from loudly.store.segments import SegmentWriter, read_segments

TOGETHER, LATER, MOST = 16, 100, 4.0
TICK, ROWS_A_SECOND = 5 * SECOND, 7


@dataclass(frozen=True)
class Case:
    """labels: of one call, 0 for none.  rollout: what runs meanwhile."""

    said: str
    labels: int
    rollout: str = ""


CASES = (
    Case("answers alone", 0),
    Case("labels, 16 a call", 16),
    Case("labels, one a call", 1),
    Case("labels, one a call, canary", 1, "canary 50% 100% every 30d"),
)


def system(case: Case) -> App:
    """A table of 30 numbers and a linear model."""
    made = table()
    app = loudly.App("bench", label="y", time="at", key="id", metric="roc_auc")
    app.data(lambda: made)
    if case.rollout:
        app.rollout(case.rollout, deadline="90d")

    @app.train(holdout="7d")
    def fit(X: Any, y: Any) -> Any:
        return LogisticRegression().fit(np.asarray(X), y)

    return app


def lived(case: Case, rows: int, folder: Path) -> tuple[Live, Stores]:
    """A wheel that has answered so many rows, and met their labels."""
    clock = DataClock(WallClock().now())
    stores = replace(memory_stores("bench"), traffic=SegmentWriter(folder))
    live = Live(system(case).system, stores, clock, key=b"bench")
    assert not found(live, table())
    for _ in range(2 if case.rollout else 1):
        assert live.retrain("benchmark", "a model")
    assert (live.state.rollout is not None) == bool(case.rollout)
    rng, schema = np.random.default_rng(0), live.ready[live.state.champion or ""].schema
    calls = rows // TOGETHER
    for call in range(calls + LATER):
        before = clock.now()
        clock.advance(before + TOGETHER * SECOND // ROWS_A_SECOND)
        if before // TICK < clock.now() // TICK:
            live.tick()
        keys = [f"k{i}" for i in range((call - LATER) * TOGETHER, (call + 1) * TOGETHER)]
        if call < calls:
            at = pl.Series([clock.now()] * TOGETHER, dtype=pl.Int64).cast(pl.Datetime("us"))
            numbers = {name: rng.normal(size=TOGETHER) for name in FEATURES}
            asked = pl.DataFrame({"id": keys[-TOGETHER:], "at": at, **numbers})
            live.answering.answer(of_table(asked, schema), Attempt((TOGETHER,)))
            live.answering.gather()
        for first in range(0, TOGETHER if case.labels and call >= LATER else 0, case.labels or 1):
            part = keys[first : min(TOGETHER, first + case.labels)]
            live.feedback(pl.DataFrame({"id": part, "y": rng.integers(0, 2, len(part))}))
    with live.lock:
        live.answering.fold()
    assert stores.traffic is not None
    stores.traffic.flush()
    return live, stores


def one_by_one(live: Live, folder: Path) -> Iterator[tuple[str, Found]]:
    """Each record as a table of its own."""
    for record in read_segments(folder):
        if record.kind == CALLS:
            yield CALLS, told_of(record.payload)
        else:
            yield from ((kind, found) for kind, _, found in batches(live, [record]))


def seconds(live: Live, stores: Stores, folder: Path, apart: bool) -> float:
    """Processor seconds that folding the log takes. apart: record by record."""
    again = Live(live.system, replace(stores, traffic=None), live.clock, key=b"bench")
    reopen(again)
    watch_again(again)
    folding = Folding(again, folder, {}, lambda done, of: None)
    begun = time.process_time()
    for kind, told in one_by_one(again, folder) if apart else folding.read():
        folding.fold(kind, told, again=True)
    spent = time.process_time() - begun
    assert again.book.waiting == live.book.waiting
    return spent


def main() -> int:
    """Prints the table and what it promises."""
    said = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said.add_argument("--rows", type=int, default=8000)
    said.add_argument("--rounds", type=int, default=3)
    given = said.parse_args()
    gc.set_threshold(*COLLECT)
    print(f"{'µs of processor a row':<32}{'a restart':>12}{'by record':>12}{'ratio':>9}")
    found: dict[str, float] = {}
    for case in CASES:
        with tempfile.TemporaryDirectory(dir=".") as name:
            folder = Path(name)
            live, stores = lived(case, given.rows, folder)
            both = [[seconds(live, stores, folder, apart) for apart in (False, True)] for _ in range(given.rounds)]
            ours, apart = (statistics.median(side) / given.rows * 1e6 for side in zip(*both, strict=True))
            found[case.said] = ours
            print(f"{case.said:<32}{ours:>12.1f}{apart:>12.1f}{apart / ours:>8.1f}x", flush=True)
            assert stores.traffic is not None
            stores.traffic.close()
    ratio = found["labels, one a call"] / found["answers alone"]
    told = "holds" if ratio <= MOST else "FAILS"
    print(f"{told:<6} a row whose label came alone costs {ratio:.1f} x one that is only answered (asked {MOST:g})")
    return int(ratio > MOST)


if __name__ == "__main__":
    raise SystemExit(main())
