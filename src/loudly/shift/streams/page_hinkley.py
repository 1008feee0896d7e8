"""Page-Hinkley: alarms when the sum of deviations from the running mean has moved far from its extreme.

Source: Page 1954, Biometrika 41; Hinkley 1971; with the forgetting factor of Sebastião & Fernandes 2017. The paper's test is
`forget=1`. Settings and results are those of river's PageHinkley (whose `alpha` is `forget` here, `min_instances` `warm_up`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy

from loudly.core.seams import Floats, Ints
from loudly.shift.streams.stream import Missing, arrived, carried, counted, first_climb, follow, placed, require


@dataclass(frozen=True, slots=True)
class PageHinkleyState:
    """n, total: of the values since the last alarm.  rise: the sum for rises; that for falls stands a known step above it.

    low: the lowest `rise`.  turned: the lowest of the sum for falls, with its sign turned.
    """

    n: int = 0
    total: float = 0.0
    rise: float = 0.0
    low: float = 0.0
    turned: float = 0.0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class PageHinkley:
    """A rise or fall of the mean by more than `delta`. After an alarm everything begins anew.

    warm_up: values before it may alarm.  delta: change that is tolerated.  threshold: of the sums, in units of the values.
    forget: factor of the sums a step.  mode: which changes count.
    Shapes: values (n,).  Raises: StreamRefused.  Cost: O(n), about a dozen passes.

    >>> detector = PageHinkley(threshold=20)
    >>> _, alarms = detector.update(detector.init(), np.repeat([0.0, 1.0], 500))
    >>> alarms
    array([520])
    """

    warm_up: int = 30
    delta: float = 0.005
    threshold: float = 50.0
    forget: float = 0.9999
    mode: Literal["up", "down", "both"] = "both"
    missing: Missing = "refuse"

    def __post_init__(self) -> None:
        require(self.warm_up >= 1 and self.threshold > 0 and 0 < self.forget <= 1 and self.mode in ("up", "down", "both"), self)

    def init(self) -> PageHinkleyState:
        """Nothing seen."""
        return PageHinkleyState()

    def restore(self, data: Mapping[str, Any]) -> PageHinkleyState:
        """The inverse of `plain`."""
        return PageHinkleyState(**data)

    def update(self, state: PageHinkleyState, values: Floats) -> tuple[PageHinkleyState, Ints]:
        """The state after a batch, and where it alarmed."""
        taken, where = arrived(values, self.missing)
        state, alarms = follow(self._step, state, taken)
        return counted(state, len(values) - len(taken)), placed(alarms, where)

    def _step(self, state: PageHinkleyState, values: Floats) -> tuple[PageHinkleyState, int, bool]:
        n = len(values)
        numbers = np.arange(state.n + 1, state.n + n + 1)
        totals = carried(state.total, values)[1:]
        rises = self._summed(values - totals / numbers - self.delta, state.rise)
        falls = -(rises + self._between(numbers))
        found = self._first_over(state, rises, falls)
        if found is not None:
            return PageHinkleyState(skipped=state.skipped), found + 1, True
        low, turned = float(rises.min()), float(falls.min())
        lows = (min(low, state.low), min(turned, state.turned)) if state.n else (low, turned)
        return PageHinkleyState(state.n + n, float(totals[-1]), float(rises[-1]), *lows, state.skipped), n, False

    def _summed(self, steps: Floats, before: float) -> Floats:
        """s_t = forget · s_(t-1) + step_t, one after the other."""
        if self.forget == 1:
            return carried(before, steps)[1:]
        found: Floats = scipy.signal.lfilter((1.0,), (1.0, -self.forget), steps, zi=(self.forget * before,))[0]
        return found

    def _between(self, numbers: Ints) -> Floats:
        """How far the sum for falls (of deviations + delta) stands above the sum for rises (of deviations - delta)."""
        if self.forget == 1:
            return 2 * self.delta * numbers.astype(np.float64)
        decayed: Floats = -np.expm1(numbers * math.log(self.forget))
        return decayed * (2 * self.delta / (1 - self.forget))

    def _first_over(self, state: PageHinkleyState, rises: Floats, falls: Floats) -> int | None:
        waiting = max(0, self.warm_up - 1 - state.n)
        if waiting >= len(rises):
            return None
        found = []
        for sums, low, mode in ((rises, state.low, "up"), (falls, state.turned, "down")):
            if self.mode in (mode, "both"):
                lowest = min([low] * (state.n > 0) + [float(sums[: waiting + 1].min())])
                found.append(first_climb(sums[waiting:], lowest, self.threshold))
        return min((waiting + at for at in found if at is not None), default=None)
