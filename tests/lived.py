"""Days that a wheel lives through in tests."""

from __future__ import annotations

import polars as pl

from conftest import SINCE
from loudly.core.clock import DAY, DataClock
from loudly.loop.live import Live

WHEN = pl.col("at").dt.epoch("us")


def live_day(live: Live, table: pl.DataFrame, day: int) -> None:
    """The labels of yesterday come, the day's rows are answered, and the wheel is ticked, all at the day's beginning."""
    now = SINCE + day * DAY
    live.clock.advance(now)  # type: ignore[attr-defined]
    yesterday = table.filter((now - DAY <= WHEN) & (now > WHEN) & (WHEN >= SINCE))
    if yesterday.height:
        live.feedback(yesterday.select("id", "y"))
    live.answer(table.filter((now <= WHEN) & (now + DAY > WHEN)).drop("y"))
    live.tick()


def promoted_early(live: Live, clock: DataClock, table: pl.DataFrame, version: str, labelled: int) -> pl.DataFrame:
    """Four days of a rollout, `labelled` labels each; then a version is promoted. Returns the rows that still wait for theirs."""
    for day in range(4):
        rows = table.filter((SINCE + day * DAY <= WHEN) & (SINCE + (day + 1) * DAY > WHEN))
        live.answer(rows.drop("y"))
        live.feedback(rows.head(labelled).select("id", "y"))
        clock.advance(SINCE + (day + 1) * DAY)
        live.tick()
    assert live.state.rollout is not None
    live.promote(version, "as if its labels had been enough")
    asked = table.filter((WHEN >= SINCE) & (clock.now() > WHEN))
    return asked.filter(live.book.expects(asked["id"]))
