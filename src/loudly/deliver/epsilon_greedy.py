"""Epsilon-greedy: the arm that has earned most on average answers, but for a share that is spread evenly.

The share is the floor; it may begin larger and cool down. Arms without a reward yet come first. Simple, and dear: with a
constant share the regret grows with time for ever.

Source: Sutton & Barto 2018, section 2.2; cooling as ε_n of Auer, Cesa-Bianchi & Fischer 2002, theorem 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from loudly.core.seams import Assignment, Feedback
from loudly.core.values import Arm, Verdict
from loudly.deliver.bandit import BanditSpec, begun, counted, floored, greedy, judge, pick, rewarded

if TYPE_CHECKING:
    from loudly.core.seams import Floats


@dataclass(frozen=True, slots=True)
class EpsilonGreedy:
    """Arms: control first.  cool: the even share is cool × arms / rewards so far, until that falls below the floor; 0 is constant.

    >>> strategy = EpsilonGreedy(BanditSpec(floor=0.1))
    >>> strategy.init((Arm("control", "m/1"), Arm("new", "m/2")), 0)["shares"]
    [0.5, 0.5]
    """

    spec: BanditSpec = field(default_factory=BanditSpec)
    cool: float = 0.0
    name: str = "epsilon-greedy"

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
        pulls, earned = np.asarray(state["evidence"]["pulls"]), np.asarray(state["evidence"]["earned"])
        means = np.where(pulls > 0, earned / np.maximum(1, pulls), np.inf)
        cooling = min(1.0, self.cool * len(pulls) / max(1, int(pulls.sum())))
        return {**state, "shares": floored(greedy(means), max(self.spec.floor, cooling)).tolist()}
