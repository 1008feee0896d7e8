"""The ledger in PostgreSQL: for many readers and a writer on another machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import psycopg

from loudly.core.canon import canonical
from loudly.core.values import Event, Recorded
from loudly.errors import StoreError
from loudly.store.chain import expect, link

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"
TABLE = """CREATE TABLE IF NOT EXISTS loudly_events (
    position BIGINT PRIMARY KEY, kind TEXT NOT NULL, at BIGINT NOT NULL, data TEXT NOT NULL, chain TEXT NOT NULL
)"""
LOCK = "LOCK TABLE loudly_events IN EXCLUSIVE MODE"


class PostgresLedger:
    """A ledger in the table `loudly_events` of a database. Appends lock the table, so two writers never interleave.

    A connection that broke (a restart, a failover) fails the call it broke under, loudly, and the next one connects again;
    whether that append was written is told by `position`.
    Raises: StoreError, StaleWriter.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._db = self._connected()

    @property
    def position(self) -> int:
        """The position of the last event; 0 when empty."""
        with self._session() as db:
            return _last(db)[0]

    def append(self, events: Sequence[Event], after: int) -> int:
        with self._session() as db, db.transaction():
            db.execute(LOCK)
            position, chain = _last(db)
            expect(position, after)
            rows = []
            for event in events:
                position, chain = position + 1, link(chain, event)
                rows.append((position, event.kind, event.at, canonical(event.data).decode(), chain))
            with db.cursor() as cursor:
                cursor.executemany("INSERT INTO loudly_events VALUES (%s, %s, %s, %s, %s)", rows)
        return position

    def read(self, after: int = 0) -> Iterator[Recorded]:
        query = "SELECT position, kind, at, data, chain FROM loudly_events WHERE position > %s ORDER BY position"
        with self._session() as db:
            found = db.execute(query, (after,)).fetchall()
        for position, kind, at, data, chain in found:
            yield Recorded(position, Event(kind, at, json.loads(data)), chain)

    def close(self) -> None:
        """Closes the connection."""
        self._db.close()

    def _connected(self) -> Connection:
        try:
            db = psycopg.connect(self._dsn, autocommit=True)
            db.execute(TABLE)
        except psycopg.Error as wrong:
            raise StoreError("The PostgreSQL ledger cannot be opened.", seen=str(wrong), do="Check [store] url.") from wrong
        return db

    @contextmanager
    def _session(self) -> Iterator[Connection]:
        """The connection, made again where it broke; PostgreSQL's errors come out as ours."""
        if self._db.broken:
            self._db.close()
            self._db = self._connected()
        try:
            yield self._db
        except psycopg.Error as wrong:
            do = "Nothing was written, unless the connection broke at the very end: read the position, then decide again."
            raise StoreError("PostgreSQL did not do it.", seen=str(wrong).strip(), do=do) from wrong


def _last(db: Connection) -> tuple[int, str]:
    row = db.execute("SELECT position, chain FROM loudly_events ORDER BY position DESC LIMIT 1").fetchone()
    return (int(row[0]), str(row[1])) if row else (0, "")
