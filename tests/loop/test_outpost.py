"""Outposts answer as the wheel does, follow its rollout, and what they hand over counts as if it had answered itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock
from loudly.errors import RolloutError
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.loop.outpost import Outpost, routing_of, take

DAYS = 3


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return make_world(days=40)


def made(table: pl.DataFrame) -> Live:
    live = Live(make_app(table).system, memory_stores("world"), DataClock(SINCE), key=b"replay")
    assert not found(live, table.filter(pl.col("at").dt.epoch("us") < SINCE))
    live.retrain("first training", "there is no model yet")
    live.retrain("by hand", "a second one")
    assert live.state.rollout is not None
    return live


def day(table: pl.DataFrame, number: int) -> pl.DataFrame:
    at = pl.col("at").dt.epoch("us")
    return table.filter((at >= SINCE + number * DAY) & (at < SINCE + (number + 1) * DAY))


def test_two_outposts_and_a_wheel_end_with_the_ledger_of_one_server(table: pl.DataFrame) -> None:
    alone, wheel = made(table), made(table)
    posts = [
        Outpost(wheel.system, wheel.stores, b"replay", lambda *batch: take(wheel, *batch)),
        Outpost(wheel.system, wheel.stores, b"replay", lambda *batch: take(wheel, *batch)),
    ]
    with pytest.raises(RolloutError, match="no champion"):
        posts[0].answer(day(table, 0).drop("y"))
    for number in range(DAYS):
        for half, piece in enumerate(day(table, number).drop("y").iter_slices(60)):
            posts[half % 2].follow(routing_of(wheel))
            ours, _ = posts[half % 2].answer(piece)
            theirs, _ = alone.answer(piece)
            assert np.allclose(ours.answer, theirs.answer, rtol=1e-12, atol=0)  # the last bit is numpy's, not ours
            assert ours.arm.tolist() == theirs.arm.tolist()
        for live in (alone, wheel):
            clock: Any = live.clock
            clock.advance(SINCE + (number + 1) * DAY)
            live.feedback(day(table, number).select("id", "y"))
            live.tick()
    assert wheel.given == alone.given
    assert [r.chain for r in wheel.stores.ledger.read()] == [r.chain for r in alone.stores.ledger.read()]


def test_a_wheel_that_is_away_costs_no_answer_and_is_counted(table: pl.DataFrame) -> None:
    def away(*_: object) -> None:
        raise ConnectionError("no wheel")

    wheel = made(table)
    post = Outpost(wheel.system, wheel.stores, b"replay", away)
    post.follow(routing_of(wheel))
    replies, _ = post.answer(day(table, 0).drop("y"))
    assert len(replies.answer) == post.lost == 120
    assert not replies.fallback.any()


def test_answers_of_a_rollout_that_is_over_count_no_more(table: pl.DataFrame) -> None:
    wheel = made(table)
    late: list[Any] = []
    post = Outpost(wheel.system, wheel.stores, b"replay", lambda *batch: late.append(batch))
    post.follow(routing_of(wheel))
    post.answer(day(table, 0).drop("y"))
    wheel.roll_back("world/2", "a test")
    take(wheel, *late[0])
    assert wheel.book.waiting == 120
    assert sum(wheel.given.values()) == 0
