"""Of several arms, and of those of a bandit, the promoted one is judged on by late labels, also after a restart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from conftest import SINCE, make_world
from lived import promoted_early
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock
from loudly.deliver.rollout import parse_rollout
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.loop.restart import catch_up
from loudly.loop.system import Labels, System
from loudly.store.segments import SegmentWriter
from loudly.testing.damage import labels_shuffled
from replayed import chains, run, ungated

TABLE = make_world(days=50, per_day=900)
BAD = labels_shuffled("y", pl.lit(True), 2)
when = pl.col("at").dt.epoch("us")
TEXTS = ["ab 40% 30% 30% for 20d", "thompson 0.3 among 3 for 20d", "linucb on x1, x2 60% among 3 for 20d"]


def system_of(text: str, days: int = 2) -> System:
    made = ungated(TABLE, text, margin=0.1, deadline=20 * DAY, days=days)  # six standard errors of what equal arms differ by
    return replace(made, labels=Labels(10 * DAY), slices=())


def promoted(text: str, version: str, log: Path | None = None) -> tuple[Live, DataClock, pl.DataFrame]:
    """A wheel whose rollout of a bad and a good candidate ended with one of them, on few labels; with the rows that still wait."""
    clock, stores = DataClock(SINCE), memory_stores("world")
    live = Live(system_of(text), stores if log is None else replace(stores, traffic=SegmentWriter(log)), clock, key=b"key")
    assert not found(live, TABLE.filter(when < SINCE))
    live.retrain("first training", "there is no model yet")
    live.retrain("by hand", "bad on purpose", harm=BAD, offer=False)
    live.offer(str(live.retrain("by hand", "a good one", offer=False)), "a test")
    waiting = promoted_early(live, clock, TABLE, version, labelled=20)
    assert live.state.confirming is not None
    return live, clock, waiting


def kinds(live: Live) -> list[str]:
    return [r.event.kind for r in live.stores.ledger.read()]


def finish(live: Live, clock: DataClock, waiting: pl.DataFrame) -> None:
    """All labels come, and their time goes by."""
    live.feedback(waiting.select("id", "y"))
    for _ in range(21):
        clock.advance(clock.now() + DAY)
        live.tick()


@pytest.mark.parametrize("text", TEXTS)
def test_late_labels_take_back_a_bad_arm_and_confirm_a_good_one(text: str) -> None:
    live, clock, waiting = promoted(text, "world/2")
    assert live.confirming.known() is not None
    finish(live, clock, waiting)
    assert live.state.champion == "world/1"
    back = [r.event.data for r in live.stores.ledger.read() if r.event.kind == "version_rolled_back"]
    assert [d["version"] for d in back] == ["world/2"]
    assert "labels that came after the promotion" in str(back[0]["reason"])
    live, clock, waiting = promoted(text, "world/3")
    finish(live, clock, waiting)
    assert live.state.champion == "world/3"
    assert kinds(live)[-1] == "promotion_confirmed" or "promotion_confirmed" in kinds(live)
    assert live.state.confirming is None


@pytest.mark.parametrize("text", TEXTS)
def test_a_restarted_server_is_armed_again_and_judges_the_same(text: str, tmp_path: Path) -> None:
    before, clock, waiting = promoted(text, "world/2", tmp_path)
    half = waiting.height // 2
    before.feedback(waiting.head(half).select("id", "y"))
    assert before.stores.traffic is not None
    before.stores.traffic.close()
    live = Live(before.system, replace(before.stores, traffic=None), clock, key=b"key")
    reopen(live)
    catch_up(live, tmp_path)
    mine, theirs = live.confirming.known(), before.confirming.known()
    assert mine is not None
    assert theirs is not None
    assert (mine.version, mine.previous, mine.waiting, mine.until) == (
        theirs.version,
        theirs.previous,
        theirs.waiting,
        theirs.until,
    )
    finish(live, clock, waiting.tail(waiting.height - half))
    assert live.state.champion == "world/1"


def test_of_two_arms_by_rewards_too() -> None:
    live, clock, waiting = promoted("thompson 0.3 for 20d", "world/3")
    finish(live, clock, waiting)
    assert live.state.confirming is None
    assert live.state.champion == "world/3"


@pytest.mark.parametrize("text", ["thompson among 3 for 14d", "ab among 3 for 14d"])
def test_a_replay_arms_it_and_confirms_twice_the_same(text: str) -> None:
    table = make_world(days=55, per_day=200)
    system = replace(system_of(text), labels=Labels(2 * DAY), rollout=(parse_rollout(text, margin=0.4),))

    def turn(live: Live, now: int) -> None:
        if now == SINCE + 2 * DAY:
            live.retrain("by hand", "one", offer=False)
            live.offer(str(live.retrain("by hand", "another", offer=False)), "a test")

    once, again = (run(system, table, turn) for _ in range(2))
    assert chains(once) == chains(again)
    told = [r.event.kind for r in once.events if r.event.kind in ("champion_changed", "promotion_confirmed")]
    assert told == ["champion_changed", "champion_changed", "promotion_confirmed"]
