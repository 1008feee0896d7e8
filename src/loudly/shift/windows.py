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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate
from typing import TYPE_CHECKING, Generic, assert_never

import numpy as np
import polars as pl

from loudly.core.canon import Json
from loudly.errors import ConfigError
from loudly.shift.event_time import BEGINNING, FOREVER, NO_TIME, Batch
from loudly.shift.window_shapes import Count, Session, Shape, Sliding, Trigger, Tumbling
from loudly.shift.window_state import Pane, Silence, Spoken, State, Step, Timing, Told, TooLate, V

if TYPE_CHECKING:
    from loudly.core.seams import Ints


@dataclass(frozen=True, slots=True)
class Windows(Generic[V]):
    """How rows become windows.

    make: rows -> their summary, anything with `merge`.  disorder: how far out of order rows come without being late (µs).
    lateness: how long after its end a window can still be corrected (µs of watermark).  trigger: early words of open windows.
    sources: those that must have begun before anything closes (others join as they come).  subtract: sliding windows are
    made from the one before by merging what entered and subtracting what left; the summary must have `subtract`.

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

    def fold(self, state: State[V], batch: Batch) -> tuple[State[V], Step[V]]:
        """Folds a batch in and lets no window speak: for those who say when, by `advance`. A batch seen before changes nothing."""
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
        state, late = self._placed(state, rows, at, fresh.source) if len(at) else (state, ())
        return state, Step((), (), late, timeless, repeated)

    # -- placing rows ------------------------------------------------------------------------------------------------

    def _placed(self, state: State[V], rows: pl.DataFrame, at: Ints, source: str) -> tuple[State[V], tuple[TooLate, ...]]:
        mark = max(int(at.max()) - self.disorder, state.marks.get(source, BEGINNING))
        state = replace(state, marks={**state.marks, source: mark})
        match self.shape:
            case Tumbling() | Sliding():
                state, late = self._into_panes(state, _grid(self.shape), rows, at, source)
            case Session(gap):
                state, late = self._into_sessions(state, gap, rows, at, source)
            case Count(size):
                state, late = self._counted(state, size, rows, at), []
            case _:
                assert_never(self.shape)
        return replace(state, too_late=_more(state.too_late, source, sum(t.rows for t in late))), tuple(late)

    def _into_panes(
        self, state: State[V], grid: Sliding, rows: pl.DataFrame, at: Ints, source: str
    ) -> tuple[State[V], list[TooLate]]:
        panes, running, late = dict(state.panes), state.running, []
        for cut in _cuts((at - grid.origin) // grid.pane):
            start = grid.pane_of(int(at[cut[0]]))
            held = grid.windows_of(start)
            gone = [s for s in held if self._over(s + grid.size, state.closed)]
            if gone:
                late.append(_too_late(source, at[cut], gone[0], gone[-1] + grid.size, kept=len(gone) < len(held)))
            if len(gone) == len(held):
                continue
            made = Pane(start, start + grid.pane, len(cut), self.make(rows[cut]))
            panes[start] = panes[start].merge(made) if start in panes else made
            if running is not None and running.start <= start < running.end:
                running = running.merge(made)
        return replace(state, panes=panes, running=running), late

    def _into_sessions(
        self, state: State[V], gap: int, rows: pl.DataFrame, at: Ints, source: str
    ) -> tuple[State[V], list[TooLate]]:
        late = []
        order = np.argsort(at, kind="stable")
        number = np.empty(len(at), dtype=np.int64)
        number[order] = np.cumsum(np.diff(at[order], prepend=at[order[0]]) >= gap)
        for cut in _cuts(number):
            first, end = int(at[cut].min()), int(at[cut].max()) + gap
            joined = [p for p in state.panes.values() if p.start < end and first < p.end]
            whole = max([end, *(p.end for p in joined)])
            if self._over(whole, state.closed):
                late.append(_too_late(source, at[cut], first, whole, kept=False))
                continue
            made = reduce(lambda a, b: a.merge(b), joined, Pane(first, end, len(cut), self.make(rows[cut])))
            state = _joined(state, {p.start for p in joined}, made)
        return state, late

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
        if isinstance(self.shape, Count):
            full = [k for k, p in sorted(state.panes.items()) if p.rows == self.shape.rows or watermark >= FOREVER]
            said = tuple(_said(state.panes[k], 0, Timing.ON_TIME) for k in full)
            rest = {k: p for k, p in state.panes.items() if k not in full}
            return replace(state, panes=rest, closed=watermark), replace(step, spoken=said)
        silent, front = self._silences(state, watermark)
        state, said = self._words(replace(state, front=front), watermark)
        return self._kept(state, watermark), replace(step, spoken=said, silent=silent)

    def _words(self, state: State[V], watermark: int) -> tuple[State[V], tuple[Spoken[V], ...]]:
        said: list[Spoken[V]] = [
            Spoken(start, before.end, before.revision + 1, Timing.LATE, 0, None, into)
            for start, (before, into) in sorted(state.taken_back.items())
        ]
        told, running = dict(state.told), state.running
        panes = sorted(state.panes.values(), key=lambda p: p.start)
        for start, end, rows, held in self._live(panes):
            before = told.get(start)
            timing = _timing(end, state.closed, watermark)
            if self._over(end, state.closed) or not self._due(timing, before, rows, start, watermark):
                continue
            on_time = timing is Timing.ON_TIME
            whole = Pane(start, end, rows, _merged(panes, held, running if on_time else None, start, end))
            if self.subtract and on_time:
                running = whole
            told[start] = Told(end, 0 if before is None else before.revision + 1, rows, watermark)
            said.append(_said(whole, told[start].revision, timing))
        return replace(state, told=told, taken_back={}, running=running), tuple(said)

    def _live(self, panes: Sequence[Pane[V]]) -> Iterator[tuple[int, int, int, range]]:
        """Windows that hold any of these panes: start, end, rows, and which panes."""
        if isinstance(self.shape, Session):
            yield from ((p.start, p.end, p.rows, range(i, i + 1)) for i, p in enumerate(panes))
            return
        grid = _grid(self.shape)
        begins = [p.start for p in panes]
        sums = [0, *accumulate(p.rows for p in panes)]
        for start in grid.starts(begins):
            held = range(bisect_left(begins, start), bisect_left(begins, start + grid.size))
            yield start, start + grid.size, sums[held.stop] - sums[held.start], held

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

    def _silences(self, state: State[V], watermark: int) -> tuple[tuple[Silence, ...], int | None]:
        """Stretches of windows that close without a row, and the first window that stays open."""
        if isinstance(self.shape, Session):
            return (), None
        grid = _grid(self.shape)
        spoken = list(grid.starts(sorted(state.panes)))
        at = state.front if state.front is not None else min(spoken, default=None)
        front = ((watermark - grid.size - grid.origin) // grid.slide + 1) * grid.slide + grid.origin
        if watermark >= FOREVER:
            front = max(spoken, default=BEGINNING) + grid.slide
        if at is None or front <= at:
            return (), state.front
        found = []
        for start in [*(s for s in spoken if at <= s < front), front]:
            if start > at:
                found.append(Silence(at, start - grid.slide + grid.size))
            at = start + grid.slide
        return tuple(found), front

    def _kept(self, state: State[V], watermark: int) -> State[V]:
        """What can still be corrected, and what the next window is made from."""
        running = state.running
        if running is not None and (state.front is None or running.end <= state.front):
            running = None
        panes = {
            k: p
            for k, p in state.panes.items()
            if not self._over(self._last_end(p), watermark) or (running is not None and p.start >= running.start)
        }
        told = {k: t for k, t in state.told.items() if not self._over(t.end, watermark)}
        return replace(state, panes=panes, told=told, closed=watermark, running=running)

    def _last_end(self, pane: Pane[V]) -> int:
        if isinstance(self.shape, Session):
            return pane.end
        grid = _grid(self.shape)
        return grid.windows_of(pane.start)[-1] + grid.size

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


def _cuts(keys: Ints) -> Iterator[Ints]:
    """Indices of the rows of each key, keys in order, rows as they came."""
    order = np.argsort(keys, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)


def _joined(state: State[V], starts: set[int], made: Pane[V]) -> State[V]:
    """Sessions that became one: what was said about those that are gone will be taken back."""
    told = {k: t for k, t in state.told.items() if k not in starts}
    known = {s: state.told[s] for s in sorted(starts) if s in state.told}
    back = {k: (t, made.start if into in starts else into) for k, (t, into) in state.taken_back.items()}
    back.update({s: (t, made.start) for s, t in known.items() if s != made.start and not t.carried})
    if known:
        own = known.get(made.start)
        revision, at = max(t.revision for t in known.values()), max(t.at for t in known.values())
        told[made.start] = Told(made.end, revision, -1, at, carried=own is None or own.carried)
    panes = {k: p for k, p in state.panes.items() if k not in starts}
    return replace(state, panes={**panes, made.start: made}, told=told, taken_back=back)


def _merged(panes: Sequence[Pane[V]], held: range, running: Pane[V] | None, start: int, end: int) -> V:
    """The merge of a window's panes, or of what has changed since the window before."""
    if running is None or not running.start < start < running.end:
        return reduce(lambda a, b: a.merge(b), (panes[i].value for i in held))
    begins = [p.start for p in panes]
    value = running.value
    for pane in panes[bisect_left(begins, running.start) : bisect_left(begins, start)]:
        value = _less(value, pane.value)
    for pane in panes[bisect_left(begins, running.end) : bisect_left(begins, end)]:
        value = value.merge(pane.value)
    return value


def _less(whole: V, part: V) -> V:
    subtract = getattr(whole, "subtract", None)
    if subtract is None:
        raise ConfigError(
            "These summaries cannot subtract.", seen=type(whole).__name__, do="Leave `subtract` out: panes are merged then."
        )
    left: V = subtract(part)
    return left


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
