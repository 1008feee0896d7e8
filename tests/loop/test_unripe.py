"""What is ripe is what a look at all rows that wait would say, in that order, however they came."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loudly.loop.unripe import Unripe

rows_of_a_call = st.lists(st.tuples(st.none() | st.integers(0, 20), st.sampled_from(["a", "b", "c", None])), max_size=6)
calls = st.lists(st.tuples(st.integers(0, 6), rows_of_a_call), min_size=1, max_size=12)


def plainly(waiting: pl.DataFrame, now: int, group: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The definition: all that wait, looked at each time."""
    at = pl.col("at").max().over(group) if group else pl.col("at")
    return waiting.filter(at <= now), waiting.filter(~(at <= now))


@pytest.mark.parametrize("group", ["", "list"])
@given(calls)
def test_it_is_the_plain_definition(group: str, told: list[tuple[int, list[tuple[int | None, str | None]]]]) -> None:
    mine, theirs, now, number = Unripe(group), pl.DataFrame(schema={"at": pl.Int64, "list": pl.String, "id": pl.Int64}), 0, 0
    for later, rows in told:
        now += later
        new = pl.DataFrame(rows, schema={"at": pl.Int64, "list": pl.String}, orient="row").filter(pl.col("at").is_not_null())
        new = new.with_columns(id=pl.int_range(number, number + new.height, dtype=pl.Int64))
        number += new.height
        mine.add(new, pl.col("at"))
        ripe, theirs = plainly(pl.concat([theirs, new]), now, group)
        taken = mine.take(now)
        assert taken.rows() == ripe.rows()
        assert len(mine) == theirs.height


def test_rows_that_come_one_a_call_are_merged_a_few_times_and_not_looked_at_until_they_ripen() -> None:
    """Runs more than twice as long as the next are at most log2(n) + 1; whatever waits, a call that ripens nothing has no rows."""
    n, waiting = 1000, Unripe()
    for i in range(n):
        waiting.add(pl.DataFrame({"id": [i]}), pl.lit(n - i, pl.Int64))
        assert waiting.take(0).is_empty()
        assert len(waiting._runs) <= math.log2(i + 1) + 1
    assert waiting.take(n // 2)["id"].to_list() == list(range(n // 2, n))
    waiting.add(pl.DataFrame({"other": ["a column that came later"]}), pl.lit(None, pl.Int64))
    assert waiting.take(n)["id"].to_list() == list(range(n // 2))
    assert len(waiting) == 0


def test_rows_that_are_forgotten_never_ripen() -> None:
    waiting = Unripe()
    for i in range(10):
        waiting.add(pl.DataFrame({"id": [i]}), pl.lit(i, pl.Int64))
    waiting.forget(lambda rows: rows["id"] % 2 == 0)
    assert len(waiting) == 5
    assert waiting.take(10)["id"].to_list() == [1, 3, 5, 7, 9]
