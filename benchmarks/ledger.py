"""Durable appends a second: segments and the ledger, as ratios against peers in the same run.

Peers: Python's rotating log handler writing JSON (what serving frameworks use), SQLite with one commit a row.
Run: python benchmarks/ledger.py
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from loudly.core.values import Event
from loudly.store.segments import SegmentWriter
from loudly.store.sqlite_ledger import SqliteLedger

ROWS = 3_000
ROW = {f"f{i}": float(v) for i, v in enumerate(np.random.default_rng(0).normal(size=30))}


def segments(folder: Path) -> None:
    """Our traffic log: every row appended, all synced at the end."""
    body = json.dumps(ROW).encode()
    writer = SegmentWriter(folder / "segments")
    for _ in range(ROWS):
        writer.append("predictions", body)
    writer.close()


def handler(folder: Path) -> None:
    """logging.TimedRotatingFileHandler with a JSON formatter."""
    log = logging.getLogger("peer")
    log.propagate = False
    out = logging.handlers.TimedRotatingFileHandler(folder / "peer.log")
    log.addHandler(out)
    for _ in range(ROWS):
        log.warning(json.dumps(ROW))
    log.removeHandler(out)
    out.close()


def sqlite_rows(folder: Path) -> None:
    """SQLite, WAL, synchronous=FULL, one commit a row."""
    db = sqlite3.connect(folder / "peer.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE IF NOT EXISTS t (body BLOB)")
    body = json.dumps(ROW).encode()
    for _ in range(ROWS):
        db.execute("INSERT INTO t VALUES (?)", (body,))
    db.close()


def ledger(folder: Path) -> None:
    """Our ledger, one event an append: hash-chained and durable on return."""
    made = SqliteLedger(folder / "ledger.db")
    position = made.position
    for _ in range(ROWS):
        position = made.append([Event("e", 0, ROW)], position)
    made.close()


def seconds(work: Callable[[Path], None]) -> float:
    """Wall seconds of one run in a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        work(Path(folder))
        return time.perf_counter() - begun


if __name__ == "__main__":
    works = (segments, handler, sqlite_rows, ledger)
    runs: dict[str, list[float]] = {work.__name__: [] for work in works}
    for _ in range(5):
        for work in works:
            runs[work.__name__].append(seconds(work))
    median = {name: statistics.median(found) for name, found in runs.items()}
    for name, found in median.items():
        print(f"{name:<12} {ROWS / found:>10,.0f} rows/s")
    print(f"segments / log handler          {median['handler'] / median['segments']:.1f} x")
    print(f"ledger / SQLite commit a row    {median['sqlite_rows'] / median['ledger']:.2f} x")
