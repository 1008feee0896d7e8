"""What guards count survives a restart: the rollout comes to the very state that it had, and its guards act at the same unit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from lived import sent
from loudly.app.verbs import memory_stores
from loudly.core.canon import canonical
from loudly.core.clock import HOUR, DataClock
from loudly.core.seams import Calls
from loudly.core.values import Decision
from loudly.data.pseudonym import pseudonym
from loudly.deliver.rollout import parse_rollout
from loudly.loop.calls import CALLS, Told, told_of
from loudly.loop.catching_up import CatchUp
from loudly.loop.forgetting import ask, carry_out, retain
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.loop.restart import Folding, catch_up
from loudly.loop.strategies import strategy_of
from loudly.serve.attempt import Attempt
from loudly.store.memory_ledger import MemoryLedger
from loudly.store.segments import SegmentWriter, read_segments

TABLE = make_world(days=50)
WHEN = pl.col("at").dt.epoch("us")
PATIENCE = 60.0
KEY = b"key"


class Flaky:
    """A model that raises at every fifth row, as a hash of its columns tells."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, X: Any) -> Any:
        if any(crc32(row.tobytes()) % 5 == 0 for row in np.asarray(X, dtype=np.float64)):
            raise ValueError("every fifth row")
        return self._model.predict(X)


@dataclass
class Watch:
    """A timer that goes on by another stretch at each look, the same in each that was copied from it."""

    looks: int = 0
    at: float = 0.0

    def __call__(self) -> float:
        self.looks += 1
        self.at += 1e-4 * (1 + self.looks * self.looks % 7)
        return self.at


def flaky(live: Live, version: str) -> Live:
    """The same wheel, whose version fails now and then."""
    live.adopt(version)
    live.ready[version] = replace(live.ready[version], model=Flaky(live.ready[version].model))
    live.route()
    return live


def begun(log: SegmentWriter, *stages: str, paired: bool = False) -> Live:
    """A wheel whose second version, which fails now and then, waits to be offered."""
    system = make_app(TABLE).system
    rollout = tuple(parse_rollout(stage, paired=paired, days=40) for stage in stages) or system.rollout
    stores = replace(memory_stores("world"), traffic=log)
    live = Live(replace(system, rollout=rollout), stores, DataClock(SINCE), key=KEY, timer=Watch())
    assert not found(live, TABLE.filter(WHEN < SINCE).with_columns(y=pl.when(WHEN + 24 * HOUR <= SINCE).then(pl.col("y"))))
    for name in ("first", "second"):
        live.retrain(name, "by hand", offer=False)
    live.offer("world/1", "there is none")
    return flaky(live, "world/2")


def again(live: Live, log: SegmentWriter | None) -> Live:
    """The same wheel after a kill, over another log and a copy of its ledger."""
    ledger = MemoryLedger()
    ledger.append([r.event for r in live.stores.ledger.read()], 0)
    stores = replace(live.stores, ledger=ledger, traffic=log)
    made = Live(live.system, stores, DataClock(live.clock.now()), key=KEY, timer=copy(live.timer))
    reopen(made)
    return flaky(made, "world/2")


def copied(live: Live, folder: Path, name: str, kinds: frozenset[str] = frozenset()) -> SegmentWriter:
    """A copy of its log, without some kinds of records."""
    live.stores.traffic.flush()  # type: ignore[union-attr]
    log = SegmentWriter(folder / name)
    for record in read_segments(folder / "log"):
        if record.kind not in kinds:
            log.append(record.kind, record.payload, record.origin)
    log.seal()
    return log


def hour_of(live: Live, hour: int) -> Iterator[str]:
    """An hour of its life: labels of the day before, answers one by one, a tick. Tells each unit when it is answered."""
    live.clock.advance(SINCE + hour * HOUR)  # type: ignore[attr-defined]
    late = TABLE.filter((SINCE + (hour - 24) * HOUR <= WHEN) & (SINCE + (hour - 23) * HOUR > WHEN) & (WHEN >= SINCE))
    if late.height:
        live.feedback(late.select("id", "y"))
    for row in TABLE.filter((SINCE + hour * HOUR <= WHEN) & (SINCE + (hour + 1) * HOUR > WHEN)).iter_slices(1):
        live.answering.answer(sent(row, live), Attempt((1,)))
        yield row["id"][0]
    live.tick()


def lives(live: Live, since: int, until: int) -> str:
    """Hours of its life; returns the unit after which a guard first said FAIL, or ""."""
    failed = ""
    for hour in range(since, until):
        for unit in hour_of(live, hour):
            with live.lock:
                live.answering.fold()
            if not failed and live.rollout_verdict is not None and live.rollout_verdict.failed:
                failed = unit
    live.stores.traffic.flush()  # type: ignore[union-attr]
    return failed


def until_failed(live: Live, units: int, hour: int) -> int:
    """Lives on until so many units of the candidate have failed; returns the hour that comes."""
    while candidate_failed(live) < units:
        assert not lives(live, hour, hour + 1)
        hour += 1
    return hour


