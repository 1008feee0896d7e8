"""What every ledger owes: run these against yours.

class TestMine(LedgerCase):
    @pytest.fixture
    def ledger(self): return MyLedger(...)
"""

from __future__ import annotations

from typing import Any

import pytest

from loudly.core.values import Event
from loudly.errors import StaleWriter
from loudly.store.chain import verify

EVENTS = (Event("born", 1, {"a": 1.5}), Event("named", 2, {"name": "π", "tags": ["x", None]}))


class LedgerCase:
    """Conformance of a ledger; `ledger` is a fixture that gives an empty one."""

    def test_reads_what_was_appended_in_order(self, ledger: Any) -> None:
        assert ledger.append(EVENTS, 0) == 2
        assert [r.event for r in ledger.read()] == list(EVENTS)
        assert [r.position for r in ledger.read()] == [1, 2]
        assert [r.event for r in ledger.read(1)] == [EVENTS[1]]

    def test_a_stale_writer_is_refused_and_changes_nothing(self, ledger: Any) -> None:
        ledger.append(EVENTS, 0)
        for after in (0, 1, 3):
            with pytest.raises(StaleWriter):
                ledger.append(EVENTS, after)
        assert len(list(ledger.read())) == 2

    def test_the_chain_holds_and_depends_on_every_event(self, ledger: Any) -> None:
        ledger.append(EVENTS[:1], 0)
        ledger.append(EVENTS[1:], 1)
        recorded = list(verify(ledger.read()))
        assert len({r.chain for r in recorded}) == 2
        assert all(len(r.chain) == 64 for r in recorded)

    def test_nothing_is_written_of_a_batch_that_cannot_be(self, ledger: Any) -> None:
        bad = (EVENTS[0], Event("nan", 3, {"x": float("nan")}))
        with pytest.raises(ValueError, match="JSON"):
            ledger.append(bad, 0)
        assert list(ledger.read()) == []
        assert ledger.append(EVENTS, 0) == 2
