"""A table that somebody else has trained on beside a server is what that server learns from, and compares with, from then on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from lived import live_day
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.loop.stores import Stores

TABLE = make_world(days=50)
WHEN = pl.col("at").dt.epoch("us")
OLD, NEW = TABLE.filter(WHEN < SINCE), TABLE.filter((WHEN < SINCE) & (WHEN >= SINCE - 20 * DAY)).with_columns(x1=pl.col("x1") + 1)


def live_of(stores: Stores, clock: DataClock | None = None, **policy: Any) -> Live:
    system = make_app(TABLE, **policy).system
    return Live(replace(system, rollout=()), stores, clock or DataClock(SINCE), key=b"key")


def trained_beside(stores: Stores, now: int, table: pl.DataFrame) -> Live:
    """What `loudly train` does, as another process."""
    other = live_of(stores, DataClock(now))
    reopen(other)
    assert not found(other, table)
    other.retrain("by hand", "somebody asked for it", offer=False)
    return other


def keys(rows: pl.DataFrame) -> list[str]:
    return sorted(rows["id"].to_list())


def test_a_server_that_was_there_before_the_first_table_watches_and_trains_as_one_that_came_after() -> None:
    """It had no reference, so nothing was watched, and the first retraining ended in an assertion."""
    stores = memory_stores("world")
    server = live_of(stores)
    server.tick()
    other = trained_beside(stores, SINCE, OLD)
    other.offer("world/1", "by hand")
    server.tick()
    assert server.state.champion == "world/1"
    assert keys(server.retraining.reference()) == keys(OLD)
    for day in range(5):
        live_day(server, TABLE, day)
    assert server.watch.eras.begun
    brought = server.retraining.new_rows
    assert brought == 4 * 120, "labels come a day late"
    assert server.retrain("by hand", "a test") == "world/2"
    assert server.retraining.reference().height == OLD.height + brought


@pytest.mark.parametrize("refitted", [False, True])
def test_the_rows_that_traffic_has_brought_are_learned_beside_the_new_table_and_once(refitted: bool) -> None:
    stores = memory_stores("world")
    server = live_of(stores)
    assert not found(server, OLD)
    server.retrain("first training", "there is no model yet")
    for day in range(4):
        live_day(server, TABLE, day)
    if refitted:
        server.retrain("by hand", "a test")
        live_day(server, TABLE, 4)
    traffic = TABLE.filter((WHEN >= SINCE) & (SINCE + (4 if refitted else 3) * DAY > WHEN))
    trained_beside(stores, server.clock.now(), pl.concat([NEW, traffic.head(100)]))
    server.tick()
    assert server.retraining.dataset == server.state.dataset
    assert keys(server.retraining.reference()) == keys(pl.concat([NEW, traffic.head(100)])), "the old table is no more"
    assert server.retraining.new_rows == traffic.height - 100
    made = server.retrain("by hand", "another")
    assert made is not None
    assert keys(server.retraining.reference()) == keys(pl.concat([NEW, traffic])), "each row once"
    newest = server.state.versions[made]
    assert newest.dataset == server.state.dataset.digest  # type: ignore[union-attr]


def test_a_table_of_another_label_is_left_to_whoever_reads_that_file() -> None:
    stores = memory_stores("world")
    server = live_of(stores)
    assert not found(server, OLD)
    server.retrain("first training", "there is no model yet")
    system = replace(make_app(TABLE).system, label="z", rollout=())
    other = Live(system, stores, DataClock(SINCE), key=b"key")
    assert not found(other, OLD.rename({"y": "z"}))
    server.tick()
    assert keys(server.retraining.reference()) == keys(OLD)
    assert "y" in server.retraining.reference().columns


def test_a_table_that_comes_during_a_fit_is_followed_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = memory_stores("world")
    server = live_of(stores)
    assert not found(server, OLD)
    server.retrain("first training", "there is no model yet")
    real = server.retraining._make

    def slow(*given: Any) -> Any:
        monkeypatch.setattr(server.retraining, "_make", real)
        other = live_of(stores, DataClock(SINCE))
        reopen(other)
        assert not found(other, NEW)
        server.tick()
        assert keys(server.retraining.reference()) == keys(OLD), "the fit under way is of one table"
        return real(*given)

    monkeypatch.setattr(server.retraining, "_make", slow)
    made = server.retrain("by hand", "a test")
    assert made is not None
    registered = server.state.versions[made].dataset
    known = {r.event.data["digest"]: i for i, r in enumerate(stores.ledger.read()) if r.event.kind == "dataset_versioned"}
    assert next(iter(known)) == registered
    assert server.retraining.dataset == server.state.dataset
    assert keys(server.retraining.reference()) == keys(NEW)
