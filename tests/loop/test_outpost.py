"""Outposts answer as the wheel does, follow its rollout, and what they hand over counts as if it had answered itself."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from lived import sent
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, HOUR, DataClock, WallClock
from loudly.errors import ClockError, NotFound, RolloutError
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.loop.outpost import Outpost, routing_of
from loudly.loop.taking import take
from loudly.serve.attempt import Attempt
from loudly.serve.replies import Replies
from loudly.serve.rows import Rows
from loudly.store.segments import Record

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


def post_of(wheel: Live, hand_over: Any) -> Outpost:
    return Outpost(wheel.system, wheel.stores, b"replay", wheel.clock, hand_over)


def ask(post: Outpost, rows: Rows) -> Replies:
    return post.answer(rows, Attempt((rows.height,)))


def test_two_outposts_and_a_wheel_end_with_the_ledger_of_one_server(table: pl.DataFrame) -> None:
    alone, wheel = made(table), made(table)
    posts = [post_of(wheel, lambda kind, payload: take(wheel, [Record(0, kind, payload)])) for _ in range(2)]
    with pytest.raises(RolloutError, match="no champion"):
        ask(posts[0], sent(day(table, 0), wheel))
    for number in range(DAYS):
        for half, piece in enumerate(day(table, number).iter_slices(60)):
            posts[half % 2].follow(routing_of(wheel))
            ours = ask(posts[half % 2], sent(piece, wheel))
            theirs, _ = alone.answer(piece.drop("y"))
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
    post = post_of(wheel, away)
    post.follow(routing_of(wheel))
    replies = ask(post, sent(day(table, 0), wheel))
    assert len(replies.answer) == post.lost == 120
    assert not replies.fallback.any()


def test_answers_of_a_rollout_that_is_over_count_no_more(table: pl.DataFrame) -> None:
    wheel = made(table)
    late: list[Any] = []
    post = post_of(wheel, lambda *batch: late.append(batch))
    post.follow(routing_of(wheel))
    ask(post, sent(day(table, 0), wheel))
    wheel.roll_back("world/2", "a test")
    take(wheel, [Record(0, *late[0])])
    assert wheel.book.waiting == 120
    assert sum(wheel.given.values()) == 0


def test_answers_that_came_too_late_are_the_failures_of_the_arm_at_work(table: pl.DataFrame) -> None:
    wheel = made(table)
    post = post_of(wheel, lambda kind, payload: take(wheel, [Record(0, kind, payload)]))
    post.follow(routing_of(wheel))
    rows = sent(day(table, 0), wheel)
    while wheel.strategy is not None and wheel.strategy.name != "canary":
        clock: Any = wheel.clock
        clock.advance(clock.now() + DAY)
        wheel.tick()
    post.follow(routing_of(wheel))
    for first in range(0, 100, 10):
        part = Rows(rows.schema, None, 10, rows.records[first : first + 10])
        attempt = Attempt((10,))
        post.answer(part, attempt)
        attempt.scoring = "candidate"
        post.lose(Rows(rows.schema, None, 1, part.records[:1]), attempt)
    assert wheel.rollout_verdict is not None
    assert wheel.rollout_verdict.failed
    assert "10 of 10 units with failed answers are the candidate's" in wheel.rollout_verdict.reason


def test_a_version_that_is_loaded_at_the_wheel_answers_to_its_name_at_an_outpost(table: pl.DataFrame) -> None:
    wheel = made(table)
    wheel.retrain("by hand", "a third one", offer=False)
    given: list[Any] = []
    post = post_of(wheel, lambda *batch: given.append(batch))
    post.follow(routing_of(wheel))
    rows = sent(day(table, 0), wheel)
    with pytest.raises(NotFound, match="loaded: world/1, world/2"):
        post.answer(rows, Attempt((rows.height,), (), "world/3"))
    wheel.pins.load("world/3", 3)
    post.follow(routing_of(wheel))
    assert post.answer(rows, Attempt((rows.height,), (), "world/3")).versions[0] == "world/3"
    before = dict(wheel.given), wheel.book.waiting
    take(wheel, [Record(0, *given[0])])
    assert (wheel.given, wheel.book.waiting) == before
    assert wheel.pins.book.waiting == rows.height
    wheel.pins.unload("world/3")
    post.follow(routing_of(wheel))
    assert post.loaded() == ("world/1", "world/2")


def test_while_the_clock_has_jumped_back_answers_and_labels_go_on_and_nothing_is_decided(
    table: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, read = made(table), [SINCE + HOUR]
    monkeypatch.setattr(time, "time_ns", lambda: read[0] * 1000)
    wheel.clock = WallClock()
    post, logged = post_of(wheel, lambda kind, payload: take(wheel, [Record(0, kind, payload)])), list[int]()
    post.follow(routing_of(wheel))
    rows = day(table, 0)
    for part in (rows[:40], rows[40:]):
        ask(post, sent(part[:20], wheel))
        wheel.answering.answer(sent(part[20:], wheel), Attempt((part.height - 20,)))
        assert wheel.feedback(part.select("id", "y")).joined.height == part.height
        logged.append(wheel.clock._latest)
        read[0] -= 12 * HOUR
    assert logged == [SINCE + HOUR] * 2
    assert (post.lost, wheel.answering.unlogged, wheel.answering.uncounted) == (0, 0, 0)
    with pytest.raises(ClockError, match="jumped back"):
        wheel.tick()
