"""Page-Hinkley: alarms when the sum of deviations from the running mean has moved far from its extreme.

Source: Page 1954, Biometrika 41; Hinkley 1971; with the forgetting factor of Sebastião & Fernandes 2017. The paper's test is
`forget=1`. Settings and results are those of river's PageHinkley (whose `alpha` is `forget` here, `min_instances` `warm_up`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.signal import lfilter

from loudly.shift.streams.stream import Missing, arrived, carried, first_true, follow, placed, require

if TYPE_CHECKING:
    from loudly.core.seams import Floats, Ints


@dataclass(frozen=True, slots=True)
class PageHinkleyState:
    """n, total: of the values since the last alarm.  rise, fall: the sums.  low, high: their extremes."""

    n: int = 0
    total: float = 0.0
    rise: float = 0.0
    fall: float = 0.0
    low: float = 0.0
    high: float = 0.0
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
        return replace(state, skipped=state.skipped + len(values) - len(taken)), placed(alarms, where)

    def _step(self, state: PageHinkleyState, values: Floats) -> tuple[PageHinkleyState, int, bool]:
        n = len(values)
        totals = carried(state.total, values)[1:]
        deviations = values - totals / np.arange(state.n + 1, state.n + n + 1)
        rises = self._summed(deviations - self.delta, state.rise)
        falls = self._summed(deviations + self.delta, state.fall)
        lows = _extremes(np.minimum, rises, state.low if state.n else None)
        highs = _extremes(np.maximum, falls, state.high if state.n else None)
        waiting = max(0, self.warm_up - 1 - state.n)
        at = first_true(self._over(rises[waiting:] - lows[waiting:], highs[waiting:] - falls[waiting:]))
        if at is not None:
            return PageHinkleyState(skipped=state.skipped), waiting + at + 1, True
        ends = (float(a[-1]) for a in (totals, rises, falls, lows, highs))
        return PageHinkleyState(state.n + n, *ends, skipped=state.skipped), n, False

    def _summed(self, steps: Floats, before: float) -> Floats:
        """s_t = forget · s_(t-1) + step_t, one after the other."""
        if self.forget == 1:
            return carried(before, steps)[1:]
        found: Floats = lfilter((1.0,), (1.0, -self.forget), steps, zi=(self.forget * before,))[0]
        return found

    def _over(self, up: Floats, down: Floats) -> Any:
        if self.mode == "up":
            return up > self.threshold
        return down > self.threshold if self.mode == "down" else np.maximum(up, down) > self.threshold


def _extremes(which: np.ufunc, sums: Floats, before: float | None) -> Floats:
    found: Floats = which.accumulate(sums)
    return found if before is None else which(found, before, out=found)
