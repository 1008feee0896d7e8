"""ADWIN: a window that keeps growing until two parts of it have different means; then its old end is dropped.

Buckets of sizes 1, 2, 4, … cover the window, at most `buckets` of each size, the oldest merged two by two. A bucket is kept
as the cumulative sum at its end, so a merge forgets every second end, and between alarms the buckets of all later checks are
known in closed form: all checks of a batch are made together.

Source: Bifet & Gavaldà 2007, "Learning from time-changing data with adaptive windowing" (ADWIN2, theorem 3.1 with the normal
approximation). The test is river's: a part must hold `shortest` values, 1/n is 1/(n - shortest + 1), and delta is shared out
by ln of the window as the paper says. The paper drops old buckets and keeps the rest; so does `restart=False`, and so does
river's inner AdaptiveWindowing. river's ADWIN throws the whole window away after an alarm, which `restart=True` does too.
The bound delta on false alarms is the paper's for one check; over a stream they add up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from loudly.shift.streams.stream import Missing, arrived, counted, follow, placed, require, tuples

if TYPE_CHECKING:
    from loudly.core.seams import Floats, Ints

BLOCK = 4096
# Up to so many values one by one are quicker than arrays.
SHORT = 256


@dataclass(frozen=True, slots=True)
class AdwinState:
    """A window. Sums and squares are of values less `centre` (the first value), cumulative since the window began anew.

    counts: buckets of size 1, 2, 4, ….  sums, squares: at the end of each bucket, small sizes first, each in order of age.
    start, now: sum and squares where the window begins and ends.  pending: values since the last check.
    """

    centre: float | None = None
    counts: tuple[int, ...] = ()
    sums: tuple[float, ...] = ()
    squares: tuple[float, ...] = ()
    start: tuple[float, float] = (0.0, 0.0)
    now: tuple[float, float] = (0.0, 0.0)
    pending: tuple[float, ...] = ()
    skipped: int = 0

    @property
    def width(self) -> int:
        """Values in the window."""
        return sum(c << size for size, c in enumerate(self.counts)) + len(self.pending)

    @property
    def mean(self) -> float | None:
        """Mean of the window as of the last check; None before it."""
        held = self.width - len(self.pending)
        return None if self.centre is None or not held else self.centre + (self.now[0] - self.start[0]) / held


@dataclass(frozen=True, slots=True)
class Adwin:
    """A change of the mean, with no window to choose.

    delta: false alarms of a check.  clock: values between checks.  buckets: of each size.  shortest: part that is looked at.
    grace: values before it may alarm.  restart: whether an alarm drops the whole window.
    Shapes: values (n,).  Raises: StreamRefused.  Cost: O(n · buckets · log(window) / clock); state O(buckets · log(window)).

    >>> detector = Adwin()
    >>> rng = np.random.default_rng(0)
    >>> _, alarms = detector.update(detector.init(), np.concatenate([rng.normal(0, 1, 2000), rng.normal(1, 1, 200)]))
    >>> alarms[:1]
    array([2047])
    """

    delta: float = 0.002
    clock: int = 32
    buckets: int = 5
    shortest: int = 5
    grace: int = 10
    restart: bool = False
    missing: Missing = "refuse"

    def __post_init__(self) -> None:
        require(0 < self.delta < 1 and self.clock >= 1 and self.buckets >= 2 and self.shortest >= 1 and self.grace >= 2, self)

    def init(self) -> AdwinState:
        """An empty window."""
        return AdwinState()

    def restore(self, data: Mapping[str, Any]) -> AdwinState:
        """The inverse of `plain`."""
        return AdwinState(**tuples(data))

    def update(self, state: AdwinState, values: Floats) -> tuple[AdwinState, Ints]:
        """The state after a batch, and where it alarmed."""
        taken, where = arrived(values, self.missing)
        state, alarms = follow(self._step, state, taken, BLOCK)
        return counted(state, len(values) - len(taken)), placed(alarms, where)

    def _step(self, state: AdwinState, values: Floats) -> tuple[AdwinState, int, bool]:
        waited = len(state.pending)
        checks = (waited + len(values)) // self.clock
        if not checks:
            held = (*state.pending, *values.tolist())
            made = AdwinState(state.centre, state.counts, state.sums, state.squares, state.start, state.now, held, state.skipped)
            return made, len(values), False
        if len(values) <= SHORT:
            return self._short(state, [*state.pending, *values.tolist()])
        values = np.concatenate((state.pending, values))
        used = checks * self.clock
        centre = float(values[0]) if state.centre is None else state.centre
        grown = _grow(state, values[:used] - centre, self.clock, self.buckets)
        at = self._first_cut(grown, state)
        if at is None:
            made = grown.window(checks - 1, state, centre)
            return replace(made, pending=tuple(values[used:].tolist())), len(values) - waited, False
        if self.restart:
            return AdwinState(skipped=state.skipped), (at + 1) * self.clock - waited, True
        return self._shrunk(grown.window(at, state, centre)), (at + 1) * self.clock - waited, True

    def _short(self, state: AdwinState, values: list[float]) -> tuple[AdwinState, int, bool]:
        """The same for a few values, one by one: the same arithmetic, and so the same bits, without arrays."""
        centre = values[0] if state.centre is None else state.centre
        sums, squares = _by_size(state.sums, state.counts), _by_size(state.squares, state.counts)
        now, square = state.now
        waited, used = len(state.pending), 0
        while len(values) - used >= self.clock:
            fresh = [value - centre for value in values[used : used + self.clock]]
            ends, squared = [*accumulate(fresh, initial=now)], [*accumulate([x * x for x in fresh], initial=square)]
            now, square, used = ends[-1], squared[-1], used + self.clock
            _merged(sums, ends[1:], self.buckets)
            _merged(squares, squared[1:], self.buckets)
            if self._divides(sums, now - state.start[0], square - state.start[1], state.start[0]):
                if self.restart:
                    return AdwinState(skipped=state.skipped), used - waited, True
                return self._shrunk(_window(state, centre, sums, squares, (now, square), ())), used - waited, True
        made = _window(state, centre, sums, squares, (now, square), tuple(values[used:]))
        return made, len(values) - waited, False

    def _divides(self, sums: list[list[float]], total: float, square: float, start: float) -> bool:
        """Whether some cut divides the window; buckets by size, the small ones first."""
        width = sum(len(own) << size for size, own in enumerate(sums))
        if width <= self.grace:
            return False
        spread, mean = max(0.0, (square - total * total / width) / width), total / width
        least = 2 * spread * math.log(2 * math.log(max(width, 2)) / self.delta) / width * (1 - 2e-9)
        n0, near = 0, []
        for size in range(len(sums) - 1, -1, -1):
            step = 1 << size
            for end in sums[size]:
                n0 += step
                excess = end - n0 * mean - start
                if excess * excess >= n0 * (width - n0) * least:
                    near.append((n0, excess))
        if near[-1][0] == width:
            near.pop()
        if not near:
            return False
        # The logarithm as arrays take it: it may differ from that of `math` in the last bit.
        room = np.log(2 * np.log(np.maximum(np.float64(width), 2)) / self.delta)
        where, apart = np.array(near).T
        return bool(self._cuts(where, apart, width, spread, room).any())

    def _first_cut(self, grown: _Growth, state: AdwinState) -> int | None:
        """The first check at which some cut divides the window into parts of different means.

        A cut is told by its excess y = u0 - n0 · mean. 1/n0 + 1/n1 is at least width / (n0 · n1), so few cuts come near
        enough to be worth the exact test.
        """
        width = grown.widths
        total = grown.now[0] - state.start[0]
        spread = np.maximum(0.0, (grown.now[1] - state.start[1] - total * total / width) / width)
        room = np.log(2 * np.log(np.maximum(width, 2)) / self.delta)
        mean = total / width
        slots = np.arange(self.buckets)[:, None]
        sizes = 2.0 ** np.arange(len(grown.counts))[:, None]
        held = grown.counts * sizes
        n0 = (width - np.add.accumulate(held))[:, None, :] + (slots + 1) * sizes[:, None]
        excess = grown.flat[0].take((grown.offsets[:, None] + 2 * grown.merged)[:, None, :] + slots)
        excess -= n0 * mean
        excess -= state.start[0]
        needed = width - n0
        needed *= n0
        needed *= 2 * spread * room / width * (1 - 1e-9)
        near = (excess * excess >= needed) & (slots < np.where(width > self.grace, grown.counts, 0)[:, None, :])
        if not near.any():
            return None
        check = np.broadcast_to(np.arange(len(width)), near.shape)[near]
        cut = self._cuts(n0[near], excess[near], width[check], spread[check], room[check])
        return int(check[cut].min()) if cut.any() else None

    def _cuts(self, n0: Floats, excess: Floats, width: Any, spread: Any, room: Any) -> Any:
        """Which cuts divide: |mean0 - mean1| > epsilon. Cuts that leave too little on a side never do."""
        n1 = width - n0
        fit = (n0 >= self.shortest) & (n1 >= self.shortest)
        n0, n1 = np.where(fit, n0, self.shortest), np.where(fit, n1, self.shortest)
        harmonic = 1 / (n0 - self.shortest + 1) + 1 / (n1 - self.shortest + 1)
        epsilon = np.sqrt(2 * harmonic * spread * room) + 2 / 3 * harmonic * room
        return fit & (np.abs(excess) * (width / (n0 * n1)) > epsilon)

    def _shrunk(self, state: AdwinState) -> AdwinState:
        """Drops the oldest bucket until no cut is left."""
        while True:
            sizes = np.repeat(2.0 ** np.arange(len(state.counts)), state.counts)
            order = np.argsort(-sizes, kind="stable")
            width = float(sizes.sum())
            if width <= self.shortest:
                return _rebased(state)
            total, square = state.now[0] - state.start[0], state.now[1] - state.start[1]
            n0 = np.cumsum(sizes[order])
            excess = np.array(state.sums)[order] - state.start[0] - n0 * (total / width)
            spread = max(0.0, (square - total * total / width) / width)
            if not self._cuts(n0, excess, width, spread, math.log(2 * math.log(width) / self.delta)).any():
                return _rebased(state)
            state = _without_oldest(state)


@dataclass(frozen=True, slots=True)
class _Growth:
    """The window at each of m checks to come, if nothing is dropped.

    widths: (m,).  now: (2, m) sums and squares.  counts, merged: (sizes, m) buckets of each size, and pairs that merged.
    flat: (2, k) ends of all buckets there ever were, size after size; `offsets` (sizes,) says where each size begins.
    """

    widths: Floats
    now: Floats
    counts: Ints
    merged: Ints
    flat: Floats
    offsets: Ints

    def window(self, check: int, before: AdwinState, centre: float) -> AdwinState:
        """The window at a check."""
        counts, firsts = self.counts[:, check], self.offsets + 2 * self.merged[:, check]
        slots = np.arange(counts.max())
        held = (firsts[:, None] + slots)[slots < counts[:, None]]
        kept = len(counts) - int((counts[::-1] > 0).argmax())
        sums, squares = self.flat[:, held].tolist()
        now = (float(self.now[0, check]), float(self.now[1, check]))
        return AdwinState(centre, tuple(counts[:kept].tolist()), tuple(sums), tuple(squares), before.start, now, (), before.skipped)


def _grow(state: AdwinState, values: Floats, clock: int, most: int) -> _Growth:
    """Adds centred values, a multiple of `clock`, and merges buckets as ADWIN2 does: two of `most` + 1 become one.

    The pairs merged at a size arrive at the next; so each size ever held its first buckets and every second end of the size
    below, in order.
    """
    n = len(values)
    held = _reached(state.counts, n, most)
    offsets = [0, *accumulate(first + more for first, more in held)]
    merged = np.zeros((len(held), n // clock), dtype=np.int64)
    came = np.arange(clock, n + 1, clock)
    flat = np.zeros((2, offsets[-1] + most))
    ends, before, known = _summed(state, values), np.array((state.sums, state.squares)), 0
    fresh = ends[:, 1:]
    for size, (first, more) in enumerate(held):
        at = offsets[size]
        if not more:
            flat[:, at : offsets[-1]] = before[:, known:]
            break
        flat[:, at : at + first] = before[:, known : known + first]
        flat[:, at + first : at + first + more] = fresh
        pairs = np.add(merged[size - 1] if size else came, first - most + 1, out=merged[size])
        pairs >>= 1
        if first < most - 1:
            np.maximum(pairs, 0, out=pairs)
        fresh = flat[:, at + 1 : at + 2 * int(pairs[-1]) : 2]
        known += first
    counts = np.array([first for first, _ in held])[:, None] - 2 * merged
    counts[0] += came
    counts[1:] += merged[:-1]
    width = sum(c << size for size, c in enumerate(state.counts))
    return _Growth((width + came).astype(np.float64), ends[:, clock::clock], counts, merged, flat, np.array(offsets[:-1]))


def _reached(counts: tuple[int, ...], n: int, most: int) -> list[tuple[int, int]]:
    """For each size: buckets held before, and how many arrive when n values do."""
    found: list[tuple[int, int]] = []
    while len(found) < len(counts) or n:
        count = counts[len(found)] if len(found) < len(counts) else 0
        found.append((count, n))
        n = max(0, (count + n - most + 1) >> 1)
    return found


def _summed(state: AdwinState, values: Floats) -> Floats:
    """Sums and squares (2, n + 1), from those of now on."""
    ends = np.empty((2, len(values) + 1))
    ends[:, 0] = state.now
    ends[0, 1:] = values
    np.multiply(values, values, out=ends[1, 1:])
    found: Floats = np.add.accumulate(ends, axis=1, out=ends)
    return found


def _by_size(values: tuple[float, ...], counts: tuple[int, ...]) -> list[list[float]]:
    """What is kept for each bucket, size by size."""
    ends = [0, *accumulate(counts)]
    return [list(values[a:b]) for a, b in pairwise(ends)]


def _merged(held: list[list[float]], fresh: list[float], most: int) -> None:
    """Adds the ends of new values to the smallest buckets, and passes on the ends of pairs that merge."""
    for own in held:
        own += fresh
        pairs = (len(own) - most + 1) >> 1
        if pairs <= 0:
            return
        fresh = own[1 : 2 * pairs : 2]
        del own[: 2 * pairs]
    while fresh:
        held.append(fresh)
        pairs = max(0, (len(fresh) - most + 1) >> 1)
        held[-1], fresh = fresh[2 * pairs :], fresh[1 : 2 * pairs : 2]


def _window(
    before: AdwinState,
    centre: float,
    sums: list[list[float]],
    squares: list[list[float]],
    now: tuple[float, float],
    pending: tuple[float, ...],
) -> AdwinState:
    counts = tuple(map(len, sums))
    ends, squared = (tuple(chain.from_iterable(own)) for own in (sums, squares))
    return AdwinState(centre, counts, ends, squared, before.start, now, pending, before.skipped)


def _rebased(state: AdwinState) -> AdwinState:
    """The same window with sums that begin at 0 and are of values less the window's mean, so that nothing cancels."""
    sizes = np.repeat(2.0 ** np.arange(len(state.counts)), state.counts)
    order = np.argsort(-sizes, kind="stable")
    n = np.empty(len(sizes))
    n[order] = np.cumsum(sizes[order])
    sums, squares = np.array(state.sums) - state.start[0], np.array(state.squares) - state.start[1]
    gap = float((state.now[0] - state.start[0]) / n.max())
    squares += gap * (gap * n - 2 * sums)
    sums -= gap * n
    newest = int(n.argmax())
    now = float(sums[newest]), float(squares[newest])
    centre = gap + (state.centre or 0.0)
    return replace(state, centre=centre, sums=tuple(sums.tolist()), squares=tuple(squares.tolist()), start=(0.0, 0.0), now=now)


def _without_oldest(state: AdwinState) -> AdwinState:
    """The window without its oldest bucket, the first of the largest size."""
    at = len(state.sums) - state.counts[-1]
    left = state.counts[-1] - 1
    counts = (*state.counts[:-1], left) if left else state.counts[:-1]
    start = state.sums[at], state.squares[at]
    sums, squares = state.sums[:at] + state.sums[at + 1 :], state.squares[:at] + state.squares[at + 1 :]
    return replace(state, counts=counts, sums=sums, squares=squares, start=start)
