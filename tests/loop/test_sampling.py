"""A share of the units is followed: the wheel is then the one that meets only these units, to the last byte of its ledger."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from conftest import SINCE, make_world
from lived import first_live, sent
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock
from loudly.core.values import Field, Kind, Role, Schema
from loudly.loop import traffic
from loudly.loop.live import Live
from loudly.loop.outpost import Outpost, routing_of
from loudly.loop.sampling import Sample
from loudly.loop.taking import take
from loudly.serve.attempt import Attempt
from loudly.serve.replies import Replies
from loudly.serve.rows import Rows
from loudly.store.segments import Record, SegmentWriter, read_segments

TABLE = make_world(days=45)
SHARE = Sample(0.4)
when = pl.col("at").dt.epoch("us")


def made_live(sample: Sample, log: Path | None = None) -> tuple[Live, DataClock]:
    stores = replace(memory_stores("world"), sample=sample, traffic=SegmentWriter(log) if log is not None else None)
    return first_live(TABLE, stores)


def history(live: Live, clock: DataClock, table: pl.DataFrame, size: int) -> None:
    """Ten days of requests, labels a day later, a rollout on the way."""
    for day in range(10):
        now = SINCE + day * DAY
        late = table.filter((when >= now - 2 * DAY) & (when < now - DAY) & (when >= SINCE))
        if late.height:
            arrival = live.feedback(late.select("id", "y"))
            assert not arrival.unknown
            assert arrival.joined.height + arrival.unfollowed == late.height
        for piece in table.filter((when >= now) & (when < now + DAY)).iter_slices(size):
            rows = sent(piece, live)
            replies = live.answering.answer(rows, Attempt((rows.height,)))
            assert len(replies.answer) == rows.height
            live.answering.settle()
        if day == 3:
            live.retrain("by hand", "to have a rollout on the way")
        clock.advance(now + DAY)
        live.tick()


@pytest.mark.parametrize("size", [1, 120])
def test_the_wheel_is_the_one_that_meets_only_the_units_that_are_followed(size: int) -> None:
    """Batches of one row, or of a day, so that both meet the same calls; what guards count of them is in the ledger, too."""
    some, alone = made_live(SHARE), made_live(Sample())
    chosen = TABLE.filter((when < SINCE) | pl.Series(SHARE.mask(TABLE["id"].to_list())))
    history(*some, TABLE, size)
    history(*alone, chosen, size)
    kinds = [r.event.kind for r in some[0].stores.ledger.read()]
    assert {"stage_started", "champion_changed"} <= set(kinds)
    assert some[0].book.waiting == alone[0].book.waiting > 0
    assert some[0].given == alone[0].given
    told = [[r.chain for r in live.stores.ledger.read()] for live, _ in (some, alone)]
    assert told[0] == told[1]


def test_only_they_are_logged_with_the_requests_that_they_came_with(tmp_path: Path) -> None:
    live, _ = made_live(SHARE, tmp_path)
    day = TABLE.filter((when >= SINCE) & (when < SINCE + DAY))
    sizes = (1, 2, 7, 110)
    live.answering.answer(sent(day, live), Attempt(sizes, tuple((f"request-{i}", "") for i in range(4))))
    live.stores.traffic.flush()  # type: ignore[union-attr]
    records = [r for r in read_segments(tmp_path) if r.kind == "predictions"]
    mask = SHARE.mask(day["id"].to_list())
    assert [k for r in records for k in traffic.from_bytes(r.payload)["id"]] == day.filter(pl.Series(mask))["id"].to_list()
    ends = np.cumsum(sizes)
    wanted = [
        (f"request-{i}", "", int(mask[end - size : end].sum())) for i, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]
    assert [note for r in records for note in traffic.notes_of(r.payload)] == [note for note in wanted if note[2]]


def test_a_place_of_its_own_hands_over_the_same_units() -> None:
    live, _ = made_live(SHARE)
    taken: list[Record] = []
    stores = replace(live.stores, traffic=None)
    post = Outpost(live.system, stores, b"key", live.clock, lambda kind, payload: taken.append(Record(0, kind, payload)))
    post.follow(routing_of(live))
    day = TABLE.filter((when >= SINCE) & (when < SINCE + DAY))
    for piece in day.iter_slices(1):
        post.answer(sent(piece, live), Attempt((1,)))
    take(live, taken)
    assert live.book.waiting == SHARE.mask(day["id"].to_list()).sum() == len(taken)
    arrival = live.feedback(day.select("id", "y"))
    assert (arrival.joined.height, arrival.unknown, arrival.unfollowed) == (len(taken), (), day.height - len(taken))


@given(st.data(), st.integers(1, 12))
def test_what_is_counted_of_two_parts_is_what_is_counted_of_both(data: st.DataObject, n: int) -> None:
    arm = np.array(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    shadowed = data.draw(st.booleans())
    number = st.sampled_from([0.25, float("nan")])
    scores = {name: np.array(data.draw(st.lists(number, min_size=n, max_size=n))) for name in ("control", "candidate")}
    asked = {"control": arm == 0, "candidate": np.full(n, True) if shadowed else arm == 1}
    answered = {name: int(mask.sum()) for name, mask in asked.items()}
    failed = {name: int((mask & np.isnan(scores[name])).sum()) for name, mask in asked.items()}
    whole = Replies(
        np.zeros(n), arm, np.ones(n), np.zeros(n, dtype=bool), scores, ("a/1", "a/2"), answered, failed, (), {"control": 0.1}
    )
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    parts = [whole.part(np.flatnonzero(kept)) for kept in (mask, ~mask)]
    for name in asked:
        assert sum(p.answered[name] for p in parts) == answered[name]
        assert sum(p.failed[name] for p in parts) == failed[name]
        assert parts[0].answered[name] == (asked[name] & mask).sum()


def test_a_larger_share_follows_all_of_a_smaller_one_and_each_arm_alike() -> None:
    units = [f"unit-{i}" for i in range(20_000)]
    small, large = Sample(0.1).mask(units), Sample(0.3).mask(units)
    assert not (small & ~large).any()
    assert binomtest(int(large.sum()), len(units), 0.3).pvalue > 1e-4
    schema = Schema((Field("id", Kind.TEXT, Role.KEY),))
    rows, n = Rows(schema, {"id": units}, len(units)), len(units)
    arm = np.arange(n) % 2
    none = dict.fromkeys(("control", "candidate"), 0)
    scores = dict.fromkeys(("control", "candidate"), np.zeros(n))
    replies = Replies(np.zeros(n), arm, np.ones(n), np.zeros(n, dtype=bool), scores, ("a", "b"), none, none, (), {})
    part = Sample(0.3).part(rows, replies, [], "id")
    assert part is not None
    assert binomtest(int(part[1].arm.sum()), len(part[1].arm), 0.5).pvalue > 1e-4
    assert Sample(1e-9).part(rows, replies, [], "id") is None
