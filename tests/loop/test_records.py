"""The log folded again: answers and labels in a few tables come to what they came to call by call."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from conftest import SINCE, make_app, make_world
from lived import WHEN, first_live, sent
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, HOUR, DataClock
from loudly.loop import records, traffic
from loudly.loop.founding import reopen
from loudly.loop.live import Live
from loudly.loop.restart import catch_up, watch_again
from loudly.loop.stores import Stores
from loudly.serve.attempt import Attempt
from loudly.store.segments import SegmentWriter, read_segments

TABLE = make_world(days=50)
SERVED = TABLE.filter(WHEN >= SINCE)[:8]
KEYS = [*SERVED["id"], "nobody"]
at_most_three = st.lists(st.integers(0, 7), min_size=1, max_size=3)
a_label = st.tuples(st.integers(0, 8), st.sampled_from([True, False, None]))
steps = st.one_of(
    st.tuples(st.just("answer"), at_most_three),
    st.tuples(st.just("label"), st.lists(a_label, min_size=1, max_size=3)),
    st.tuples(st.just("wait"), st.sampled_from([1, HOUR, DAY])),
)


def founded() -> Stores:
    stores = memory_stores("world")
    first_live(TABLE, stores)
    return stores


@pytest.fixture(scope="module")
def stores() -> Stores:
    """With a champion, and no rollout; for those who write nothing into the ledger."""
    return founded()


@contextmanager
def logged(stores: Stores) -> Iterator[tuple[Live, DataClock, Path]]:
    """A wheel with a log of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder, clock = Path(name), DataClock(SINCE + HOUR // 2)
        writer = SegmentWriter(folder)
        try:
            yield opened(replace(stores, traffic=writer), clock), clock, folder
        finally:
            writer.close()


def opened(stores: Stores, clock: DataClock) -> Live:
    live = Live(make_app(TABLE).system, stores, clock, key=b"key")
    reopen(live)
    watch_again(live)
    return live


def label(live: Live, rows: Sequence[tuple[int, bool | None]]) -> None:
    live.feedback(pl.DataFrame({"id": [KEYS[k] for k, _ in rows], "y": [y for _, y in rows]}, schema_overrides={"y": pl.Boolean}))


def lived(live: Live, clock: DataClock, told: Sequence[tuple[str, Any]]) -> None:
    """Answers, labels and time, in that order, as a server has them."""
    for what, said in told:
        match what:
            case "answer":
                live.answering.answer(sent(SERVED[said], live), Attempt((len(said),)))
                live.answering.gather()
            case "label":
                label(live, said)
            case _:
                clock.advance(clock.now() + said)
    with live.lock:
        live.answering.fold()
    assert live.stores.traffic is not None
    live.stores.traffic.flush()


def restarted(live: Live, clock: DataClock, folder: Path) -> Live:
    again = opened(replace(live.stores, traffic=None), clock)
    catch_up(again, folder)
    return again


def known(live: Live, now: int) -> list[Any]:
    """What labels have taught, to be compared; it ends what waits."""
    trail = [found.tolist() for found in live.watch.trail.since(0)]
    delays = live.book.delays.known(now + 2 * DAY, DAY, 0.9)
    learned = live.retraining._fresh.take()
    left = live.book.arrived(pl.DataFrame({"id": KEYS, "y": [True] * len(KEYS)}), now)
    examples = live.watch.examples.between(0, now + DAY)
    frames = [frame.fill_nan(None).to_dict(as_series=False) for frame in (learned, left.joined, examples)]
    return [trail, delays, *frames, sorted(left.unknown), left.duplicate, left.changed, left.lateness.tolist()]


@given(st.lists(steps, min_size=1, max_size=12))
@settings(max_examples=60, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_comes_in_whatever_order_is_folded_as_it_came(stores: Stores, told: list[tuple[str, Any]]) -> None:
    with logged(stores) as (live, clock, folder):
        lived(live, clock, told)
        again = restarted(live, clock, folder)
        assert known(again, clock.now()) == known(live, clock.now())


def test_a_row_that_is_asked_again_after_its_label_waits_for_another(stores: Stores) -> None:
    with logged(stores) as (live, clock, folder):
        lived(live, clock, [("answer", [0]), ("label", [(0, True), (1, True)]), ("answer", [0]), ("answer", [1])])
        again = restarted(live, clock, folder)
        assert again.book.waiting == live.book.waiting == 2, "the second answers came after the labels"


def test_what_is_learned_from_stands_in_the_order_in_which_its_labels_came(stores: Stores) -> None:
    with logged(stores) as (live, clock, folder):
        told = [("answer", [0, 1, 2]), ("label", [(2, True)]), ("wait", 1), ("label", [(1, True), (0, False)])]
        lived(live, clock, told)
        learned = restarted(live, clock, folder).retraining._fresh.take()
    assert learned["id"].to_list() == [KEYS[2], KEYS[0], KEYS[1]]


def test_labels_that_come_one_a_call_between_answers_are_one_table_of_the_hour(stores: Stores) -> None:
    with logged(stores) as (live, clock, folder):
        lived(live, clock, [step for k in range(8) for step in (("answer", [k]), ("label", [(max(0, k - 1), True)]))])
        told = [(kind, table.height) for kind, _, table in records.batches(live, read_segments(folder))]
    assert told == [("predictions", 8), ("labels", 8)]


def test_labels_that_a_rollout_may_learn_from_are_folded_call_by_call() -> None:
    with logged(founded()) as (live, clock, folder):
        lived(live, clock, [("answer", [0, 1, 2, 3]), ("label", [(0, True)]), ("label", [(1, True)]), ("wait", 1)])
        second = live.retrain("by hand", "another", offer=False)
        assert second is not None
        live.offer(second, "a test")
        lived(live, clock, [("answer", [4]), ("label", [(2, True)]), ("answer", [5]), ("label", [(3, True), (4, False)])])
        log = [record for record in read_segments(folder) if record.kind in records.KINDS]
        told = [(kind, table.height) for kind, _, table in records.batches(live, log)]
    labels = [height for kind, height in told if kind == "labels"]
    assert labels == [2, 1, 2]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, None, False], pl.Boolean),
        ([1, 2, None], pl.Int64),
        ([1, 2, 3], pl.Int8),
        ([0.5, float("nan"), None], pl.Float64),
        (["yes", "no", None], pl.String),
        (["yes", "no", "yes"], pl.Categorical),
    ],
)
def test_a_record_of_labels_is_the_table_that_was_sent(values: list[Any], kind: Any) -> None:
    labels = pl.DataFrame({"id": ["a", "b", "c"], "y": pl.Series(values, dtype=kind)})
    table = traffic.from_bytes(data := traffic.labels_to_bytes(labels, SINCE))
    assert table.drop("_at").equals(labels, null_equal=True)
    assert table.schema == {**labels.schema, "_at": pl.Int64}
    assert table["_at"].to_list() == [SINCE] * 3
    calls = [traffic.labels_of(data), traffic.labels_of(traffic.labels_to_bytes(labels, SINCE + 1))]
    both = traffic.table_of_labels(calls)
    assert both["y"].dtype == kind
    assert both["_at"].to_list() == [SINCE] * 3 + [SINCE + 1] * 3
    assert both["_call"].to_list() == [0, 0, 0, 1, 1, 1]


def test_records_of_labels_that_were_logged_as_tables_are_read_as_ever() -> None:
    labels = pl.DataFrame({"id": ["a", "b"], "y": [1, 0]})
    found = traffic.labels_of(traffic.to_bytes(labels.with_columns(_at=pl.lit(SINCE, pl.Int64))))
    assert found == traffic.labels_of(traffic.labels_to_bytes(labels, SINCE))
