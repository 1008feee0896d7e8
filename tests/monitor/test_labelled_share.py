"""Labels that come for fewer answers than before are an alarm when their day has had its time; what is usual is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from conftest import SINCE, make_app, make_world
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, HOUR, DataClock
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.monitor.labelled_share import RISK, LabelledShare
from loudly.monitor.silence import MOST_LABELS, Silence

WHEN = pl.col("at").dt.epoch("us")


def days(rows: Any, shares: Any, seed: int = 0, patience: int = 1) -> list[str]:
    """Days on which so many rows are answered, and labelled on the day after for such shares. What is said at the end of each."""
    rng, ears, told = np.random.default_rng(seed), LabelledShare(patience * DAY), []
    for number, (n, share) in enumerate(zip(rows, shares, strict=True)):
        at = np.sort(rng.integers(0, DAY, n)) + number * DAY
        ears.answered(at, (number + 1) * DAY - 1)
        ears.labelled(at[rng.random(n) < share], (number + 2) * DAY - HOUR)
        found_ = ears.verdict((number + 2) * DAY + patience * DAY)
        told.append(found_.reason if found_ is not None else "")
    return told


@pytest.mark.simulation
@pytest.mark.parametrize("pattern", ["all", "half", "few", "noisy", "week-ends", "growing"])
def test_a_year_as_it_always_was_is_no_alarm(pattern: str) -> None:
    """Twenty years each."""
    alarms = 0
    for seed in range(20):
        rng, day = np.random.default_rng(seed), np.arange(365)
        shares = {
            "all": np.ones(365),
            "half": np.full(365, 0.5),
            "few": np.full(365, 0.05),
            "noisy": rng.beta(8, 4, 365),
            "week-ends": np.where(day % 7 >= 5, 0.1, 0.9),
            "growing": 0.2 + 0.6 * day / 365,
        }[pattern]
        alarms += sum(map(bool, days(rng.integers(60, 400, 365), shares, seed)))
    assert alarms <= (1 if pattern == "noisy" else 0)


@pytest.mark.parametrize(("n", "share"), [(200, 0.9), (400, 0.5), (4000, 0.05)])
def test_a_drop_to_a_fifth_is_told_when_its_first_day_has_had_its_time_and_for_two_days_more(n: int, share: float) -> None:
    told = days([n] * 40, [share] * 30 + [share / 5] * 10)
    assert [bool(t) for t in told] == [False] * 30 + [True] * 3 + [False] * 7, "on the fourth day it is the new habit"
    assert "of 1970-01-31" in told[30]
    assert "on the 28 days before mostly for" in told[30]


def test_one_lost_day_teaches_nothing() -> None:
    told = days([500] * 60, [0.02 if number in (30, 40) else 0.8 for number in range(60)])
    assert [number for number, text in enumerate(told) if text] == [30, 40]


def test_nobody_knows_in_the_first_fourteen_days_nor_of_days_with_few_answers() -> None:
    assert not any(days([500] * 14, [0.8] * 7 + [0.0] * 7))
    assert not any(days([49] * 40, [0.8] * 30 + [0.0] * 10))


def test_what_is_told_is_surely_so() -> None:
    """The upper end is that of Clopper and Pearson; by chance alone a share is that low in one of 200,000 days."""
    ears = LabelledShare(DAY)
    for number in range(16):
        at = np.full(100, number * DAY)
        ears.answered(at, number * DAY)
        ears.labelled(at[: 80 if number < 15 else 15], (number + 1) * DAY)
    found_ = ears.verdict(18 * DAY)
    assert found_ is not None
    (evidence,) = found_.evidence
    assert evidence.high == pytest.approx(stats.binomtest(15, 100).proportion_ci(1 - RISK, method="exact").high)
    assert (evidence.effect, evidence.tolerance, evidence.n) == (0.15, 0.4, 100)


def test_labels_that_come_late_count_for_no_day_that_has_had_its_time() -> None:
    ears = LabelledShare(DAY)
    for number in range(20):
        at = np.full(100, number * DAY)
        ears.answered(at, number * DAY)
        ears.labelled(at[:10], (number + 1) * DAY)
        ears.labelled(at[10:], (number + 5) * DAY)
    assert ears.verdict(22 * DAY) is None, "each day had a tenth in its time, whatever came later"
    assert {day.share for day in ears._ripe} == {0.1}
    ears.answered(np.array([np.iinfo(np.int64).min]), 23 * DAY)
    assert len(ears._young) <= 3, "a row without a time is of no day"


def test_days_lost_while_no_label_came_at_all_are_told_by_that_alone() -> None:
    ears, told = Silence(DAY), list[str]()
    for hour in range(24 * 40):
        now = hour * HOUR
        ears.answered(np.full(20, now), now)
        if not 24 * 25 <= hour < 24 * 30:
            ears.labelled(np.full(20, now), now + 1)
        told += [cause.cause for cause in ears.causes(now + 2)]
    assert set(told) == {"silence: labels"}


def test_a_server_whose_labels_become_few_pages_and_is_calm_when_they_are_back() -> None:
    table = make_world(days=80, per_day=60)
    live = Live(make_app(table, stage="manual").system, memory_stores("world"), DataClock(SINCE), key=b"key")
    assert not found(live, table.filter(WHEN < SINCE))
    live.retrain("first training", "there is no model yet")
    for number in range(24):
        live.clock.advance(SINCE + (number + 1) * DAY)  # type: ignore[attr-defined]
        of_day = table.filter((SINCE + number * DAY <= WHEN) & (SINCE + (number + 1) * DAY > WHEN))
        live.answer(of_day.drop("y"))
        live.feedback(of_day.select("id", "y").head(54 if number not in (18, 19) else 6))
        live.tick()
    told = [(r.event.kind, r.event.at) for r in live.stores.ledger.read() if r.event.data.get("cause") == MOST_LABELS]
    assert told == [("alarm_raised", SINCE + 21 * DAY), ("alarm_cleared", SINCE + 23 * DAY)]
