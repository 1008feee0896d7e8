"""CUSUM: alarms when standardised values have stood above (or below) their target for long enough.

Source: Page 1954, Biometrika 41, in the tabular form S_t = max(0, S_(t-1) + z_t - allowance); run lengths: Siegmund 1985,
"Sequential analysis", the corrected Brownian approximation. An average run length holds for independent normal values whose
target and deviation are given; learned from the stream they shorten it (Jensen et al. 2006), correlated values much more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from loudly.core.seams import Floats, Ints
from loudly.shift.streams.stream import Missing, arrived, carried, counted, first_climb, follow, placed, require


@dataclass(frozen=True, slots=True)
class CusumState:
    """target, deviation: given or learned (None: learning, from `total` and `squares` of n values less `centre`).

    up, down: sums of z - allowance and of -z - allowance since the last alarm.  up_low, down_low: their lowest.
    """

    target: float | None = None
    deviation: float | None = None
    centre: float | None = None
    n: int = 0
    total: float = 0.0
    squares: float = 0.0
    up: float = 0.0
    down: float = 0.0
    up_low: float = 0.0
    down_low: float = 0.0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Cusum:
    """A shift of the mean of a known size: quickest of all at twice the allowance.

    target, deviation: of the values while nothing is wrong; None to learn them from the first `learn` values (again after
    every alarm; the sums alone begin anew where they are given). Values that are all the same teach no deviation: it
    learns on.  allowance, threshold: in deviations.  side: which shifts count.
    Shapes: values (n,).  Raises: StreamRefused.  Cost: O(n).

    >>> import numpy as np
    >>> detector = Cusum(target=0.0, deviation=1.0, threshold=5.0)
    >>> _, alarms = detector.update(detector.init(), np.repeat([0.0, 1.5], 50))
    >>> alarms
    array([55, 61, 67, 73, 79, 85, 91, 97])
    """

    target: float | None = None
    deviation: float | None = None
    allowance: float = 0.5
    threshold: float = 8.0
    learn: int = 100
    side: Literal["up", "down", "both"] = "both"
    missing: Missing = "refuse"

    def __post_init__(self) -> None:
        given = (self.target is None) == (self.deviation is None) and (self.deviation is None or self.deviation > 0)
        require(given and self.allowance >= 0 and self.threshold > 0 and self.learn >= 2, self)
        require(self.side in ("up", "down", "both"), self)

    def init(self) -> CusumState:
        """Nothing seen."""
        return CusumState(self.target, self.deviation)

    def restore(self, data: Mapping[str, Any]) -> CusumState:
        """The inverse of `plain`."""
        return CusumState(**data)

    def update(self, state: CusumState, values: Floats) -> tuple[CusumState, Ints]:
        """The state after a batch, and where it alarmed."""
        taken, where = arrived(values, self.missing)
        state, alarms = follow(self._step, state, taken)
        return counted(state, len(values) - len(taken)), placed(alarms, where)

    def _step(self, state: CusumState, values: Floats) -> tuple[CusumState, int, bool]:
        if state.target is None or state.deviation is None:
            return self._learned(state, values)
        z = (values - state.target) / state.deviation
        ups, downs = carried(state.up, z - self.allowance)[1:], carried(state.down, -z - self.allowance)[1:]
        found = []
        if self.side != "down":
            found.append(first_climb(ups, state.up_low, self.threshold))
        if self.side != "up":
            found.append(first_climb(downs, state.down_low, self.threshold))
        at = min((a for a in found if a is not None), default=None)
        if at is not None:
            return replace(self.init(), skipped=state.skipped), at + 1, True
        lows = min(state.up_low, float(ups.min())), min(state.down_low, float(downs.min()))
        moved = replace(state, up=float(ups[-1]), down=float(downs[-1]), up_low=lows[0], down_low=lows[1])
        return replace(moved, n=state.n + len(values)), len(values), False

    def _learned(self, state: CusumState, values: Floats) -> tuple[CusumState, int, bool]:
        taken = min(len(values), self.learn - state.n % self.learn)
        centre = float(values[0]) if state.centre is None else state.centre
        from_centre = values[:taken] - centre
        n = state.n + taken
        total = float(carried(state.total, from_centre)[-1])
        squares = float(carried(state.squares, from_centre * from_centre)[-1])
        target = deviation = None
        if n % self.learn == 0 and squares > total * total / n:
            target, deviation = centre + total / n, math.sqrt((squares - total * total / n) / (n - 1))
        return CusumState(target, deviation, centre, n, total, squares, skipped=state.skipped), taken, False


def run_length(threshold: float, allowance: float, shift: float = 0.0) -> float:
    """Average values to an alarm of a one-sided CUSUM of normal values shifted by `shift` deviations (both sides: half, at 0).

    >>> round(run_length(5.0, 0.5)), round(run_length(5.0, 0.5, shift=1.0), 1)
    (938, 10.3)
    """
    drift, reach = shift - allowance, threshold + 1.166
    if drift == 0:
        return reach * reach
    return (math.exp(-2 * drift * reach) + 2 * drift * reach - 1) / (2 * drift * drift)
