"""A model that is nearly sure of the rows it has learned from looks shifted by no row in a world that stands still."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import ks_2samp

from conftest import SINCE, make_world
from loudly import App
from loudly.app.verbs import memory_stores
from loudly.core.clock import instant
from loudly.loop.replay import Replayed, replay
from loudly.stats.held_out import QUANTILES, as_held_out, quantiles_of

sklearn = pytest.importorskip("sklearn.ensemble")


def lived(table: pl.DataFrame, forest: str = "RandomForestClassifier", metric: str = "roc_auc") -> Replayed:
    """Five weeks with a forest, whose every tree has seen most training rows, or all."""
    app = App("world", label="y", time="at", key="id", metric=metric)
    app.data(lambda: table)
    app.labels(arrive_within="1d")

    @app.train
    def fit(X: Any, y: Any) -> Any:
        return getattr(sklearn, forest)(25, random_state=0).fit(X, y)

    return replay(app.system, table, memory_stores("world"), since=SINCE, until=instant("2024-03-07"))


def shifts(made: Replayed) -> list[str]:
    """What was said to have moved, whether it paged or not."""
    events = [r.event for r in made.events if r.event.kind in ("alarm_raised", "alarms_muted")]
    return [str(e.data) for e in events if "shift" in str(e.data)]


def pages(made: Replayed) -> int:
    """Alarms that were raised."""
    return sum(r.event.kind == "alarm_raised" for r in made.events)


@pytest.mark.parametrize("forest", ["RandomForestClassifier", "ExtraTreesClassifier"])
def test_a_forest_that_has_learned_its_rows_by_heart_pages_nobody_about_its_answers(
    forest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_world(days=70, per_day=240)
    made = lived(table, forest)
    assert not pages(made)
    assert "(prediction)" not in str(shifts(made))
    monkeypatch.setattr("loudly.loop.candidate.held_out_scores", lambda seen, held_out: [])
    assert pages(lived(table, forest)) == 1, "as it was, in its first weeks"


def of_three(table: pl.DataFrame) -> pl.DataFrame:
    """The same rows with three kinds to tell apart."""
    x1, x2, b = table["x1"].to_numpy(), table["x2"].to_numpy(), (table["group"] == "b").to_numpy()
    chances = np.exp(np.stack([1.2 * x1, 0.1 * (x2 - 20) - x1, 0.8 * b - 0.3], axis=1)).cumsum(axis=1)
    kinds = (np.random.default_rng(0).random(len(x1)) * chances[:, -1])[:, None] > chances
    return table.with_columns(y=pl.Series([f"k{i}" for i in kinds.sum(axis=1)]))


def test_of_several_classes_the_answers_are_watched_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each class the scores: they were not, and nobody could say that a model of several classes answers otherwise."""
    table = of_three(make_world(days=70, per_day=150))
    assert not pages(lived(table, "ExtraTreesClassifier", "accuracy"))
    moved = table.with_columns(x1=pl.when(pl.col("at") >= pl.lit("2024-02-20").str.to_datetime()).then(2.5).otherwise("x1"))
    found = str(shifts(lived(moved, "ExtraTreesClassifier", "accuracy")))
    assert all(f"shift: (prediction of k{i})" in found for i in range(3))
    monkeypatch.setattr("loudly.loop.candidate.held_out_scores", lambda seen, held_out: [])
    assert pages(lived(table, "ExtraTreesClassifier", "accuracy")), "rows that it knows by heart are no reference"


def test_its_answers_are_still_seen_to_move() -> None:
    table = make_world(days=70, per_day=240)
    moved = table.with_columns(x1=pl.when(pl.col("at") >= pl.lit("2024-02-20").str.to_datetime()).then(2.5).otherwise("x1"))
    assert "shift: (prediction)" in str(shifts(lived(moved)))


def test_scores_of_seen_rows_are_given_the_shape_of_held_out_ones_in_their_order() -> None:
    rng = np.random.default_rng(0)
    seen, held = rng.beta(0.1, 0.1, 5000), rng.beta(4, 2, 2000)
    quantiles = quantiles_of(seen, held)
    assert [len(q) for q in quantiles] == [QUANTILES, QUANTILES]
    made = as_held_out(seen, quantiles)
    assert (np.diff(made[np.argsort(seen, kind="stable")]) >= 0).all()
    assert ks_2samp(made, held).statistic < 0.02
    assert as_held_out(seen, ()) is seen


def test_scores_of_a_forest_have_few_values_and_become_as_smooth_as_held_out_ones() -> None:
    rng = np.random.default_rng(1)
    seen, held = np.round(rng.beta(0.1, 0.1, 5000), 1), rng.beta(4, 2, 2000)
    assert ks_2samp(as_held_out(seen, quantiles_of(seen, held)), held).statistic < 0.03
    nearly = seen * (1 + rng.integers(-2, 3, 5000) * 2.0**-52)  # sums over trees end a little to this or that side
    assert ks_2samp(as_held_out(nearly, quantiles_of(seen, held)), held).statistic < 0.03


def test_rows_of_another_season_stay_as_far_from_the_newest_ones_as_they_were() -> None:
    """A map of scores, not of ranks: who learned by heart from numbers that grow keeps the small ones of long ago in mind."""
    rng = np.random.default_rng(2)
    newest, held = rng.normal(100, 10, 5000), rng.normal(100, 5, 2000)
    quantiles = quantiles_of(newest, held)
    made = as_held_out(np.append(rng.normal(20, 10, 3000), newest), quantiles)
    assert abs(np.median(made[:3000]) - 20) < 30, "below all of the newest they are moved as the least of these"
    assert made[:3000].max() < np.quantile(made[3000:], 0.05)
    assert ks_2samp(made[3000:], held).statistic < 0.03


def test_scores_that_differ_by_chance_are_left_as_they_are() -> None:
    rng = np.random.default_rng(3)
    assert sum(bool(quantiles_of(rng.random(5000), rng.random(300))) for _ in range(100)) <= 4


@pytest.mark.parametrize(
    "held",
    [np.full(10, 0.5), np.append(np.full(500, 0.5), np.nan)],
    ids=["few", "not a number"],
)
def test_where_held_out_scores_cannot_tell_there_are_none(held: np.ndarray) -> None:
    assert quantiles_of(np.linspace(0, 1, 500), held) == []
