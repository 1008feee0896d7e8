"""The log folded again: answers and labels in a few tables come to what they came to call by call."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from conftest import SINCE, make_app, make_world
from lived import WHEN, first_live, ledger_of, sent
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, HOUR, DataClock
from loudly.deliver.rollout import parse_rollout
from loudly.loop import records, traffic
from loudly.loop.calls import Told
from loudly.loop.founding import reopen
from loudly.loop.live import Live
from loudly.loop.restart import Folding, Found, catch_up, watch_again
from loudly.loop.stores import Stores
from loudly.loop.system import System
from loudly.serve.attempt import Attempt
from loudly.store.segments import SegmentWriter, read_segments
from waiting import PATIENCE

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


@pytest.fixture(scope="module")
def two_versions() -> Stores:
    """With a champion and one that may be offered."""
    stores = founded()
    assert opened(stores, DataClock(SINCE + HOUR // 2)).retrain("by hand", "another", offer=False) == "world/2"
    return stores


@contextmanager
def logged(stores: Stores, system: System | None = None) -> Iterator[tuple[Live, DataClock, Path]]:
    """A wheel with a log of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder, clock = Path(name), DataClock(SINCE + HOUR // 2)
        writer = SegmentWriter(folder)
        try:
            yield opened(replace(stores, traffic=writer), clock, system), clock, folder
        finally:
            writer.close()


def opened(stores: Stores, clock: DataClock, system: System | None = None) -> Live:
    live = Live(system or make_app(TABLE).system, stores, clock, key=b"key")
    reopen(live)
    watch_again(live)
    # A busy machine may keep a shadow from scoring for seconds; its rows would then count as failed here, and not in a restart.
    live.answering.shadows.drain = partial(live.answering.shadows.drain, PATIENCE)  # type: ignore[method-assign]
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
            case "tick":
                live.tick()
            case _:
                clock.advance(clock.now() + said)
    with live.lock:
        live.answering.fold()
    assert live.stores.traffic is not None
    live.stores.traffic.flush()


def restarted(live: Live, clock: DataClock, folder: Path) -> Live:
    again = opened(replace(live.stores, traffic=None), clock, live.system)
    catch_up(again, folder)
    return again


def in_a_rollout(stores: Stores, text: str) -> tuple[Stores, System]:
    """The stores with a ledger of their own, in which a rollout has begun."""
    system = replace(make_app(TABLE).system, rollout=(parse_rollout(text, deadline=90 * DAY),))
    stores = replace(stores, ledger=ledger_of(stores))
    live = opened(stores, DataClock(SINCE + HOUR // 2), system)
    live.offer("world/2", "a test")
    return stores, system


def taught(live: Live) -> list[Any]:
    """What the rollout has learned and what it has still to learn."""
    waits = [live.untaught.take(0), (live.unripe.take(10**18), 0)]
    frames = [rows.select(sorted(rows.columns)).fill_nan(None).to_dict(as_series=False) for rows, _ in waits]
    return [live.rollout_state, live.rollout_verdict, waits[0][1], *frames]


def read(live: Live, folder: Path) -> Iterator[tuple[str, Found]]:
    """What a restart reads of the log."""
    return Folding(live, folder, {}, lambda done, of: None).read()


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


@pytest.mark.parametrize("text", ["shadow 30d", "canary 50% 100% every 30d", "thompson for 30d"])
@given(st.lists(st.one_of(steps, st.just(("tick", None))), min_size=8, max_size=30))
@settings(max_examples=30, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_rollout_learns_the_same_from_the_log(two_versions: Stores, text: str, told: list[tuple[str, Any]]) -> None:
    """The time is told each few seconds, so at the end of every long wait."""
    ticked = [one for step in told for one in (step, ("tick", None))[: 2 if step[0] == "wait" and step[1] >= HOUR else 1]]
    with logged(*in_a_rollout(two_versions, text)) as (live, clock, folder):
        lived(live, clock, ticked)
        assert taught(restarted(live, clock, folder)) == taught(live)


def test_labels_are_taught_by_the_hour_as_of_when_the_last_came(two_versions: Stores) -> None:
    with logged(*in_a_rollout(two_versions, "shadow 30d")) as (live, clock, _):
        strategy: Any = live.strategy
        seen: list[tuple[int, int]] = []

        class Spy:
            def __getattr__(self, name: str) -> Any:
                return getattr(strategy, name)

            def update(self, state: Any, told: Any) -> Any:
                seen.append((told.at, len(told.truth)))
                return strategy.update(state, told)

        live.strategy = Spy()  # type: ignore[assignment]
        begun = clock.now()
        lived(live, clock, [("answer", [0, 1, 2, 3]), ("label", [(0, True)]), ("wait", 7), ("label", [(1, True)])])
        assert not seen
        lived(live, clock, [("wait", HOUR), ("label", [(2, False)]), ("wait", 5)])
        assert seen == [(begun + 7, 2)], "no time was told in that hour, as after a restart"
        live.tick()
        assert seen[:2] == [(begun + 7, 2), (begun + HOUR + 7, 1)]


def test_labels_that_a_rollout_learns_from_end_with_the_time_that_it_is_told(two_versions: Stores) -> None:
    with logged(*in_a_rollout(two_versions, "shadow 30d")) as (live, clock, folder):
        lived(live, clock, [("answer", [0, 1, 2]), ("label", [(0, True)]), ("answer", [6]), ("label", [(1, True), (2, False)])])
        live.tick()
        lived(live, clock, [("label", [(6, True)]), ("answer", [7]), ("label", [(7, False)])])
        told = [found.tells_time if isinstance(found, Told) else (kind, found.height) for kind, found in read(live, folder)]
        assert [one for one in told if one] == [("predictions", 4), ("labels", 3), True, ("predictions", 1), ("labels", 2)]
        assert len(live.untaught) == 2, "they wait for the next tick"


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
