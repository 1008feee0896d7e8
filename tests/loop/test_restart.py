"""Two hands at one ledger, and a server that comes back in the middle of a rollout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from lived import live_day
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock
from loudly.deliver.rollout import RolloutSpec, parse_rollout
from loudly.errors import StaleWriter
from loudly.loop.arms import told
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.loop.restart import catch_up
from loudly.loop.stores import Stores
from loudly.store.segments import SegmentWriter
from loudly.store.sqlite_ledger import SqliteLedger

TABLE = make_world(days=50)


def start(stores: Stores, now: int, stages: tuple[RolloutSpec, ...] = ()) -> Live:
    system = make_app(TABLE).system
    live = Live(replace(system, rollout=stages or system.rollout), stores, DataClock(now), key=b"k")
    reopen(live)
    return live


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    ledger, log = SqliteLedger(tmp_path / "ledger.db"), SegmentWriter(tmp_path / "traffic")
    yield replace(memory_stores("world"), ledger=ledger, traffic=log)
    ledger.close()
    log.close()


def begin(stores: Stores, stages: tuple[RolloutSpec, ...] = ()) -> Live:
    live = start(stores, SINCE, stages)
    known = TABLE.filter(pl.col("at").dt.epoch("us") < SINCE)
    assert not found(live, known)
    live.retrain("first training", "there is no model yet")
    second = live.retrain("by hand", "another", offer=False)
    assert second is not None
    live.offer(second, "a test")
    return live


def test_a_restarted_server_goes_on_with_the_rollout_and_its_evidence(stores: Stores, tmp_path: Path) -> None:
    live = begin(stores)
    for number in range(3):
        live_day(live, TABLE, number)
    assert live.state.rollout is not None
    assert stores.traffic is not None
    stores.traffic.flush()
    again = start(stores, SINCE + 2 * DAY)
    read: list[tuple[int, int]] = []
    assert catch_up(again, tmp_path / "traffic", progress=lambda done, of: read.append((done, of))) == 360
    assert read
    assert all(0 < done < of for done, of in read)
    assert again.state == live.state
    assert again.strategy is not None
    assert again.rollout_state["evidence"]["gain"] == live.rollout_state["evidence"]["gain"]
    assert again.retraining.new_rows == live.retraining.new_rows
    assert again.book.waiting == live.book.waiting


def test_a_restart_learns_no_row_again_that_the_dataset_has(stores: Stores, tmp_path: Path) -> None:
    live = begin(stores)
    for number in range(3):
        live_day(live, TABLE, number)
    assert live.retrain("by hand", "new labels", offer=False) is not None
    live_day(live, TABLE, 3)
    assert stores.traffic is not None
    stores.traffic.flush()
    again = start(stores, SINCE + 3 * DAY)
    catch_up(again, tmp_path / "traffic")
    assert again.retraining.new_rows == live.retraining.new_rows == 120
    assert again.retrain("by hand", "once more", offer=False) is not None
    keys = again.retraining.reference()["id"]
    assert keys.n_unique() == len(keys)


def test_a_restart_keeps_the_share_that_a_canary_has_come_to(stores: Stores, tmp_path: Path) -> None:
    stages = (parse_rollout("canary 5% 25% 100% every 1d", days=20, deadline=30 * DAY),)
    live = begin(stores, stages)
    for number in range(2):
        live_day(live, TABLE, number)
    assert stores.traffic is not None
    stores.traffic.flush()
    grown = [r.event for r in stores.ledger.read() if r.event.kind == "share_grown"]
    assert [(event.data["step"], event.data["share"], event.at) for event in grown] == [(1, 0.25, SINCE + DAY)]
    assert told(live)["candidate"]["share"] == 0.25
    again = start(stores, SINCE + DAY, stages)
    catch_up(again, tmp_path / "traffic")
    assert (again.rollout_state["step"], again.rollout_state["step_at"]) == (1, SINCE + DAY)
    assert again.rollout_state["evidence"]["gain"] == live.rollout_state["evidence"]["gain"]
    assert again.router is not None
    assert again.router.routing.state["step"] == 1
    live_day(again, TABLE, 2)
    assert told(again)["candidate"]["share"] == 1.0


def test_what_another_hand_writes_is_followed_at_the_next_tick(stores: Stores) -> None:
    live = begin(stores)
    live_day(live, TABLE, 0)
    other = start(stores, SINCE)
    assert other.state.rollout is not None
    other.roll_back(other.state.rollout.version, "by another hand")
    with pytest.raises(StaleWriter):
        live.event("held", wanted="x", reason="stale")
    live.tick()
    assert live.state.rollout is None
    assert live.strategy is None
    assert live.router is not None
    assert live.router.routing.candidates == ()
    live.event("held", wanted="x", reason="in step again")
    with pytest.raises(StaleWriter):
        other.promote("world/2", "two admins at once")