@contextmanager
def failed_twice(folder: Path, stage: str) -> Iterator[tuple[Live, SegmentWriter]]:
    """A rollout of which two units of the candidate have failed, and its log."""
    with closing(SegmentWriter(folder)) as log:
        live = begun(log, stage)
        live.offer("world/2", "a test")
        until_failed(live, 2, 0)
        yield live, log


def candidate_failed(live: Live) -> int:
    errors = live.rollout_state["evidence"]["errors"]
    return int((errors if isinstance(errors, dict) else errors[1])["candidate"])


def state(live: Live) -> bytes:
    return canonical(live.rollout_state)


def records(folder: Path) -> list[Told]:
    return [told_of(record.payload) for record in read_segments(folder) if record.kind == CALLS]


def events(live: Live, after: int) -> list[Any]:
    """What was decided, but for counts of answers, which a restart begins anew."""
    kinds = ("rollout_judged", "share_grown", "champion_changed", "stage_started")
    return [(r.event.kind, r.event.at, r.event.data) for r in live.stores.ledger.read(after) if r.event.kind in kinds]


@pytest.mark.parametrize("stage", ["canary 20% 50% 100%", "ab 30%", "thompson"])
def test_a_guard_stops_the_rollout_at_the_same_unit_with_a_restart_as_without(stage: str, tmp_path: Path) -> None:
    with closing(SegmentWriter(tmp_path / "log")) as log:
        live = begun(log, stage)
        lives(live, 0, 4)
        assert not records(tmp_path / "log"), "nothing is told where no rollout runs"
        live.offer("world/2", "a test")
        hour = until_failed(live, 2, 4)
        with closing(copied(live, tmp_path, "again")) as other:
            made, before = again(live, other), live.state.position
            behind = CatchUp(made, other, tmp_path / "again", {})
            with made.lock:  # what is answered meanwhile comes after the past
                behind.start()
                for late in (hour, hour + 1):
                    assert list(hour_of(made, late)) == list(hour_of(live, late))
            assert behind.wait(PATIENCE)
            assert not made.past.wrong
            for each in (live, made):
                each.tick()
            assert state(made) == state(live)
            stopped = lives(live, hour + 2, hour + 60)
            assert stopped
            assert stopped == lives(made, hour + 2, hour + 60)
            assert events(made, before) == events(live, before)
            assert live.state.rollout is None
        third = again(live, None)
        catch_up(third, tmp_path / "log")
        assert third.rollout_state == {}


def test_a_decision_of_a_guard_is_followed_record_by_record(tmp_path: Path) -> None:
    with closing(SegmentWriter(tmp_path / "log")) as log:
        live = begun(log, "canary 50% 100%")
        live.offer("world/2", "a test")
        rollout = live.state.rollout
        stopped = lives(live, 0, 60)
        assert stopped
    assert rollout is not None
    strategy, known, told = strategy_of(live.system, live.system.rollout[0], live.ready["world/2"].task, 0), set[str](), {}
    decisions: list[Decision] = []
    for record in records(tmp_path / "log"):
        assert (record.rollout, record.stage) == (rollout.started, 0)
        for entry in record.entries:
            if isinstance(entry, dict):
                told = entry
            elif isinstance(entry, tuple):
                unit, arm = entry[1] or ("", "")
                new = {arm: 1} if unit and unit not in known else {}
                known.add(unit)
                told, verdict = strategy.observe(told, Calls(entry[0], new, entry[2]))
                decisions.append(verdict.decision)
    assert decisions.index(Decision.FAIL) > 10
    assert pseudonym(stopped, KEY) in known


def test_a_stage_goes_on_from_what_it_began_with_and_an_earlier_rollout_tells_it_nothing(tmp_path: Path) -> None:
    with closing(SegmentWriter(tmp_path / "log")) as log:
        live = begun(log, "shadow 1d", "canary 10% 50% 100%", paired=True)
        live.offer("world/2", "the first")
        lives(live, 0, 12)
        live.roll_back("world/2", "to begin again")
        live.retrain("third", "by hand", offer=False)
        live.offer("world/3", "the second")
        lives(live, 12, 50)
        assert live.state.rollout is not None
        assert live.state.rollout.stage == 1
        assert {(told.rollout, told.stage) for told in records(tmp_path / "log")} > {(live.state.rollout.started, 1)}
        made = again(live, None)
        catch_up(made, tmp_path / "log")
        assert state(made) == state(live)
        assert live.rollout_state["evidence"]["timed"]["calls"]["control"] + len(live.rollout_state["evidence"]["timed"]["warm"])


