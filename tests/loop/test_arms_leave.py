"""Arms that leave a rollout of the wheel, and bandits that are frozen: in the ledger, over a restart, on every worker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from conftest import SINCE, make_world
from lived import live_day
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock
from loudly.core.seams import Calls
from loudly.core.values import Decision
from loudly.loop.arms import told
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.loop.outpost import Outpost, routing_of
from loudly.loop.restart import catch_up
from loudly.loop.standing import standing_verdict
from loudly.loop.tell import tell
from loudly.loop.why import why
from loudly.store.segments import SegmentWriter
from loudly.store.sqlite_ledger import SqliteLedger
from loudly.testing.damage import labels_shuffled
from replayed import chains, of_kind, run, ungated

OFFERED = SINCE + 2 * DAY


def test_a_surely_worse_arm_leaves_alone_and_the_ledger_says_so() -> None:
    table = make_world(days=56, per_day=400)
    system = ungated(table, "ab among 3 for 20d", margin=0.03)
    seen: list[Any] = []

    def turn(live: Live, now: int) -> None:
        if now == OFFERED:
            live.retrain("by hand", "bad on purpose", harm=labels_shuffled("y", pl.lit(True), 1), offer=False)
            live.offer(str(live.retrain("by hand", "a good one", offer=False)), "a test")
        if live.state.rollout is not None and live.state.rollout.dropped and not seen:
            seen.append((standing_verdict(live, "world/2"), standing_verdict(live, "world/3"), told(live)))

    made, again = (run(system, table, turn) for _ in range(2))
    assert chains(made) == chains(again)
    left = of_kind(made, "arm_dropped")
    assert [(e.data["version"], e.data["arm"]) for e in left] == [("world/2", "candidate2")]
    assert "surely worse" in left[0].data["verdict"]["reason"]
    assert "world/2 leaves the rollout alone" in tell(left[0])
    after = made.answers.filter(pl.col("at").dt.epoch("us") >= left[0].at + DAY)
    assert "world/2" not in after["_version"].unique().to_list()
    before = made.answers.filter((pl.col("at").dt.epoch("us") >= OFFERED + DAY) & (pl.col("at").dt.epoch("us") < left[0].at))
    assert "world/2" in before["_version"].unique().to_list()
    dropped, stays, arms = seen[0]
    assert dropped.decision is Decision.FAIL
    assert stays.decision is Decision.UNDECIDED
    assert (arms["candidate2"]["share"], arms["control"]["share"]) == (0.0, pytest.approx(0.5))
    assert "surely worse" in arms["candidate2"]["dropped"]
    assert "arm_dropped" in [e.kind for e in why(made.events, "world/2").entries]


def live_of(text: str, ledger: Any, log: Any, table: pl.DataFrame, **more: Any) -> Live:
    """A wheel with a rollout of three arms that are equally good, two days in."""
    stores = replace(memory_stores("world"), ledger=ledger, traffic=log)
    system = replace(ungated(table, text, margin=0.0), **more)
    live = Live(system, stores, DataClock(SINCE), key=b"k")
    assert not found(live, table.filter(pl.col("at").dt.epoch("us") < SINCE))
    live.retrain("first training", "there is no model yet")
    for _ in range(2):
        newest = live.retrain("by hand", "another", offer=False)
    live.offer(str(newest), "a test")
    return live


@pytest.mark.parametrize("text", ["ab among 3 for 14d", "thompson among 3 for 14d", "linucb on x1 10% among 3 for 14d"])
def test_an_arm_that_has_left_stays_out_after_a_restart_and_on_every_worker(text: str, tmp_path: Path) -> None:
    table = make_world(days=40, per_day=100)
    ledger, log = SqliteLedger(tmp_path / "ledger.db"), SegmentWriter(tmp_path / "traffic")
    live = live_of(text, ledger, log, table)
    for day in range(2):
        live_day(live, table, day)
    before = live.answer(table.filter(pl.col("at").dt.epoch("us") >= SINCE + 3 * DAY).head(300).drop("y"))[0]
    assert live.strategy is not None
    even = dict.fromkeys(("control", "candidate", "candidate2"), 100)
    live.rollout_state, _ = live.strategy.observe(live.rollout_state, Calls(even, {"candidate2": 80}))
    live.tick()
    assert live.state.rollout is not None
    assert list(live.state.rollout.dropped) == ["world/2"]
    assert "world/2" not in live.state.passed
    after = live.answer(table.filter(pl.col("at").dt.epoch("us") >= SINCE + 3 * DAY).head(300).drop("y"))[0]
    assert set(after.arm) == {0, 1}
    if text.startswith("ab"):
        assert (after.arm[before.arm != 2] == before.arm[before.arm != 2]).all()
    log.flush()
    again = Live(live.system, live.stores, DataClock(SINCE + 2 * DAY), key=b"k")
    reopen(again)
    catch_up(again, tmp_path / "traffic")
    rows = table.filter(pl.col("at").dt.epoch("us") >= SINCE + 4 * DAY).head(300).drop("y")
    assert (again.answer(rows)[0].arm == live.answer(rows)[0].arm).all() or not text.startswith("ab")
    assert 2 not in again.answer(rows)[0].arm
    again.tick()
    assert [r.event.kind for r in ledger.read()].count("arm_dropped") == 1
    post = Outpost(live.system, live.stores, b"k", live.clock, lambda kind, payload: None)
    post.follow(routing_of(live))
    assert post._standing is not None
    made = post._standing.router.answer(rows, rows["id"].to_list())
    assert (made.arm == live.answer(rows)[0].arm).all()
    ledger.close()
    log.close()


def test_a_reward_that_fails_keeps_no_server_from_starting_and_a_mended_one_learns_all(tmp_path: Path) -> None:
    """The labels are in the log: with the reward mended the bandit knows after a restart what it would have known."""
    table = make_world(days=40, per_day=100)

    def broken(rows: pl.DataFrame, answers: pl.Series) -> pl.Series:
        return rows["paid"]

    def sound(rows: pl.DataFrame, answers: pl.Series) -> pl.Series:
        return answers

    ledger, log = SqliteLedger(tmp_path / "ledger.db"), SegmentWriter(tmp_path / "traffic")
    live = live_of("thompson among 3 for 14d", ledger, log, table, reward=broken)
    for day in range(4):
        live_day(live, table, day)
    kinds = [r.event.kind for r in ledger.read()]
    assert kinds.count("bandit_frozen") == 1
    assert sum(live.rollout_state["evidence"]["pulls"]) == 0
    assert live.rollout_state["shares"] == pytest.approx([1 / 3] * 3)
    assert live.retraining.new_rows == 300, "everybody else has the labels"
    log.flush()
    for reward, pulls, frozen in ((broken, 0, 2), (sound, 200, 2)):
        again = Live(replace(live.system, reward=reward), live.stores, DataClock(SINCE + 3 * DAY), key=b"k")
        reopen(again)
        catch_up(again, tmp_path / "traffic")
        assert sum(again.rollout_state["evidence"]["pulls"]) == pytest.approx(pulls, abs=100 if pulls else 0)
        assert [r.event.kind for r in ledger.read()].count("bandit_frozen") == frozen
        rows = table.filter(pl.col("at").dt.epoch("us") >= SINCE + 5 * DAY).head(20).drop("y")
        assert np.isfinite(again.answer(rows)[0].answer).all()
        again.tick()
    assert again.state.rollout is not None
    ledger.close()
    log.close()


def test_labels_whose_reward_fails_are_taken(tmp_path: Path) -> None:
    table = make_world(days=40, per_day=60)
    log = SegmentWriter(tmp_path / "traffic")
    live = live_of("thompson for 14d", memory_stores("world").ledger, log, table, reward=lambda rows, answers: answers * 9)
    for day in range(2):
        live_day(live, table, day)
    at = pl.col("at").dt.epoch("us")
    arrival = live.feedback(table.filter((at >= SINCE + DAY) & (at < SINCE + 2 * DAY)).select("id", "y"))
    assert arrival.joined.height == 60
    log.close()
