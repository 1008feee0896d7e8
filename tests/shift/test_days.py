"""Rows of one day err alike: what counts rows as independent is far too sure, what counts days is not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest

from loudly.errors import DataError
from loudly.shift.error_rules import error_rules
from loudly.shift.estimate.atc import Atc
from loudly.shift.estimate.cbpe import Cbpe
from loudly.shift.estimate.dle import Dle
from loudly.shift.estimate.importance import Importance
from loudly.shift.estimate.pape import Pape

RUNS = 60


def told(rng: Any, days: int, rows: int, between: float) -> tuple[Any, Any, Any]:
    """Scores that are right on the whole; each day is off by an error of its own. Scores, labels, days."""
    day = np.repeat(np.arange(days), rng.integers(rows // 2, rows * 3 // 2, days))
    score = rng.uniform(0.2, 0.6, len(day))
    chance = score + rng.uniform(-between, between, days)[day]
    return score, (rng.random(len(day)) < chance).astype(float), day


@cache
def lived(run: int) -> tuple[Cbpe, Any, Any, Any]:
    """A calibration from one long day, which serves every metric, and a window of 15 days: scores, labels, days."""
    rng = np.random.default_rng(run)
    score, label, _ = told(rng, 1, 6000, 0.0)
    return Cbpe.fit(score, label), *told(rng, 15, 120, 0.2)


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc", "brier"])
def test_cbpe_does_not_call_days_a_concept_shift(metric: str) -> None:
    """Nothing has shifted: a right FAIL is one in twenty. 60 runs: more than 7 happen by chance once in 80."""
    by_row = by_day = 0
    for run in range(RUNS):
        fitted, s, y, day = lived(run)
        made = replace(fitted, metric=metric, expected=None)
        by_row += made.check_against(s, y).failed
        by_day += made.check_against(s, y, days=day).failed
    assert by_day <= 7
    assert metric == "roc_auc" or by_row >= 15, "without days the rows are taken as independent"


def test_a_concept_shift_of_every_day_is_still_found() -> None:
    rng = np.random.default_rng(0)
    score, label, _ = told(rng, 1, 6000, 0.0)
    s, y, day = told(rng, 20, 150, 0.1)
    wrong = np.where(rng.random(len(y)) < 0.5, 1 - y, y)
    inputs, before = rng.normal(size=(len(s), 2)), rng.normal(size=(len(score), 2))
    assert Cbpe.fit(score, label, metric="accuracy").check_against(s, wrong, days=day).failed
    assert Atc.fit(score, label).check_against(s, wrong, days=day).failed
    assert Pape.fit(score, label, before, metric="accuracy").check_against(s, inputs, wrong, days=day).failed
    assert Importance.fit(score, label, before, metric="accuracy").check_against(s, inputs, wrong, days=day).failed


def test_one_day_tells_nothing_and_every_row_needs_its_day() -> None:
    rng = np.random.default_rng(1)
    made = Cbpe.fit(*told(rng, 1, 3000, 0.0)[:2], metric="accuracy")
    s, y, _ = told(rng, 5, 60, 0.0)
    waiting = made.check_against(s, y, days=np.zeros(len(s)))
    assert waiting.decision.value == "UNDECIDED"
    assert waiting.missing == "labelled rows of at least two days"
    with pytest.raises(DataError, match="Every row needs its day"):
        made.check_against(s, y, days=[1, 2])


def test_atc_takes_days_too() -> None:
    wrong = 0
    for run in range(30):
        rng = np.random.default_rng(run)
        score, label, _ = told(rng, 1, 5000, 0.0)
        s, y, day = told(rng, 12, 100, 0.2)
        wrong += Atc.fit(score, label, seed=run).check_against(s, y, days=day).failed
    assert wrong <= 5


def test_dle_takes_days_too() -> None:
    by_row = by_day = 0
    for run in range(8):
        rng = np.random.default_rng(run)
        if run % 2 == 0:
            x = rng.normal(size=(1000, 2))
            made = Dle.fit(x[:, 0], x[:, 0] + rng.normal(size=1000), x, metric="mae")
        day = np.repeat(np.arange(10), 80)
        w, level = rng.normal(size=(800, 2)), np.exp(rng.normal(0, 0.5, 10) - 0.125)[day]
        truth = w[:, 0] + level * rng.normal(size=800)
        by_row += made.check_against(w[:, 0], w, truth).failed
        by_day += made.check_against(w[:, 0], w, truth, days=day).failed
    assert by_day <= 2
    assert by_row > by_day


def weather(rng: Any, days: int, rows: int, *, planted: float) -> tuple[pl.DataFrame, Any, Any]:
    """Temperature is of the day, and so is an error that has nothing to do with it; rows of UA may err more."""
    day = np.repeat(np.arange(days), rows)
    table = pl.DataFrame({"temp": rng.normal(15, 8, days)[day], "carrier": rng.choice(["UA", "DL", "AA"], len(day))})
    chance = np.clip(0.2 + rng.normal(0, 0.12, days)[day] + planted * (table["carrier"] == "UA").to_numpy(), 0, 1)
    return table, (rng.random(len(day)) < chance).astype(float), day


def test_a_bad_day_makes_no_rule_more_often_than_alpha() -> None:
    by_row = by_day = 0
    for run in range(RUNS):
        table, loss, day = weather(np.random.default_rng(run), 30, 60, planted=0.0)
        by_row += bool(error_rules(table, loss, table.columns, seed=run))
        by_day += bool(error_rules(table, loss, table.columns, seed=run, days=(day, None)))
    assert by_day <= 7
    assert by_row >= 20, "without days a tree learns the bad days by their weather, and finds them again"


def test_a_rule_that_holds_on_every_day_is_read_out_all_the_same() -> None:
    rng = np.random.default_rng(2)
    now, loss, day = weather(rng, 40, 100, planted=0.4)
    before, past, then = weather(rng, 40, 100, planted=0.0)
    rule = error_rules(now, loss, now.columns, (before, past), days=(day, then + 1000))[0]
    assert rule.text.startswith("carrier is UA")
    assert rule.low < 0.4 < rule.high
    assert rule.news
    with pytest.raises(DataError, match="Every row needs its day"):
        error_rules(now, loss, now.columns, days=(day[:5], None))
    assert error_rules(now, loss, now.columns, days=(np.zeros(now.height), None)) == ()
