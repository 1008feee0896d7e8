"""A margin of rmse or r2 is in traffic the margin of mse that it means, whatever the unit of the label."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LinearRegression

from conftest import SINCE, make_world
from loudly.app.app import App
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock
from loudly.evaluate.gate import Gate
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.loop.state import fold_all
from loudly.metrics.table import margin_in_traffic, metric

WHEN = pl.col("at").dt.epoch("us")
NOISE = np.random.default_rng(3).normal(size=61 * 200)
WORLD = make_world(days=61, per_day=200).with_columns(y=0.06 * pl.col("x1") + 0.5 + 0.05 * pl.Series(NOISE))
OFF = [0.0]


class Shifted(RegressorMixin, BaseEstimator):
    """A linear regression whose answers are off by so much."""

    def __init__(self, off: float = 0.0) -> None:
        self.off = off

    def fit(self, X: Any, y: Any) -> Shifted:
        self.inner_ = LinearRegression().fit(X, y)
        return self

    def predict(self, X: Any) -> Any:
        return self.inner_.predict(X) + self.off


def rolled(name: str, scale: float, margin: float, off: float) -> Live:
    """Twelve days of a canary of a candidate that is off by so much; the label is `scale` times as large."""
    table = WORLD.with_columns(pl.col("y") * scale)
    app = App("world", label="y", time="at", key="id", metric=name)
    app.data(lambda: table)

    @app.train(holdout="7d")
    def fit(X: Any, y: Any) -> Any:
        return Shifted(OFF[0] * scale).fit(X, y)

    app.labels(arrive_within="1d")
    app.rollout("canary 10% 100%", margin=margin, deadline="60d")
    app.gate(Gate(margin=1e9, slice_margin=1e9))
    live = Live(app.system, memory_stores("world"), DataClock(SINCE), key=b"key")
    assert not found(live, table.filter(WHEN < SINCE))
    OFF[0] = 0.0
    live.retrain("first training", "there is no model yet")
    OFF[0] = off
    assert live.retrain("by hand", "a test") == "world/2"
    for day in range(12):
        live.clock.advance(SINCE + (day + 1) * DAY)  # type: ignore[attr-defined]
        rows = table.filter((SINCE + day * DAY <= WHEN) & (SINCE + (day + 1) * DAY > WHEN))
        live.answer(rows.drop("y"))
        live.feedback(rows.select("id", "y"))
        live.tick()
    return live


@pytest.mark.parametrize("scale", [1.0, 1000.0])
@pytest.mark.parametrize(("name", "margin"), [("rmse", 0.05), ("r2", 0.2)])
def test_who_is_worse_by_more_than_the_margin_is_rolled_back_and_who_is_not_is_promoted(
    name: str, margin: float, scale: float
) -> None:
    """Off by .15, rmse is .16 for .05 and r2 falls by 3.7; taken as margins of mse both were promoted where labels are small."""
    wanted = margin * scale if name == "rmse" else margin
    bad = rolled(name, scale, wanted, off=0.15)
    assert bad.state.champion == "world/1"
    assert bad.state.rollout is None, "it is rolled back"
    assert rolled(name, scale, wanted, off=0.0).state.champion == "world/2"
    begun = next(r.event.data for r in bad.stores.ledger.read() if r.event.kind == "rollout_started")
    labels = bad.retraining.reference()["y"].to_numpy()
    expected = bad.state.expects("world/1", name) if name == "rmse" else labels.var()
    assert begun["scale"] == pytest.approx(expected)
    weakened = [str(r.event.data["reason"]) for r in bad.stores.ledger.read() if r.event.kind == "guarantee_weakened"]
    assert any("its margin is that of mse where" in reason for reason in weakened)
    assert fold_all(bad.stores.ledger.read()) == bad.state


def test_a_margin_is_met_exactly_where_control_is_as_it_was() -> None:
    rng = np.random.default_rng(0)
    truth, answers = rng.normal(size=500), rng.normal(size=500)
    mse, rmse, r2 = (metric(name)(truth, answers) for name in ("mse", "rmse", "r2"))
    assert np.sqrt(mse + margin_in_traffic("rmse", 0.3, rmse)) == pytest.approx(rmse + 0.3)
    assert 1 - (mse + margin_in_traffic("r2", 0.3, truth.var())) / truth.var() == pytest.approx(r2 - 0.3)
