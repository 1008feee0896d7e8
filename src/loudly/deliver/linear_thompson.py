"""Linear Thompson sampling: for each context an arm answers as often as its linear model is believed to foresee most.

Beliefs of the rewards xᵀθ are Gaussian, one model an arm, so the probability of being the best is integrated, not sampled
(stats/best_arm.py): the propensities are exact.

Source: Agrawal & Goyal 2013, "Thompson sampling for contextual bandits with linear payoffs", with a model an arm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from loudly.core.seams import Assignment, Feedback
from loudly.core.values import Arm, Verdict
from loudly.deliver.bandit import BanditSpec, counted, floored, pick
from loudly.deliver.linear import begun_linear, evenly_where_unknown, foresee, judge_policy, taught
from loudly.stats.best_arm import best_normal

if TYPE_CHECKING:
    from loudly.core.seams import Floats

LEAST_SPREAD = 1e-9


@dataclass(frozen=True, slots=True)
class LinearThompson:
    """Arms: control first.  features: of the context.  noise: standard deviation of rewards round their mean (the v of the paper).

    >>> strategy = LinearThompson(features=2)
    >>> state = strategy.init((Arm("control", "m/1"), Arm("new", "m/2")), 0)
    >>> strategy.shares(state, np.array([[1.0, 0.3]])).round(6)
    array([[0.5, 0.5]])
    """

    features: int
    spec: BanditSpec = field(default_factory=BanditSpec)
    noise: float = 0.5
    ridge: float = 1.0
    name: str = "linear-thompson"

    def init(self, arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return begun_linear(arms, at, carry, self.spec.alpha, self.features, self.ridge)

    def assign(self, state: Mapping[str, Any], draws: Floats, context: Floats | None = None) -> Assignment:
        return pick(self.shares(state, context), draws)

    def shares(self, state: Mapping[str, Any], context: Floats | None) -> Floats:
        """(n, k) probability of each arm for each row."""
        seen = foresee(state, context)
        believed = best_normal(seen.mean, np.maximum(self.noise * seen.spread, LEAST_SPREAD))
        return evenly_where_unknown(floored(believed, self.spec.floor), seen.known)

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
