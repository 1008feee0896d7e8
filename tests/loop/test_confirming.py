"""The rollback stays armed after a promotion, until the labels of its rollout have come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from conftest import SINCE, make_app, make_world
from lived import promoted_early
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock
from loudly.core.values import Decision, Event, Verdict
from loudly.deliver.rollout import parse_rollout
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.loop.restart import catch_up
from loudly.loop.system import Labels
from loudly.loop.tell import tell
from loudly.store.segments import SegmentWriter

TABLE = make_world(days=60, per_day=200)
when = pl.col("at").dt.epoch("us")


def promoted(second_is_bad: bool = False, log: Path | None = None) -> tuple[Live, DataClock, pl.DataFrame]:
    """A wheel whose candidate was promoted on the labels of few of its rollout's rows; with the rows that still wait."""
    fits: list[int] = []

    def fit(X: Any, y: Any) -> Any:
        fits.append(len(y))
        bad = second_is_bad and len(fits) > 2
        return make_pipeline(StandardScaler(), LogisticRegression()).fit(X, np.roll(y, 7) if bad else y)

    system = replace(make_app(TABLE).system, labels=Labels(10 * DAY), slices=())
    system = replace(system, rollout=(replace(parse_rollout("canary 50% 100%"), days=2, rows=400, deadline=30 * DAY),))
    system = replace(system, train=replace(system.train, fit=fit))
    clock, stores = DataClock(SINCE), memory_stores("world")
    stores = stores if log is None else replace(stores, traffic=SegmentWriter(log))
    live = Live(system, stores, clock, key=b"key")
    assert not found(live, TABLE.filter(when < SINCE))
    live.retrain("first training", "there is no model yet")
    live.retrain("by hand", "to have a rollout on the way")
    assert live.strategy is not None
    return live, clock, promoted_early(live, clock, TABLE, "world/2", labelled=80)


def kinds(live: Live) -> list[str]:
    return [r.event.kind for r in live.stores.ledger.read()]


def last(live: Live, kind: str) -> Event:
    return [r.event for r in live.stores.ledger.read() if r.event.kind == kind][-1]


def test_labels_that_come_late_and_agree_confirm_the_promotion() -> None:
    live, clock, waiting = promoted()
    live.tick()
    assert "promotion_confirmed" not in kinds(live)
    clock.advance(clock.now() + 5 * DAY)
    live.feedback(waiting.select("id", "y"))
    live.tick()
    assert live.state.champion == "world/2"
    assert live.state.confirming is None
    assert "world/2 confirmed: the labels of its rollout have come" in tell(last(live, "promotion_confirmed"))


def test_labels_that_come_late_and_say_worse_roll_the_champion_back() -> None:
    live, clock, waiting = promoted(second_is_bad=True)
    for day in range(5):
        live.feedback(waiting.slice(day * waiting.height // 5, waiting.height // 5 + 1).select("id", "y"))
        clock.advance(clock.now() + DAY)
        live.tick()
    assert live.state.champion == "world/1"
    assert kinds(live).index("version_rolled_back") > kinds(live).index("champion_changed")
    assert "labels that came after the promotion" in str(last(live, "version_rolled_back").data["reason"])
    assert live.answer(TABLE.tail(3).drop("y"))[0].versions[0] == "world/1"
    live.tick()
    assert kinds(live).count("version_rolled_back") == 1


def test_labels_that_never_come_are_named_when_their_time_is_over() -> None:
    live, clock, waiting = promoted()
    clock.advance(clock.now() + 19 * DAY)
    live.tick()
    assert "promotion_confirmed" not in kinds(live)
    clock.advance(clock.now() + 2 * DAY)
    live.tick()
    assert f"{waiting.height:,} of its rows never got a label" in str(last(live, "promotion_confirmed").data["reason"])


def test_a_rollout_against_the_champion_that_is_rolled_back_ends_with_it() -> None:
    live, _, _ = promoted()
    live.retrain("by hand", "another one")
    assert live.state.rollout is not None
    bad = Verdict(Decision.FAIL, "canary", "surely worse")
    live.confirming._verdict = bad
    live._do(live.plan().steps[0])
    assert live.state.champion == "world/1"
    assert live.state.rollout is None
    gone = [r.event.data["version"] for r in live.stores.ledger.read() if r.event.kind == "version_rolled_back"]
    assert gone == ["world/3", "world/2"]


def test_the_ledger_and_the_log_arm_it_again_after_a_restart(tmp_path: Path) -> None:
    before, clock, waiting = promoted(second_is_bad=True, log=tmp_path)
    assert before.stores.traffic is not None
    before.stores.traffic.close()
    live = Live(before.system, replace(before.stores, traffic=None), clock, key=b"key")
    reopen(live)
    catch_up(live, tmp_path)
    clock.advance(clock.now() + DAY)
    live.feedback(waiting.select("id", "y"))
    clock.advance(clock.now() + DAY)
    live.tick()
    assert live.state.champion == "world/1"


def test_a_promotion_whose_stage_the_system_has_no_more_is_said_to_be_unarmed_and_the_wheel_turns_on() -> None:
    before, clock, _ = promoted()
    live = Live(replace(before.system, rollout=()), before.stores, clock, key=b"key")
    for _ in range(2):
        live.tick()
    said = [r.event.data for r in live.stores.ledger.read() if r.event.kind == "guarantee_weakened" and "rollback" in str(r.event)]
    assert [(d["what"], d["reason"]) for d in said] == [
        (
            "the rollback of world/2 by labels that are still to come",
            "the stage that promoted it is no part of the system any more, so nothing judges its labels",
        )
    ]
    clock.advance(clock.now() + 40 * DAY)
    live.tick()
    assert "nothing judges its labels" in str(last(live, "promotion_confirmed").data["reason"])
    assert live.state.confirming is None
