"""What its context explains raises nothing; what it does not is found. Simulated, and on a year of flights."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from loudly.core.values import Decision
from loudly.demo import nycflights
from loudly.errors import DataError
from loudly.shift.context import context_log_e, context_test


def table(rng: np.random.Generator, n: int, night: float, shift: float = 0.0) -> pl.DataFrame:
    """Load is high by day; who calls depends on the hour."""
    dark = rng.random(n) < night
    kind = np.where(rng.random(n) < np.where(dark, 0.8, 0.2), "robot", "person")
    return pl.DataFrame(
        {"load": rng.normal(size=n) + 2.0 * ~dark + shift * ~dark, "kind": kind, "time": np.where(dark, "night", "day")}
    )


def test_an_expected_change_raises_as_few_alarms_as_was_promised_and_a_change_within_is_found() -> None:
    rng = np.random.default_rng(0)
    columns, moved, blind, found = ["load", "kind"], 0, 0, 0
    for run in range(120):
        reference, window = table(rng, 600, 0.5), table(rng, 200, 0.9)
        said = context_test(reference, window, columns, ["time"], tolerance=0.02, permutations=99, seed=run)
        moved += any(v.evidence[0].p_value <= 0.05 for v in said)  # type: ignore[operator]
        if run < 20:
            blind += any(v.failed for v in context_test(reference, window, columns, [], 0.02, permutations=99))
            changed = table(rng, 200, 0.5, shift=-1.5)
            found += context_test(reference, changed, columns, ["time"], 0.05, permutations=99)[0].failed
    assert moved / 120 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 120)
    assert blind == 20, "without its context the same change is an alarm"
    assert found == 20


def test_rows_that_share_a_day_are_not_taken_for_many() -> None:
    rng = np.random.default_rng(1)

    def days(n: int) -> pl.DataFrame:
        weather = np.repeat(rng.normal(size=n), 40)
        return pl.DataFrame({"temp": weather + 0.1 * rng.normal(size=len(weather)), "day": np.repeat(np.arange(n), 40), "c": 0})

    by_day = by_row = 0
    for run in range(80):
        reference, window = days(20), days(15)
        by_day += context_test(reference, window, ["temp"], ["c"], 0.05, "day", permutations=99, seed=run)[0].failed
        by_row += context_test(reference, window, ["temp"], ["c"], 0.05, permutations=99, seed=run)[0].failed
    assert by_day / 80 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 80)
    assert by_row / 80 > 0.5, "exchanging rows must fail here, or the test is blind"


def test_a_year_of_flights_raises_nothing_about_season_within_month_and_hour() -> None:
    """One year has no same season of last year: every second day of each month stands for it."""
    year = nycflights.table().filter(pl.col("scheduled").dt.date() < pl.date(2013, 12, 31))
    year = year.with_columns(
        month=pl.col("scheduled").dt.month(), hour=pl.col("scheduled").dt.hour(), date=pl.col("scheduled").dt.date()
    )
    year = year.filter((pl.col("origin") == "JFK") & (pl.col("flight_id").cast(pl.Int64) % 4 == 0))
    odd = pl.col("scheduled").dt.ordinal_day() % 2 == 1
    reference, held_out = year.filter(odd), year.filter(~odd)
    weather = ["temp", "dewp", "humid", "wind_speed", "pressure", "visib"]
    failed, blind = [], 0
    for month in range(1, 13):
        window = held_out.filter(pl.col("month") == month)
        said = context_test(reference, window, weather, ["month", "hour"], 0.1, "date", permutations=99)
        failed += [(month, v.subject) for v in said if v.failed]
        blind += any(v.failed for v in context_test(reference, window, weather, ["hour"], 0.1, "date", permutations=99))
    assert failed == []
    assert blind >= 6, "without the month in the context most months are alarms"
    july = held_out.filter(pl.col("month") == 7).with_columns(temp=(pl.col("temp") - 32) * 5 / 9)
    said = context_test(reference, july, weather, ["month", "hour"], 0.1, "date", permutations=99)
    assert [v.failed for v in said] == [True, *[False] * 5], "July in Celsius is no season"


def test_contexts_never_seen_and_too_few_rows_are_said() -> None:
    rng = np.random.default_rng(2)
    day, night = table(rng, 300, 0.0), table(rng, 300, 1.0)
    for reference, window, what in (
        (day, night, "both"),
        (day, table(rng, 300, 0.6), "has seen these contexts"),
        (day, day[:3], "5 independent"),
        (day, day[:0], "both"),
        (day[:0], day, "both"),
    ):
        said = context_test(reference, window, ["load"], ["time"])[0]
        assert said.decision is Decision.UNDECIDED
        assert what in said.missing, said.missing
    with pytest.raises(DataError, match="did you mean 'time'"):
        context_test(day, day, ["load"], ["tine"])


def test_constant_and_all_missing_columns_are_judged_like_any() -> None:
    flat = pl.DataFrame({"x": [1.0] * 50, "gone": [None] * 50, "c": ["a"] * 50}, schema_overrides={"gone": pl.Float64})
    assert all(v.passed for v in context_test(flat, flat, ["x", "gone"], ["c"]))
    other = flat.with_columns(x=pl.lit(2.0), gone=pl.lit(1.0))
    assert all(v.failed for v in context_test(flat, other, ["x", "gone"], ["c"]))


def test_tables_of_any_maker_are_taken_and_a_changed_type_is_named() -> None:
    rng = np.random.default_rng(0)
    table = pl.DataFrame({"x": rng.normal(size=400), "hour": rng.integers(0, 4, 400)})
    moved = table.with_columns((pl.col("x") + 1).cast(pl.Float32))
    (found,) = context_test(table.to_pandas(), moved.to_arrow(), ["x"], ["hour"], permutations=99)
    assert found.failed
    with pytest.raises(DataError, match="another type"):
        context_test(table, table.with_columns(pl.col("x").cast(pl.String)), ["x"], ["hour"])


def test_the_e_process_within_strata_is_right_at_every_look() -> None:
    rng = np.random.default_rng(3)
    strata = rng.dirichlet(np.full(6, 2.0), size=4)
    alarms = found = 0
    for _ in range(100):
        reference = np.array([rng.multinomial(1000, p) for p in strata])
        mix = rng.dirichlet(np.ones(4), size=40)
        same = np.cumsum([[rng.multinomial(int(50 * m), p) for m, p in zip(row, strata, strict=True)] for row in mix], axis=0)
        alarms += bool(context_log_e(reference, same).max() >= np.log(20))
        other = np.cumsum(
            [[rng.multinomial(int(50 * m), p[::-1]) for m, p in zip(row, strata, strict=True)] for row in mix], axis=0
        )
        found += bool(context_log_e(reference, other).max() >= np.log(20))
    assert alarms / 100 <= 0.05
    assert found == 100
