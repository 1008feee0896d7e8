"""UCB1: the arm that could still be the best answers, mixed with an even spread.

The index is the mean plus √(2 ln t / n). Alone it leaves nothing to chance, so its log could judge no other policy: the floor
gives every arm a propensity. Arms without a reward yet come first. With rewards that come late in large batches one arm takes
a whole batch; Thompson sampling is the better choice there.

Source: Auer, Cesa-Bianchi & Fischer 2002, figure 1 and theorem 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loudly.core.seams import Floats
from loudly.deliver.bandit import Bandit, BanditSpec, greedy


@dataclass(frozen=True, slots=True)
class UpperBound:
    """width: what the exploration term is multiplied by."""

    width: float

    def shares(self, pulls: Floats, earned: Floats) -> Floats:
        tried = np.maximum(1, pulls)
        index = earned / tried + self.width * np.sqrt(2 * np.log(max(1.0, float(pulls.sum()))) / tried)
        return greedy(np.where(pulls > 0, index, np.inf))


def ucb1(spec: BanditSpec | None = None, width: float = 1.0) -> Bandit:
    """The strategy. width: what the exploration term is multiplied by; 1 is UCB1.

    >>> from loudly.core.values import Arm
    >>> strategy = ucb1(BanditSpec(floor=0.1))
    >>> strategy.init((Arm("control", "m/1"), Arm("new", "m/2")), 0)["shares"]
    [0.5, 0.5]
    """
    return Bandit("ucb1", UpperBound(width), spec or BanditSpec())
