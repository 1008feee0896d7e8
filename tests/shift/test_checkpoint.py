"""Folding survives a death at every operation and a real kill: the same bytes in the end."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from window_world import CODEC, Sums, sums

from loudly.core.canon import digest
from loudly.errors import ConfigError, DataError, DatasetCorrupt, StaleWriter
from loudly.loop.traffic import from_bytes, to_bytes
from loudly.shift.checkpoint import Checkpoint, Source, follow
from loudly.shift.event_time import Batch
from loudly.shift.sources import ParquetSource, RecordSource, TableSource
from loudly.shift.window_shapes import Session, Shape, Sliding, Tumbling
from loudly.shift.windows import Windows, last_words
from loudly.store.segments import SegmentWriter, read_segments
from loudly.testing.faults import Killed
from loudly.testing.source_case import TABLE, SourceCase

SHAPES: list[Shape] = [Tumbling(100), Sliding(120, 40), Session(9)]


def rows(n: int = 600, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    at = np.cumsum(rng.integers(0, 12, n)) - rng.integers(0, 60, n)
    return pl.DataFrame({"at": at, "x": rng.integers(-99, 99, n)})


def windows_of(shape: Shape) -> Windows[Sums]:
    return Windows(shape, sums, disorder=10, lateness=40, subtract=isinstance(shape, Sliding))


def result(path: Path) -> str:
    """All that a checkpoint holds, as one digest."""
    with sqlite3.connect(path) as db:
        held = [db.execute("SELECT data FROM state").fetchall(), db.execute("SELECT * FROM spoken ORDER BY position").fetchall()]
    db.close()
    return digest(repr(held).encode())


def fold(path: Path, shape: Shape, source: Source, **more: Any) -> None:
    checkpoint = Checkpoint(path, windows_of(shape), CODEC)
    try:
        follow(windows_of(shape), source, checkpoint, end=True, **more)
    finally:
        checkpoint.close()


class Dying:
    """Counts operations; the n-th dies before it takes effect, or after."""

    def __init__(self, n: int, when: str) -> None:
        self.n, self.when, self.done = n, when, 0

    def call(self, work: Callable[..., Any], *args: Any) -> Any:
        self.done += 1
        if self.done == self.n and self.when == "before":
            raise Killed
        made = work(*args)
        if self.done == self.n:
            raise Killed
        return made


class DyingDatabase:
    """A connection to SQLite that dies; as with a real death, nothing is rolled back in words: the file is closed."""

    def __init__(self, db: sqlite3.Connection, dying: Dying) -> None:
        self._db, self._dying = db, dying

    @property
    def in_transaction(self) -> bool:
        return False

    def execute(self, *args: Any) -> Any:
        return self._dying.call(self._db.execute, *args)

    def executemany(self, *args: Any) -> Any:
        return self._dying.call(self._db.executemany, *args)

    def close(self) -> None:
        self._db.close()


class DyingSource:
    """A source that dies while it is read, or while it commits."""

    def __init__(self, source: Source, dying: Dying) -> None:
        self._source, self._dying = source, dying

    def read(self, offsets: Mapping[str, int]) -> Iterator[Batch]:
        for batch in self._source.read(offsets):
            yield self._dying.call(lambda made=batch: made)

    def commit(self, offsets: Mapping[str, int]) -> None:
        self._dying.call(self._source.commit, offsets)


class TestTable(SourceCase):
    @pytest.fixture
    def source(self) -> TableSource:
        return TableSource(TABLE, "at", rows=7)


class TestParquet(SourceCase):
    @pytest.fixture
    def source(self, tmp_path: Path) -> ParquetSource:
        for i, part in enumerate(TABLE.iter_slices(23)):
            part.write_parquet(tmp_path / f"{i}.parquet")
        return ParquetSource(tmp_path / "*.parquet", "at", rows=10)


class TestSegments(SourceCase):
    @pytest.fixture
    def source(self, tmp_path: Path) -> RecordSource:
        writer = SegmentWriter(tmp_path)
        for part in TABLE.iter_slices(3):
            writer.append("answer", to_bytes(part))
            writer.append("label", b"not ours")
        writer.close()
        return RecordSource(partial(read_segments, tmp_path), from_bytes, "at", kind="answer", batch=4)


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_death_at_every_operation_ends_in_the_same_bytes(tmp_path: Path, shape: Shape, when: str) -> None:
    source = TableSource(rows(120), "at", rows=30)
    fold(tmp_path / "straight", shape, source)
    n, deaths = 0, 1
    while deaths:
        n, deaths = n + 1, 0
        path = tmp_path / f"{n}"
        dying = Dying(n, when)
        checkpoint = Checkpoint(path, windows_of(shape), CODEC)
        checkpoint._file.db = DyingDatabase(checkpoint._file.db, dying)  # type: ignore[assignment]
        try:
            follow(windows_of(shape), DyingSource(source, dying), checkpoint, end=True)
        except Killed:
            deaths = 1
        checkpoint.close()
        if deaths:
            fold(path, shape, source)
        assert result(path) == result(tmp_path / "straight")
    assert n > 30, "it died at more than thirty places"


SCRIPT = """
import os, signal, sys, threading, time
from pathlib import Path
from test_checkpoint import SHAPES, fold, rows
from loudly.shift.sources import TableSource

