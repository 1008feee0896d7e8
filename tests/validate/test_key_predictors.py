"""The columns that carry the skill: found at the freeze, and missed when they are gone, constant or worth nothing any more."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from loudly.app.verbs import memory_stores
from loudly.core.canon import canonical
from loudly.core.clock import DAY, DataClock
from loudly.core.values import Decision, Verdict
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.loop.tell import tell
from loudly.validate.alone import alone_of, fit_alone
from loudly.validate.key_predictors import KeyPredictor, blocking, find_key_predictors, judge_key_predictors, key_predictor_of
from loudly.validate.schema import infer_schema


def keys_of(table: pl.DataFrame) -> tuple[KeyPredictor, ...]:
    return find_key_predictors(table, infer_schema(table, label="y", time="at", key="id"), label="y", time="at")


def judge(keys: tuple[KeyPredictor, ...], rows: pl.DataFrame) -> tuple[Verdict, ...]:
    return judge_key_predictors(keys, rows, label="y", time="at")


@pytest.fixture(scope="module")
def keys(world: pl.DataFrame) -> tuple[KeyPredictor, ...]:
    return keys_of(world)


def test_the_few_columns_that_know_are_found_and_the_others_are_not(world: pl.DataFrame) -> None:
    rng = np.random.default_rng(0)
    noisy = world.with_columns(pl.Series(f"noise{i}", rng.normal(size=world.height)) for i in range(6))
    found_keys = keys_of(noisy)
    assert [k.name for k in found_keys] == ["x1", "x2"]
    assert found_keys[0].skill > 0.75 > found_keys[1].skill > 0.55
    assert found_keys[0].low < found_keys[0].skill < found_keys[0].high
    assert keys_of(noisy.head(100)) == ()


def test_they_are_plain_json_and_come_back(keys: tuple[KeyPredictor, ...], world: pl.DataFrame) -> None:
    for key in keys:
        again = key_predictor_of(json.loads(canonical(key.plain())))
        assert again == key
        assert (again.alone.score(world[key.name]) == key.alone.score(world[key.name])).all()
    text = fit_alone(world["group"], world["y"].cast(pl.Float64).to_numpy())
    assert alone_of(json.loads(canonical(text.plain()))) == text
    odd = text.score(pl.Series(["a", None, "never seen"]))
    assert odd[0] != odd[1] == odd[2] == pytest.approx(world["y"].mean())


def test_under_the_null_no_key_predictor_collapses_and_few_are_undecided(keys: tuple[KeyPredictor, ...]) -> None:
    judged = [judge(keys, make_world(days=20, per_day=120, seed=seed)) for seed in range(1, 61)]
    assert not [v for found_here in judged for v in found_here if v.failed]
    assert np.mean([all(v.passed for v in found_here) for found_here in judged]) > 0.9


def test_a_key_predictor_that_is_gone_or_constant_fails_and_blocks(keys: tuple[KeyPredictor, ...]) -> None:
    new = make_world(days=10, seed=5)
    for harmed, method in (
        (new.drop("x1"), "key predictor gone"),
        (new.with_columns(x1=pl.lit(None, pl.Float64)), "key predictor gone"),
        (new.with_columns(x1=pl.lit(float("nan"))), "key predictor gone"),
        (new.with_columns(x1=pl.lit(0.0)), "key predictor constant"),
        (new.with_columns(x1=pl.when(pl.int_range(pl.len()) % 50 > 0).then(0.0)), "key predictor constant"),
        (new.with_columns(x1=pl.when(pl.int_range(pl.len()) % 50 > 0).then(0.0).otherwise(float("nan"))), "key predictor constant"),
    ):
        (verdict,) = judge(keys, harmed)
        assert verdict.failed
        assert verdict.subject == "key predictor x1"
        assert (verdict.evidence[0].method, verdict.evidence[0].about) == (method, "x1")
        assert verdict.evidence[0].effect is not None
        assert verdict.evidence[0].effect > 0.9
        assert blocking((verdict,)) == (verdict,)
    (few,) = judge(keys, new.drop("x1").head(50))
    assert few.failed, "a column that is not there needs no rows to be missed"


@pytest.mark.parametrize("harm", ["shuffled", "units", "turned"])
def test_a_collapse_of_skill_fails_with_its_effect_and_does_not_block(keys: tuple[KeyPredictor, ...], harm: str) -> None:
    new = make_world(days=20, seed=6)
    dealt = np.random.default_rng(0).permutation(new["x1"].to_numpy())
    column = {"shuffled": pl.Series(dealt), "units": new["x1"] * 25.4 + 1000, "turned": -new["x1"]}[harm]
    (verdict,) = judge(keys, new.with_columns(x1=column))
    assert verdict.failed
    evidence = verdict.evidence[0]
    assert evidence.effect is not None
    assert evidence.high is not None
    assert evidence.high < evidence.tolerance < evidence.detail["before"]  # type: ignore[operator]
    assert blocking((verdict,)) == ()


def test_what_cannot_be_told_is_undecided(keys: tuple[KeyPredictor, ...]) -> None:
    (few,) = judge(keys, make_world(days=1, seed=7))
    assert few.decision is Decision.UNDECIDED
    assert few.missing == "80 more labelled rows"
    seasonal = replace(keys[0], still=700)
    (still,) = judge((seasonal,), make_world(days=10, seed=8).with_columns(x1=pl.lit(0.0)))
    assert still.decision is Decision.UNDECIDED, "it has stood still for nearly as long before"
    assert still.missing == "201 more rows of the same value"
    weak = make_world(days=4, seed=9)
    (unsure,) = judge(
        (replace(keys[0], skill=0.95),),
        weak.with_columns(x1=pl.col("x1") + pl.Series(np.random.default_rng(1).normal(0, 3.0, 480))),
    )
    assert unsure.decision is Decision.UNDECIDED, unsure.reason
    assert unsure.evidence[0].low < unsure.evidence[0].tolerance < unsure.evidence[0].high  # type: ignore[operator]


def live_of(table: pl.DataFrame) -> Live:
    """A wheel that was founded at SINCE, thirty days later."""
    clock = DataClock(SINCE)
    live = Live(make_app(table).system, memory_stores("world"), clock, key=b"k")
    assert not found(live, table.filter(pl.col("at").dt.epoch("us") < SINCE))
    live.retrain("first training", "there is no model yet")
    clock.advance(SINCE + 30 * DAY)
    return live


def kinds(live: Live) -> list[str]:
    return [r.event.kind for r in live.stores.ledger.read()]


def test_they_are_recorded_with_the_schema_and_rows_without_one_are_never_learned_from(world: pl.DataFrame) -> None:
    live = live_of(world)
    assert [k["name"] for k in live.state.key_predictors] == ["x1"]
    frozen = next(r.event for r in live.stores.ledger.read() if r.event.kind == "schema_frozen")
    assert "key predictors (AUC alone) x1 0.781" in tell(frozen)
    before, rows = live.state.dataset, world.filter(pl.col("at").dt.epoch("us") >= SINCE)
    live.retraining.learned(rows.with_columns(x1=pl.lit(None, pl.Float64)))
    assert live.retrain("data", "enough of it") is None
    assert kinds(live)[-4:] == ["retrain_triggered", "table_judged", "rows_set_aside", "retrain_failed"]
    assert live.state.dataset == before
    live.retraining.learned(rows)
    assert live.retrain("data", "enough of it") == "world/2", "sound rows are learned from again"
    assert live.state.dataset is not None
    assert before is not None
    assert live.state.dataset.rows == before.rows + rows.height


def test_a_collapse_is_told_and_the_gate_judges(world: pl.DataFrame) -> None:
    live = live_of(world)
    rows = world.filter(pl.col("at").dt.epoch("us") >= SINCE)
    live.retraining.learned(rows.with_columns(x1=-pl.col("x1")))
    assert live.retrain("performance", "labels say so") == "world/2"
    said = [tell(r.event) for r in live.stores.ledger.read() if r.event.kind == "table_judged"]
    assert any(line.startswith("FAIL key predictor x1") for line in said)


def test_a_table_that_has_lost_one_is_refused_until_it_is_ignored_on_purpose(world: pl.DataFrame) -> None:
    live = live_of(world)
    for _ in range(2):
        blocked = found(live, world.drop("x1"))
        assert [v.subject for v in blocked] == ["key predictor x1"]
        assert [k["name"] for k in live.state.key_predictors] == ["x1"], "not forgotten by a table that was refused"
    app = make_app(world)
    app._ignored = ("x1",)
    live.system = app.system
    assert not found(live, world.drop("x1"))
    assert [k["name"] for k in live.state.key_predictors] == ["x2"]


def test_on_a_year_of_flights_seasons_are_no_collapse_and_a_shuffled_column_is(raw_flights: pl.DataFrame) -> None:
    kept = ["flight_id", "scheduled", "late", "carrier", "origin", "dest", "distance", "sched_dep_time", "sched_arr_time"]
    flights, names = raw_flights.select(kept), {"label": "late", "time": "scheduled"}
    month = flights["scheduled"].dt.month()
    winter = flights.filter(month <= 2)
    found_keys = find_key_predictors(winter, infer_schema(winter, key="flight_id", **names), **names)
    assert {k.name for k in found_keys} == {"carrier", "sched_dep_time", "sched_arr_time"}
    for m in range(3, 13):
        new = flights.filter(month == m)
        assert not [v.reason for v in judge_key_predictors(found_keys, new, **names) if v.failed]
        harmed = new.with_columns(pl.col("sched_dep_time").shuffle(seed=m))
        (failed,) = (v for v in judge_key_predictors(found_keys, harmed, **names) if v.failed)
        assert failed.subject == "key predictor sched_dep_time"
