from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_world
from loudly.core.clock import DAY
from loudly.data.split import GroupSplit, TimeSplit, newest
from loudly.errors import DataError

WORLD = make_world(days=20, per_day=50)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 15), st.integers(1, 400), st.floats(0.05, 0.5))
def test_the_newest_are_held_out_and_nothing_is_lost(days: int, rows: int, most: float) -> None:
    cut = newest(WORLD, "at", stretch=days * DAY, rows=rows, most=most)
    older, newer = cut.apply(WORLD)
    assert older.height + newer.height == WORLD.height
    assert older["at"].max() < newer["at"].min()  # type: ignore[operator]
    assert newer.height <= most * WORLD.height + 2
    assert TimeSplit(str(cut.plain()["column"]), int(str(cut.plain()["cut"]))).apply(WORLD)[1].equals(newer)


def test_a_group_is_never_on_both_sides_and_the_choice_can_be_repeated() -> None:
    table = WORLD.with_columns(customer=pl.int_range(pl.len()) % 97)
    cut = GroupSplit("customer", 0.3, seed=1)
    fit, held = cut.apply(table)
    assert not set(fit["customer"]) & set(held["customer"])
    assert 0.15 < held.height / table.height < 0.45
    assert cut.apply(table.reverse())[1].height == held.height
    with pytest.raises(DataError, match="one side empty"):
        GroupSplit("customer", 0.0).apply(table)
