"""Folding that a kill cannot spoil: state, offsets and spoken windows go into one SQLite file in one transaction.

What was folded is what the checkpoint says; a source is told to commit only afterwards, and is read from the checkpoint's
offsets. So a row that comes twice is folded once, and a window is spoken once, wherever the process died.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Generic, Protocol

from loudly.core.sqlite_file import SqliteFile
from loudly.errors import DatasetCorrupt, StaleWriter
from loudly.shift.event_time import Batch
from loudly.shift.window_state import Codec, Spoken, State, Step, Timing, V, pack, unpack
from loudly.shift.windows import Windows

TABLES = (
    "CREATE TABLE IF NOT EXISTS state (one INTEGER PRIMARY KEY CHECK (one = 1), saves INTEGER NOT NULL, data BLOB NOT NULL) STRICT",
    """CREATE TABLE IF NOT EXISTS spoken (
    position INTEGER PRIMARY KEY, start INTEGER NOT NULL, "end" INTEGER NOT NULL, revision INTEGER NOT NULL,
    timing TEXT NOT NULL, rows INTEGER NOT NULL, value BLOB, "into" INTEGER) STRICT""",
)


class Source(Protocol):
    """Where rows come from. `read` gives batches from these offsets on (place -> next offset; nothing known: from the start).

    `commit` is told what a checkpoint holds; a source that keeps no account of its readers does nothing.
    """

    def read(self, offsets: Mapping[str, int]) -> Iterator[Batch]: ...

    def commit(self, offsets: Mapping[str, int]) -> None: ...


class Checkpoint(Generic[V]):
    """The state of windows and all they have said, under a path. `save` is all or nothing and durable on return.

    Raises: StaleWriter where another process has saved since, DiskFull, DatasetCorrupt for a file that is no checkpoint,
    ConfigError for one of other windows.
    """

    def __init__(self, path: Path | str, windows: Windows[V], codec: Codec[V]) -> None:
        self._windows, self._codec = windows, codec
        self._saves = 0
        self._file = SqliteFile(path, TABLES, "checkpoint", DatasetCorrupt)

    def load(self) -> State[V]:
        """The state last saved; that of the beginning where there is none."""
        with self._file.named():
            found = self._file.db.execute("SELECT saves, data FROM state").fetchone()
        if found is None:
            self._saves = 0
            return self._windows.init()
        self._saves = found[0]
        return unpack(found[1], self._codec, self._windows.about)

    def save(self, state: State[V], spoken: Sequence[Spoken[V]] = ()) -> None:
        """The state with its offsets, and what was spoken since the last save, in one transaction."""
        data = pack(state, self._codec, self._windows.about)
        rows = [
            (s.start, s.end, s.revision, str(s.timing), s.rows, None if s.value is None else self._codec.dump(s.value), s.into)
            for s in spoken
        ]
        with self._file.transaction():
            self._unchanged()
            self._file.db.execute("INSERT OR REPLACE INTO state VALUES (1, ?, ?)", (self._saves + 1, data))
            self._file.db.executemany("INSERT INTO spoken VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._saves += 1

    def spoken(self) -> Iterator[Spoken[V]]:
        """Everything said so far, in order."""
        query = 'SELECT start, "end", revision, timing, rows, value, "into" FROM spoken ORDER BY position'
        with self._file.named():
            found = self._file.db.execute(query).fetchall()
        for start, end, revision, timing, rows, value, into in found:
            made = None if value is None else self._codec.load(value)
            yield Spoken(start, end, revision, Timing(timing), rows, made, into)

    def close(self) -> None:
        """Closes the file; it can be opened again."""
        self._file.close()

    def _unchanged(self) -> None:
        found = self._file.db.execute("SELECT saves FROM state").fetchone()
        if (found[0] if found else 0) != self._saves:
            raise StaleWriter(
                "Another process has saved this checkpoint.",
                seen=f"{found[0] if found else 0} saves, {self._saves} known here",
                do="One process folds into one checkpoint: stop the other, or load again.",
            )


def follow(
    windows: Windows[V],
    source: Source,
    checkpoint: Checkpoint[V],
    *,
    tell: Callable[[Step[V]], None] | None = None,
    every: int = 1,
    end: bool = False,
) -> State[V]:
    """Folds a source into windows until it has no more rows now; killed anywhere and called again, it goes on.

    every: batches between checkpoints.  tell: hears each step after it is safe (a step may go unheard where the process
    dies between the two; `Checkpoint.spoken` has it).  end: the source has ended, so the last windows close too.
    """
    state = checkpoint.load()
    waiting: list[Step[V]] = []
    for batch in source.read(state.offsets):
        state, step = windows.update(state, batch)
        waiting.append(step)
        if len(waiting) >= every:
            waiting = _safe(state, source, checkpoint, waiting, tell)
    if end:
        state, step = windows.advance(state)
        waiting.append(step)
    if waiting:
        _safe(state, source, checkpoint, waiting, tell)
    return state


def _safe(
    state: State[V],
    source: Source,
    checkpoint: Checkpoint[V],
    steps: Sequence[Step[V]],
    tell: Callable[[Step[V]], None] | None,
) -> list[Step[V]]:
    """Saves, lets the source commit, then tells."""
    checkpoint.save(state, [s for step in steps for s in step.spoken])
    source.commit(state.offsets)
    if tell is not None:
        for step in steps:
            tell(step)
    return []
