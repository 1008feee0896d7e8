"""A rollout of a rare class is judged by F1 and its like, row by row, from rates that its ledger holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.tree import DecisionTreeClassifier

from conftest import SINCE, make_world
from loudly.app.app import App
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock
from loudly.evaluate.gate import Gate
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.loop.state import fold_all
from loudly.metrics.table import metric

WHEN = pl.col("at").dt.epoch("us")
DRAWN = np.random.default_rng(5).random(61 * 600)
RARE = make_world(days=61, per_day=600)
# Two in a hundred by x1, and as many by nothing that is known.
RARE = RARE.with_columns(y=(pl.Series(DRAWN) < 0.02 + 0.95 / (1 + (12 * (2.05 - pl.col("x1"))).exp())).cast(pl.Int64))
THREE = RARE.with_columns(
    y=pl.when(pl.col("y") > 0).then(pl.lit("fraud")).when(pl.Series(DRAWN) > 0.6).then(pl.lit("good")).otherwise(pl.lit("fair"))
)
DEAF = [False]


class Deaf(ClassifierMixin, BaseEstimator):
    """A tree that takes the rare class for none of its own, where it is told so."""

    def __init__(self, deaf: bool = False) -> None:
        self.deaf = deaf

    def fit(self, X: Any, y: Any) -> Deaf:
        self.inner_ = DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, y)
        self.classes_ = self.inner_.classes_
        return self

    def predict_proba(self, X: Any) -> Any:
        made = self.inner_.predict_proba(X)
        if self.deaf:
            rare = list(self.classes_).index("fraud") if "fraud" in self.classes_ else 1
            made[:, rare] = np.minimum(made[:, rare], 0.01)
            made /= made.sum(axis=1, keepdims=True)
        return made

    def predict(self, X: Any) -> Any:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def rolled(table: pl.DataFrame, name: str, deaf: bool) -> Live:
    """Fourteen days of a canary; both versions learn from the same rows."""
    app = App("world", label="y", time="at", key="id", metric=name)
    app.data(lambda: table)

    @app.train(holdout="7d")
    def fit(X: Any, y: Any) -> Any:
        return Deaf(DEAF[0]).fit(X, y)

    app.labels(arrive_within="1d")
    app.rollout("canary 10% 100%", margin=0.08, deadline="60d")
    app.gate(Gate(margin=1e9, slice_margin=1e9))
    live = Live(app.system, memory_stores("world"), DataClock(SINCE), key=b"key")
    assert not found(live, table.filter(WHEN < SINCE))
    DEAF[0] = False
    live.retrain("first training", "there is no model yet")
    DEAF[0] = deaf
    assert live.retrain("by hand", "a test") == "world/2"
    for day in range(14):
        live.clock.advance(SINCE + (day + 1) * DAY)  # type: ignore[attr-defined]
        rows = table.filter((SINCE + day * DAY <= WHEN) & (SINCE + (day + 1) * DAY > WHEN))
        live.answer(rows.drop("y"))
        live.feedback(rows.select("id", "y"))
        live.tick()
    return live


@pytest.mark.parametrize(
    ("table", "name"), [(RARE, "f1"), (RARE, "balanced_accuracy"), (THREE, "f1"), (THREE, "balanced_accuracy")]
)
def test_who_is_deaf_to_the_rare_class_is_rolled_back_and_who_is_as_good_is_promoted(table: pl.DataFrame, name: str) -> None:
    """By accuracy the deaf one was within the margin, and became champion."""
    bad = rolled(table, name, deaf=True)
    assert (bad.state.champion, bad.state.rollout) == ("world/1", None), "it is rolled back"
    why = next(str(r.event.data["reason"]) for r in bad.stores.ledger.read() if r.event.kind == "version_rolled_back")
    assert f"surely worse: {name} -" in why
    assert rolled(table, name, deaf=False).state.champion == "world/2"
    begun = next(r.event.data for r in bad.stores.ledger.read() if r.event.kind == "rollout_started")
    rates: Any = begun["rates"]
    assert sum(share for share, _, _ in rates) == pytest.approx(1)
    assert sum(said for _, said, _ in rates) == pytest.approx(1)
    if table is RARE and name == "f1":
        assert rates[1][2] == pytest.approx(bad.state.expects("world/1", name)), (
            "as the gate has found, not as the fit's own rows flatter"
        )
    assert fold_all(bad.stores.ledger.read()) == bad.state


def test_by_accuracy_nothing_would_have_been_seen() -> None:
    """What these tables are for: the deaf one answers nearly as many rows rightly."""
    live = rolled(RARE, "accuracy", deaf=True)
    assert live.state.champion == "world/2"
    rows = RARE.filter(WHEN >= SINCE).drop_nulls()
    truth = rows["y"].to_numpy().astype(float)
    of = {ref: live.ready[ref].predict(rows) for ref in ("world/1", "world/2")}
    lost = {name: metric(name)(truth, of["world/1"]) - metric(name)(truth, of["world/2"]) for name in ("accuracy", "f1")}
    assert lost["accuracy"] < 0.05
    assert lost["f1"] > 0.3
