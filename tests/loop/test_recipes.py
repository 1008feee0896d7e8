"""Recipes beside the train function: one retraining makes several candidates, and they meet traffic together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.tree import DecisionTreeClassifier

from conftest import SINCE, make_app, make_world
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock
from loudly.deliver.rollout import parse_rollout
from loudly.errors import UserFileError
from loudly.evaluate.gate import Gate
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.loop.replay import replay
from loudly.loop.system import System
from loudly.loop.tell import tell
from replayed import chains, of_kind


def shallow(X: Any, y: Any, *, seed: int) -> Any:
    return DecisionTreeClassifier(max_depth=3, random_state=seed).fit(X, y)


def deep(X: Any, y: Any) -> Any:
    return DecisionTreeClassifier(max_depth=5, random_state=0).fit(X, y)


def broken(X: Any, y: Any) -> Any:
    raise ValueError("no such column")


class Lost:
    """A model that answers nothing."""

    def predict(self, X: Any) -> Any:
        return np.full(len(X), np.nan)


def lost(X: Any, y: Any) -> Any:
    return Lost()


def system_of(table: pl.DataFrame, text: str, *recipes: Any, **policy: Any) -> System:
    app = make_app(table, **{"growth": 0.2, **policy})
    for recipe in recipes:
        app.recipe(recipe)
    app.gate(Gate(margin=1.0, slice_margin=1.0, overfit=1.0))
    return replace(app.system, rollout=(parse_rollout(text, margin=0.2),))


def test_one_retraining_sends_as_many_candidates_as_the_rollout_has_arms_for() -> None:
    table = make_world(days=52, per_day=150)
    system = system_of(table, "ab among 3 for 8d", shallow, deep)
    made, again = (replay(system, table, memory_stores("world"), since=SINCE) for _ in range(2))
    assert chains(made) == chains(again)
    runs = of_kind(made, "run_finished")
    assert [e.data.get("recipe") for e in runs[:3]] == [None, None, "shallow"], "the first model has nobody to be held against"
    assert "by the recipe shallow" in tell(runs[2])
    assert runs[1].at == runs[2].at
    assert made.state.refits == tuple(e.at for e in runs if "recipe" not in e.data), "a retraining is one refit, whatever it makes"
    started = of_kind(made, "rollout_started")[0].data
    assert (started["version"], started["others"]) == ("world/2", ["world/3"])
    assert not [e for e in of_kind(made, "guarantee_weakened") if "fewer" in str(e.data["what"])]
    assert {"world/1", "world/2", "world/3"} <= set(made.answers["_version"].unique())


def live_of(table: pl.DataFrame, text: str, *recipes: Any, stage: str = "manual") -> Live:
    live = Live(system_of(table, text, *recipes, stage=stage), memory_stores("world"), DataClock(SINCE), key=b"k")
    assert not found(live, table.filter(pl.col("at").dt.epoch("us") < SINCE))
    live.retrain("first training", "there is no model yet")
    return live


def test_a_recipe_that_fails_is_told_and_the_others_go_on() -> None:
    live = live_of(make_world(days=34), "thompson among 4 for 14d", broken, deep)
    live.clock.advance(SINCE + DAY)  # type: ignore[attr-defined]
    assert live.retrain("by hand", "a test") == "world/2"
    failed = [r.event for r in live.stores.ledger.read() if r.event.kind == "retrain_failed"]
    assert "the recipe broken" in failed[0].data["reason"]
    assert "no such column" in failed[0].data["reason"]
    assert live.state.rollout is not None
    assert (live.state.rollout.version, live.state.rollout.others) == ("world/2", ("world/3",))
    assert live.ready["world/3"].bundle.meta["recipe"] == "deep"


@pytest.mark.parametrize("text", ["canary 10% 100%", "thompson for 14d", "interleave team draft for 7d"])
def test_where_there_is_no_room_no_recipe_is_tried(text: str) -> None:
    table = make_world(days=34)
    live = Live(
        replace(system_of(table, text, deep, stage="manual"), group="group", slices=()),
        memory_stores("world"),
        DataClock(SINCE),
        key=b"k",
    )
    assert not found(live, table.filter(pl.col("at").dt.epoch("us") < SINCE))
    for _ in range(2):
        live.retrain("by hand", "a test")
    assert list(live.state.versions) == ["world/1", "world/2"]


def test_where_only_a_recipe_passes_its_gate_it_is_the_candidate() -> None:
    live = live_of(make_world(days=34), "thompson among 3 for 14d", deep)
    live.retraining.system = replace(live.system, train=replace(live.system.train, fit=lost))
    live.clock.advance(SINCE + DAY)  # type: ignore[attr-defined]
    assert live.retrain("by hand", "a test") == "world/2"
    gates = [r.event.data["verdict"]["decision"] for r in live.stores.ledger.read() if r.event.kind == "gate_judged"]
    assert gates == ["PASS", "FAIL", "PASS"]
    assert live.state.rollout is not None
    assert (live.state.rollout.version, live.state.rollout.others) == ("world/3", ())


def test_a_recipe_is_a_function_of_x_and_y_and_has_a_name_of_its_own() -> None:
    app = make_app(make_world(days=3))
    app.recipe(deep)
    with pytest.raises(UserFileError, match="two recipes called 'deep'"):
        app.recipe(deep)
    with pytest.raises(UserFileError, match="starts with X and y"):
        app.recipe(lambda rows: rows)
    assert deep(*_xy()).get_depth() <= 5


def _xy() -> Any:
    return [[0.0], [1.0]], [0, 1]
