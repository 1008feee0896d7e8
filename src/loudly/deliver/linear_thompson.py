"""Linear Thompson sampling: for each context an arm answers as often as its linear model is believed to foresee most.

Beliefs of the rewards xᵀθ are Gaussian, one model an arm, so the probability of being the best is integrated, not sampled
(stats/best_arm.py): the propensities are exact.

Source: Agrawal & Goyal 2013, "Thompson sampling for contextual bandits with linear payoffs", with a model an arm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loudly.core.seams import Floats
from loudly.deliver.bandit import BanditSpec
from loudly.deliver.linear import LinearBandit
from loudly.stats.best_arm import best_normal

LEAST_SPREAD = 1e-9


@dataclass(frozen=True, slots=True)
class BelievedLinear:
    """The chance of each arm to be the best for a row. noise: standard deviation of rewards round their mean."""

    noise: float

    def shares(self, mean: Floats, spread: Floats) -> Floats:
        return best_normal(mean, np.maximum(self.noise * spread, LEAST_SPREAD))


def linear_thompson(features: int, spec: BanditSpec | None = None, noise: float = 0.5, ridge: float = 1.0) -> LinearBandit:
    """The strategy. features: of the context.  noise: standard deviation of rewards round their mean (the v of the paper).

    >>> from loudly.core.values import Arm
    >>> strategy = linear_thompson(features=2)
    >>> state = strategy.init((Arm("control", "m/1"), Arm("new", "m/2")), 0)
    >>> strategy.shares(state, np.array([[1.0, 0.3]])).round(6)
    array([[0.5, 0.5]])
    """
    return LinearBandit("linear-thompson", features, BelievedLinear(noise), spec or BanditSpec(), ridge)
