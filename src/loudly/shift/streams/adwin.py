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

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from loudly.shift.streams.adwin_growth import Growth, grow
from loudly.shift.streams.adwin_window import ROOM, AdwinState, Window, cut, room_of, shrunk
from loudly.shift.streams.stream import Missing, arrived, counted, follow, placed, require, tuples

if TYPE_CHECKING:
    from loudly.core.seams import Floats, Ints

BLOCK = 4096
# Up to so many values one by one are quicker than arrays.
SHORT = 512


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

    def running(self, state: AdwinState | None = None) -> RunningAdwin:
        """The same for values that come one by one or a few at a time, from `state` on."""
        return RunningAdwin(self, state or self.init())

    def _step(self, state: AdwinState, values: Floats) -> tuple[AdwinState, int, bool]:
        waited = len(state.pending)
        checks = (waited + len(values)) // self.clock
        if not checks:
            return replace(state, pending=(*state.pending, *values.tolist())), len(values), False
        if len(values) <= SHORT:
            return self._short(state, [*state.pending, *values.tolist()])
        values = np.concatenate((state.pending, values))
        used = checks * self.clock
        centre = float(values[0]) if state.centre is None else state.centre
        grown = grow(state, values[:used] - centre, self.clock, self.buckets)
        at = self._first_cut(grown, state)
        if at is None:
            made = grown.window(checks - 1, state, centre)
            return replace(made, pending=tuple(values[used:].tolist())), len(values) - waited, False
        made = AdwinState(skipped=state.skipped) if self.restart else shrunk(self, grown.window(at, state, centre))
        return made, (at + 1) * self.clock - waited, True

    def _short(self, state: AdwinState, values: list[float]) -> tuple[AdwinState, int, bool]:
        """The same for a few values: the same arithmetic, and so the same bits, without arrays."""
        window, waited, used = Window(self, state), len(state.pending), 0
        while used + self.clock <= len(values):
            used += self.clock
            if window.divides(values[used - self.clock : used]):
                return window.after_alarm().state(), used - waited, True
        return window.state(tuple(values[used:])), len(values) - waited, False

    def _first_cut(self, grown: Growth, state: AdwinState) -> int | None:
        """The first check at which some cut divides the window; few come near enough for the exact test."""
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
        needed *= 2 * spread * room / width * ROOM
        near = (excess * excess >= needed) & (slots < np.where(width > self.grace, grown.counts, 0)[:, None, :])
        for check in np.flatnonzero(near.any(axis=(0, 1))).tolist():
            which, whole = near[:, :, check], int(width[check])
            of = whole, float(spread[check]), room_of(whole, self.delta)
            cuts = zip(n0[:, :, check][which].tolist(), excess[:, :, check][which].tolist(), strict=True)
            if any(cut(self, int(place), far, *of) for place, far in cuts):
                return int(check)
        return None


class RunningAdwin:
    """ADWIN over values that come one by one: its window changes in place, and `state` is what `update` would have made of them.

    >>> one = Adwin().running()
    >>> [i for i, value in enumerate([0.0, 0.1] * 1000 + [1.0, 0.9] * 100) if one.push(value)][:1]
    [2015]
    """

    __slots__ = ("_clock", "_detector", "_skipped", "_waiting", "_window")

    def __init__(self, detector: Adwin, state: AdwinState) -> None:
        self._detector, self._clock = detector, detector.clock
        self._window, self._waiting, self._skipped = Window(detector, state), list(state.pending), 0

    @property
    def state(self) -> AdwinState:
        """The state as of now."""
        return counted(self._window.state(tuple(self._waiting)), self._skipped)

    def push(self, value: float) -> bool:
        """One value: whether it alarmed. Raises: StreamRefused."""
        if value - value != 0:
            self._skipped += 1 - len(arrived(np.array([value]), self._detector.missing)[0])
            return False
        self._waiting.append(value)
        return len(self._waiting) == self._clock and self._look()

    def extend(self, values: Floats) -> Ints:
        """A few values: where they alarmed. Raises: StreamRefused."""
        taken, where = arrived(values, self._detector.missing)
        self._skipped += len(values) - len(taken)
        rest, used, alarms = self._clock - len(self._waiting), 0, []
        listed = taken.tolist()
        while used + rest <= len(listed):
            self._waiting += listed[used : used + rest]
            used, rest = used + rest, self._clock
            if self._look():
                alarms.append(used - 1)
        self._waiting += listed[used:]
        return placed(alarms, where)

    def _look(self) -> bool:
        values, self._waiting = self._waiting, []
        found = self._window.divides(values)
        if found:
            self._window = self._window.after_alarm()
        return found
