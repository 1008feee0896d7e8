"""UCB1: the arm that could still be the best answers, mixed with an even spread.

The index is the mean plus √(2 ln t / n). Alone it leaves nothing to chance, so its log could judge no other policy: the floor
gives every arm a propensity. Arms without a reward yet come first. With rewards that come late in large batches one arm takes
a whole batch; Thompson sampling is the better choice there.

Source: Auer, Cesa-Bianchi & Fischer 2002, figure 1 and theorem 1.
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
class Ucb1:
    """Arms: control first.  width: what the exploration term is multiplied by; 1 is UCB1.

    >>> strategy = Ucb1(BanditSpec(floor=0.1))
    >>> strategy.init((Arm("control", "m/1"), Arm("new", "m/2")), 0)["shares"]
    [0.5, 0.5]
    """

    spec: BanditSpec = field(default_factory=BanditSpec)
    width: float = 1.0
    name: str = "ucb1"

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
        tried = np.maximum(1, pulls)
        index = earned / tried + self.width * np.sqrt(2 * np.log(max(1, int(pulls.sum()))) / tried)
        return {**state, "shares": floored(greedy(np.where(pulls > 0, index, np.inf)), self.spec.floor).tolist()}
