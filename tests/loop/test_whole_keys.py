"""Keys that are whole numbers: all is decided as with the same keys written as texts."""

from __future__ import annotations

import polars as pl

from conftest import SINCE, make_app
from lived import first_live, live_day
from loudly.app.verbs import memory_stores, replay
from loudly.core.clock import DAY
from loudly.loop.replay import monthly


def told(table: pl.DataFrame) -> list[tuple[str, object]]:
    """What a wheel has decided in nine days, with a rollout and a fit on what was served among it."""
    live, _ = first_live(table, memory_stores("world"))
    for day in range(9):
        live_day(live, table, day)
    late = table.filter(pl.col("at").dt.epoch("us") >= SINCE + 8 * DAY).head(5).select("id", "y")
    assert len(live.feedback(late).joined) == 5
    assert len(live.feedback(late).duplicate) == 5
    assert live.retrain("by hand", "a test") is not None
    return [(r.event.kind, (r.event.data.get("version"), r.event.data.get("reason"))) for r in live.stores.ledger.read()]


def test_whole_keys_meet_their_labels_as_texts_do(table: pl.DataFrame) -> None:
    whole = table.with_columns(id=pl.int_range(pl.len()) + 1000)
    assert told(whole) == told(whole.with_columns(pl.col("id").cast(pl.String)))


def test_a_history_of_whole_keys_is_replayed(table: pl.DataFrame) -> None:
    whole = table.with_columns(id=pl.int_range(pl.len()) + 1000)
    made = [
        replay(make_app(t).system, since="2024-02-01", until="2024-02-06")
        for t in (whole, whole.with_columns(pl.col("id").cast(pl.String)))
    ]
    assert monthly(made[0]) == monthly(made[1])
    assert made[0].answers.equals(made[1].answers)
