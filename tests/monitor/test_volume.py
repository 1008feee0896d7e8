"""Rows that become fewer are an alarm within a day or so; days that are quiet as days are quiet are none."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, HOUR, DataClock
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.monitor.silence import MOST_REQUESTS, Silence
from loudly.monitor.volume import FEWEST, LEARNING, MOST, Volume

WHEN = pl.col("at").dt.epoch("us")


def stream(seed: int, days: int, *, mean: float = 2000, apart: float = 0.1, weekend: float = 0.3) -> np.ndarray:
    """Rows by the hour: nights, week-ends, days that differ by `apart` of the logarithm, hours by a fifth."""
    rng = np.random.default_rng(seed)
    hour = np.arange(24 * days)
    day = np.repeat(np.exp(apart * rng.normal(size=days)), 24) * np.where(hour // 24 % 7 >= 5, weekend, 1.0)
    of_day = 1 + 0.8 * np.sin(2 * np.pi * hour / 24)
    return rng.poisson(mean / 24 * day * of_day * np.exp(0.2 * rng.normal(size=len(hour))))


def alarms(rows: np.ndarray) -> list[tuple[int, int]]:
    """First hour and the first after it, of each alarm."""
    volume, on = Volume(), []
    for hour, came in enumerate(rows.tolist()):
        if volume.verdict(hour * HOUR) is not None:
            on.append(hour)
        volume.came(came, hour * HOUR)
    starts = [h for h in on if h - 1 not in on]
    return [(h, next(e for e in range(h, len(rows) + 1) if e not in on)) for h in starts]


@pytest.mark.simulation
@pytest.mark.parametrize("apart", [0.05, 0.3])
@pytest.mark.parametrize("weekend", [1.0, 0.3])
def test_years_of_calm_traffic_hardly_raise_an_alarm(apart: float, weekend: float) -> None:
    found = sum(len(alarms(stream(seed, 365, apart=apart, weekend=weekend))) for seed in range(5))
    assert found <= 1, "in five years"


@pytest.mark.parametrize("weekend", [1.0, 0.3])
def test_three_quarters_of_the_rows_lost_are_found_within_a_day_or_so(weekend: float) -> None:
    after = []
    for seed in range(8):
        rows = stream(seed, 45, apart=0.05, weekend=weekend)
        rows[40 * 24 :] //= 4
        ((begun, _),) = alarms(rows)
        after.append(begun - 40 * 24)
    assert min(after) >= 12
    assert max(after) <= 32


def test_a_holiday_that_is_as_quiet_as_a_week_end_is_none_and_what_lasts_is_told_and_then_usual() -> None:
    rows = stream(1, 60, apart=0.05)
    rows[44 * 24 : 45 * 24] = (rows[44 * 24 : 45 * 24] * 0.3).astype(int)
    assert alarms(rows) == []
    rows = stream(1, 90, apart=0.05, weekend=1.0)
    rows[40 * 24 :] //= 5
    ((begun, over),) = alarms(rows)
    assert 3 * 24 <= over - begun <= 5 * 24


def test_an_outage_of_some_hours_is_over_when_24_hours_are_as_usual_and_teaches_nothing() -> None:
    rows = stream(2, 70, apart=0.05, weekend=1.0)
    for day in (40, 50):
        rows[day * 24 : day * 24 + 20] = 0
    first, second = alarms(rows)
    assert 40 * 24 < first[0] < 41 * 24 < first[1] < 42 * 24
    assert 50 * 24 < second[0] < 51 * 24 < second[1] < 52 * 24


def test_a_batch_a_day_may_be_some_hours_late_but_not_half_a_day_and_not_be_small() -> None:
    rows = np.zeros(24 * 40, dtype=int)
    rows[3::24] = 1000
    rows[30 * 24 + 3], rows[30 * 24 + 8] = 0, 1000
    assert alarms(rows) == [], "five hours late"
    rows[34 * 24 + 3] = 300
    ((begun, over),) = alarms(rows)
    assert 34 * 24 + 4 <= begun <= 34 * 24 + 12
    assert over == 35 * 24 + 4


def test_nobody_knows_before_two_weeks_or_of_few_rows() -> None:
    rows = np.full(24 * 40, 20)
    rows[(LEARNING + 1) * 24 - 14 :] = 0
    ((begun, _),) = alarms(rows)
    assert begun >= (LEARNING + 1) * 24, "what is lost in the last hours of learning is missed when these are over"
    rows = np.full(24 * 40, (FEWEST - 1) // 24)
    rows[30 * 24 :] = 0
    assert alarms(rows) == []


def test_who_looks_late_or_seldom_says_the_same() -> None:
    """After a restart the log is folded first, and somebody looks then."""
    rows = stream(3, 60, apart=0.05, weekend=1.0)
    rows[42 * 24 : 44 * 24] //= 10
    rows[58 * 24 + 12 :] //= 10
    often, seldom, late = Volume(), Volume(), Volume()
    for hour, came in enumerate(rows.tolist()):
        often.verdict(hour * HOUR)
        if hour % 31 == 0:
            seldom.verdict(hour * HOUR)
        for volume in (often, seldom, late):
            volume.came(came, hour * HOUR)
    now = len(rows) * HOUR
    assert often.verdict(now) == seldom.verdict(now) == late.verdict(now) is not None
    assert often._few == seldom._few == late._few
    assert len(often._rows) <= (MOST + 1) * 24 + 1


def test_no_request_at_all_is_told_by_that_alone() -> None:
    ears, told = Silence(DAY), list[str]()
    for hour in range(24 * 30):
        now = hour * HOUR
        if hour < 24 * 20:
            ears.answered(np.full(20, now), now)
        told += [c.cause for c in ears.causes(now + 2) if "requests" in c.cause]
    assert told[0] == "silence: requests"
    assert set(told) == {"silence: requests"}


def test_a_server_that_loses_most_of_its_rows_pages_and_is_calm_when_they_are_back() -> None:
    table = make_world(days=80, per_day=96)
    live = Live(make_app(table, stage="manual").system, memory_stores("world"), DataClock(SINCE), key=b"key")
    assert not found(live, table.filter(WHEN < SINCE))
    live.retrain("first training", "there is no model yet")
    for number in range(24):
        for hour in range(24):
            live.clock.advance(begin := SINCE + number * DAY + hour * HOUR)  # type: ignore[attr-defined]
            rows = table.filter((begin <= WHEN) & (begin + HOUR > WHEN)).drop("y")
            if len(rows := rows if number != 18 else rows.head(1)):
                live.answer(rows)
            live.tick()
    told = [r.event for r in live.stores.ledger.read() if r.event.data.get("cause") == MOST_REQUESTS]
    assert [e.kind for e in told] == ["alarm_raised", "alarm_cleared"]
    assert SINCE + 18 * DAY + 18 * HOUR < told[0].at <= SINCE + 19 * DAY
    assert told[1].at <= SINCE + 20 * DAY
    assert "rows came in 24 hours at most; in each 24 hours of the 1" in str(told[0].data["reason"])
    assert "as usual by now" in str(told[1].data) or "as is usual by now" in str(told[1].data)
