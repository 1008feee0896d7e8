"""Labels of one class come late: the wheel has seen it, waits with a promotion, says so, and knows it again after a restart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock
from loudly.core.values import Decision
from loudly.deliver.rollout import parse_rollout
from loudly.errors import UserFileError
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.loop.restart import catch_up
from loudly.loop.system import Labels, PromoteOn
from loudly.store.segments import SegmentWriter

TABLE = make_world(days=60, per_day=250)
when = pl.col("at").dt.epoch("us")
SLOW, BEFORE = 5, 12


def wheel(promote_on: PromoteOn = "complete", log: Path | None = None) -> tuple[Live, DataClock]:
    made = make_app(TABLE, stage="manual").system
    gate = replace(made.gate, margin=1.0, slice_margin=1.0)
    spec = replace(parse_rollout("canary 50% 100%", margin=0.2), days=2, rows=300, deadline=30 * DAY)
    system = replace(made, gate=gate, labels=Labels(DAY, promote_on=promote_on), slices=(), rollout=(spec,))
    clock, stores = DataClock(SINCE), memory_stores("world")
    live = Live(system, stores if log is None else replace(stores, traffic=SegmentWriter(log)), clock, key=b"key")
    assert not found(live, TABLE.filter(when < SINCE))
    live.retrain("first training", "there is no model yet")
    return live, clock


def live_days(live: Live, clock: DataClock, first: int, last: int) -> None:
    """Days of traffic; labels of negatives come the day after, those of positives four days later still."""
    for day in range(first, last):
        live.answer(of(day).drop("y"))
        clock.advance(SINCE + (day + 1) * DAY)
        come = [of(day).filter(~pl.col("y")), of(day - SLOW + 1).filter(pl.col("y"))]
        live.feedback(pl.concat(come).select("id", "y"))
        live.tick()


def of(day: int) -> pl.DataFrame:
    return TABLE.filter((when >= SINCE + day * DAY) & (when < SINCE + (day + 1) * DAY) & (when >= SINCE))


def events(live: Live, kind: str) -> list[Any]:
    return [r.event for r in live.stores.ledger.read() if r.event.kind == kind]


def promoted_after(live: Live) -> int | None:
    """Days from the offer to the promotion of world/2."""
    changed = [e.at for e in events(live, "champion_changed") if e.data["version"] == "world/2"]
    return (changed[0] - events(live, "rollout_started")[0].at) // DAY if changed else None


def test_rows_wait_for_the_slow_class_as_the_champions_labels_have_told() -> None:
    live, clock = wheel()
    live_days(live, clock, 0, BEFORE)
    live.retrain("by hand", "another")
    told = events(live, "stage_started")[0].data["labels"]
    assert told["wait"] == SLOW * DAY
    assert told["share"] == 1.0
    assert told["because"].startswith("90% of the labels of each class came within 5d (")
    live_days(live, clock, BEFORE, BEFORE + 5)
    assert live.rollout_verdict is not None
    assert live.rollout_verdict.decision is Decision.UNDECIDED
    assert "only rows older than 5d count for a promotion" in live.rollout_verdict.reason
    live_days(live, clock, BEFORE + 5, BEFORE + 14)
    assert promoted_after(live) in (6, 7, 8)
    reason = events(live, "champion_changed")[-1].data["reason"]
    assert "older than 5d" in reason
    assert "rows without a label (younger than 5d: " in reason


@pytest.mark.parametrize(("promote_on", "wait"), [("complete", DAY), ("known", None), ("any", 0)])
def test_what_is_not_known_yet_is_the_users_choice(promote_on: PromoteOn, wait: int | None) -> None:
    live, clock = wheel(promote_on)
    live.retrain("by hand", "another")
    told = events(live, "stage_started")[0].data.get("labels", {"wait": 0})
    assert told["wait"] == wait
    live_days(live, clock, 0, 8)
    assert (promoted_after(live) is None) is (promote_on == "known")
    if promote_on == "known":
        assert live.rollout_verdict is not None
        assert "how late labels come is not known" in live.rollout_verdict.reason


def test_labels_on_time_promote_on_the_same_day_as_without_any_waiting() -> None:
    found_ = []
    for promote_on in ("complete", "any"):
        live, clock = wheel(promote_on)  # type: ignore[arg-type]
        for day in range(10):
            if day == 5:
                live.retrain("by hand", "another")
            live.answer(of(day).drop("y"))
            live.feedback(of(day).select("id", "y"))
            clock.advance(SINCE + (day + 1) * DAY)
            live.tick()
        found_.append(promoted_after(live))
    assert found_[0] == found_[1] is not None


def test_a_restarted_server_waits_as_long_and_has_the_same_ripe_rows(tmp_path: Path) -> None:
    before, clock = wheel(log=tmp_path)
    live_days(before, clock, 0, BEFORE)
    before.retrain("by hand", "another")
    live_days(before, clock, BEFORE, BEFORE + 5)
    assert before.state.rollout is not None
    assert before.stores.traffic is not None
    before.stores.traffic.close()
    live = Live(before.system, replace(before.stores, traffic=None), clock, key=b"key")
    reopen(live)
    catch_up(live, tmp_path)
    live.tick()
    mine, theirs = live.rollout_state["evidence"], before.rollout_state["evidence"]
    assert mine["ripe"]["rows"] == theirs["ripe"]["rows"] > 0
    for what in ("gain", "days", "by_day", "bursts"):
        for ours, other in ((mine, theirs), (mine["ripe"], theirs["ripe"])):
            np.testing.assert_equal(ours[what], other[what])
    assert mine["awaited"] == theirs["awaited"]
    assert live.rollout_verdict == before.rollout_verdict


def test_impossible_settings_are_refused() -> None:
    app = make_app(TABLE)
    with pytest.raises(UserFileError, match="promotion"):
        app.labels(arrive_within="1d", promote_on="some")  # type: ignore[arg-type]
    with pytest.raises(UserFileError, match="share"):
        app.labels(arrive_within="1d", nearly_all=1.5)