after, wait, heard, due = int(sys.argv[3]), float(sys.argv[4]), [], threading.Event()

def tell(step):
    heard.append(step)
    if len(heard) == after:
        due.set()

def kill():
    due.wait()
    time.sleep(wait)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=kill, daemon=True).start()
fold(Path(sys.argv[1]), SHAPES[int(sys.argv[2])], TableSource(rows(2000), "at", rows=10), tell=tell)
"""


@pytest.mark.parametrize("which", range(len(SHAPES)))
def test_a_real_kill_ends_in_the_same_bytes(tmp_path: Path, which: int) -> None:
    source = TableSource(rows(2000), "at", rows=10)
    fold(tmp_path / "straight", SHAPES[which], source)
    path, before = tmp_path / "killed", 0
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    for after, wait in ((10, 0.0), (25, 0.0007), (40, 0.0031)):
        told = [sys.executable, "-c", SCRIPT, str(path), str(which), str(after), str(wait)]
        child = subprocess.run(told, env={**os.environ, "PYTHONPATH": here}, check=False)
        assert child.returncode == -signal.SIGKILL
        assert before + after <= saves(path) < 200, "it was killed on the way, and had gone on from the kill before"
        before = saves(path)
    fold(path, SHAPES[which], source)
    assert result(path) == result(tmp_path / "straight")


def saves(path: Path) -> int:
    db = sqlite3.connect(path)
    (found,) = db.execute("SELECT saves FROM state").fetchone()
    db.close()
    return int(found)


def test_the_same_last_words_from_a_table_parquet_files_and_a_traffic_log(tmp_path: Path) -> None:
    table = rows(500)
    shape = Tumbling(100)
    for i, part in enumerate(table.iter_slices(170)):
        part.write_parquet(tmp_path / f"part-{i}.parquet")
    writer = SegmentWriter(tmp_path / "log")
    for part in table.iter_slices(7):
        writer.append("answer", to_bytes(part))
        writer.append("other", b"not ours")
    writer.close()
    sources: Sequence[Source] = (
        TableSource(table, "at", rows=64),
        ParquetSource(tmp_path / "part-*.parquet", "at", rows=50),
        RecordSource(partial(read_segments, tmp_path / "log"), from_bytes, "at", kind="answer", batch=9),
    )
    found = []
    for i, source in enumerate(sources):
        for _ in range(2):  # the second time there is nothing new
            checkpoint = Checkpoint(tmp_path / f"{i}.db", windows_of(shape), CODEC)
            state = follow(windows_of(shape), source, checkpoint, every=3)
            words = last_words(checkpoint.spoken())
            checkpoint.close()
        found.append({s: (w.rows, w.value) for s, w in words.items()})
        assert not state.repeated
        assert sum(state.too_late.values()) == 0
    assert found[0] == found[1] == found[2]
    assert sum(r for r, _ in found[0].values()) > 400


def test_a_file_that_comes_later_is_read_wherever_its_name_sorts_and_one_that_shrank_is_named(tmp_path: Path) -> None:
    windows = Windows(Tumbling(10), sums, lateness=100)
    for name, at in (("b", [11, 12]), ("a", [1, 2])):
        pl.DataFrame({"at": at, "x": at}).write_parquet(tmp_path / f"{name}.parquet")
        checkpoint = Checkpoint(tmp_path / "c.db", windows, CODEC)
        state = follow(windows, ParquetSource(tmp_path / "*.parquet", "at"), checkpoint)
        checkpoint.close()
    assert sorted(p.rows for p in state.panes.values()) == [2, 2]
    pl.DataFrame({"at": [1], "x": [1]}).write_parquet(tmp_path / "a.parquet")
    checkpoint = Checkpoint(tmp_path / "c.db", windows, CODEC)
    with pytest.raises(DataError, match="shorter"):
        follow(windows, ParquetSource(tmp_path / "*.parquet", "at"), checkpoint)
    with pytest.raises(DataError, match="no such file"):
        follow(windows, ParquetSource(tmp_path / "z*.parquet", "at"), checkpoint)
    checkpoint.close()


def test_a_checkpoint_has_one_writer_and_belongs_to_its_windows(tmp_path: Path) -> None:
    windows = Windows(Tumbling(10), sums)
    one, two = (Checkpoint(tmp_path / "c.db", windows, CODEC) for _ in range(2))
    one.save(one.load())
    with pytest.raises(StaleWriter, match="Another process"):
        two.save(windows.init())
    two.save(two.load())
    other = Checkpoint(tmp_path / "c.db", Windows(Tumbling(20), sums), CODEC)
    with pytest.raises(ConfigError, match="other windows"):
        other.load()
    for opened in (one, two, other):
        opened.close()
    (tmp_path / "text.db").write_text("this is no database, but a text that is long enough to be looked at\n" * 20)
    with pytest.raises(DatasetCorrupt, match="damaged"):
        Checkpoint(tmp_path / "text.db", windows, CODEC)


def test_steps_are_told_when_they_are_safe(tmp_path: Path) -> None:
    windows = windows_of(Tumbling(100))
    checkpoint = Checkpoint(tmp_path / "c.db", windows, CODEC)
    heard = []
    follow(windows, TableSource(rows(200), "at", rows=20), checkpoint, tell=heard.append, every=4, end=True)
    assert [s for step in heard for s in step.spoken] == list(checkpoint.spoken())
    checkpoint.close()
