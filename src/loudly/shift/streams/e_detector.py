"""E-detectors: a rise or fall of the mean of bounded values, with a promise on false alarms that needs no other assumption.

While the mean of each value, given those before it, is at most `mean` (or at least; or, for both sides, exactly), the average
number of values to a false alarm is at least 1/alpha: no normality, no independence. Each bet b multiplies an e-value by
1 + b · (x - mean). A CUSUM-type e-detector is M_t = L_t · max(M_(t-1), 1), a Shiryaev-Roberts-type one L_t · (M_(t-1) + 1);
a mean of e-detectors over bets is one; it alarms at 1/alpha.

Source: Shin, Ramdas & Rinaldo 2023, "E-detectors: a nonparametric framework for sequential change detection", NEJSDS
(definition 2.2, proposition 2.4; bets of section 5 on a fixed grid with equal weights instead of their optimised one).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from loudly.core.seams import Floats, Ints
from loudly.shift.streams.stream import Missing, arrived, counted, follow, placed, require
from loudly.shift.streams.winnings import first_mean_over, ladder, played

BLOCK = 2048


@dataclass(frozen=True, slots=True)
class EDetectorState:
    """Of each bet: gains, the log of what it won since the last alarm; starts, the log-sum (or maximum) of 1/winnings so far."""

    gains: tuple[float, ...]
    starts: tuple[float, ...]
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class EDetector:
    """A change of a bounded mean. After an alarm it begins anew, and the promise holds from there.

    mean: of the values while nothing is wrong.  alpha: 1 / the least average run length to a false alarm.  low, high: bounds.
    kind: "sr" (Shiryaev-Roberts) or "cusum".  side: which changes count.  bets: how many, small to large, on each side.
    Shapes: values (n,).  Raises: StreamRefused, out of bounds too.  Cost: O(n · bets); sr is about four times cusum.

    >>> detector = EDetector(mean=0.1, alpha=0.001, side="up")
    >>> _, alarms = detector.update(detector.init(), np.tile([0.0, 1.0], 50))
    >>> alarms[:1]
    array([13])
    """

    mean: float
    alpha: float = 1e-4
    low: float = 0.0
    high: float = 1.0
    kind: Literal["sr", "cusum"] = "sr"
    side: Literal["up", "down", "both"] = "both"
    bets: int = 8
    missing: Missing = "refuse"

    def __post_init__(self) -> None:
        require(self.low < self.mean < self.high and 0 < self.alpha < 1 and self.bets >= 1, self)
        require(self.kind in ("sr", "cusum") and self.side in ("up", "down", "both"), self)

    def init(self) -> EDetectorState:
        """No winnings."""
        none = (0.0,) * (self.bets * (2 if self.side == "both" else 1))
        return EDetectorState(none, none)

    def restore(self, data: Mapping[str, Any]) -> EDetectorState:
        """The inverse of `plain`."""
        return EDetectorState(tuple(data["gains"]), tuple(data["starts"]), int(data["skipped"]))

    def update(self, state: EDetectorState, values: Floats) -> tuple[EDetectorState, Ints]:
        """The state after a batch, and where it alarmed."""
        taken, where = arrived(values, self.missing, self.low, self.high)
        state, alarms = follow(self._step, state, taken, BLOCK)
        return counted(state, len(values) - len(taken)), placed(alarms, where)

    def _step(self, state: EDetectorState, values: Floats) -> tuple[EDetectorState, int, bool]:
        won = np.log1p(self._bets()[:, None] * (values - self.mean))
        summed = np.logaddexp if self.kind == "sr" else np.maximum
        gains, starts = played(state.gains, state.starts, won, 0.0, summed)
        at = first_mean_over(gains + starts[:, :-1], -math.log(self.alpha))
        if at is not None:
            return replace(self.init(), skipped=state.skipped), at + 1, True
        return EDetectorState(tuple(gains[:, -1].tolist()), tuple(starts[:, -1].tolist()), state.skipped), len(values), False

    def _bets(self) -> Floats:
        """Shares of the largest bet that can lose nothing but its stake, on each side."""
        shares = ladder(self.bets)
        up, down = shares / (self.mean - self.low), -shares / (self.high - self.mean)
        return {"up": up, "down": down, "both": np.concatenate((up, down))}[self.side]
