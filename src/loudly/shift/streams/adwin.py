"""ADWIN: a window that keeps growing until two parts of it have different means; then its old end is dropped.

Buckets of sizes 1, 2, 4, … cover the window, at most `buckets` of each size, the oldest merged two by two. A bucket is kept
as the cumulative sum at its end, so a merge forgets every second end. Every `clock` values all ends are looked at, unless a bound
shows that none can be where the window divides (`adwin_guard`).

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
from typing import Any

import numpy as np

from loudly.core.seams import Floats, Ints
from loudly.errors import DataError
from loudly.shift.streams.adwin_window import FORMAT, AdwinState, Window
from loudly.shift.streams.stream import Missing, arrived, counted, follow, placed, require, tuples

BLOCK = 4096
# Up to so many values at once are quicker without arrays.
FEW = 256


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
        """The inverse of `plain`. Raises: DataError for a state of another format."""
        seen = data.get("format", "none")
        if seen != FORMAT:
            told = "The state of ADWIN is of another format."
            raise DataError(told, seen=str(seen), do=f"Begin anew with init(): this reads {FORMAT}.")
        return AdwinState(**tuples(data))

    def update(self, state: AdwinState, values: Floats) -> tuple[AdwinState, Ints]:
        """The state after a batch, and where it alarmed."""
        if state.centre is not None and len(state.pending) + len(values) < self.clock:
            taken, _ = arrived(values, self.missing)
            waiting = replace(state, pending=(*state.pending, *(taken - state.centre).tolist()))
            return counted(waiting, len(values) - len(taken)), placed([], None)
        running = self.running(state)
        alarms = running.extend(values)
        return running.state, alarms

    def running(self, state: AdwinState | None = None) -> RunningAdwin:
        """The same for values that come one by one or a few at a time, from `state` on."""
        return RunningAdwin(self, state or self.init())


class RunningAdwin:
    """ADWIN over values that come one by one: its window changes in place, and `state` is what `update` would have made of them.

    >>> one = Adwin().running()
    >>> [i for i, value in enumerate([0.0, 0.1] * 1000 + [1.0, 0.9] * 100) if one.push(value)][:1]
    [2015]
    """

    __slots__ = ("_centre", "_clock", "_missing", "_skipped", "_waiting", "_window")

    def __init__(self, detector: Adwin, state: AdwinState) -> None:
        self._clock, self._missing = detector.clock, detector.missing
        self._window, self._waiting, self._skipped = Window(detector, state), list(state.pending), 0
        # NaN while the window is empty.
        self._centre = self._window.centre

    @property
    def state(self) -> AdwinState:
        """The state as of now."""
        return counted(self._window.state(tuple(self._waiting)), self._skipped)

    def push(self, value: float) -> bool:
        """One value: whether it alarmed. Raises: StreamRefused."""
        centred = value - self._centre
        if centred - centred != 0.0:
            return len(self.extend(np.array([value]))) > 0
        waiting = self._waiting
        waiting.append(centred)
        return len(waiting) == self._clock and self._divides(waiting)

    def extend(self, values: Floats) -> Ints:
        """A few values: where they alarmed. Raises: StreamRefused."""
        taken, where = arrived(values, self._missing)
        self._skipped += len(values) - len(taken)
        return placed(self._few(taken.tolist()) if len(taken) <= FEW else self._many(taken), where)

    def _few(self, values: list[float]) -> list[int]:
        alarms, at = list[int](), 0
        while at < len(values):
            centre, waiting = self._centred(values[at]), self._waiting
            rest = values[at : at + self._clock - len(waiting)]
            waiting += [value - centre for value in rest]
            at += len(rest)
            if len(waiting) == self._clock and self._divides(waiting):
                alarms.append(at - 1)
        return alarms

    def _many(self, values: Floats) -> list[int]:
        return follow(self._step, None, values, BLOCK)[1]

    def _step(self, _: None, values: Floats) -> tuple[None, int, bool]:
        """Takes values up to and including the first alarm."""
        waited, clock = len(self._waiting), self._clock
        centred = np.concatenate((self._waiting, values - self._centred(float(values[0]))))
        checks = len(centred) // clock
        cut = self._window.first_cut(centred[: checks * clock].reshape(checks, clock))
        if cut is None:
            self._waiting = centred[checks * clock :].tolist()
            return None, len(values), False
        self._restart()
        return None, (cut + 1) * clock - waited, True

    def _centred(self, first: float) -> float:
        """What values are taken less of: the first of an empty window."""
        if math.isnan(self._centre):
            self._centre = self._window.centre = first
        return self._centre

    def _divides(self, values: list[float]) -> bool:
        self._waiting = []
        found = self._window.divides(values)
        if found:
            self._restart()
        return found

    def _restart(self) -> None:
        self._window, self._waiting = self._window.after_alarm(), []
        self._centre = self._window.centre
