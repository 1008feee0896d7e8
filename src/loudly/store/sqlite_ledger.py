"""The ledger in one SQLite file: WAL, synchronous=FULL, all or nothing, one writer at a time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import sleep

from loudly.core.canon import Json, canonical
from loudly.core.values import Event, Recorded
from loudly.errors import DiskFull, LedgerCorrupt, StaleWriter, StoreError
from loudly.store.chain import link

OPEN_ATTEMPTS = 100
TABLE = """CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY, kind TEXT NOT NULL, at INTEGER NOT NULL, data BLOB NOT NULL, chain TEXT NOT NULL
) STRICT"""


class SqliteLedger:
    """A ledger under a path; readers and writers may be other processes. `append` is durable on return.

    Raises: StaleWriter, DiskFull, LedgerCorrupt for a file that is no ledger.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA synchronous=FULL")
            self._begin()
        except sqlite3.DatabaseError as wrong:
            self._db.close()
            raise _named(wrong, self.path) from wrong

    def _begin(self) -> None:
        """WAL and the table; two processes that open a new file at once take turns (SQLite's own waiting skips this step)."""
        for attempt in range(OPEN_ATTEMPTS):
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute(TABLE)
            except sqlite3.OperationalError as wrong:
                if "locked" not in str(wrong) or attempt + 1 == OPEN_ATTEMPTS:
                    raise
                sleep(0.02)
            else:
                return

    @property
    def position(self) -> int:
        """The position of the last event; 0 when empty."""
        return self._last()[0]

    def append(self, events: Sequence[Event], after: int) -> int:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                position, chain = self._last()
                if position != after:
                    raise StaleWriter(
                        "Somebody else appended first.",
                        seen=f"the ledger is at {position}, this writer at {after}",
                        do="Read the new events and decide again.",
                    )
                rows = []
                for event in events:
                    position, chain = position + 1, link(chain, event)
                    rows.append((position, event.kind, event.at, canonical(event.data), chain))
                self._db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.DatabaseError as wrong:
            raise _named(wrong, self.path) from wrong
        return position

    def read(self, after: int = 0) -> Iterator[Recorded]:
        try:
            found = self._db.execute(
                "SELECT position, kind, at, data, chain FROM events WHERE position > ? ORDER BY position", (after,)
            ).fetchall()
        except sqlite3.DatabaseError as wrong:
            raise _named(wrong, self.path) from wrong
        for position, kind, at, data, chain in found:
            yield Recorded(position, Event(kind, at, _data(data, position)), chain)

    def close(self) -> None:
        """Closes the file; the ledger can be opened again."""
        self._db.close()

    def _last(self) -> tuple[int, str]:
        row = self._db.execute("SELECT position, chain FROM events ORDER BY position DESC LIMIT 1").fetchone()
        return (row[0], row[1]) if row else (0, "")


def _data(text: bytes, position: int) -> dict[str, Json]:
    try:
        data: dict[str, Json] = json.loads(text)
    except ValueError as wrong:
        raise LedgerCorrupt(f"Event {position} cannot be read.", seen=str(wrong), do="Restore a backup.") from wrong
    return data


def _named(wrong: sqlite3.DatabaseError, path: Path) -> StoreError:
    """Our error for one of SQLite's."""
    text = str(wrong)
    if "full" in text or "disk I/O" in text:
        return DiskFull("The ledger has no room.", seen=f"{path.name}: {text}", do="Free space; nothing acknowledged is lost.")
    if "locked" in text:
        return StaleWriter("Another process is writing to the ledger.", seen=text, do="One writer at a time; try again.")
    return LedgerCorrupt("The ledger's file is damaged or none.", seen=f"{path.name}: {text}", do="Restore a backup.")
