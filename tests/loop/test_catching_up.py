"""A restarted wheel answers first: what comes while its past is folded is folded after it, once, as if it had never been away."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from lived import sent
from loudly.app.verbs import memory_stores
from loudly.core.canon import canonical
from loudly.core.clock import DAY, HOUR, DataClock
from loudly.errors import WheelAway
from loudly.loop.catching_up import CatchUp
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.loop.restart import Folding, catch_up, watch_again
from loudly.loop.standing import standing_verdict
from loudly.loop.taking import outcome_of
from loudly.serve.attempt import Attempt
from loudly.store.memory_ledger import MemoryLedger
from loudly.store.segments import SegmentWriter
from loudly.testing.faults import FailingLedger, Killed

TABLE = make_world(days=50)
WHEN = pl.col("at").dt.epoch("us")
PATIENCE = 120.0


def of(since: int, until: int) -> pl.DataFrame:
    """Rows of days since SINCE, in hours."""
    return TABLE.filter((SINCE + since * HOUR <= WHEN) & (SINCE + until * HOUR > WHEN))


def hours(live: Live, since: int, until: int) -> None:
    """Rows are answered two at a time, hour by hour, and the labels of the day before come."""
    for hour in range(since, until):
        live.clock.advance(SINCE + hour * HOUR)  # type: ignore[attr-defined]
        late = of(hour - 24, hour - 23) if hour >= 24 else TABLE.clear()
        if late.height:
            live.feedback(late.select("id", "y"))
        for i in range(0, (rows := of(hour, hour + 1)).height, 2):
            live.answering.answer(sent(rows[i : i + 2], live), Attempt((rows[i : i + 2].height,)))
        live.answering.gather()


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Any]:
    made = replace(memory_stores("world"), traffic=SegmentWriter(tmp_path / "log"))
    yield made
    made.close()


def lived(stores: Any, until: int = 60) -> Live:
    """A wheel with a rollout since the first hour of its second day, told the time at every midnight but not since."""
    live = Live(make_app(TABLE).system, stores, DataClock(SINCE), key=b"key")
    assert not found(live, TABLE.filter(WHEN < SINCE).with_columns(y=pl.when(WHEN + DAY <= SINCE).then(pl.col("y"))))
    live.retrain("first training", "there is no model yet")
    second = live.retrain("by hand", "another", offer=False)
    assert second is not None
    for day in range(until // 24 + 1):
        hours(live, 24 * day, min(24 * day + 24, until))
        if day == 0:
            live.offer(second, "a test")
        if 24 * (day + 1) <= until:
            live.clock.advance(SINCE + (day + 1) * DAY)  # type: ignore[attr-defined]
            live.tick()
    live.answering.fold()  # a kill takes with it what guards have not counted yet
    stores.traffic.flush()
    return live


def copied(live: Live, ledger: Any) -> Any:
    """A ledger with the events of a wheel."""
    ledger.append([r.event for r in live.stores.ledger.read()], 0)
    return ledger


def opened(live: Live, log: SegmentWriter | None, ledger: Any) -> Live:
    """The same wheel after a kill, over another log."""
    made = Live(live.system, replace(live.stores, ledger=ledger, traffic=log), DataClock(live.clock.now()), key=b"key")
    reopen(made)
    return made


@contextmanager
def returned(live: Live, folder: Path) -> Iterator[tuple[Live, SegmentWriter]]:
    """The same wheel after a kill, over copies of what is on its disks, in `again`."""
    shutil.copytree(folder / "log", folder / "again")
    with closing(SegmentWriter(folder / "again")) as log:
        yield opened(live, log, copied(live, MemoryLedger())), log


def same(again: Live, live: Live) -> None:
    """All that is folded is equal; what a restart counts anew (answers given, disagreement) is not looked at."""
    assert again.state.champion == live.state.champion
    assert again.book.waiting == live.book.waiting
    assert again.retraining.new_rows == live.retraining.new_rows
    assert canonical(again.rollout_state) == canonical(live.rollout_state)
    now = live.clock.now()
    assert again.watch.signals(now) == live.watch.signals(now)
    assert again.watch.shifts.windows.keys() == live.watch.shifts.windows.keys()


def told(live: Live, since: int) -> list[tuple[str, Any]]:
    """What was written since, but for counts that a restart begins anew."""
    counts = ("disagreement_reported", "version_rolled_back")
    return [(r.event.kind, r.event.data) for r in live.stores.ledger.read(since) if r.event.kind not in counts]


def test_what_comes_while_the_past_is_folded_is_folded_after_it_as_if_nothing_had_happened(stores: Any, tmp_path: Path) -> None:
    live = lived(stores)
    with returned(live, tmp_path) as (again, log):
        assert again.state == live.state
        behind, before = CatchUp(again, log, tmp_path / "again", {}), live.state.position
        with again.lock:  # the thread cannot fold yet
            behind.start()
            hours(live, 60, 66)
            hours(again, 60, 66)
            unknown = pl.DataFrame({"id": ["nobody"], "y": [True]})
            live.feedback(unknown)
            assert outcome_of(again.feedback(unknown)) == {"joined": 0, "unknown": 0, "repeated": 0, "spooled": 1}
            assert again.past.open
            assert again.tick().steps == ()
            assert standing_verdict(again, None).missing == "the rest of it"
            assert again.book.waiting == 0
        hours(live, 66, 70)
        hours(again, 66, 70)
        assert behind.wait(PATIENCE)
        assert again.past.told() is None
        assert not again.past.wrong
        for day in range(2, 8):
            for each in (live, again):
                hours(each, max(70, 24 * day), 24 * day + 24)
                each.clock.advance(SINCE + (day + 1) * DAY)  # type: ignore[attr-defined]
                each.tick()
            same(again, live)
        assert told(again, before) == told(live, before)
        assert {"labels_unmatched", "share_grown", "champion_changed"} <= {kind for kind, _ in told(again, before)}


def test_rows_that_are_answered_as_it_takes_over_are_folded_once(stores: Any, tmp_path: Path) -> None:
    live = lived(stores, 30)
    live.answering.fold()
    with returned(live, tmp_path) as (again, log):
        behind, row = CatchUp(again, log, tmp_path / "again", {}), of(30, 31)[:1]
        ended, answered = threading.Event(), [0, 0]

        def ask(client: int) -> None:
            while not (ended.is_set() and answered[client] > 200):
                answered[client] += 1
                mine = row.with_columns(id=pl.lit(f"{client} {answered[client]}"))
                again.answering.answer(sent(mine, again), Attempt((1,)))
                again.answering.settle()

        clients = [threading.Thread(target=ask, args=(client,)) for client in range(2)]
        for client in clients:
            client.start()
        behind.start()
        assert behind.wait(PATIENCE)
        ended.set()
        for client in clients:
            client.join()
        with again.lock:
            again.answering.fold()
        assert again.book.waiting == live.book.waiting + sum(answered)
        assert again.answering.uncounted == again.answering.unlogged == 0
        log.flush()
        third = opened(again, None, copied(again, MemoryLedger()))
        catch_up(third, tmp_path / "again")
        assert third.book.waiting == again.book.waiting


def test_one_that_is_stopped_anywhere_is_done_again_by_the_next_start(
    stores: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = lived(stores, 26)
    shutil.copytree(tmp_path / "log", tmp_path / "again")
    monkeypatch.setattr("loudly.loop.records.MOST_ROWS", 48)
    whole, stops = Folding.fold, 0
    while True:
        with closing(SegmentWriter(tmp_path / "again")) as log:
            again = opened(live, log, copied(live, MemoryLedger()))
            behind = CatchUp(again, log, tmp_path / "again", {})
            monkeypatch.setattr(Folding, "fold", stopping(whole, behind, stops))
            behind.start()
            assert behind.wait(PATIENCE)
            if not again.past.open:
                break
            if stops < 4:
                label = of(stops + 2, stops + 3).select("id", "y")[:1]
                assert outcome_of(again.feedback(label))["spooled"] == live.feedback(label).joined.height == 1
            stops += 1
    assert stops > 5
    for each in (live, again):
        each.tick()
    same(again, live)


def stopping(whole: Any, behind: CatchUp, after: int) -> Any:
    """A fold that tells its thread to stop after so many."""
    folded = iter(range(10_000))

    def fold(self: Folding, *given: Any, **named: Any) -> None:
        whole(self, *given, **named)
        if next(folded) >= after:
            behind._stop.set()

    return fold


def test_a_ledger_that_dies_at_the_nth_event_of_what_was_caught_up_loses_no_label(stores: Any, tmp_path: Path) -> None:
    live, n, survived = lived(stores, 26), 0, 0
    with returned(live, tmp_path) as (again, log):
        CatchUp(again, log, tmp_path / "again", {})
        for known in ("nobody", of(20, 21)["id"][0], "nobody else"):
            for each in (live, again):
                each.feedback(pl.DataFrame({"id": [known], "y": [True]}))
    while not survived:
        n += 1
        with closing(SegmentWriter(tmp_path / "again")) as log:
            again = opened(live, log, FailingLedger(copied(live, MemoryLedger()), n, "before"))
            behind = CatchUp(again, log, tmp_path / "again", {})
            behind._before = 0  # as if all of it had come since the restart
            watch_again(again)
            behind._run()
            assert not again.past.open
            with suppress(Killed):
                again.tick()
                survived = n
    assert survived > 1, "it was killed before one event at least"
    live.tick()
    same(again, live)
    assert "labels_unmatched" in [r.event.kind for r in again.stores.ledger.read()]


def test_a_log_that_cannot_be_read_stops_no_answer_and_no_label_and_nothing_is_decided(
    stores: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, ended = lived(stores, 30), threading.Event()
    with returned(live, tmp_path) as (again, log):
        sealed = sorted((tmp_path / "again").glob("*.seg"))[0]
        data = bytearray(sealed.read_bytes())
        data[len(data) // 2] ^= 255
        sealed.write_bytes(data)
        behind = CatchUp(again, log, tmp_path / "again", {}, ended=ended.set)
        behind.start()
        assert ended.wait(PATIENCE)
        assert "SegmentUnreadable" in again.past.wrong
        assert "SegmentUnreadable" in str((again.past.told() or {})["stopped"])
        before = again.state
        hours(again, 30, 32)
        again.tick()
        assert again.state == before
        monkeypatch.setattr(log, "append", lambda *_: 0)
        with pytest.raises(WheelAway, match="does not take the labels"):
            again.feedback(of(20, 21).select("id", "y"))
        again.answering.answer(sent(of(32, 33), again), Attempt((of(32, 33).height,)))
        again.answering.gather()
        assert again.answering.uncounted == of(32, 33).height
