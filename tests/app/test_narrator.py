"""A server says what its ledger learns, whoever writes it; nothing is said twice."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from conftest import make_world
from lived import first_live
from loudly.app.narrator import Narrator
from loudly.app.ticker import Ticker
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY
from loudly.core.values import Decision, Event, Verdict, plain
from loudly.loop.live import Live
from loudly.monitor.notify import terminal

TABLE = make_world(days=50)


@pytest.fixture
def live() -> Live:
    """A wheel that serves, as another process left its ledger."""
    stores = replace(memory_stores("world"), notify=(terminal,))
    made, clock = first_live(TABLE, stores)
    return Live(made.system, stores, clock, key=b"key")


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was said, a line each."""
    return [" ".join(line.split()) for line in capsys.readouterr().err.replace("\n  ", " ").splitlines() if line.strip()]


def test_what_anybody_writes_is_said_once_and_what_is_bad_is_loud(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    narrator = Narrator(live)
    narrator.go_on()
    assert lines(capsys) == [], "what was before the server began"
    other = Live(live.system, live.stores, live.clock, key=b"key")  # as a command beside the server
    other.event("guarantee_weakened", what="a stream", reason="it does not fit")
    other.event("retrain_failed", trigger="by hand", reason="no rows")
    other.event("held", wanted="retrain on data", reason="cooldown")
    for decision in (Decision.FAIL, Decision.PASS):
        other.event("gate_judged", version="world/2", verdict=plain(Verdict(decision, "gate", "so it is")))
    narrator.go_on()
    assert lines(capsys) == [
        "LOUD world: a stream: it does not fit",
        "LOUD world: retrain by hand made no model: no rows",
        "loudly world: held retrain on data: cooldown",
        "LOUD world: gate of world/2: FAIL gate: so it is",
        "loudly world: gate of world/2: PASS gate: so it is",
    ]
    narrator.go_on()
    assert lines(capsys) == []


def test_an_alarm_that_the_terminal_is_paged_with_is_not_said_again(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    narrator = Narrator(live)
    alarm = {"cause": "data", "reason": "x1 moved", "verdict": plain(Verdict(Decision.FAIL, "data", "x1 moved"))}
    live.record(Event("alarm_raised", live.clock.now(), alarm))
    narrator.go_on()
    assert lines(capsys) == []
    live.stores = replace(live.stores, notify=())
    live.record(Event("alarm_raised", live.clock.now() + DAY, alarm))
    narrator.go_on()
    assert lines(capsys) == ["LOUD world: ALARM data: x1 moved"]


def test_odd_labels_are_said_by_the_ticker(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    """They were told to the client and the ledger alone."""
    ticker = Ticker(live, 0.01)
    live.feedback(pl.DataFrame({"id": ["nobody"], "y": [True]}))
    ticker.start()
    ticker.stop()
    assert "loudly world: 1 label of unknown predictions, e.g. nobody" in lines(capsys)
    live.answering.raised.note(["world/1: ValueError: row 3"])
    ticker.say_last()
    assert [line for line in lines(capsys) if "row 3" in line] == [
        "LOUD world: a model failed, the fallback answers: world/1: ValueError: row 3"
    ], "what the ticker says at once is not said again from the ledger"
