"""A conformal test martingale against a fixed calibration set: P(it ever alarms without a change) ≤ alpha.

Each score gets a conformal p-value among the calibration scores; bets 1 + b · (p - 1/2) win when p-values are no longer
uniform. The capital is spread over bets and over starting times j with shares 1/(j · (j + 1)), so a change after a long calm
costs only the log of the time.

Against a fixed calibration set p-values are not independent: given the set they are alike, with a mean somewhat off 1/2, and
an uncorrected martingale alarms sooner or later for sure. Given the set, the mean is within d = sqrt(ln(2/alpha1) / (6 n)) of
1/2 with probability 1 - alpha1 (n scores that are uniform by rank: sub-Gaussian with variance 1/12), so each bet is divided
by 1 + |b| · d and stays fair; alpha1 = alpha2 = alpha/2. What this costs: a mean p-value within d of 1/2 is never found.

Source: Vovk, Gammerman & Shafer 2022, "Algorithmic learning in a random world", ch. 8; Vovk et al. 2021, "Retrain or not
retrain: conformal test martingales for change-point detection" (their bets). The correction for a fixed set is ours. Theirs
lets every value join the set instead, which needs no correction and unbounded memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from loudly.core.seams import Floats, Ints
from loudly.shift.streams.stream import Missing, arrived, counted, follow, placed, require, tuples, uniforms
from loudly.shift.streams.winnings import FIRST_SHARE, first_mean_over, later_shares, played

BLOCK = 2048
BETS = (0.2, 0.5, 1.0, 1.8)


@dataclass(frozen=True, slots=True)
class ConformalMartingaleState:
    """n: scores seen.  alarmed: for good.  Of each bet: gains, the log of what it won; starts, log-sum of share/winnings."""

    gains: tuple[float, ...]
    starts: tuple[float, ...]
    n: int = 0
    alarmed: bool = False
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class ConformalMartingale:
    """Any change that makes scores stranger (or, for both sides, less strange) than the calibration scores.

    It alarms once: the promise is about ever, so it then rests until a new calibration set is given.

    calibration: (m,) scores that the model was not fitted on; independent, and while nothing is wrong so is the stream, alike.
    alpha: probability of ever alarming falsely, over the calibration set as well.  side: "high" for large scores only.
    seed: of the numbers that break ties.
    Shapes: values (n,) nonconformity scores.  Raises: StreamRefused, ConfigError.  Cost: O(n · (log m + bets)).

    >>> rng = np.random.default_rng(0)
    >>> detector = ConformalMartingale(np.abs(rng.normal(size=1000)))
    >>> _, alarms = detector.update(detector.init(), np.abs(np.concatenate([rng.normal(0, 1, 500), rng.normal(0, 2, 500)])))
    >>> bool(len(alarms) == 1 and 500 < alarms[0] < 650)
    True
    """

    calibration: Floats = field(repr=False, compare=False)
    alpha: float = 0.05
    side: Literal["high", "both"] = "high"
    seed: int = 0
    missing: Missing = "refuse"

    def __post_init__(self) -> None:
        object.__setattr__(self, "calibration", np.sort(arrived(self.calibration, "refuse")[0]))
        require(len(self.calibration) >= 20 and 0 < self.alpha < 1 and self.side in ("high", "both") and self.seed >= 0, self)

    @property
    def slack(self) -> float:
        """d: how far the mean p-value may be off 1/2 because the calibration set is what it is."""
        sides = 2 if self.side == "both" else 1
        return math.sqrt(math.log(sides * 2 / self.alpha) / (6 * len(self.calibration)))

    def init(self) -> ConformalMartingaleState:
        """Nothing won."""
        bets = len(self._bets())
        return ConformalMartingaleState((0.0,) * bets, (FIRST_SHARE,) * bets)

    def restore(self, data: Mapping[str, Any]) -> ConformalMartingaleState:
        """The inverse of `plain`."""
        return ConformalMartingaleState(**tuples(data))

    def update(self, state: ConformalMartingaleState, values: Floats) -> tuple[ConformalMartingaleState, Ints]:
        """The state after a batch, and where it alarmed."""
        taken, where = arrived(values, self.missing)
        state, alarms = follow(self._step, state, taken, BLOCK)
        return counted(state, len(values) - len(taken)), placed(alarms, where)

    def p_values(self, scores: Floats, first: int) -> Floats:
        """Smoothed conformal p-values (n,) of scores at positions `first`, … of the stream; small for large scores."""
        above = len(self.calibration) - np.searchsorted(self.calibration, scores, side="right")
        ties = len(self.calibration) - above - np.searchsorted(self.calibration, scores, side="left")
        u = uniforms(self.seed, first, len(scores), 1)[:, 0]
        found: Floats = (above + u * (ties + 1)) / (len(self.calibration) + 1)
        return found

    def _step(self, state: ConformalMartingaleState, values: Floats) -> tuple[ConformalMartingaleState, int, bool]:
        n = len(values)
        if state.alarmed:
            return replace(state, n=state.n + n), n, False
        bets = self._bets()[:, None]
        won = np.log1p(bets * (self.p_values(values, state.n) - 0.5)) - np.log1p(np.abs(bets) * self.slack)
        gains, starts = played(state.gains, state.starts, won, later_shares(state.n, n))
        at = first_mean_over(gains + starts[:, :-1], math.log(2 / self.alpha))
        if at is not None:
            rest = self.init()
            return ConformalMartingaleState(rest.gains, rest.starts, state.n + at + 1, True, state.skipped), at + 1, True
        ends = tuple(gains[:, -1].tolist()), tuple(starts[:, -1].tolist())
        return ConformalMartingaleState(*ends, state.n + n, False, state.skipped), n, False

    def _bets(self) -> Floats:
        bets = np.array(BETS)
        return np.concatenate((-bets, bets)) if self.side == "both" else -bets
