"""Epsilon-greedy: the arm that has earned most on average answers, but for a share that is spread evenly.

The share is the floor; it may begin larger and cool down. Arms without a reward yet come first. Simple, and dear: with a
constant share the regret grows with time for ever.

Source: Sutton & Barto 2018, section 2.2; cooling as ε_n of Auer, Cesa-Bianchi & Fischer 2002, theorem 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loudly.core.seams import Floats
from loudly.deliver.bandit import Bandit, BanditSpec, floored, greedy


@dataclass(frozen=True, slots=True)
class Greedy:
    """cool: the even share is cool × arms / rewards so far, until that falls below the floor; 0 is constant."""

    cool: float
    floor: float

    def shares(self, pulls: Floats, earned: Floats) -> Floats:
        means = np.where(pulls > 0, earned / np.maximum(1, pulls), np.inf)
        cooling = min(1.0, self.cool * len(pulls) / max(1.0, float(pulls.sum())))
        even = (cooling - self.floor) / (1 - self.floor) if cooling > self.floor else 0.0
        return floored(greedy(means), even)


def epsilon_greedy(spec: BanditSpec | None = None, cool: float = 0.0) -> Bandit:
    """The strategy. cool: how fast an even share that begins at 1 falls towards the floor; 0 begins at the floor.

    >>> from loudly.core.values import Arm
    >>> strategy = epsilon_greedy(BanditSpec(floor=0.1))
    >>> strategy.init((Arm("control", "m/1"), Arm("new", "m/2")), 0)["shares"]
    [0.5, 0.5]
    """
    spec = spec or BanditSpec()
    return Bandit("epsilon-greedy", Greedy(cool, spec.floor), spec)
