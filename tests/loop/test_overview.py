"""What a page is told of a wheel: figures that the labelled rows bear out, each window's computed once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from conftest import SINCE, make_app, make_world
from lived import first_live, live_day
from loudly.app.door import Door
from loudly.app.server import LiveFront
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock, iso
from loudly.errors import WheelAway
from loudly.loop.founding import reopen
from loudly.loop.live import Live
from loudly.loop.overview import STORY, VERSIONS, Overview

TABLE = make_world(days=50)


def lived(days: int, *, rollout: bool = False) -> Live:
    live, _ = first_live(TABLE, memory_stores("world"))
    for day in range(days):
        if rollout and day == 2:
            live.retrain("by hand", "to have a rollout")
        live_day(live, TABLE, day)
    return live


def test_quality_by_window_is_that_of_its_labelled_rows() -> None:
    live = lived(4)
    seen: Any = Overview(live).plain()
    windows = {w["at"]: w for w in seen["quality"]["windows"]}
    champion = live.ready["world/1"]
    for day in range(3):
        at = SINCE + day * DAY
        rows = TABLE.filter((pl.col("at").dt.epoch("us") >= at) & (pl.col("at").dt.epoch("us") < at + DAY))
        told = windows[iso(at)]
        assert told["rows"] == rows.height
        assert told["own"]
        assert told["value"] == pytest.approx(roc_auc_score(rows["y"].to_numpy(), champion.predict(rows)))
    assert (seen["quality"]["metric"], seen["quality"]["expected"]) == ("roc_auc", live.state.expects("world/1", "roc_auc"))
    assert [w["rows"] for w in seen["windows"]] == [120] * 3, "the last day is not over"


@pytest.mark.parametrize("metric", ["log_loss", "accuracy", "f1"])
def test_another_metric_than_that_of_the_training_has_its_own_expectation(metric: str) -> None:
    """The number of the old one stood under the name of the new, and labels were held against it: harm that was none."""
    before = lived(4)
    system = replace(before.system, metric=metric, monitor=replace(before.system.monitor, enough=400, tolerance=0.08))
    now = Live(system, before.stores, DataClock(before.clock.now()), key=b"key")
    reopen(now)
    now.watch.crown(now.ready["world/1"], now.retraining.reference(), now.state.expects("world/1", metric), SINCE)
    for day in range(4, 9):
        live_day(now, TABLE, day)
    finished = next(r.event.data["run"] for r in before.stores.ledger.read() if r.event.kind == "run_finished")
    seen: Any = Overview(now).plain()
    assert seen["quality"]["metric"] == metric
    assert seen["quality"]["expected"] == seen["versions"][-1]["expected"] == finished["metrics"][metric]  # type: ignore[index,call-overload]
    confirmed = now.watch.performance(now.clock.now())
    assert confirmed.passed
    assert f"expected {finished['metrics'][metric]:.4f}" in confirmed.reason  # type: ignore[index,call-overload]
    assert now.state.expects("world/1", "average_precision") != now.state.expects("world/1", "roc_auc")
    assert now.state.expects("world/9", metric) is None


def test_what_is_seen_is_plain_and_what_ran_is_in_it() -> None:
    live = lived(6, rollout=True)
    front = LiveFront(live)
    seen: Any = front.overview()
    assert json.loads(json.dumps(seen, allow_nan=False)) == seen
    assert (seen["rollout"]["versions"], seen["rollout"]["stages"]) == (["world/2"], ["shadow", "canary"])
    assert seen["rollout"]["stage"] == (2 if seen["rollout"]["strategy"] == "canary" else 1)
    assert seen["status"] == json.loads(json.dumps(front.status()))
    assert [v["version"] for v in seen["versions"]] == ["world/2", "world/1"]
    assert len(seen["versions"]) <= VERSIONS
    assert len(seen["story"]) == min(STORY, live.state.position)
    newest = next(iter(live.stores.ledger.read(live.state.position - 1)))
    assert (seen["story"][0]["kind"], seen["story"][0]["at"]) == (newest.event.kind, iso(newest.event.at))


def test_a_window_is_computed_again_only_where_labels_have_come() -> None:
    live = lived(4)
    overview, calls = Overview(live), []
    metric = live.watch.metric
    compute = metric.compute

    def counting(truth: Any, score: Any, weight: Any = None) -> float:
        calls.append(len(truth))
        return compute(truth, score, weight)

    object.__setattr__(metric, "compute", counting)
    try:
        first: Any = overview.plain()
        assert calls == [120] * 3
        assert overview.plain()["quality"] == first["quality"]
        assert calls == [120] * 3
        live_day(live, TABLE, 4)
        calls.clear()
        overview.plain()
        assert calls == [120]
    finally:
        object.__setattr__(metric, "compute", compute)


def test_a_window_of_few_labels_says_nothing_and_one_class_neither() -> None:
    live = lived(2)
    live.watch.trail.add(np.ones(40), np.full(40, 0.5), np.full(40, SINCE + 5 * DAY))
    live.watch.trail.add(np.r_[1.0, 0.0], np.r_[0.9, 0.1], np.full(2, SINCE + 6 * DAY))
    seen: Any = Overview(live).plain()
    told = {w["at"]: (w["rows"], w["value"]) for w in seen["quality"]["windows"]}
    assert told[iso(SINCE + 3 * DAY)] == (0, None), "no gap in time"
    assert told[iso(SINCE + 5 * DAY)] == (40, None)
    assert told[iso(SINCE + 6 * DAY)] == (2, None)


def test_without_a_champion_there_is_little_to_see() -> None:
    live = Live(make_app(TABLE).system, memory_stores("world"), DataClock(SINCE), key=b"key")
    seen: Any = LiveFront(live).overview()
    assert (seen["rollout"], seen["versions"], seen["story"], seen["champion_since"]) == (None, [], [], None)


class Gone:
    """A line to a wheel that answers once, and then never again."""

    lost, refused = 0, ""

    def __init__(self, front: LiveFront) -> None:
        self._front, self._asked = front, 0

    def hand_over(self, kind: str, payload: bytes) -> None:
        """Nothing is answered here."""

    def ask(self, what: str, *_: Any) -> Any:
        self._asked += 1
        if self._asked > 1:
            raise WheelAway("gone")
        return getattr(self._front, what)()


def test_a_door_shows_what_it_saw_last_and_that_the_wheel_is_away() -> None:
    live = lived(2)
    door = Door(live.system, live.stores, b"key", Gone(LiveFront(live)), "worker 1", 1.0)  # type: ignore[arg-type]
    first, second = door.overview(), door.overview()
    assert (first["status"]["wheel_away"], second["status"]["wheel_away"]) == (False, True)
    assert second["story"] == first["story"]
    assert second["status"]["champion"] == "world/1"
    never = Door(live.system, live.stores, b"key", Gone(LiveFront(live)), "worker 2", 1.0)  # type: ignore[arg-type]
    never._line.ask("status")
    assert never.overview() == {"name": "world", "status": {"door": "worker 2", "wheel_away": True, "door_lost": 0}}
