"""LinUCB: for each context the arm that could still be the best by its linear model, mixed with an even spread.

The index is xᵀθ + width · √(xᵀA⁻¹x). Alone it leaves nothing to chance; the floor gives every arm a propensity.

Source: Li, Chu, Langford & Schapire 2010, "A contextual-bandit approach to personalized news article recommendation",
algorithm 1 (disjoint models).
"""

from __future__ import annotations

from dataclasses import dataclass

from loudly.core.seams import Floats
from loudly.deliver.bandit import BanditSpec, greedy
from loudly.deliver.linear import LinearBandit


@dataclass(frozen=True, slots=True)
class LinearUpperBound:
    """width: the α of the paper."""

    width: float

    def shares(self, mean: Floats, spread: Floats) -> Floats:
        return greedy(mean + self.width * spread)


def linucb(features: int, spec: BanditSpec | None = None, width: float = 1.0, ridge: float = 1.0) -> LinearBandit:
    """The strategy. features: of the context.  width: the α of the paper.  ridge: prior precision of the weights.

    >>> import numpy as np
    >>> from loudly.core.values import Arm
    >>> strategy = linucb(features=2)
    >>> state = strategy.init((Arm("control", "m/1"), Arm("new", "m/2")), 0)
    >>> strategy.shares(state, np.array([[1.0, 0.3]]))
    array([[0.5, 0.5]])
    """
    return LinearBandit("linucb", features, LinearUpperBound(width), spec or BanditSpec(), ridge)
