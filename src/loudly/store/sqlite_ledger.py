"""The ledger in one SQLite file: WAL, synchronous=FULL, all or nothing, one writer at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from loudly.core.canon import Json, canonical
from loudly.core.sqlite_file import SqliteFile
from loudly.core.values import Event, Recorded
from loudly.errors import LedgerCorrupt
from loudly.store.chain import expect, link

TABLE = """CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY, kind TEXT NOT NULL, at INTEGER NOT NULL, data BLOB NOT NULL, chain TEXT NOT NULL
) STRICT"""


class SqliteLedger:
    """A ledger under a path; readers and writers may be other processes. `append` is durable on return.

    Raises: StaleWriter, DiskFull, StoreError where it may not be written, LedgerCorrupt for a file that is no ledger.
    """

    def __init__(self, path: Path | str) -> None:
        self._file = SqliteFile(path, (TABLE,), "ledger", LedgerCorrupt)

    @property
    def position(self) -> int:
        """The position of the last event; 0 when empty."""
        with self._file.named():
            return self._last()[0]

    def append(self, events: Sequence[Event], after: int) -> int:
        with self._file.transaction():
            position, chain = self._last()
            expect(position, after)
            rows = []
            for event in events:
                position, chain = position + 1, link(chain, event)
                rows.append((position, event.kind, event.at, canonical(event.data), chain))
            self._file.db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
        return position

    def read(self, after: int = 0) -> Iterator[Recorded]:
        query = "SELECT position, kind, at, data, chain FROM events WHERE position > ? ORDER BY position"
        with self._file.named():
            found = self._file.db.execute(query, (after,)).fetchall()
        for position, kind, at, data, chain in found:
            yield Recorded(position, Event(kind, at, _data(data, position)), chain)

    def close(self) -> None:
        """Closes the file; the ledger can be opened again."""
        self._file.close()

    def _last(self) -> tuple[int, str]:
        row = self._file.db.execute("SELECT position, chain FROM events ORDER BY position DESC LIMIT 1").fetchone()
        return (row[0], row[1]) if row else (0, "")


def _data(text: bytes, position: int) -> dict[str, Json]:
    try:
        data: dict[str, Json] = json.loads(text)
    except ValueError as wrong:
        raise LedgerCorrupt(f"Event {position} cannot be read.", seen=str(wrong), do="Restore a backup.") from wrong
    return data