def test_a_bandit_assigns_by_its_newest_state_that_is_logged_until_its_past_is_folded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SegmentWriter(tmp_path / "log")) as log:
        live = begun(log, "thompson")
        sound = live.ready["world/2"]
        live.ready["world/2"] = replace(sound, model=sound.model._model)  # type: ignore[attr-defined]
        live.offer("world/2", "a test")
        lives(live, 0, 50)
        known = [e for told in records(tmp_path / "log") for e in told.entries if isinstance(e, dict)]
        assert known[0]["shares"] == [0.5, 0.5] != known[-1]["shares"] == live.rollout_state["shares"]
        by: list[tuple[Any, Any]] = []

        def fold(self: Folding, *given: Any, **named: Any) -> None:
            assert made.router is not None
            by.append((made.router.routing.state["shares"], made.rollout_state["shares"]))
            whole(self, *given, **named)

        whole = Folding.fold
        monkeypatch.setattr(Folding, "fold", fold)
        with closing(copied(live, tmp_path, "again")) as other:
            made = again(live, other)
            behind = CatchUp(made, other, tmp_path / "again", {})
            behind.start()
            assert behind.wait(PATIENCE)
            assert not made.past.wrong
        assert [assigned for assigned, _ in by] == [live.rollout_state["shares"]] * len(by)
        assert by[0][1] == [0.5, 0.5], "what is folded so far"
        assert made.router is not None
        assert made.router.routing.state == made.rollout_state
        assert state(made) == state(live)


def test_a_log_of_before_such_records_or_of_after_them_is_read_as_far_as_it_is_known(tmp_path: Path) -> None:
    with failed_twice(tmp_path / "log", "canary 20% 50% 100%") as (live, log):
        log.append("a kind of tomorrow", b"?")
        with closing(copied(live, tmp_path, "old", frozenset({CALLS}))), closing(copied(live, tmp_path, "new")):
            old, new = again(live, None), again(live, None)
            assert catch_up(old, tmp_path / "old") == catch_up(new, tmp_path / "new") > 0
    mine, theirs = old.rollout_state["evidence"], live.rollout_state["evidence"]
    assert state(new) == state(live)
    assert mine["errors"]["candidate"] == 0 < theirs["errors"]["candidate"]
    assert (mine["each"], old.rollout_state["step"]) == (theirs["each"], live.rollout_state["step"])
    (said,) = new.answering.raised_by_fold.fresh()
    assert said.startswith("traffic log: 'a kind of tomorrow': this version does not know")
    assert new.state.rollout is not None
    new.counting.fold(Told(new.state.rollout.started, 0, 0, ({"of": "another form"},)))
    assert state(new) == state(live)


def test_a_subject_that_is_forgotten_is_not_named_there_and_what_was_counted_stays(tmp_path: Path) -> None:
    with failed_twice(tmp_path / "log", "canary 50% 100%") as (live, log):
        named = {e[1][0] for told in records(tmp_path / "log") for e in told.entries if isinstance(e, tuple) and e[1]}
        gone = next(unit for unit in TABLE["id"] if pseudonym(unit, KEY) in named)
        live.answering.answer(sent(TABLE.filter(pl.col("id") == gone), live), Attempt((1,)))  # once more, which does not count
        live.tick()
        errors = live.rollout_state["evidence"]["errors"]
        ask(live, gone, "it was asked for")
        carry_out(live, tmp_path / "log", log.seal)
        made = again(live, None)
        catch_up(made, tmp_path / "log")
        assert made.rollout_state["evidence"]["errors"] == errors
        entries = [e for told in records(tmp_path / "log") for e in told.entries]
        assert not any(isinstance(e, dict) for e in entries), "states know hashes of units"
        left = [e[1][0] for e in entries if isinstance(e, tuple) and e[1]]
        assert pseudonym(gone, KEY) not in left
        assert len(left) == len(named) + 1 == len(set(left)) + 1
        live.clock.advance(SINCE + 90 * HOUR)  # type: ignore[attr-defined]
        assert retain(live, tmp_path / "log", HOUR).segments
        assert not any(told.entries for told in records(tmp_path / "log"))


@pytest.mark.parametrize("stage", ["shadow 10d", "canary 10% 100%", "thompson for 14d", "linucb on x1 for 14d"])
def test_a_rollout_goes_on_through_tables_of_which_no_row_fits_and_so_does_its_restart(stage: str, tmp_path: Path) -> None:
    with closing(SegmentWriter(tmp_path / "log")) as log:
        live = begun(log, stage)
        live.offer("world/2", "a test")
        rows = TABLE.filter((WHEN >= SINCE) & (WHEN < SINCE + 24 * HOUR)).drop("y")
        for table, fit in ((rows.head(0), 0), (rows.with_columns(id=pl.lit(None, dtype=pl.String)), 0), (rows, rows.height)):
            replies, fitted = live.answer(table)
            assert (len(replies.answer), fitted.good.height, fitted.aside.height) == (fit, fit, table.height - fit)
            assert live.feedback(table.head(0).select("id").with_columns(y=pl.lit(0))).joined.is_empty()
        live.clock.advance(SINCE + 24 * HOUR)  # type: ignore[attr-defined]
        live.tick()
        assert live.book.waiting == rows.height
        back = again(live, copied(live, tmp_path, "copy"))
        assert catch_up(back, tmp_path / "copy") == rows.height
        back.tick()
        assert state(back) == state(live)
