"""ADWIN's window: its state, one check after another in Python's own numbers, and how it shrinks.

At most checks only the newest buckets are looked at. A cut further back divides only once the mean of the window has left an
interval, which is worked out whenever all cuts are looked at: its excess moves with the mean alone, and what the excess must
exceed falls only as the window grows, for the sum of squared deviations never does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import accumulate, chain, pairwise
from typing import Protocol

import numpy as np

# Buckets of at least 2 ** FAR values are far back.
FAR = 5
# How far the window may grow before all cuts are looked at again: by a share, and by so many values.
GROWTH, MOST = 1.25, 8192
# What bounds leave to rounding.
ROOM, NOISE = 1 - 1e-6, 1e-9


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
    def held(self) -> int:
        """Values in the window as of the last check."""
        return sum(c << size for size, c in enumerate(self.counts))

    @property
    def width(self) -> int:
        """Values in the window."""
        return self.held + len(self.pending)

    @property
    def mean(self) -> float | None:
        """Mean of the window as of the last check; None before it."""
        return None if self.centre is None or not self.held else self.centre + (self.now[0] - self.start[0]) / self.held


class Settings(Protocol):
    """What the window must know of the detector."""

    @property
    def delta(self) -> float: ...

    @property
    def clock(self) -> int: ...

    @property
    def buckets(self) -> int: ...

    @property
    def shortest(self) -> int: ...

    @property
    def grace(self) -> int: ...

    @property
    def restart(self) -> bool: ...


class Window:
    """A window that changes in place, one check at a time; `state` is what it has come to.

    Cost: some 5 µs a check of 32 values; a look at all cuts, once in dozens of checks, some 15 µs.
    """

    __slots__ = (
        "_begun", "_centre", "_far", "_far_back", "_high", "_least", "_looks", "_low", "_raw", "_settings", "_smallest", "_square",
        "_squares", "_start", "_sums", "_top", "_until", "_width",
    )  # fmt: skip

    def __init__(self, settings: Settings, state: AdwinState) -> None:
        self._settings, self._begun, self._centre = settings, state, state.centre
        self._far, self._smallest = max(FAR, (settings.clock - 1).bit_length()), int(settings.buckets <= settings.shortest)
        self._sums, self._squares = _by_size(state.sums, state.counts), _by_size(state.squares, state.counts)
        self._top, self._square, self._width, self._start = *state.now, state.held, state.start[0]
        # Values whose squares were not summed yet.
        self._raw: list[float] = []
        # While the mean is between low and high and the window no longer than `until`, no cut far back divides.
        self._low = self._high = self._least = self._until = 0.0
        self._far_back = self._looks = 0

    def divides(self, values: list[float]) -> bool:
        """Takes the values up to the next check: whether some cut now divides the window."""
        centre = self._centre
        if centre is None:
            centre = self._centre = float(values[0])
        fresh = [value - centre for value in values]
        self._raw += fresh
        fresh[0] += self._top
        ends = list(accumulate(fresh))
        self._top, self._width = ends[-1], self._width + len(ends)
        far, width = _merged(self._sums, ends, self._settings.buckets, self._far), self._width
        if width <= self._settings.grace:
            return False
        mean = (self._top - self._start) / width
        if width <= self._until:
            for end in far:
                self._far_back += 1 << self._far
                self._bound(self._far_back, end)
            if self._low < mean < self._high and not self._near(mean):
                return False
        return self._look(mean)

    def state(self, pending: tuple[float, ...] = ()) -> AdwinState:
        """The window as a value."""
        self._settle()
        before, counts = self._begun, tuple(map(len, self._sums))
        sums, squares = (tuple(chain.from_iterable(held)) for held in (self._sums, self._squares))
        return AdwinState(self._centre, counts, sums, squares, before.start, (self._top, self._square), pending, before.skipped)

    def after_alarm(self) -> Window:
        """The window that goes on after an alarm: without its old end, or empty."""
        state = AdwinState(skipped=self._begun.skipped) if self._settings.restart else shrunk(self._settings, self.state())
        return Window(self._settings, state)

    def _settle(self) -> None:
        """Sums the squares of the values that came since the last time."""
        if self._raw:
            squares = [x * x for x in self._raw]
            squares[0] += self._square
            ends = list(accumulate(squares))
            _merged(self._squares, ends, self._settings.buckets)
            self._square, self._raw = ends[-1], []

    # -- cuts --------------------------------------------------------------------------------------------------------

    def _near(self, mean: float) -> bool:
        """Whether a cut among the newest buckets may divide."""
        rest, top, sums = self._width - self._far_back, self._top, self._sums
        least = self._least * (1 - rest / self._width)
        for size in range(min(self._far, len(sums)) - 1, self._smallest - 1, -1):
            step = 1 << size
            for end in sums[size]:
                rest -= step
                excess = end - top + rest * mean
                if excess * excess > rest * least:
                    return True
        return False

    def _bound(self, place: int, end: float) -> None:
        """Narrows the interval of the mean to where the cut behind the first `place` values cannot divide."""
        reach = math.sqrt(place * (self._width - place) / self._width * self._least)
        total = end - self._start
        self._low, self._high = max(self._low, (total - reach) / place), min(self._high, (total + reach) / place)

    def _look(self, mean: float) -> bool:
        """Looks at all cuts; where none divides, works out how far the mean may go until one of those far back can."""
        self._settle()
        width, square = self._width, self._square - self._begun.start[1]
        if divided(self._settings, self._sums, width, self._top - self._start, square, self._start):
            return True
        self._looks += 1
        if self._looks == 1:
            return False  # a window of a short batch never comes to a second check
        self._until = min(GROWTH * width, width + MOST)
        deviations = square - mean * mean * width - NOISE * self._square
        self._least = 2 * ROOM * max(0.0, deviations) * room_of(width, self._settings.delta) / self._until
        self._low, self._high, place = -math.inf, math.inf, 0
        for size in range(len(self._sums) - 1, self._far - 1, -1):
            for end in self._sums[size]:
                place += 1 << size
                self._bound(place, end)
        self._far_back = place
        return False


def room_of(width: int, delta: float) -> float:
    """ln of the checks that delta is shared out over, as the paper says."""
    return math.log(2 * math.log(max(width, 2)) / delta)


def divided(settings: Settings, sums: list[list[float]], width: int, total: float, square: float, start: float) -> bool:
    """Whether a cut divides the window. sums: cumulative, at the ends of buckets by size.

    A cut is told by its excess y = u0 - n0 · mean. 1/n0 + 1/n1 is at least width / (n0 · n1), so few come near enough to be worth
    the exact test.
    """
    spread, mean, room = max(0.0, (square - total * total / width) / width), total / width, room_of(width, settings.delta)
    least, place = 2 * spread * room / width * ROOM, 0
    for size in range(len(sums) - 1, -1, -1):
        step = 1 << size
        for end in sums[size]:
            place += step
            excess = end - place * mean - start
            if excess * excess >= place * (width - place) * least and cut(settings, place, excess, width, spread, room):
                return True
    return False


def cut(settings: Settings, n0: int, excess: float, width: int, spread: float, room: float) -> bool:
    """Whether |mean0 - mean1| > epsilon. Cuts that leave too little on a side never divide."""
    n1, least = width - n0, settings.shortest
    if n0 < least or n1 < least:
        return False
    harmonic = 1 / (n0 - least + 1) + 1 / (n1 - least + 1)
    epsilon = math.sqrt(2 * harmonic * spread * room) + 2 / 3 * harmonic * room
    return abs(excess) * (width / (n0 * n1)) > epsilon


def _by_size(values: tuple[float, ...], counts: tuple[int, ...]) -> list[list[float]]:
    """What is kept for each bucket, size by size."""
    ends = [0, *accumulate(counts)]
    return [list(values[a:b]) for a, b in pairwise(ends)]


def _merged(held: list[list[float]], ends: list[float], most: int, far: int = -1) -> list[float]:
    """Adds the ends of new values to the smallest buckets and passes on those of pairs that merge. Returns what came to `far`.

    However many come at once, the buckets are the same.
    """
    came: list[float] = []
    for size, own in enumerate(held):
        if size == far:
            came = ends
        own += ends
        pairs = (len(own) - most + 1) >> 1
        if pairs <= 0:
            return came
        ends = own[1 : 2 * pairs : 2]
        del own[: 2 * pairs]
    while ends:
        came = ends if len(held) == far else came
        pairs = max(0, (len(ends) - most + 1) >> 1)
        held.append(ends[2 * pairs :])
        ends = ends[1 : 2 * pairs : 2]
    return came


def shrunk(settings: Settings, state: AdwinState) -> AdwinState:
    """The window without its oldest buckets, until no cut is left."""
    while state.held > settings.shortest:
        total, square = state.now[0] - state.start[0], state.now[1] - state.start[1]
        if not divided(settings, _by_size(state.sums, state.counts), state.held, total, square, state.start[0]):
            break
        state = _without_oldest(state)
    return _rebased(state)


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
