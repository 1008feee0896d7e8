"""A candidate is held against the champion on rows that the champion answers; what it does not answer keeps nobody out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from conftest import SINCE, make_app, make_world
from lived import WHEN, live_day
from loudly.core.clock import DataClock
from loudly.loop.founding import found
from loudly.loop.live import Live
from replayed import plain_stores

DAYS = 9
WORLD = make_world(days=50)
ODD = (WHEN >= SINCE) & (pl.int_range(pl.len()) % 60 == 0)
TABLE = WORLD.with_columns(x1=pl.when(~ODD).then("x1"))


def filled(X: Any, y: Any) -> Any:
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(X, y)


class Nothing:
    """A model that has no number for a row with a missing value."""

    def __init__(self, X: Any) -> None:
        self.mean = np.nanmean(X[:, 0])

    def predict(self, X: Any) -> Any:
        return 1 / (1 + np.exp(-X[:, 0] + self.mean))


def nothing(X: Any, y: Any) -> Any:
    return Nothing(X)


def mended(first: Any) -> tuple[str, list[Any], Live]:
    """The gate's decision on a candidate that answers all, what was weakened, and the wheel. first: how its champion was made."""
    system = make_app(TABLE, stage="manual").system
    system = replace(system, features=(), slices=(), train=replace(system.train, fit=first))
    live = Live(system, plain_stores(), DataClock(SINCE), key=b"k")
    assert not found(live, TABLE.filter(WHEN < SINCE))
    assert live.retrain("first training", "none yet") == "world/1"
    for day in range(DAYS):
        live_day(live, TABLE, day)
    live.retraining.system = replace(system, train=replace(system.train, fit=filled))
    live.retrain("by hand", "missing values are filled", offer=False)
    told: list[Any] = [r.event for r in live.stores.ledger.read()]
    (gate,) = [e.data["verdict"] for e in told if e.kind == "gate_judged" and e.data["version"] == "world/2"]
    weak = [e.data["reason"] for e in told if e.kind == "guarantee_weakened" and "comparison" in e.data["what"]]
    return gate["decision"], [gate, *weak], live


def plainly(X: Any, y: Any) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)


def test_a_champion_that_raises_at_held_out_rows_keeps_no_candidate_out() -> None:
    decision, (_, weak), _ = mended(plainly)
    assert decision == "PASS"
    assert "ValueError" in weak


def test_rows_that_the_champion_has_no_number_for_are_left_out_aloud() -> None:
    decision, (gate, weak), live = mended(nothing)
    new = live.retraining.reference().filter(live.state.fitted_at["world/1"] < WHEN)
    held = new.filter(new["at"].max() - pl.duration(days=7) < WHEN)  # type: ignore[operator]
    assert decision == "PASS"
    assert gate["evidence"][0]["n"] == held["x1"].count() < held.height
    assert weak.startswith(f"the champion has no answer to {held['x1'].null_count()} of {held.height}")
