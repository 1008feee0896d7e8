"""Event-time windows over summaries that merge: rows in, spoken windows out, the state a plain value between.

The watermark is what no row is expected to be older than: for each source its latest event time less `disorder`, and the
minimum over sources. A window speaks when the watermark passes its end; rows that come later correct it, with a revision,
until the watermark is `lateness` beyond its end. Rows later than that are counted by source and named in the step.

Law: however the rows are ordered and cut into batches, if none comes too late the last word of every window is the same
(the same bytes where `merge` is exact). Windows of `Count` are cut in order of arrival, so for them the order counts.
Source: Akidau et al. 2015, The Dataflow Model.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate
from typing import Generic, assert_never

import polars as pl

from loudly.core.canon import Json
from loudly.core.seams import Ints
from loudly.errors import ConfigError
from loudly.shift.event_time import BEGINNING, FOREVER, NO_TIME, Batch
from loudly.shift.panes import carry, cuts, joined, session_numbers, silences, window_of
from loudly.shift.window_shapes import Count, Session, Shape, Sliding, Trigger, Tumbling
from loudly.shift.window_state import Pane, Silence, Spoken, State, Step, Timing, Told, TooLate, V


@dataclass(frozen=True, slots=True)
class Windows(Generic[V]):
    """How rows become windows.

    make: rows -> their summary, anything with `merge`.  disorder: how far out of order rows come without being late (µs).
    lateness: how long after its end a window can still be corrected (µs of watermark).  trigger: early words of open windows.
    sources: those that must have begun before anything closes (others join as they come).  subtract: sliding windows are
    made from the one before by merging what entered and subtracting what left; the summary must have `subtract`.

    >>> import numpy as np
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Rows:
    ...     n: int
    ...     def merge(self, other): return Rows(self.n + other.n)
    >>> windows = Windows(Tumbling(10), lambda table: Rows(table.height))
    >>> def of(*at): return Batch(pl.DataFrame({"t": at}), np.array(at))
    >>> state, step = windows.update(windows.init(), of(1, 3, 12))
    >>> [(s.start, s.revision, s.value.n) for s in step.spoken]
    [(0, 0, 2)]
    >>> state, step = windows.advance(state, 20)
    >>> [(s.start, s.revision, s.value.n) for s in step.spoken]
    [(10, 0, 1)]
    """

    shape: Shape
    make: Callable[[pl.DataFrame], V]
    disorder: int = 0
    lateness: int = 0
    trigger: Trigger | None = None
    sources: tuple[str, ...] = ()
    subtract: bool = False

    def __post_init__(self) -> None:
        if self.disorder < 0 or self.lateness < 0:
            raise ConfigError("Impossible windows.", seen=repr(self), do="disorder and lateness are durations from 0 µs on.")
        if self.subtract and not isinstance(self.shape, Sliding):
            raise ConfigError("Only sliding windows subtract.", seen=repr(self.shape), do="Leave `subtract` out.")

    @property
    def about(self) -> Mapping[str, Json]:
        """The settings that a state belongs to."""
        return {
            "shape": repr(self.shape),
            "disorder": self.disorder,
            "lateness": self.lateness,
            "sources": self.sources,
            "subtract": self.subtract,
        }

    # -- what one calls ----------------------------------------------------------------------------------------------

    def init(self) -> State[V]:
        """Nothing known yet."""
        return State()

    def update(self, state: State[V], batch: Batch) -> tuple[State[V], Step[V]]:
        """Folds a batch in; says which windows have closed, and which spoken ones it corrects.

        Cost: one `make` for every pane of the batch, one `merge` for every pane of a spoken window (two or three with
        `subtract`), and a walk over the windows that are open or correctable.
        """
        state, step = self.fold(state, batch)
        return self._speak(state, step, self.watermark(state))

    def advance(self, state: State[V], to: int = FOREVER, source: str | None = None) -> tuple[State[V], Step[V]]:
        """Says that nothing older than `to` will come (from one source, or from any): closes what that closes.

        For a source that is idle or has ended, for a clock that is handed in, and, by default, for the end of all.
        """
        if source is not None:
            state = replace(state, marks={**state.marks, source: max(to, state.marks.get(source, BEGINNING))})
            return self._speak(state, Step(), self.watermark(state))
        return self._speak(state, Step(), max(to, self.watermark(state)))

    def watermark(self, state: State[V]) -> int:
        """The minimum over sources; it never goes back, and stands at the beginning until all named sources have begun."""
        waiting = any(s not in state.marks for s in self.sources)
        return max(state.closed, BEGINNING if waiting else min(state.marks.values(), default=BEGINNING))

    def fold(self, state: State[V], batch: Batch, now: int = BEGINNING) -> tuple[State[V], Step[V]]:
        """Folds a batch in and lets no window speak: for those who say when, by `advance`. A batch seen before changes nothing.

        now: the time that clock tells, if any: what has said its last by then takes no more rows.
        """
        known = state.offsets.get(batch.place, BEGINNING)
        fresh = batch.after(known)
        repeated = batch.rows.height - fresh.rows.height
        state = replace(state, repeated=_more(state.repeated, batch.source, repeated))
        if not fresh.rows.height:
            return state, Step(repeated=repeated)
        dated = fresh.at != NO_TIME
        timeless = int((~dated).sum())
        rows, at = (fresh.rows.filter(dated), fresh.at[dated]) if timeless else (fresh.rows, fresh.at)
        if fresh.offsets is not None:
            state = replace(state, offsets={**state.offsets, fresh.place: int(fresh.offsets[-1]) + 1})
        state = replace(state, timeless=_more(state.timeless, fresh.source, timeless))
        state, late = self._placed(state, rows, at, fresh.source, max(now, state.closed)) if len(at) else (state, ())
        return state, Step((), (), late, timeless, repeated)

    # -- placing rows ------------------------------------------------------------------------------------------------

    def _placed(self, state: State[V], rows: pl.DataFrame, at: Ints, source: str, now: int) -> tuple[State[V], tuple[TooLate, ...]]:
        mark = max(int(at.max()) - self.disorder, state.marks.get(source, BEGINNING))
        state = replace(state, marks={**state.marks, source: mark})
        match self.shape:
            case Tumbling() | Sliding():
                state, late = self._into_panes(state, _grid(self.shape), rows, at, source, now)
            case Session(gap):
                state, late = self._into_sessions(state, gap, rows, at, source, now)
            case Count(size):
                state, late = self._counted(state, size, rows, at), []
            case _:
                assert_never(self.shape)
        return replace(state, too_late=_more(state.too_late, source, sum(t.rows for t in late))), tuple(late)

    def _into_panes(
        self, state: State[V], grid: Sliding, rows: pl.DataFrame, at: Ints, source: str, now: int
    ) -> tuple[State[V], list[TooLate]]:
        panes, running, late, stirred = dict(state.panes), state.running, [], state.stirred
        told_to = grid.first_open(state.closed)
        for cut in cuts((at - grid.origin) // grid.pane):
            start = grid.pane_of(int(at[cut[0]]))
            held = grid.windows_of(start)
            gone = [s for s in held if self._over(s + grid.size, now)]
            if gone:
                late.append(_too_late(source, at[cut], gone[0], gone[-1] + grid.size, kept=len(gone) < len(held)))
            if len(gone) == len(held):
                continue
            made = Pane(start, start + grid.pane, len(cut), self.make(_part(rows, cut)))
            panes[start] = panes[start].merge(made) if start in panes else made
            stirred = stirred or held.start < told_to
            if running is not None and running.start <= start < running.end:
                running = running.merge(made)
        return replace(state, panes=panes, running=running, stirred=stirred), late

    def _into_sessions(
        self, state: State[V], gap: int, rows: pl.DataFrame, at: Ints, source: str, now: int
    ) -> tuple[State[V], list[TooLate]]:
        panes, told, back, late = dict(state.panes), dict(state.told), dict(state.taken_back), []
        starts = sorted(panes)
        for cut in cuts(session_numbers(at, gap)):
            first, end = int(at[cut].min()), int(at[cut].max()) + gap
            if self._over(end, now) and not _touches(panes, starts, first, end):
                late.append(_too_late(source, at[cut], first, end, kept=False))
                continue
            found = joined(panes, starts, first, end)
            made = reduce(lambda a, b: a.merge(b), found, Pane(first, end, len(cut), self.make(_part(rows, cut))))
            panes[made.start] = made
            carry(told, back, [p.start for p in found], made)
        return replace(state, panes=panes, told=told, taken_back=back), late

    def _counted(self, state: State[V], size: int, rows: pl.DataFrame, at: Ints) -> State[V]:
        panes, begin = dict(state.panes), 0
        key = max(panes, default=0)
        while begin < len(at):
            if key in panes and panes[key].rows == size:
                key += 1
            end = min(len(at), begin + size - (panes[key].rows if key in panes else 0))
            times = at[begin:end]
            made = Pane(int(times.min()), int(times.max()) + 1, end - begin, self.make(rows[begin:end]))
            panes[key] = panes[key].merge(made) if key in panes else made
            begin = end
        return replace(state, panes=panes)

    # -- speaking ----------------------------------------------------------------------------------------------------

    def _speak(self, state: State[V], step: Step[V], watermark: int) -> tuple[State[V], Step[V]]:
        match self.shape:
            case Count(size):
                full = [k for k, p in sorted(state.panes.items()) if p.rows == size or watermark >= FOREVER]
                said = tuple(_said(state.panes[k], 0, Timing.ON_TIME) for k in full)
                rest = {k: p for k, p in state.panes.items() if k not in full}
                return replace(state, panes=rest, closed=watermark), replace(step, spoken=said)
            case Session():
                panes = sorted(state.panes.values(), key=lambda p: p.start)
                live = [(p.start, p.end, p.rows) for p in panes]
                state, said = self._words(state, panes, live, watermark)
                kept = {k: p for k, p in state.panes.items() if not self._over(p.end, watermark)}
                return self._closed(state, kept, watermark), replace(step, spoken=said)
            case Tumbling() | Sliding():
                grid = _grid(self.shape)
                front = grid.first_open(watermark)
                if state.front == front and not state.stirred and self.trigger is None:
                    return replace(state, closed=watermark), step
                return self._speak_grid(state, step, grid, watermark, front)
            case _:
                assert_never(self.shape)

    def _speak_grid(self, state: State[V], step: Step[V], grid: Sliding, watermark: int, front: int) -> tuple[State[V], Step[V]]:
        panes = sorted(state.panes.values(), key=lambda p: p.start)
        begins = [p.start for p in panes]
        if watermark >= FOREVER:  # the end of all is no silence
            front = max(state.front or BEGINNING, grid.windows_of(begins[-1])[-1] + grid.slide if begins else BEGINNING)
        at = state.front if state.front is not None else grid.windows_of(begins[0])[0] if begins else None
        silent: tuple[Silence, ...] = ()
        if at is not None and front > at:
            silent = silences(grid, begins, at, front)
            state = replace(state, front=front)
        low = grid.first_open(state.closed - self.lateness if state.stirred else state.closed)
        sums = [0, *accumulate(p.rows for p in panes)]
        live = []
        for start in grid.starts(begins, low, front if self.trigger is None else FOREVER):
            end = start + grid.size
            live.append((start, end, sums[bisect_left(begins, end)] - sums[bisect_left(begins, start)]))
        state, said = self._words(state, panes, live, watermark)
        running = state.running
        if running is not None and (state.front is None or running.end <= state.front):
            running = None
        oldest = grid.first_open(watermark - self.lateness)
        if running is not None:
            oldest = min(oldest, running.start)
        kept = {k: p for k, p in state.panes.items() if k >= oldest}
        return self._closed(replace(state, running=running), kept, watermark), replace(step, spoken=said, silent=silent)

    def _closed(self, state: State[V], panes: Mapping[int, Pane[V]], watermark: int) -> State[V]:
        told = {k: t for k, t in state.told.items() if not self._over(t.end, watermark)}
        return replace(state, panes=panes, told=told, closed=watermark, stirred=False)

    def _words(
        self, state: State[V], panes: Sequence[Pane[V]], live: Iterable[tuple[int, int, int]], watermark: int
    ) -> tuple[State[V], tuple[Spoken[V], ...]]:
        """What windows (start, end, rows), in order, have to say."""
        said: list[Spoken[V]] = [
            Spoken(start, before.end, before.revision + 1, Timing.LATE, 0, None, into)
            for start, (before, into) in sorted(state.taken_back.items())
        ]
        told, running, begins = dict(state.told), state.running, [p.start for p in panes]
        for start, end, rows in live:
            before = told.get(start)
            timing = _timing(end, state.closed, watermark)
            if self._over(end, state.closed) or not self._due(timing, before, rows, start, watermark):
                continue
            on_time = timing is Timing.ON_TIME
            whole = Pane(start, end, rows, window_of(panes, begins, start, end, running if on_time else None))
            if self.subtract and on_time:
                running = whole
            told[start] = Told(end, 0 if before is None else before.revision + 1, rows, watermark)
            said.append(_said(whole, told[start].revision, timing))
        return replace(state, told=told, taken_back={}, running=running), tuple(said)

    def _due(self, timing: Timing, before: Told | None, rows: int, start: int, watermark: int) -> bool:
        """Whether a window has something to say now."""
        match timing:
            case Timing.ON_TIME:
                return True
            case Timing.LATE:
                return before is None or before.rows != rows
            case Timing.EARLY:
                fresh = rows - (max(before.rows, 0) if before else 0)
                waited = watermark - max(start, before.at if before else start)
                return self.trigger is not None and fresh > 0 and self.trigger.fires(fresh, waited)
            case _:
                assert_never(timing)

    def _over(self, end: int, watermark: int) -> bool:
        """Whether a window has said its last."""
        return end + self.lateness <= watermark


def last_words(spoken: Iterable[Spoken[V]], before: Mapping[int, Spoken[V]] | None = None) -> dict[int, Spoken[V]]:
    """The last word of each event-time window, by its start; sessions that were joined to another are gone."""
    words = dict(before or {})
    for word in spoken:
        if word.value is None:
            words.pop(word.start, None)
        else:
            words[word.start] = word
    return words


def _grid(shape: Shape) -> Sliding:
    match shape:
        case Sliding():
            return shape
        case Tumbling():
            return shape.grid
        case Session() | Count():
            raise ConfigError("These windows lie on no grid.", seen=repr(shape))
        case _:
            assert_never(shape)


def _part(rows: pl.DataFrame, cut: Ints) -> pl.DataFrame:
    return rows if len(cut) == rows.height else rows[cut]


def _touches(sessions: Mapping[int, Pane[V]], starts: Sequence[int], first: int, end: int) -> bool:
    """Whether any session overlaps [first, end)."""
    at = bisect_left(starts, end)
    return at > 0 and sessions[starts[at - 1]].end > first


def _timing(end: int, closed: int, watermark: int) -> Timing:
    if end <= closed:
        return Timing.LATE
    return Timing.ON_TIME if end <= watermark else Timing.EARLY


def _said(pane: Pane[V], revision: int, timing: Timing) -> Spoken[V]:
    return Spoken(pane.start, pane.end, revision, timing, pane.rows, pane.value)


def _too_late(source: str, at: Ints, start: int, end: int, *, kept: bool) -> TooLate:
    return TooLate(source, len(at), int(at.min()), int(at.max()), start, end, kept)


def _more(counts: Mapping[str, int], source: str, rows: int) -> Mapping[str, int]:
    return {**counts, source: counts.get(source, 0) + rows} if rows else counts
