"""LinUCB: for each context the arm that could still be the best by its linear model, mixed with an even spread.

The index is xᵀθ + width · √(xᵀA⁻¹x). Alone it leaves nothing to chance; the floor gives every arm a propensity.

Source: Li, Chu, Langford & Schapire 2010, "A contextual-bandit approach to personalized news article recommendation",
algorithm 1 (disjoint models).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loudly.core.seams import Assignment, Feedback
from loudly.core.values import Arm, Verdict
from loudly.deliver.bandit import BanditSpec, counted, floored, greedy, pick
from loudly.deliver.linear import begun_linear, evenly_where_unknown, foresee, judge_policy, taught

if TYPE_CHECKING:
    from loudly.core.seams import Floats


@dataclass(frozen=True, slots=True)
class LinUcb:
    """Arms: control first.  features: of the context.  width: the α of the paper.  ridge: prior precision of the weights.

    >>> import numpy as np
    >>> strategy = LinUcb(features=2)
    >>> state = strategy.init((Arm("control", "m/1"), Arm("new", "m/2")), 0)
    >>> strategy.shares(state, np.array([[1.0, 0.3]]))
    array([[0.5, 0.5]])
    """

    features: int
    spec: BanditSpec = field(default_factory=BanditSpec)
    width: float = 1.0
    ridge: float = 1.0
    name: str = "linucb"

    def init(self, arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return begun_linear(arms, at, carry, self.spec.alpha, self.features, self.ridge)

    def assign(self, state: Mapping[str, Any], draws: Floats, context: Floats | None = None) -> Assignment:
        return pick(self.shares(state, context), draws)

    def shares(self, state: Mapping[str, Any], context: Floats | None) -> Floats:
        """(n, k) probability of each arm for each row."""
        seen = foresee(state, context)
        return evenly_where_unknown(floored(greedy(seen.mean + self.width * seen.spread), self.spec.floor), seen.known)

    def update(self, state: Mapping[str, Any], feedback: Feedback) -> tuple[dict[str, Any], Verdict]:
        new = taught(state, feedback, self.spec)
        return new, judge_policy(new, self.spec, self.name)

    def observe(
        self, state: Mapping[str, Any], answered: Mapping[str, int], failed: Mapping[str, int], seconds: Mapping[str, float]
    ) -> tuple[dict[str, Any], Verdict]:
        new = counted(state, answered, failed)
        return new, judge_policy(new, self.spec, self.name)

    def advance(self, state: Mapping[str, Any], at: int) -> tuple[dict[str, Any], Verdict]:
        new = {**state, "now": at}
        return new, judge_policy(new, self.spec, self.name)
