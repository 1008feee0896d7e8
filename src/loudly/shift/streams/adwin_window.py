"""ADWIN's window: its state, one check after another, and how it shrinks.

At most checks nothing is looked at but the sum of the newest values (`adwin_guard`). These wait, and are put into buckets
together when a cut has come near or the window is asked for: the buckets are the same.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, count, pairwise

import numpy as np

from loudly.core.seams import Floats
from loudly.shift.streams.adwin_cut import Buckets, Settings, cuts, divided, room_of
from loudly.shift.streams.adwin_guard import NOISE, Guard, bowed, left, paths
from loudly.shift.streams.adwin_young import YOUNG, Young

# Up to so many values are summed quicker without arrays.
FEW = 64
# Of the state as plain data; it changes with what a number in it means.
FORMAT = 2


@dataclass(frozen=True, slots=True)
class AdwinState:
    """A window. All numbers are of values less `centre` (the first value); sums and squares are cumulative since it began anew.

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
    format: int = FORMAT

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


class Window:
    """A window that changes in place, one check at a time; `state` is what it has come to."""

    __slots__ = ("_buckets", "_guard", "_looked", "_now", "_settings", "_skipped", "_start", "_tail", "_width", "_young", "centre")

    def __init__(self, settings: Settings, state: AdwinState) -> None:
        # NaN while the window is empty.
        self.centre = math.nan if state.centre is None else state.centre
        self._settings, self._start, self._now, self._skipped = settings, state.start, state.now, state.skipped
        self._buckets, self._width = _by_size(state), state.held
        # Values that are in no bucket yet.
        self._tail = array("d")
        self._young = None if state.counts or settings.clock > YOUNG else Young(settings)
        # What keeps watch since the last look, once there was one.
        self._guard: Guard | None = None
        self._looked = False

    def divides(self, values: list[float]) -> bool:
        """Takes the centred values up to the next check: whether some cut now divides the window."""
        guard = self._guard or self._guarded()
        self._tail.fromlist(values)
        if self._young is not None:
            return self._grown(self._young, values)
        if guard is not None:
            total = sum(values)
            if guard.wide and guard.passes(total, bowed(total, math.hypot(*values), len(values))):
                return False
            if guard.passes(total, left(values, guard.mean)):
                return False
        return self._look()

    def first_cut(self, blocks: Floats) -> int | None:
        """The first check at which some cut divides the window, which is left as it is there. Shapes: (checks, clock), centred."""
        done = 0
        while done < len(blocks) and self._young is not None:
            if self.divides(blocks[done].tolist()):
                return done
            done += 1
        totals: list[float] = []
        while done < len(blocks):
            first, guard = done, self._guard or self._guarded()
            if guard is not None:
                if not totals:
                    slope = guard.mean
                    totals, inner = paths(blocks, slope)
                turn = self._settings.clock * abs(guard.mean - slope)
                while done < len(blocks) and guard.passes(totals[done], inner[done] + turn):
                    done += 1
            self._tail.frombytes(blocks[first : done + 1].tobytes())
            if done < len(blocks) and self._look():
                return done
            done += 1
        return None

    def state(self, pending: tuple[float, ...] = ()) -> AdwinState:
        """The window as a value."""
        self._settle()
        ends = [end for own in self._buckets for end in own]
        sums, squares = zip(*ends, strict=True) if ends else ((), ())
        centre = None if math.isnan(self.centre) else self.centre
        return AdwinState(centre, tuple(map(len, self._buckets)), sums, squares, self._start, self._now, pending, self._skipped)

    def after_alarm(self) -> Window:
        """The window that goes on after an alarm: empty, or without its oldest buckets until no cut is left."""
        if self._settings.restart:
            return Window(self._settings, AdwinState(skipped=self._skipped))
        self._settle()
        while self._width > self._settings.shortest and self._divided():
            self._start = self._buckets[-1].pop(0)
            self._width -= 1 << len(self._buckets) - 1
            if not self._buckets[-1]:
                self._buckets.pop()
        self._rebase()
        return self

    @property
    def _mean(self) -> float:
        """Of the values that are in buckets."""
        return (self._now[0] - self._start[0]) / self._width

    def _settle(self) -> None:
        """Puts the values that wait into buckets."""
        if self._tail:
            sums, squares = _summed(self._tail, *self._now)
            _merge(self._buckets, sums, squares, self._settings.buckets)
            self._now, self._width, self._tail = (sums[-1], squares[-1]), self._width + len(self._tail), array("d")

    def _grown(self, young: Young, values: list[float]) -> bool:
        if young.width + 2 * self._settings.clock > YOUNG:
            self._young = None
        return young.divides(values)

    def _look(self) -> bool:
        """Looks at all cuts."""
        self._settle()
        self._guard, self._looked = None, True
        return self._width > self._settings.grace and self._divided()

    def _divided(self) -> bool:
        (top, square), (start, start_square) = self._now, self._start
        return divided(self._settings, self._buckets, self._width, top - start, square - start_square, start)

    def _guarded(self) -> Guard | None:
        """A guard from the last look on; none before the first, for in a short batch it would not come to use."""
        settings, width = self._settings, self._width
        if not self._looked or width < 4 * settings.clock:
            return None
        deviations = self._now[1] - self._start[1] - self._mean**2 * width - NOISE * self._now[1]
        if deviations >= 0:
            room = room_of(width, settings.delta)
            held = [*cuts(self._buckets, self._mean, self._start[0])]
            self._guard = Guard(held, settings.clock, settings.shortest, width, self._mean, deviations, room)
        return self._guard

    def _rebase(self) -> None:
        """Lets sums begin at 0 and be of values less the window's mean, so that nothing cancels."""
        gap, (start, start_square), place = self._mean, self._start, 0
        for size in range(len(self._buckets) - 1, -1, -1):
            own = self._buckets[size]
            for i, (end, square) in enumerate(own):
                place += 1 << size
                total = end - start
                self._now = own[i] = total - gap * place, square - start_square + gap * (gap * place - 2 * total)
        self.centre, self._start, self._guard, self._looked, self._young = gap + self.centre, (0.0, 0.0), None, False, None


