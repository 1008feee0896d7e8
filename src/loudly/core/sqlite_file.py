"""SQLite as loudly writes it: one file in WAL, durable on return, all or nothing, one writer at a time, errors by name."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import sleep

from loudly.errors import DiskFull, LoudlyError, StaleWriter, StoreError

OPEN_ATTEMPTS = 100


class SqliteFile:
    """A connection to the file at `path`, with its tables made.

    noun: what the file is, for messages.  damaged: the error for a file that is none of ours.
    Raises: StaleWriter, DiskFull, StoreError where it may not be written, or `damaged`.
    """

    def __init__(self, path: Path | str, tables: Sequence[str], noun: str, damaged: type[LoudlyError]) -> None:
        self.path, self._noun, self._damaged = Path(path), noun, damaged
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._opened: tuple[int, int] | None = None
        with self.named():
            self.db = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        self._opened = self._place()
        try:
            with self.named():
                self.db.execute("PRAGMA synchronous=FULL")
                self._begin(tables)
        except LoudlyError:
            self.db.close()
            raise

    @contextmanager
    def named(self) -> Iterator[None]:
        """SQLite's errors come out as ours. Raises: StoreError where the file that is open is not the one at its path any more."""
        self._expect_in_place()
        try:
            yield
        except sqlite3.DatabaseError as wrong:
            raise self._error(str(wrong)) from wrong

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it is on disk at the end, or none."""
        with self.named():
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Closes the file; it can be opened again."""
        self.db.close()

    def _place(self) -> tuple[int, int] | None:
        """Which file stands at the path; None for none."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _expect_in_place(self) -> None:
        """What is written to a file that was moved away or replaced nobody else reads, and SQLite says nothing."""
        if self._opened is not None and self._place() != self._opened:
            do = "Stop this process, put the file back with its -wal, and start again: nobody else reads what is written now."
            raise StoreError(f"The {self._noun}'s file was moved away or replaced.", seen=str(self.path), do=do)

    def _begin(self, tables: Sequence[str]) -> None:
        """WAL and the tables; two processes that open a new file at once take turns (SQLite's own waiting skips this step)."""
        for attempt in range(OPEN_ATTEMPTS):
            try:
                self.db.execute("PRAGMA journal_mode=WAL")
                for table in tables:
                    self.db.execute(table)
            except sqlite3.OperationalError as wrong:
                if "locked" not in str(wrong) or attempt + 1 == OPEN_ATTEMPTS:
                    raise
                sleep(0.02)
            else:
                return

    def _error(self, text: str) -> LoudlyError:
        seen = f"{self.path.name}: {text}"
        if "full" in text or "disk I/O" in text:
            return DiskFull(f"The {self._noun} has no room.", seen=seen, do="Free space; nothing acknowledged is lost.")
        if "locked" in text:
            return StaleWriter(f"Another process is writing to the {self._noun}.", seen=seen, do="One writer at a time; try again.")
        if "readonly" in text or "unable to open" in text:
            do = f"Let the user of this process write {self.path.parent.resolve()} and what is in it."
            return StoreError(f"The {self._noun} may not be written.", seen=seen, do=do)
        return self._damaged(f"The {self._noun}'s file is damaged or none.", seen=seen, do="Restore a backup.")
