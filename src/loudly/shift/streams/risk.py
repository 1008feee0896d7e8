"""Harmful shift: alarms when the risk on the target has surely risen above the source's by more than a tolerance.

The source's risk has an upper bound, the target's a lower one that holds at every look; the alarm is the crossing. A shift
that does no harm never alarms, however large. P(ever alarming while target risk ≤ source risk + tolerance) ≤ alpha.

Source: Podkopaev & Ramdas 2022, "Tracking the risk of a deployed model and detecting harmful distribution shifts", ICLR
(section 2.2); bounds: Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting", JRSS-B 86
(theorem 2: predictable plug-in empirical Bernstein). Betting from every starting time on is ours (`winnings`); the paper
monitors the running risk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from loudly.errors import ConfigError
from loudly.shift.streams.stream import Missing, arrived, carried, first_true, follow, placed, require, tuples
from loudly.shift.streams.winnings import FIRST_SHARE, first_mean_over, ladder, later_shares, played

if TYPE_CHECKING:
    from loudly.core.seams import Floats, Ints

LARGEST_BET = 0.5
BETS = 6


@dataclass(frozen=True, slots=True)
class RiskState:
    """n, total, squares: of the losses, squares about the running mean.  weight, weighed, spent: sums of λ, λ·x and of the
    price of variance.  low: lower bound on the running risk.  alarmed: for good.  gains, starts: of bets on a higher risk.
    """

    n: int = 0
    total: float = 0.0
    squares: float = 0.0
    weight: float = 0.0
    weighed: float = 0.0
    spent: float = 0.0
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
    Shapes: values (n,).  Raises: StreamRefused, outside [0, 1] too.  Cost: O(n), about twenty passes (betting: forty).

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
        return replace(state, skipped=state.skipped + len(values) - len(taken)), placed(alarms, where)

    def _step(self, state: RiskState, values: Floats) -> tuple[RiskState, int, bool]:
        sums, lows = _followed(state, values, self.alpha)
        gains, starts, at = self._played(state, values)
        if self.method == "bernstein" and not state.alarmed:
            at = first_true(lows > self.limit)
        last = len(values) - 1 if at is None else at
        totals, squares, weight, weighed, spent = (float(a[last]) for a in sums.running())
        low, alarmed = max(state.low, float(lows[: last + 1].max())), state.alarmed or at is not None
        bets = tuple(gains[:, last].tolist()), tuple(starts[:, last + 1].tolist())
        made = RiskState(state.n + last + 1, totals, squares, weight, weighed, spent, low, alarmed, state.skipped, *bets)
        return made, last + 1, at is not None

    def _played(self, state: RiskState, values: Floats) -> tuple[Floats, Floats, int | None]:
        """The bets, and where they first won 1/alpha; once alarmed, or where nobody bets, they rest."""
        if state.alarmed or self.method == "bernstein":
            resting = np.repeat(np.array((state.gains, state.starts))[:, :, None], len(values) + 1, axis=2)
            return resting[0, :, 1:], resting[1], None
        won = np.log1p(ladder(BETS)[:, None] * (values / self.limit - 1))
        gains, starts = played(state.gains, state.starts, won, later_shares(state.n, len(values)))
        return gains, starts, first_mean_over(gains + starts[:, :-1], -math.log(self.alpha))


@dataclass(frozen=True, slots=True)
class _Sums:
    """Running sums (n,) of a RiskState."""

    totals: Floats
    squares: Floats
    weights: Floats
    weighed: Floats
    spent: Floats

    def running(self) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """What a state keeps, in its order."""
        return self.totals, self.squares, self.weights, self.weighed, self.spent


def _followed(state: RiskState, values: Floats, alpha: float, horizon: int | None = None) -> tuple[_Sums, Floats]:
    """Sums and lower bounds after each value; bets are tuned to every n, or to one `horizon`."""
    n = np.arange(state.n + 1, state.n + len(values) + 1, dtype=np.float64)
    totals = carried(state.total, values)
    means = (0.5 + totals) / np.concatenate((n[:1], n + 1))
    squares = carried(state.squares, (values - means[1:]) ** 2)
    spreads = (0.25 + squares[:-1]) / n
    looks = n * np.log1p(n) if horizon is None else np.full(len(n), float(horizon))
    capped = np.minimum(np.sqrt(-2 * math.log(alpha) / (spreads * looks)), LARGEST_BET)
    weights, weighed = carried(state.weight, capped)[1:], carried(state.weighed, capped * values)[1:]
    spent = carried(state.spent, (values - means[:-1]) ** 2 * (-np.log1p(-capped) - capped))[1:]
    lows = (weighed + math.log(alpha) - spent) / weights
    return _Sums(totals[1:], squares[1:], weights, weighed, spent), lows


def upper_bound(losses: Floats, alpha: float) -> float:
    """What the mean of independent losses in [0, 1] is at most, at confidence 1 - alpha.

    >>> 0.2 < upper_bound(np.tile([0.0, 0.0, 0.0, 0.0, 1.0], 200), 0.025) < 0.24
    True
    """
    taken, _ = arrived(losses, "refuse", 0.0, 1.0)
    if not len(taken) or not 0 < alpha < 1:
        raise ConfigError("There is no upper bound without losses and a risk between 0 and 1.", seen=f"{len(taken)}, {alpha}")
    _, lows = _followed(RiskState(), 1 - taken, alpha, len(taken))
    return min(1.0, 1.0 - float(lows[-1]))


def harmful_shift(
    source: Floats, tolerance: float = 0.05, alpha: float = 0.05, method: Literal["betting", "bernstein"] = "betting"
) -> HarmfulShift:
    """The detector for losses held out on the source: alpha is shared equally between the two bounds.

    Raises: ConfigError where source risk and tolerance leave nothing to find.

    >>> harmful_shift(np.tile([0.0, 0.0, 0.0, 0.0, 1.0], 200)).limit < 0.3
    True
    """
    return HarmfulShift(upper_bound(source, alpha / 2) + tolerance, alpha / 2, method)
