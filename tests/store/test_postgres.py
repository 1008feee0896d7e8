"""PostgreSQL goes away and comes back: the ledger says so once, and goes on."""

from __future__ import annotations

import pytest

from loudly.core.values import Event
from loudly.errors import StoreError
from loudly.store.chain import verify

psycopg = pytest.importorskip("psycopg", reason="LOUD: psycopg is not installed; the ledger in PostgreSQL is not tested")
adapter = pytest.importorskip("loudly.adapters.postgres")


def cut(dsn: str) -> None:
    """Every connection to the database ends, as in a failover."""
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )


def test_a_broken_connection_fails_one_call_and_the_next_connects_again(postgres: str) -> None:
    ledger = adapter.PostgresLedger(postgres)
    try:
        ledger._db.execute("TRUNCATE loudly_events")
        assert ledger.append([Event("one", 1, {}), Event("two", 2, {"a": 1})], 0) == 2
        cut(postgres)
        with pytest.raises(StoreError, match="read the position"):
            ledger.append([Event("three", 3, {})], 2)
        assert ledger.position == 2
        assert ledger.append([Event("three", 3, {})], 2) == 3
        cut(postgres)
        with pytest.raises(StoreError):
            list(ledger.read())
        found = list(ledger.read())
        assert [r.event.kind for r in found] == ["one", "two", "three"]
        assert len(list(verify(found))) == 3
    finally:
        ledger.close()
