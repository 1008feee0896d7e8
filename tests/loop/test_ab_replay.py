"""An A/B test within the wheel: it starts, answers with both versions, and ends with its evidence in the ledger."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from conftest import SINCE, make_app
from loudly.app.verbs import memory_stores
from loudly.deliver.rollout import parse_rollout
from loudly.loop.replay import replay
from replayed import chains


def test_a_replay_runs_an_ab_test_to_its_end_twice_alike(world: pl.DataFrame) -> None:
    system = replace(make_app(world).system, rollout=(parse_rollout("ab 50% for 20d", margin=0.15),))
    once, again = (replay(system, world, memory_stores("world"), since=SINCE) for _ in range(2))
    assert chains(once) == chains(again)
    judged = [r.event for r in once.events if r.event.kind in {"rollout_judged", "champion_changed", "rolled_back"}]
    told = "\n".join(str(event.data) for event in judged)
    assert "ab at 50%" in told
    assert "units as clusters" in told
    assert "sample ratio mismatch" not in told
