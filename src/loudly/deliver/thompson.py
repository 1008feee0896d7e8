"""Thompson sampling: each arm answers as often as it is believed to be the best, and never more seldom than the floor.

Beliefs are Beta posteriors of rewards in [0, 1] from a flat prior. The probability of being the best is integrated, not
sampled (stats/best_arm.py), so the propensities are exact. Rewards between 0 and 1 count as parts of a success.

Source: Thompson 1933; Chapelle & Li 2011; asymptotically optimal by Kaufmann, Korda & Munos 2012.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from loudly.core.seams import Assignment, Feedback
from loudly.core.values import Arm, Verdict
from loudly.deliver.bandit import BanditSpec, begun, counted, floored, judge, pick, rewarded
from loudly.stats.best_arm import best_beta

if TYPE_CHECKING:
    from loudly.core.seams import Floats


@dataclass(frozen=True, slots=True)
class Thompson:
    """Arms: control first.

    >>> state = Thompson().init((Arm("control", "m/1"), Arm("new", "m/2")), 0)
    >>> Thompson().assign(state, np.array([0.2, 0.7])).arm
    array([0, 1])
    """

    spec: BanditSpec = field(default_factory=BanditSpec)
    name: str = "thompson"

    def init(self, arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._shared(begun(arms, at, carry, self.spec.alpha))

    def assign(self, state: Mapping[str, Any], draws: Floats, context: Floats | None = None) -> Assignment:
        return pick(np.asarray(state["shares"]), draws)

    def update(self, state: Mapping[str, Any], feedback: Feedback) -> tuple[dict[str, Any], Verdict]:
        new = self._shared(rewarded(state, feedback))
        return new, judge(new, self.spec, self.name)

    def observe(
        self, state: Mapping[str, Any], answered: Mapping[str, int], failed: Mapping[str, int], seconds: Mapping[str, float]
    ) -> tuple[dict[str, Any], Verdict]:
        new = counted(state, answered, failed)
        return new, judge(new, self.spec, self.name)

    def advance(self, state: Mapping[str, Any], at: int) -> tuple[dict[str, Any], Verdict]:
        new = {**state, "now": at}
        return new, judge(new, self.spec, self.name)

    def _shared(self, state: dict[str, Any]) -> dict[str, Any]:
        pulls, earned = np.asarray(state["evidence"]["pulls"], dtype=np.float64), np.asarray(state["evidence"]["earned"])
        believed = best_beta(1 + earned, 1 + np.maximum(0.0, pulls - earned))
        return {**state, "shares": floored(believed, self.spec.floor).tolist()}
