"""The ticker outlives whatever is raised, and says aloud what a model raised and which labels never came."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from loudly.app.ticker import Ticker
from loudly.core.clock import DAY
from loudly.labels.book import LabelBook
from loudly.loop.past import Past
from loudly.loop.state import State
from loudly.loop.system import Labels
from loudly.serve.raised import Raised
from loudly.shift.feed import FeedJudge
from loudly.store.memory_ledger import MemoryLedger
from loudly.store.shelf import Shelf


def live(tick: Any) -> Any:
    """What a ticker looks at, with real books and notes; only the wheel itself is left out."""
    events: list[tuple[str, dict[str, Any]]] = []
    book = LabelBook("id", "y", keep=30 * DAY)
    shadows = SimpleNamespace(shed=0, stuck=0)
    return SimpleNamespace(
        tick=tick,
        end=lambda: None,
        past=Past(),
        watch=SimpleNamespace(feed=FeedJudge()),
        book=book,
        system=SimpleNamespace(labels=Labels(), name="loans"),
        answering=SimpleNamespace(shadows=shadows, raised=Raised(), raised_by_log=Raised(), raised_by_fold=Raised()),
        stores=SimpleNamespace(traffic=None, shelf=None, ledger=MemoryLedger()),
        lock=threading.RLock(),
        state=State(),
        sides=SimpleNamespace(refresh=lambda now: None),
        clock=SimpleNamespace(now=lambda: 0),
        record=lambda *told: events.extend((event.kind, dict(event.data)) for event in told),
        events=events,
    )


def test_an_error_of_any_kind_is_said_and_the_next_tick_comes(capsys: pytest.CaptureFixture[str]) -> None:
    ticks, twice = [], threading.Event()

    def tick() -> None:
        ticks.append(1)
        if len(ticks) >= 2:
            twice.set()
        raise ZeroDivisionError("a feature of the user's")

    ticker = Ticker(live(tick), 0.01)
    ticker.start()
    assert twice.wait(30)
    ticker.stop()
    said = capsys.readouterr().err
    assert "the wheel stood still: ZeroDivisionError: a feature" in said.replace("\n", " ")


def test_what_a_model_raised_and_labels_that_never_came_are_said_and_recorded_once(capsys: pytest.CaptureFixture[str]) -> None:
    looked = live(lambda: None)
    looked.answering.raised.note(["m/1: ValueError: row 3", "m/1: ValueError: row 4", "m/1: KeyError: x"])
    looked.answering.raised_by_log.note(["traffic log: OSError: no room"])
    looked.book.predicted(pl.DataFrame({"id": ["a", "b"]}), 0)
    looked.book.sweep(40 * DAY)
    ticker = Ticker(looked, 1.0)
    for _ in range(3):
        ticker._look_at_the_models()
        ticker._look_at_the_labels()
    told = [(data["what"], data["reason"]) for _, data in looked.events]
    assert [what for what, _ in told] == ["answers of a model", "answers of a model", "traffic log", "late labels"]
    assert told[0][1] == "m/1: ValueError: row 3"
    assert told[2][1] == "traffic log: OSError: no room"
    assert told[3][1].startswith("2 answers waited 30 days")
    assert capsys.readouterr().err.count("LOUD") == 4


def test_rows_that_the_disk_does_not_take_are_said_and_recorded_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place := tmp_path / "place").write_text("a file where a folder should be")
    looked = live(lambda: None)
    looked.stores.shelf = shelf = Shelf(place / "below", room=0)
    ticker, rows = Ticker(looked, 1.0), pl.DataFrame({"x": [1]})
    for _ in range(2):
        shelf.put(rows)
        ticker._look_at_the_shelf()
    place.unlink()
    shelf.put(rows)
    ticker._look_at_the_shelf()
    refused, taken = (data["reason"] for _, data in looked.events)
    assert "place" in refused
    assert "stay in memory" in refused
    assert taken == "the disk takes rows again"
    assert capsys.readouterr().err.count("LOUD") == 2
