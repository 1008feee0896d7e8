from __future__ import annotations

from datetime import datetime

import polars as pl
import pytest

from loudly.core.clock import instant
from loudly.testing.damage import Damage, column_gone, labels_shuffled, nulls, units_changed


@pytest.fixture
def rows() -> pl.DataFrame:
    times = pl.datetime_range(datetime(2013, 1, 1), datetime(2013, 1, 10, 23), "1h", eager=True).cast(pl.Datetime("us"))
    n = len(times)
    return pl.DataFrame(
        {
            "t": times,
            "k": [str(i) for i in range(n)],
            "x": [32.0] * n,
            "o": ["a", "b"] * (n // 2),
            "y": [True, False, False] * (n // 3),
        }
    )


def test_units_change_from_a_moment_on(rows: pl.DataFrame) -> None:
    damage = Damage("f to c", units_changed("x", 5 / 9, -160 / 9), instant("2013-01-05"))
    after = damage(rows, "t")
    assert after.height == rows.height
    assert after.filter(pl.col("t") < datetime(2013, 1, 5))["x"].unique().to_list() == [32.0]
    assert after.filter(pl.col("t") >= datetime(2013, 1, 5))["x"].abs().max() < 1e-12  # type: ignore[operator]


def test_a_column_goes(rows: pl.DataFrame) -> None:
    assert "x" not in Damage("gone", column_gone("x"), 0)(rows, "t").columns
    half = Damage("gone", column_gone("x"), instant("2013-01-05"))(rows, "t")
    assert half["x"].null_count() == 144


def test_nulls_hit_only_their_subset_and_the_same_rows_each_time(rows: pl.DataFrame) -> None:
    harm = nulls("x", 0.4, pl.col("o") == "a", "k")
    once, twice = harm(rows), harm(rows)
    assert once.equals(twice)
    assert once.filter(pl.col("o") == "b")["x"].null_count() == 0
    assert 0.25 < once.filter(pl.col("o") == "a")["x"].is_null().mean() < 0.55  # type: ignore[operator]


def test_shuffled_labels_keep_the_mean(rows: pl.DataFrame) -> None:
    after = labels_shuffled("y", pl.col("o") == "a", 1)(rows)
    assert after["y"].sum() == rows["y"].sum()
    assert after.filter(pl.col("o") == "b")["y"].equals(rows.filter(pl.col("o") == "b")["y"])
    assert not after["y"].equals(rows["y"])
