"""Harmful shift: alarms when the risk on the target has surely risen above the source's by more than a tolerance.

The source's risk has an upper bound, the target's a lower one that holds at every look; the alarm is the crossing. A shift
that does no harm never alarms, however large. P(ever alarming while target risk ≤ source risk + tolerance) ≤ alpha.

Source: Podkopaev & Ramdas 2022, "Tracking the risk of a deployed model and detecting harmful distribution shifts", ICLR
(section 2.2). Bounds: Maurer & Pontil 2009, theorem 4 (source, independent losses); Howard, Ramdas, McAuliffe & Sekhon 2021,
"Time-uniform, nonparametric, nonasymptotic confidence sequences", Ann. Statist. 49(2), theorem 4 with the stitched boundary
of eq. (10) (target, running risk). Betting from every starting time on is ours (`winnings`); the paper bounds the running risk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from loudly.core.seams import Floats, Ints
from loudly.errors import ConfigError
from loudly.shift.streams.stream import Missing, arrived, carried, counted, first_true, follow, placed, require, tuples
from loudly.shift.streams.winnings import FIRST_SHARE, first_mean_over, ladder, later_shares, played

BETS = 6
# Stitching at powers of eta = 2 with s = 1.4: zeta(1.4), and the factors of eq. (10).
S, ZETA = 1.4, 3.1055
K1, K2 = (2**0.25 + 2**-0.25) / math.sqrt(2), (math.sqrt(2) + 1) / 2


@dataclass(frozen=True, slots=True)
class RiskState:
    """n, total: of the losses.  squares: about the mean of those before.  low: lower bound on the running risk at its highest.

    alarmed: for good.  gains, starts: of bets on a higher risk.
    """

    n: int = 0
    total: float = 0.0
    squares: float = 0.0
    low: float = 0.0
    alarmed: bool = False
    skipped: int = 0
    gains: tuple[float, ...] = (0.0,) * BETS
    starts: tuple[float, ...] = (FIRST_SHARE,) * BETS


@dataclass(frozen=True, slots=True)
class HarmfulShift:
    """The mean of losses in [0, 1] is above `limit`. It alarms once: the promise is about ever.

    limit: risk that is tolerated, the source's upper bound plus the tolerance (`harmful_shift` makes it so).
    alpha: of the target's part alone.  method: "bernstein" alarms when the bound `low` on the running risk of all losses so
    far is above the limit, as the paper does: a late change takes as long as it takes to move that mean. "betting" bets
    against the limit anew from every time on, so it finds a late change soon.
    Each loss may have any law given those before it, as long as its mean is at most the limit.
    Shapes: values (n,).  Raises: StreamRefused, outside [0, 1] too.  Cost: O(n), about a dozen passes (betting: forty).

    >>> detector = HarmfulShift(limit=0.15)
    >>> _, alarms = detector.update(detector.init(), np.tile([0.0, 0.0, 1.0], 200))
    >>> bool(len(alarms) == 1 and 20 < alarms[0] < 200)
    True
    """

    limit: float
    alpha: float = 0.025
    method: Literal["betting", "bernstein"] = "betting"
    missing: Missing = "refuse"

    def __post_init__(self) -> None:
        require(0 < self.limit < 1 and 0 < self.alpha < 1 and self.method in ("betting", "bernstein"), self)

    def init(self) -> RiskState:
        """Nothing seen."""
        return RiskState()

    def restore(self, data: Mapping[str, Any]) -> RiskState:
        """The inverse of `plain`."""
        return RiskState(**tuples(data))

    def update(self, state: RiskState, values: Floats) -> tuple[RiskState, Ints]:
        """The state after a batch, and where it alarmed. The lower bound goes on afterwards."""
        taken, where = arrived(values, self.missing, 0.0, 1.0)
        state, alarms = follow(self._step, state, taken)
        return counted(state, len(values) - len(taken)), placed(alarms, where)

    def _step(self, state: RiskState, values: Floats) -> tuple[RiskState, int, bool]:
        n = np.arange(state.n + 1, state.n + len(values) + 1)
        totals = carried(state.total, values)
        squares = carried(state.squares, (values - (0.5 + totals[:-1]) / n) ** 2)[1:]
        lows = (totals[1:] - boundary(squares, self.alpha)) / n
        gains, starts, at = self._played(state, values)
        if self.method == "bernstein" and not state.alarmed:
            at = first_true(lows > self.limit)
        last = len(values) - 1 if at is None else at
        made = RiskState(
            state.n + last + 1,
            float(totals[last + 1]),
            float(squares[last]),
            max(state.low, float(lows[: last + 1].max())),
            state.alarmed or at is not None,
            state.skipped,
            tuple(gains[:, last].tolist()),
            tuple(starts[:, last + 1].tolist()),
        )
        return made, last + 1, at is not None

    def _played(self, state: RiskState, values: Floats) -> tuple[Floats, Floats, int | None]:
        """The bets, and where they first won 1/alpha; once alarmed, or where nobody bets, they rest."""
        if state.alarmed or self.method == "bernstein":
            resting = np.repeat(np.array((state.gains, state.starts))[:, :, None], len(values) + 1, axis=2)
            return resting[0, :, 1:], resting[1], None
        won = np.log1p(ladder(BETS)[:, None] * (values / self.limit - 1))
        gains, starts = played(state.gains, state.starts, won, later_shares(state.n, len(values)))
        return gains, starts, first_mean_over(gains + starts[:, :-1], -math.log(self.alpha))


def boundary(squares: Floats, alpha: float) -> Floats:
    """How far a sum of values in [0, 1] may stand above the sum of its means, at every n together. Shapes: squares (n,)."""
    v = np.maximum(squares, 1.0)
    logs = S * np.log(np.log(2 * v)) + math.log(ZETA / (alpha * math.log(2) ** S))
    found: Floats = np.sqrt(K1**2 * v * logs + (K2 * logs) ** 2) + K2 * logs
    return found


def upper_bound(losses: Floats, alpha: float) -> float:
    """What the mean of independent losses in [0, 1] is at most, at confidence 1 - alpha.

    >>> 0.22 < upper_bound(np.tile([0.0, 0.0, 0.0, 0.0, 1.0], 200), 0.025) < 0.25
    True
    """
    taken, _ = arrived(losses, "refuse", 0.0, 1.0)
    n = len(taken)
    if n < 2 or not 0 < alpha < 1:
        raise ConfigError("There is no upper bound without losses and an alpha between 0 and 1.", seen=f"{n} losses, {alpha}")
    room = math.log(2 / alpha)
    return min(1.0, float(taken.mean()) + math.sqrt(2 * float(taken.var(ddof=1)) * room / n) + 7 * room / (3 * (n - 1)))


def harmful_shift(
    source: Floats, tolerance: float = 0.05, alpha: float = 0.05, method: Literal["betting", "bernstein"] = "betting"
) -> HarmfulShift:
    """The detector for losses held out on the source: alpha is shared equally between the two bounds.

    Raises: ConfigError where source risk and tolerance leave nothing to find.

    >>> harmful_shift(np.tile([0.0, 0.0, 0.0, 0.0, 1.0], 200)).limit < 0.3
    True
    """
    return HarmfulShift(upper_bound(source, alpha / 2) + tolerance, alpha / 2, method)
