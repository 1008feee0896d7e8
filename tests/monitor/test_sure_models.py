"""A model that is nearly sure of the rows it has learned from looks shifted by no row in a world that stands still."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from conftest import SINCE, make_world
from loudly import App
from loudly.app.verbs import memory_stores
from loudly.core.clock import instant
from loudly.loop.replay import Replayed, replay
from loudly.stats.held_out import QUANTILES, as_held_out, held_out_scores

sklearn = pytest.importorskip("sklearn.ensemble")


def lived(table: pl.DataFrame) -> Replayed:
    """Five weeks with a forest, whose every tree has seen most training rows."""
    app = App("world", label="y", time="at", key="id", metric="roc_auc")
    app.data(lambda: table)
    app.labels(arrive_within="1d")

    @app.train
    def fit(X: Any, y: Any) -> Any:
        return sklearn.RandomForestClassifier(60, random_state=0).fit(X, y)

    return replay(app.system, table, memory_stores("world"), since=SINCE, until=instant("2024-03-07"))


def shifts(made: Replayed) -> list[str]:
    """What was said to have moved, whether it paged or not."""
    events = [r.event for r in made.events if r.event.kind in ("alarm_raised", "alarms_muted")]
    return [str(e.data) for e in events if "shift" in str(e.data)]


def test_a_forest_that_has_learned_its_rows_by_heart_raises_no_alarm_about_its_answers() -> None:
    """It did in its first week: "most in spread of score"."""
    assert not shifts(lived(make_world(days=70, per_day=240)))


def test_its_answers_are_still_seen_to_move() -> None:
    table = make_world(days=70, per_day=240)
    moved = table.with_columns(x1=pl.when(pl.col("at") >= pl.lit("2024-02-20").str.to_datetime()).then(2.5).otherwise("x1"))
    assert any("x1" in told or "score" in told for told in shifts(lived(moved)))


def test_scores_are_given_the_shape_of_held_out_ones_in_their_order() -> None:
    rng = np.random.default_rng(0)
    seen, held = rng.beta(0.1, 0.1, 5000), rng.beta(4, 2, 2000)
    quantiles = held_out_scores(seen, held)
    assert len(quantiles) == QUANTILES
    made = as_held_out(seen, quantiles)
    assert (np.argsort(made, kind="stable") == np.argsort(seen, kind="stable")).all()
    at = np.linspace(0, 1, 50)
    assert np.abs(np.mean(made[:, None] <= np.quantile(held, at), axis=0) - at).max() < 0.01
    assert as_held_out(seen, ()) is seen


@pytest.mark.parametrize(
    "held",
    [np.full(10, 0.5), np.full((500, 3), 1 / 3), np.append(np.full(500, 0.5), np.nan)],
    ids=["few", "of several classes", "not a number"],
)
def test_where_held_out_scores_cannot_tell_there_are_none(held: np.ndarray) -> None:
    assert held_out_scores(np.linspace(0, 1, 500), held) == []
