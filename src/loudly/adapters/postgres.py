"""The ledger in PostgreSQL: for many readers and a writer on another machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import psycopg

from loudly.core.canon import canonical
from loudly.core.values import Event, Recorded
from loudly.errors import StaleWriter, StoreError
from loudly.store.chain import link

TABLE = """CREATE TABLE IF NOT EXISTS loudly_events (
    position BIGINT PRIMARY KEY, kind TEXT NOT NULL, at BIGINT NOT NULL, data TEXT NOT NULL, chain TEXT NOT NULL
)"""
LOCK = "LOCK TABLE loudly_events IN EXCLUSIVE MODE"


class PostgresLedger:
    """A ledger in the table `loudly_events` of a database. Appends lock the table, so two writers never interleave."""

    def __init__(self, dsn: str) -> None:
        try:
            self._db = psycopg.connect(dsn, autocommit=True)
            self._db.execute(TABLE)
        except psycopg.Error as wrong:
            raise StoreError("The PostgreSQL ledger cannot be opened.", seen=str(wrong), do="Check [store] url.") from wrong

    @property
    def position(self) -> int:
        """The position of the last event; 0 when empty."""
        return self._last()[0]

    def append(self, events: Sequence[Event], after: int) -> int:
        try:
            with self._db.transaction():
                self._db.execute(LOCK)
                position, chain = self._last()
                if position != after:
                    raise StaleWriter(
                        "Somebody else appended first.",
                        seen=f"the ledger is at {position}, this writer at {after}",
                        do="Read the new events and decide again.",
                    )
                for event in events:
                    position, chain = position + 1, link(chain, event)
                    row = (position, event.kind, event.at, canonical(event.data).decode(), chain)
                    self._db.execute("INSERT INTO loudly_events VALUES (%s, %s, %s, %s, %s)", row)
        except psycopg.Error as wrong:
            raise StoreError("PostgreSQL refused the events; none was written.", seen=str(wrong)) from wrong
        return position

    def read(self, after: int = 0) -> Iterator[Recorded]:
        found = self._db.execute(
            "SELECT position, kind, at, data, chain FROM loudly_events WHERE position > %s ORDER BY position", (after,)
        ).fetchall()
        for position, kind, at, data, chain in found:
            yield Recorded(position, Event(kind, at, json.loads(data)), chain)

    def close(self) -> None:
        """Closes the connection."""
        self._db.close()

    def _last(self) -> tuple[int, str]:
        row = self._db.execute("SELECT position, chain FROM loudly_events ORDER BY position DESC LIMIT 1").fetchone()
        return (int(row[0]), str(row[1])) if row else (0, "")
