from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loudly.core.values import Event
from loudly.errors import DiskFull, LedgerCorrupt, LedgerDiverged, StaleWriter, StoreError
from loudly.store.chain import verify
from loudly.store.memory_ledger import MemoryLedger
from loudly.store.resuming import Resuming
from loudly.store.sqlite_ledger import SqliteLedger
from loudly.testing.ledger_case import EVENTS


def test_a_second_process_is_refused_not_corrupted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    script = (
        "import sys\nfrom loudly.store.sqlite_ledger import SqliteLedger\nfrom loudly.core.values import Event\n"
        "from loudly.errors import StaleWriter\nledger=SqliteLedger(sys.argv[1]); won=0; position=0\n"
        "while position < 200:\n"
        "    try:\n        position=ledger.append([Event('e', 0, {'who': sys.argv[2]})], position); won+=1\n"
        "    except StaleWriter:\n        position=ledger.position\n"
        "print(won)\n"
    )
    racers = [subprocess.Popen([sys.executable, "-c", script, str(path), w], stdout=subprocess.PIPE) for w in "ab"]
    won = sum(int(r.communicate(timeout=60)[0]) for r in racers)
    ledger = SqliteLedger(path)
    assert len(list(verify(ledger.read()))) == won >= 200
    ledger.close()


def test_a_changed_byte_is_found_and_its_position_named(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l.db")
    for i in range(10):
        ledger.append([Event("e", i, {"i": i})], i)
    ledger.close()
    db = sqlite3.connect(tmp_path / "l.db")
    db.execute("UPDATE events SET data = ? WHERE position = 7", (b'{"i":99}',))
    db.commit()
    db.close()
    again = SqliteLedger(tmp_path / "l.db")
    with pytest.raises(LedgerCorrupt, match="Event 7"):
        list(verify(again.read()))
    again.close()


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "l.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(LedgerCorrupt, match="damaged"):
        SqliteLedger(tmp_path / "l.db")


def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "l.db")
    ledger._file.db.execute("PRAGMA max_page_count = 12")
    done = 0

    def write_on() -> None:
        nonlocal done
        while done < 1000:
            done = ledger.append([Event("e", 0, {"text": "x" * 1000})], done)

    with pytest.raises(DiskFull):
        write_on()
    assert [r.position for r in verify(ledger.read())] == list(range(1, done + 1))
    ledger.close()


events = st.lists(st.builds(Event, st.sampled_from("abc"), st.integers(0, 9), st.just({})), max_size=6)


@given(events, st.integers(0, 6))
def test_resuming_confirms_a_prefix_and_writes_the_rest(all_of: list[Event], cut: int) -> None:
    once, again = MemoryLedger(), MemoryLedger()
    once.append(all_of, 0)
    again.append(all_of[:cut], 0)
    resuming = Resuming(again)
    position = 0
    for event in all_of:
        position = resuming.append([event], position)
    assert [r.chain for r in again.read()] == [r.chain for r in once.read()]
    assert not resuming.confirming


def test_resuming_refuses_another_decision() -> None:
    stored = MemoryLedger()
    stored.append(EVENTS, 0)
    resuming = Resuming(stored)
    resuming.append(EVENTS[:1], 0)
    with pytest.raises(LedgerDiverged, match="position 2"):
        resuming.append([Event("other", 2, {})], 1)
    with pytest.raises(StaleWriter):
        resuming.append([Event("other", 2, {})], 5)


def test_a_ledger_that_may_not_be_written_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(StoreError, match="may not be written") as told:
        SqliteLedger(tmp_path / "ledger.db")
    assert str(tmp_path) in told.value.do
    assert "backup" not in told.value.do


@pytest.mark.parametrize("replaced", [False, True])
def test_a_ledger_that_was_moved_away_takes_no_events_that_nobody_would_read(tmp_path: Path, replaced: bool) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db")
    ledger.append([Event("held", 0, {})], 0)
    (tmp_path / "ledger.db").rename(tmp_path / "away.db")
    if replaced:
        SqliteLedger(tmp_path / "ledger.db").close()
    for work in (lambda: ledger.append([Event("held", 1, {})], 1), lambda: list(ledger.read()), lambda: ledger.position):
        with pytest.raises(StoreError, match="moved away or replaced"):
            work()
    if not replaced:
        (tmp_path / "away.db").rename(tmp_path / "ledger.db")
        assert ledger.append([Event("held", 1, {})], 1) == 2
    ledger.close()
