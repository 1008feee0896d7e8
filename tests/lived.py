"""Days that a wheel lives through in tests."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from conftest import SINCE, make_app
from loudly.core.clock import DAY, DataClock
from loudly.core.values import Event
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.loop.stores import Stores
from loudly.serve.rows import Rows, rows_of
from loudly.store.memory_ledger import MemoryLedger

WHEN = pl.col("at").dt.epoch("us")


def first_live(table: pl.DataFrame, stores: Stores) -> tuple[Live, DataClock]:
    """A wheel at SINCE, with a champion that was fitted on the rows before, of which the last day has no labels yet."""
    clock = DataClock(SINCE)
    live = Live(make_app(table).system, stores, clock, key=b"key")
    known = table.filter(WHEN < SINCE).with_columns(y=pl.when(WHEN + DAY <= SINCE).then(pl.col("y")))
    assert not found(live, known)
    live.retrain("first training", "there is no model yet")
    return live, clock


def ledger_of(stores: Stores, more: Iterable[Event] = ()) -> MemoryLedger:
    """A ledger of its own with the events of another, and more."""
    ledger = MemoryLedger()
    ledger.append([*(recorded.event for recorded in stores.ledger.read()), *more], 0)
    return ledger


def sent(rows: pl.DataFrame, live: Live) -> Rows:
    """Rows of a world as a client sends them to the champion."""
    objects = [{**r, "at": r["at"].isoformat()} for r in rows.drop("y").to_dicts()]
    return rows_of(objects, live.ready[live.state.champion or ""].schema)


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
