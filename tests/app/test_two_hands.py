"""What somebody decides by the command line beside a server that writes: done once and whole, whenever the other writes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event as Signal
from threading import Thread
from typing import Any

import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from lived import first_live, ledger_of, sent
from loudly.app import verbs
from loudly.app.server import LiveFront
from loudly.app.ticker import Ticker
from loudly.app.verbs import memory_stores
from loudly.config import Config
from loudly.core.clock import DAY, DataClock, WallClock
from loudly.core.values import Event, Recorded
from loudly.errors import Conflict, LoudlyError, StaleWriter
from loudly.loop.founding import reopen
from loudly.loop.live import Live
from loudly.loop.restart import refresh, watch_again
from loudly.loop.state import fold_all
from loudly.loop.stores import Stores
from loudly.serve.attempt import Attempt
from loudly.store.memory_ledger import MemoryLedger

TABLE = make_world(days=50)
Act = Callable[[Stores, Config], object]


class Crowded:
    """A ledger into which somebody else writes before the n-th append, and before none after it."""

    def __init__(self, events: Iterable[Event], nth: int) -> None:
        self._own, self._left = MemoryLedger(), nth
        self._own.append(list(events), 0)

    @property
    def crowded(self) -> bool:
        """Whether somebody else has written."""
        return self._left <= 0

    def append(self, events: Any, after: int) -> Any:
        self._left -= 1
        if self._left == 0:
            self._own.append([Event("held", SINCE, {"wanted": "retrain", "reason": "somebody else's"})], len(list(self.read())))
        return self._own.append(events, after)

    def read(self, after: int = 0) -> Iterator[Recorded]:
        return iter(self._own.read(after))


@pytest.fixture(scope="module")
def two() -> Stores:
    """A champion, and a second version whose gate has passed."""
    stores = memory_stores("world")
    live, _ = first_live(TABLE, stores)
    assert live.retrain("by hand", "another", offer=False) == "world/2"
    return stores


def everywhere(stores: Stores, folder: Path, act: Act) -> Iterator[list[Event]]:
    """What is written when somebody else writes before the first append, the second, and so on to the last."""
    before = [recorded.event for recorded in stores.ledger.read()]
    for nth in range(1, 100):
        ledger: Any = Crowded(before, nth)
        act(replace(stores, ledger=ledger), Config(folder=folder))
        if not ledger.crowded:
            return
        yield [recorded.event for recorded in ledger.read()][len(before) :]


def kinds(events: Iterable[Event]) -> list[str]:
    return [event.kind for event in events if event.kind != "held"]


def test_a_rollout_begins_once_and_with_its_stage_whenever_somebody_else_writes(two: Stores, tmp_path: Path) -> None:
    system = make_app(TABLE).system
    found = [*everywhere(two, tmp_path, lambda stores, config: verbs.ship(system, (stores, config), "2"))]
    assert len(found) == 2
    for events in found:
        assert kinds(events) == ["rollout_started", "stage_started"]


def test_a_champion_changes_once_whenever_somebody_else_writes(two: Stores, tmp_path: Path) -> None:
    system = replace(make_app(TABLE).system, rollout=())
    found = [*everywhere(two, tmp_path, lambda stores, config: verbs.ship(system, (stores, config), "2"))]
    assert [kinds(events) for events in found] == [["champion_changed"]]


def test_a_rollback_gives_the_traffic_back_whenever_somebody_else_writes(two: Stores, tmp_path: Path) -> None:
    system = make_app(TABLE).system
    began: Any = Crowded([recorded.event for recorded in two.ledger.read()], 0)
    verbs.ship(system, (replace(two, ledger=began), Config(folder=tmp_path)), "2")
    stores = replace(two, ledger=began)
    found = [*everywhere(stores, tmp_path, lambda stores, config: verbs.rollback(system, (stores, config), "a test"))]
    assert [kinds(events) for events in found] == [["version_rolled_back"]]


def test_an_alarm_is_raised_once_whenever_somebody_else_writes(two: Stores, tmp_path: Path) -> None:
    """A window is judged once: what came of it is written although somebody trains beside the server meanwhile."""

    def watch(stores: Stores, _: Config) -> None:
        live, at = Live(make_app(TABLE).system, stores, DataClock(SINCE), key=b"replay"), TABLE["at"].dt.epoch("us")
        reopen(live)
        watch_again(live)
        for day in range(3):
            rows = TABLE.filter((at >= SINCE + day * DAY) & (at < SINCE + (day + 1) * DAY))
            live.answer(rows.drop("y").with_columns(pl.col("x1") * 1000))
            live.clock.advance(SINCE + (day + 1) * DAY)  # type: ignore[attr-defined]
            with contextlib.suppress(StaleWriter):  # the ticker says it and goes on
                live.tick()

    def raised(events: Iterable[Event]) -> list[Any]:
        return [event.data["cause"] for event in events if event.kind == "alarm_raised"]

    watch(replace(two, ledger=(ledger := ledger_of(two))), Config())
    alone = raised(recorded.event for recorded in ledger.read())
    assert alone
    beside = [raised(written) for written in everywhere(two, tmp_path, watch)]
    assert beside
    assert all(causes == alone for causes in beside)


def test_what_went_wrong_is_recorded_whenever_somebody_else_writes(two: Stores, tmp_path: Path) -> None:
    def look(stores: Stores, _: Config) -> None:
        live = Live(make_app(TABLE).system, stores, DataClock(SINCE), key=b"replay")
        live.answering.raised.note(["world/1: ValueError: row 3", "world/1: KeyError: x"])
        with contextlib.suppress(StaleWriter):
            Ticker(live, 1.0)._look_at_the_models()

    written = list(everywhere(two, tmp_path, look))
    assert len(written) == 2
    assert [kinds(events) for events in written] == [["guarantee_weakened"] * 2] * 2


def test_the_kill_switch_is_set_once_whenever_somebody_else_writes(two: Stores, tmp_path: Path) -> None:
    system = make_app(TABLE).system
    found = [*everywhere(two, tmp_path, lambda stores, config: verbs.kill(system, (stores, config), "a test", True))]
    assert [kinds(events) for events in found] == [["kill_switch_set"]]


def test_a_fit_is_registered_whenever_somebody_else_writes(two: Stores, tmp_path: Path) -> None:
    newest = int(TABLE["at"].dt.epoch("us").max() or 0)  # type: ignore[arg-type]
    fresh = TABLE.with_columns(pl.col("at") + pl.duration(microseconds=WallClock().now() - newest - 1))
    system = make_app(fresh).system
    found = [*everywhere(two, tmp_path, lambda stores, config: verbs.train(system, (stores, config)))]
    assert len(found) == 3
    for events in found:
        told = kinds(events)
        assert [told.count(kind) for kind in ("system_loaded", "dataset_versioned", "gate_judged")] == [1, 1, 1]
        assert "world/3" in fold_all(ledger_of(two, events).read()).versions


def both(two: Stores, folder: Path) -> tuple[Live, Live, MemoryLedger]:
    """Two hands at one ledger."""
    ledger = ledger_of(two)
    opened = replace(two, ledger=ledger), Config(folder=folder)
    one, other = (verbs.open_live(make_app(TABLE).system, opened) for _ in range(2))
    return one, other, ledger


def slowly(live: Live, meanwhile: Callable[[], object]) -> None:
    """From now on somebody does that during a fit."""
    run = live.retraining.run

    def slow(*given: Any, **named: Any) -> Any:
        done = run(*given, **named)
        meanwhile()
        return done

    live.retraining.run = slow  # type: ignore[method-assign]


def test_a_number_that_somebody_else_has_given_away_during_the_fit_is_refused(two: Stores, tmp_path: Path) -> None:
    one, other, ledger = both(two, tmp_path)
    made: list[str | None] = []
    slowly(one, lambda: made.append(other.retrain("by hand", "at the same time", offer=False)))
    with pytest.raises(Conflict, match="Somebody else has trained meanwhile"):
        one.retrain("by hand", "slowly", offer=False)
    assert made == ["world/3"]
    assert list(fold_all(ledger.read()).versions) == ["world/1", "world/2", "world/3"]


def test_what_was_fitted_against_a_champion_that_is_gone_is_registered_and_not_offered(two: Stores, tmp_path: Path) -> None:
    one, other, ledger = both(two, tmp_path)
    slowly(one, lambda: other.promote("world/2", "meanwhile"))
    assert one.retrain("by hand", "slowly") == "world/3"
    assert one.state.champion == "world/2"
    assert one.state.rollout is None
    assert [r.event.data["wanted"] for r in ledger.read() if r.event.kind == "held"] == ["the rollout of world/3"]


def test_a_ledger_that_cannot_be_written_is_told_and_not_waited_for(two: Stores, tmp_path: Path) -> None:
    class Locked(Crowded):
        def append(self, events: Any, after: int) -> Any:
            raise StaleWriter("Another process is writing to the ledger.")

    ledger: Any = Locked([recorded.event for recorded in two.ledger.read()], 0)
    opened = replace(two, ledger=ledger), Config(folder=tmp_path)
    system = make_app(TABLE).system
    for act in (lambda: verbs.ship(system, opened, "2"), lambda: verbs.kill(system, opened, "a test", True)):
        with pytest.raises(StaleWriter, match="Another process"):
            act()


class Slow:
    """Blobs that come when they are let, and tell that somebody waits for one."""

    def __init__(self, blobs: Any) -> None:
        self._blobs, self.wanted, self.let = blobs, Signal(), Signal()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def open(self, digest: str) -> Any:
        self.wanted.set()
        assert self.let.wait(30)
        return self._blobs.open(digest)


def test_while_somebody_elses_champion_is_loaded_the_one_before_answers(tmp_path: Path) -> None:
    stores = memory_stores("world")
    live, clock = first_live(TABLE, stores)
    live.retrain("by hand", "another", offer=False)
    slow = Slow(stores.blobs)
    slow.let.set()
    serves = Live(live.system, replace(stores, blobs=slow), clock, key=b"key")  # a server that has loaded its champion alone
    front, rows = LiveFront(serves), TABLE.tail(3).drop("y")
    live.promote("world/2", "somebody else's")
    slow.wanted.clear()
    slow.let.clear()
    following = Thread(target=refresh, args=(serves,), daemon=True)
    following.start()
    assert slow.wanted.wait(30), "the new champion is being loaded"
    assert front.schema() is not None
    served = front.answer(sent(TABLE.tail(3), live), Attempt((3,)))
    assert served.versions == ["world/1"] * 3
    assert [r.event.kind for r in stores.ledger.read()][-1] == "champion_changed"
    assert serves.state.champion == front.version() == "world/1"
    slow.let.set()
    following.join(30)
    assert front.answer(sent(TABLE.tail(3), live), Attempt((3,))).versions == ["world/2"] * 3
    assert serves.answer(rows)[0].versions[0] == "world/2"


def test_a_champion_that_cannot_be_loaded_changes_nothing() -> None:
    stores = memory_stores("world")
    live, clock = first_live(TABLE, stores)
    live.retrain("by hand", "another", offer=False)
    serves = Live(live.system, stores, clock, key=b"key")
    live.promote("world/2", "somebody else's")
    stores.blobs.delete(live.state.versions["world/2"].model)
    for _ in range(2):
        with pytest.raises(LoudlyError):
            refresh(serves)
        assert serves.state.champion == "world/1"
        assert LiveFront(serves).answer(sent(TABLE.tail(3), live), Attempt((3,))).versions == ["world/1"] * 3
