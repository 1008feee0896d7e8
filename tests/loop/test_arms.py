"""What a rollout that begins says aloud."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from conftest import make_app
from lived import first_live
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY
from loudly.deliver.rollout import parse_rollout
from loudly.loop.arms import weaknesses
from loudly.loop.live import Live
from loudly.loop.stores import Stores


def offered(table: pl.DataFrame, stores: Stores, metric: str, *stages: str) -> list[str]:
    """The guarantees that a rollout of a system with this metric weakens, when it begins."""
    first, clock = first_live(table, stores)
    specs = tuple(parse_rollout(stage) for stage in stages)
    live = Live(replace(make_app(table).system, metric=metric, rollout=specs), stores, clock, key=b"key")
    before = live.state.position
    clock.advance(clock.now() + DAY)
    live.retraining = first.retraining
    live.retrain("by hand", "another one")
    assert live.state.rollout is not None
    kinds = (r.event for r in stores.ledger.read(before) if r.event.kind == "guarantee_weakened")
    return [f"{e.data['what']}: {e.data['reason']}" for e in kinds if "judged by" in str(e.data["what"])]


@pytest.mark.parametrize("metric", ["f1", "recall"])
def test_a_rollout_that_is_judged_by_a_ratio_row_by_row_says_so_and_what_where_it_cannot(
    world: pl.DataFrame, stores: Stores, metric: str
) -> None:
    (said,) = offered(world, stores, metric, "shadow 1d", "canary 10% 100%")
    assert said.startswith(f"a rollout is judged by {metric} row by row, as it changes around control's: ")
    live, _ = first_live(world, memory_stores("world"))
    live.system = replace(live.system, metric=metric)
    ((what, why),) = weaknesses(live, 2, rated=False)
    assert what == f"a rollout is judged by accuracy, not by {metric}"
    assert "taken as one of accuracy" in why


@pytest.mark.parametrize(
    ("metric", "stage"), [("roc_auc", "canary 10% 100%"), ("average_precision", "canary 10% 100%"), ("f1", "thompson for 7d")]
)
def test_who_is_judged_as_asked_or_by_rewards_is_not_warned(world: pl.DataFrame, stores: Stores, metric: str, stage: str) -> None:
    assert offered(world, stores, metric, stage) == []


def test_a_rollout_whose_stage_the_system_has_no_more_ends_and_says_why(world: pl.DataFrame, stores: Stores) -> None:
    live, clock = first_live(world, stores)
    live.retrain("by hand", "another one")
    clock.advance(clock.now() + 2 * DAY)
    live.tick()
    assert live.state.rollout is not None
    assert live.state.rollout.stage == 1
    again = Live(replace(live.system, rollout=live.system.rollout[:1]), stores, clock, key=b"key")
    again.tick()
    assert again.state.rollout is None
    assert again.state.champion == "world/1"
    gone = [str(r.event.data["reason"]) for r in stores.ledger.read() if r.event.kind == "version_rolled_back"]
    assert len(gone) == 1
    assert "its stage 2 is no part of the system any more" in gone[0]
