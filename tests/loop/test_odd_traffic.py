"""What traffic may hold that a table of somebody's may not: it is answered, told, and in nobody's way."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from conftest import SINCE, make_world
from lived import WHEN, first_live, live_day
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY


def test_an_infinite_number_is_answered_and_left_out_of_training_aloud() -> None:
    """A linear model takes none, and the table of every later fit would have had it."""
    table = make_world(days=50)
    odd = (SINCE <= WHEN) & (SINCE + DAY > WHEN) & (pl.int_range(pl.len()) % 40 == 0)
    table = table.with_columns(x1=pl.when(odd).then(float("inf")).otherwise("x1"))
    count = table["x1"].is_infinite().sum()
    live, _ = first_live(table, memory_stores("world"))
    for day in range(4):
        live_day(live, table, day)
    labelled = live.retraining.new_rows
    assert live.retrain("by hand", "a test", offer=False) == "world/2"
    assert live.state.trained_rows["world/2"] - live.state.trained_rows["world/1"] <= labelled - count
    told = [r.event.data["reasons"] for r in live.stores.ledger.read() if r.event.kind == "rows_set_aside"]
    assert told == [{"a number of theirs is infinite": count}]
    assert not live.retraining.reference()["x1"].is_infinite().any()


def test_a_row_of_the_year_2100_is_left_out_of_training_aloud() -> None:
    """A champion that had learned from it would be newer than every row that could judge its successors."""
    table = make_world(days=50)
    live, clock = first_live(table, memory_stores("world"))
    live_day(live, table, 0)
    odd = (
        table.filter(WHEN >= SINCE).head(1).with_columns(id=pl.lit("odd"), at=pl.lit(datetime(2100, 1, 1)).cast(pl.Datetime("us")))
    )
    live.answer(odd.drop("y"))
    assert live.feedback(odd.select("id", "y")).joined.height == 1
    live_day(live, table, 1)
    assert live.retrain("by hand", "a test", offer=False) == "world/2"
    assert live.state.fitted_at["world/2"] <= clock.now()
    told = [r.event.data["reasons"] for r in live.stores.ledger.read() if r.event.kind == "rows_set_aside"]
    assert {"their time is after now": 1} in told
