"""Windows of event time: whatever the order and the batches, the last word is the same; late rows are corrected or counted."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from window_world import CODEC, Largest, Sums, batch, sums

from loudly.errors import ConfigError, DataError, DatasetCorrupt
from loudly.shift.event_time import FOREVER, NO_TIME, Batch, batch_of, event_times
from loudly.shift.sources import TableSource
from loudly.shift.window_shapes import Count, Session, Shape, Sliding, Trigger, Tumbling
from loudly.shift.window_state import Spoken, State, Step, Timing, pack, unpack
from loudly.shift.windows import Windows, last_words

SHAPES: list[Shape] = [Tumbling(10, 3), Sliding(12, 4), Sliding(10, 4, 1), Sliding(7, 7), Session(5)]
Words = dict[int, tuple[int, int, Sums | None]]


def expected(shape: Shape, at: list[int], x: list[int]) -> Words:
    """Every window by its definition, all rows at once."""
    rows = sorted(zip(at, x, strict=True))
    match shape:
        case Session(gap):
            groups: list[list[tuple[int, int]]] = []
            for row in rows:
                if groups and row[0] - groups[-1][-1][0] < gap:
                    groups[-1].append(row)
                else:
                    groups.append([row])
            cut = {g[0][0]: (g[-1][0] + gap, g) for g in groups}
        case Tumbling() | Sliding():
            grid = shape.grid if isinstance(shape, Tumbling) else shape
            starts = {
                s for t in at for s in range(t - grid.size, t + 1) if (s - grid.origin) % grid.slide == 0 and s <= t < s + grid.size
            }
            cut = {s: (s + grid.size, [r for r in rows if s <= r[0] < s + grid.size]) for s in starts}
        case _:
            raise AssertionError
    return {s: (e, len(g), sums(pl.DataFrame({"x": [v for _, v in g]}))) for s, (e, g) in cut.items()}


def told(words: dict[int, Spoken[Sums]]) -> Words:
    return {s: (w.end, w.rows, w.value) for s, w in words.items()}


def run(windows: Windows[Sums], batches: list[Batch]) -> tuple[dict[int, Spoken[Sums]], list[Step[Sums]], State[Sums]]:
    state, steps = windows.init(), []
    for made in batches:
        state, step = windows.update(state, made)
        steps.append(step)
    state, step = windows.advance(state)
    steps.append(step)
    return last_words([s for step in steps for s in step.spoken]), steps, state


@st.composite
def disordered(draw: st.DrawFn, tolerance: int) -> list[tuple[int, int]]:
    """Rows none of which is older than the latest before it by more than the tolerance."""
    latest, rows = -50, []
    for jump, back, x in draw(
        st.lists(st.tuples(st.integers(0, 15), st.integers(0, tolerance), st.integers(-9, 9)), min_size=1, max_size=40)
    ):
        latest += jump
        rows.append((latest - back, x))
    return rows


def batches_of(rows: list[tuple[int, int]], cuts: list[int]) -> list[Batch]:
    ends = sorted({0, len(rows), *(c for c in cuts if c < len(rows))})
    return [batch([t for t, _ in rows[a:b]], [x for _, x in rows[a:b]], first=a) for a, b in pairwise(ends)]


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
@pytest.mark.parametrize(("disorder", "lateness"), [(0, 20), (20, 0), (7, 13)])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_order_and_batching_within_the_lateness_gives_the_same_last_words(
    shape: Shape, disorder: int, lateness: int, data: st.DataObject
) -> None:
    rows = data.draw(disordered(disorder + lateness))
    cuts = data.draw(st.lists(st.integers(1, 39), max_size=8))
    windows = Windows(shape, sums, disorder=disorder, lateness=lateness)
    words, steps, _ = run(windows, batches_of(rows, cuts))
    assert told(words) == expected(shape, [t for t, _ in rows], [x for _, x in rows])
    assert not any(s.too_late for s in steps)
    by_start: dict[int, list[Spoken[Sums]]] = {}
    for word in (w for s in steps for w in s.spoken):
        by_start.setdefault(word.start, []).append(word)
    for said in by_start.values():
        assert [w.revision for w in said] == sorted({w.revision for w in said}), "revisions rise"


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([Sliding(12, 4), Sliding(10, 4, 1), Sliding(30, 2)]), st.data())
def test_subtracting_panes_says_the_same_as_merging_them(shape: Sliding, data: st.DataObject) -> None:
    rows = data.draw(disordered(30))
    made = batches_of(rows, data.draw(st.lists(st.integers(1, 39), max_size=8)))
    disorder, lateness = data.draw(st.tuples(st.integers(0, 20), st.integers(0, 20)))
    trigger = data.draw(st.sampled_from([None, Trigger(rows=2)]))
    _, merged, _ = run(Windows(shape, sums, disorder=disorder, lateness=lateness, trigger=trigger), made)
    _, subtracted, _ = run(Windows(shape, sums, disorder=disorder, lateness=lateness, trigger=trigger, subtract=True), made)
    assert subtracted == merged


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SHAPES), st.data())
def test_every_row_is_in_a_word_or_counted_and_named(shape: Shape, data: st.DataObject) -> None:
    rows = data.draw(disordered(60))
    windows = Windows(shape, sums, disorder=3, lateness=5)
    words, steps, state = run(windows, batches_of(rows, data.draw(st.lists(st.integers(1, 39), max_size=8))))
    named = sum(late.rows for s in steps for late in s.too_late)
    assert state.too_late.get("table", 0) == named
    if not isinstance(shape, Sliding) or shape.size == shape.slide:
        assert sum(w.rows for w in words.values()) + named == len(rows)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([*SHAPES, Count(3)]), st.booleans(), st.data())
def test_a_packed_state_goes_on_as_if_nothing_had_happened_and_a_batch_seen_twice_is_folded_once(
    shape: Shape, subtract: bool, data: st.DataObject
) -> None:
    rows = data.draw(disordered(30))
    made = batches_of(rows, data.draw(st.lists(st.integers(1, 39), max_size=8)))
    windows = Windows(shape, sums, disorder=3, lateness=9, subtract=subtract and isinstance(shape, Sliding))
    _, straight, end = run(windows, made)
    state, steps = windows.init(), []
    for one in made:
        state, step = windows.update(unpack(pack(state, CODEC, windows.about), CODEC, windows.about), one)
        steps.append(step)
        state, again = windows.update(state, one)
        assert again == Step(repeated=one.rows.height)
    state, step = windows.advance(state)
    assert [*steps, step] == straight
    assert state.repeated == {"table": len(rows)}
    assert state.offsets == end.offsets == {"table": len(rows)}


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SHAPES), st.data())
def test_windows_may_speak_only_when_asked_and_a_state_in_between_is_packed_whole(shape: Shape, data: st.DataObject) -> None:
    rows = data.draw(disordered(15))
    windows = Windows(shape, sums, disorder=FOREVER, lateness=15)
    state, said = windows.init(), []
    for made in batches_of(rows, data.draw(st.lists(st.integers(1, 39), max_size=8))):
        state, step = windows.fold(state, made)
        assert not step.spoken
        state = unpack(pack(state, CODEC, windows.about), CODEC, windows.about)
        if data.draw(st.booleans()):
            state, step = windows.advance(state, max(made.at.tolist()))
            said.extend(step.spoken)
    said.extend(windows.advance(state)[1].spoken)
    assert told(last_words(said)) == expected(shape, [t for t, _ in rows], [x for _, x in rows])


def test_rows_folded_at_a_time_are_too_late_by_that_time() -> None:
    windows = Windows(Tumbling(10), sums, lateness=5)
    state, step = windows.fold(windows.init(), batch([3, 14]), now=15)
    assert [(t.start, t.rows) for t in step.too_late] == [(0, 1)]
    assert windows.advance(state)[1].spoken[0].start == 10


def test_a_batch_that_overlaps_what_was_folded_gives_its_new_rows_only() -> None:
    windows = Windows(Tumbling(10), sums)
    state, _ = windows.update(windows.init(), batch([1, 2, 3], first=0))
    state, step = windows.update(state, batch([2, 3, 4, 5], first=1))
    assert step.repeated == 2
    _, step = windows.advance(state)
    assert step.spoken[0].value == sums(pl.DataFrame({"x": [1, 2, 3, 4, 5]}))


def test_a_late_row_corrects_with_a_revision_and_a_later_one_is_counted_and_named() -> None:
    windows = Windows(Tumbling(10), sums, lateness=10)
    state, first = windows.update(windows.init(), batch([1, 12]))
    assert [(s.start, s.revision, s.timing, s.rows) for s in first.spoken] == [(0, 0, Timing.ON_TIME, 1)]
    state, second = windows.update(state, batch([4, 5]))
    assert [(s.start, s.revision, s.timing, s.rows) for s in second.spoken] == [(0, 1, Timing.LATE, 3)]
    state, third = windows.update(state, batch([21]))
    assert [(s.start, s.revision, s.timing) for s in third.spoken] == [(10, 0, Timing.ON_TIME)]
    state, fourth = windows.update(state, batch([7, 22]))
    assert fourth.spoken == ()
    (late,) = fourth.too_late
    assert (late.rows, late.start, late.end, late.kept) == (1, 0, 10, False)
    assert "1 rows of table" in late.told
    assert state.too_late == {"table": 1}


def test_a_late_row_that_is_the_first_of_its_window_speaks_it() -> None:
    windows = Windows(Tumbling(10), sums, lateness=30)
    state, _ = windows.update(windows.init(), batch([1, 35]))
    _, step = windows.update(state, batch([14]))
    assert [(s.start, s.revision, s.timing) for s in step.spoken] == [(10, 0, Timing.LATE)]


def test_a_row_too_late_for_some_sliding_windows_is_named_and_kept_for_the_others() -> None:
    windows = Windows(Sliding(20, 10), sums)
    state, _ = windows.update(windows.init(), batch([5, 15, 25]))
    state, step = windows.update(state, batch([12]))
    assert [(t.start, t.end, t.kept) for t in step.too_late] == [(0, 20, True)]
    _, step = windows.advance(state)
    assert {s.start: s.rows for s in step.spoken} == {10: 3, 20: 1}


def test_sessions_joined_by_a_late_row_take_back_what_was_said_of_the_second() -> None:
    windows = Windows(Session(10), sums, lateness=100)
    state, _ = windows.update(windows.init(), batch([0, 15, 40]))
    _, step = windows.update(state, batch([8]))
    assert [(s.start, s.end, s.revision, s.rows, s.into) for s in step.spoken] == [(15, 25, 1, 0, 0), (0, 25, 1, 3, None)]
    assert step.spoken[0].value is None
    state, silent = windows.fold(state, batch([-5]))
    state, silent = windows.fold(state, batch([-12]))
    assert silent.spoken == ()
    _, step = windows.advance(state, 41)
    assert [(s.start, s.into) for s in step.spoken] == [(0, -12), (-12, None)], "what was never spoken is not taken back"
    assert step.spoken[1].revision == 1


def test_the_watermark_is_the_slowest_sources_and_waits_for_those_that_are_named() -> None:
    windows = Windows(Tumbling(10), sums, disorder=2, sources=("a", "b"))
    state, step = windows.update(windows.init(), batch([5, 40], source="a"))
    assert step.spoken == ()
    state, step = windows.update(state, batch([11], source="b"))
    assert windows.watermark(state) == 9
    assert step.spoken == ()
    state, step = windows.update(state, batch([12], source="b"))
    assert [(s.start, s.rows) for s in step.spoken] == [(0, 1)]
    state, step = windows.advance(state, FOREVER, source="b")
    assert windows.watermark(state) == 38
    assert [s.start for s in step.spoken] == [10]
    state, _ = windows.update(state, batch([1], source="new and behind"))
    assert windows.watermark(state) == 38, "it never goes back"
    assert state.too_late == {"new and behind": 1}


def test_windows_without_a_row_are_told_as_silence() -> None:
    windows = Windows(Tumbling(10), sums)
    state, _ = windows.update(windows.init(), batch([3]))
    state, step = windows.update(state, batch([45]))
    assert [(s.start, s.end) for s in step.silent] == [(10, 40)]
    state, step = windows.advance(state, 70)
    assert [(s.start, s.end) for s in step.silent] == [(50, 70)]
    assert [s.start for s in step.spoken] == [40]
    _, step = windows.advance(state)
    assert step.silent == (), "the end of all is no silence"
    sliding = Windows(Sliding(20, 10), sums)
    state, step = sliding.update(sliding.init(), batch([5, 95]))
    assert [s.start for s in step.spoken] == [-10, 0]
    assert [(s.start, s.end) for s in step.silent] == [(10, 90)]


def test_an_open_window_speaks_early_by_count_and_by_time_and_once_more_at_its_end() -> None:
    by_count = Windows(Tumbling(100), sums, trigger=Trigger(rows=2))
    said = [s for step in run(by_count, [batch([i]) for i in (1, 2, 3, 4, 5)])[1] for s in step.spoken]
    assert [(s.revision, s.timing, s.rows) for s in said] == [(0, "early", 2), (1, "early", 4), (2, "on time", 5)]
    by_time = Windows(Tumbling(100), sums, trigger=Trigger(every=30))
    said = [s for step in run(by_time, [batch([i]) for i in (1, 20, 31, 40, 62, 99)])[1] for s in step.spoken]
    assert [(s.revision, s.timing, s.rows) for s in said] == [(0, "early", 3), (1, "early", 5), (2, "early", 6), (3, "on time", 6)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=40), st.lists(st.integers(1, 39), max_size=6), st.integers(1, 7))
def test_count_windows_are_cut_in_order_of_arrival_whatever_the_batches(at: list[int], cuts: list[int], size: int) -> None:
    _, steps, _ = run(Windows(Count(size), sums), batches_of([(t, t) for t in at], cuts))
    said = [s for step in steps for s in step.spoken]
    groups = [at[i : i + size] for i in range(0, len(at), size)]
    assert [(s.start, s.end, s.value) for s in said] == [(min(g), max(g) + 1, sums(pl.DataFrame({"x": g}))) for g in groups]


def test_rows_without_a_time_and_empty_batches_are_counted_and_hold_nothing_up() -> None:
    windows = Windows(Tumbling(10), sums)
    state, step = windows.update(windows.init(), batch([]))
    assert (state, step) == (windows.init(), Step())
    state, step = windows.update(state, batch([NO_TIME, 4, NO_TIME], x=[1, 2, 3], first=0))
    assert step.timeless == 2
    assert state.timeless == {"table": 2}
    assert state.offsets == {"table": 3}
    state, step = windows.update(state, batch([NO_TIME], first=3))
    assert state.offsets == {"table": 4}
    assert windows.advance(state)[1].spoken[0].rows == 1


def test_a_source_takes_a_table_of_any_maker() -> None:
    table = pl.DataFrame({"at": [1, 2, 3]})
    for made in (table.to_pandas(), table.to_arrow(), table.to_dict()):
        assert [b.at.tolist() for b in TableSource(made, "at", rows=2).read({})] == [[1, 2], [3]]


def test_zones_are_honoured_and_naive_times_are_refused_until_said_what_they_mean() -> None:
    paris = pl.Series("at", ["2024-07-01T12:00+02:00"]).str.to_datetime(time_zone="Europe/Paris")
    utc = pl.Series("at", [datetime(2024, 7, 1, 10, tzinfo=UTC), None])
    noon = int(datetime(2024, 7, 1, 10, tzinfo=UTC).timestamp() * 1e6)
    assert event_times(paris).tolist() == [noon]
    assert event_times(utc).tolist() == [noon, NO_TIME]
    assert event_times(utc.dt.cast_time_unit("ns")).tolist() == event_times(utc.dt.cast_time_unit("ms")).tolist()
    naive = pl.Series("at", [datetime(2024, 7, 1, 12)])
    with pytest.raises(DataError, match="naive='UTC'"):
        event_times(naive)
    assert event_times(naive, "Europe/Paris").tolist() == [noon]
    with pytest.raises(DataError, match="no event time"):
        event_times(pl.Series("at", ["2024-07-01"]))
    for clock_change in (datetime(2024, 3, 31, 2, 30), datetime(2024, 10, 27, 2, 30)):
        with pytest.raises(DataError, match="twice or never"):
            event_times(pl.Series("at", [clock_change]), "Europe/Paris")
    with pytest.raises(DataError, match="not all times"):
        event_times(naive, "Middle/Earth")
    mixed = [batch_of(pl.DataFrame({"at": s, "x": [0] * len(s)}), "at", first=None) for s in (paris, utc)]
    words, _, state = run(Windows(Tumbling(60_000_000), sums), mixed)
    assert [w.rows for w in words.values()] == [2], "the same minute in two zones is one window"
    assert state.timeless == {"table": 1}


def test_what_cannot_be_is_refused_with_what_to_do() -> None:
    for wrong in (
        lambda: Sliding(5, 6),
        lambda: Sliding(5, 0),
        lambda: Tumbling(0),
        lambda: Session(0),
        lambda: Count(0),
        lambda: Trigger(rows=0),
        lambda: Windows(Tumbling(5), sums, lateness=-1),
        lambda: Windows(Tumbling(5), sums, subtract=True),
    ):
        with pytest.raises(ConfigError, match="Do:"):
            wrong()
    with pytest.raises(DataError, match="Name the column"):
        batch_of(pl.DataFrame({"x": [1]}), "at")
    with pytest.raises(DataError, match="differ in length"):
        Batch(pl.DataFrame({"x": [1]}), np.zeros(2, dtype=np.int64))
    with pytest.raises(DataError, match="fall"):
        Batch(pl.DataFrame({"x": [1, 2]}), np.zeros(2, dtype=np.int64), offsets=np.array([2, 1]))
    windows = Windows(Tumbling(10), sums)
    with pytest.raises(ConfigError, match="other windows"):
        unpack(pack(windows.init(), CODEC, windows.about), CODEC, Windows(Tumbling(20), sums).about)
    with pytest.raises(DatasetCorrupt, match="no state"):
        unpack(b"something else", CODEC, windows.about)
    largest = Windows(Sliding(10, 5), lambda t: Largest(int(t["x"].max())), subtract=True)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot subtract"):
        run(largest, [batch([1, 6, 11, 16, 21])])  # type: ignore[arg-type]


def test_a_gap_of_years_and_many_panes_cost_no_walk_over_empty_windows() -> None:
    windows = Windows(Sliding(1440, 1), sums)
    state, _ = windows.update(windows.init(), batch([0]))
    state, step = windows.update(state, batch([10**12]))
    assert len(step.spoken) == 1440
    assert len(step.silent) == 1
    assert len(state.panes) == 1