def _summed(values: array[float], total: float, square: float) -> tuple[Sequence[float], Sequence[float]]:
    """Cumulative sums and squares, from those so far on: the same bits with arrays and without."""
    if len(values) <= FEW:
        listed = values.tolist()
        return [*accumulate(listed, initial=total)], [*accumulate([x * x for x in listed], initial=square)]
    ends = np.empty((2, len(values) + 1))
    ends[:, 0] = total, square
    ends[0, 1:] = values
    np.square(ends[0, 1:], out=ends[1, 1:])
    np.add.accumulate(ends, axis=1, out=ends)
    return memoryview(ends[0]), memoryview(ends[1])


def _merge(held: Buckets, sums: Sequence[float], squares: Sequence[float], most: int) -> None:
    """Adds values to the smallest buckets and merges two of `most` + 1, size by size.

    However many come at once, the buckets are the same. sums, squares: cumulative, the first those of before.
    """
    came, passed = range(1, len(sums)), list[tuple[float, float]]()
    for size in count():
        if size == len(held):
            held.append([])
        own = held[size] + passed
        pairs = (len(own) + len(came) - most + 1) >> 1
        gone = 2 * pairs if pairs > 0 else 0
        new = gone - len(own) if gone > len(own) else 0
        held[size] = own[gone:]
        if kept := came[new:]:
            ends = slice(kept.start, kept.stop, kept.step)
            held[size] += zip(sums[ends], squares[ends], strict=True)
        if not gone:
            return
        passed, came = own[1:gone:2], came[(len(own) + 1) % 2 : new : 2]


def _by_size(state: AdwinState) -> Buckets:
    ends, firsts = [*zip(state.sums, state.squares, strict=True)], [0, *accumulate(state.counts)]
    return [ends[a:b] for a, b in pairwise(firsts)]
