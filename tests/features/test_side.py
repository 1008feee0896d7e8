"""Point-in-time joins: the newest row that was known, never one from the future, the same bytes for a table and for a row."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.core.clock import HOUR
from loudly.errors import DataError, UserFileError
from loudly.features.side import Side, index_side

START = datetime(2024, 1, 1)
minutes = st.integers(0, 300)
group = st.sampled_from(["a", "b"]) | st.none()
rows_given = st.lists(st.tuples(minutes, group), min_size=1, max_size=12)
side_given = st.lists(st.tuples(minutes, st.sampled_from(["a", "b", "c"])), max_size=15, unique=True)


def rows_of(given_rows: list[tuple[int, str | None]]) -> pl.DataFrame:
    at = [START + timedelta(minutes=m) for m, _ in given_rows]
    return pl.DataFrame({"at": at, "origin": [g for _, g in given_rows]}, schema={"at": pl.Datetime("us"), "origin": pl.String})


def side_of(given_rows: list[tuple[int, str]]) -> pl.DataFrame:
    hours = [START + timedelta(minutes=m) for m, _ in given_rows]
    values = [float(i) + 0.1 for i in range(len(given_rows))]
    data = {"hour": hours, "origin": [g for _, g in given_rows], "temp": values, "wind": [f"w{i}" for i in range(len(values))]}
    return pl.DataFrame(data, schema={"hour": pl.Datetime("us"), "origin": pl.String, "temp": pl.Float64, "wind": pl.String})


def weather(**changes: Any) -> Side:
    return Side("weather", lambda: None, **{"on": "hour", "by": ("origin",), "within": HOUR, **changes})


@settings(max_examples=150, deadline=None)
@given(rows_given, side_given)
def test_it_joins_as_polars_does_and_a_row_alone_gets_the_same_bytes(
    given_rows: list[tuple[int, str | None]], given_side: list[tuple[int, str]]
) -> None:
    rows, index = rows_of(given_rows), index_side(weather(), side_of(given_side))
    joined, missing = index.join(rows, "at")
    expected = pl.concat(
        [
            part.sort("at")
            .join_asof(
                side_of(given_side).filter(pl.col("origin") == name).drop("origin").sort("hour"),
                left_on="at",
                right_on="hour",
                strategy="backward",
                tolerance=timedelta(hours=1),
            )
            .select("i", "temp", "wind")
            for name in ("a", "b")
            if (part := rows.with_row_index("i").filter(pl.col("origin") == name)).height
        ]
        or [pl.DataFrame(schema={"i": pl.UInt32, "temp": pl.Float64, "wind": pl.String})]
    )
    whole = rows.with_row_index("i").join(expected, on="i", how="left", maintain_order="left").drop("i")
    assert joined.equals(whole)
    assert missing == joined["temp"].null_count()
    for i in range(rows.height):
        alone, lost = index.join(rows[i], "at")
        assert alone.equals(joined[i])
        assert alone["temp"].to_numpy().tobytes() == joined[i]["temp"].to_numpy().tobytes()
        assert lost == joined[i]["temp"].null_count()


@settings(max_examples=100, deadline=None)
@given(rows_given, side_given, minutes)
def test_a_side_row_from_the_future_is_never_seen(
    given_rows: list[tuple[int, str | None]], given_side: list[tuple[int, str]], cut: int
) -> None:
    """What becomes known after a moment changes nothing for the rows before it."""
    now = START + timedelta(minutes=cut)
    rows, side = rows_of(given_rows).filter(pl.col("at") <= now), side_of(given_side)
    with_future, _ = index_side(weather(), side).join(rows, "at")
    without, _ = index_side(weather(), side.filter(pl.col("hour") <= now)).join(rows, "at")
    assert with_future.equals(without)


def test_the_edges_of_time_belong_to_it() -> None:
    index = index_side(weather(), side_of([(60, "a")]))
    joined, missing = index.join(rows_of([(59, "a"), (60, "a"), (120, "a"), (121, "a")]), "at")
    assert joined["wind"].to_list() == [None, "w0", "w0", None]
    assert missing == 2


def test_without_by_every_row_sees_the_same_side() -> None:
    index = index_side(weather(by=()), side_of([(0, "a"), (30, "b")]).drop("origin"))
    joined, missing = index.join(rows_of([(10, "a"), (40, None)]), "at")
    assert joined["temp"].to_list() == [0.1, 1.1]
    assert missing == 0


def test_missing_times_groups_and_tables_are_null_and_counted() -> None:
    side = side_of([(0, "a"), (30, "b")]).with_columns(hour=pl.Series([None, START], dtype=pl.Datetime("us")))
    rows = rows_of([(10, "a"), (10, "b"), (10, None)])
    joined, missing = index_side(weather(), side).join(rows, "at")
    assert joined["temp"].to_list() == [None, 1.1, None]
    assert missing == 2
    late = rows.with_columns(at=pl.lit(None, pl.Datetime("us")))
    assert index_side(weather(), side).join(late, "at")[1] == 3
    nothing, missing = index_side(weather(), side.clear()).join(rows, "at")
    assert nothing["wind"].to_list() == [None, None, None]
    assert missing == 3


def test_types_are_those_of_a_schema_and_nan_is_missing() -> None:
    side = pl.DataFrame(
        {
            "hour": [START],
            "origin": ["a"],
            "f": pl.Series([float("nan")], dtype=pl.Float32),
            "i": pl.Series([7], dtype=pl.Int16),
            "c": pl.Series(["x"], dtype=pl.Categorical),
            "n": [None],
        }
    )
    joined, _ = index_side(weather(), side).join(rows_of([(1, "a")]), "at")
    assert joined.select("f", "i", "c", "n").dtypes == [pl.Float64, pl.Int64, pl.String, pl.Float64]
    assert joined.row(0)[2:] == (None, 7, "x", None)


def test_mistakes_are_named() -> None:
    twice = pl.concat([side_of([(0, "a"), (60, "b")]), side_of([(60, "b"), (0, "a"), (9, "a")])])
    with pytest.raises(DataError, match=r"2 keys of the side table 'weather'.*\n.*2024-01-01 00:00:00, a; 2024-01-01 01:00:00, b"):
        index_side(weather(), twice)
    with pytest.raises(UserFileError, match="did you mean 'hour'"):
        index_side(weather(on="hours"), side_of([(0, "a")]))
    with pytest.raises(DataError, match="column of times"):
        index_side(weather(on="temp"), side_of([(0, "a")]))
    with pytest.raises(DataError, match="no columns beside its keys"):
        index_side(weather(), side_of([(0, "a")]).select("hour", "origin"))
    with pytest.raises(UserFileError, match="joined by 'origin', which the rows do not have"):
        index_side(weather(), side_of([(0, "a")])).join(rows_of([(0, "a")]).rename({"origin": "orgin"}), "at")


def test_a_large_table_is_joined_as_its_rows_are() -> None:
    rng = np.random.default_rng(0)
    moments = rng.choice(10_000, 3_000, replace=False)
    side = side_of([(int(m), "abc"[int(m) % 3]) for m in moments])
    rows = rows_of([(int(m), "abc"[int(m) % 3]) for m in rng.integers(0, 10_000, 500)])
    joined, _ = index_side(weather(within=6 * HOUR), side).join(rows, "at")
    known = side.rows()
    for at, origin, temp, _wind in joined.rows():
        seen = [(hour, t) for hour, o, t, _ in known if o == origin and timedelta() <= at - hour <= timedelta(hours=6)]
        assert temp == (max(seen)[1] if seen else None)
