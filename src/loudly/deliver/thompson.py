"""Thompson sampling: each arm answers as often as it is believed to be the best, and never more seldom than the floor.

Beliefs are Beta posteriors of rewards in [0, 1] from a flat prior. The probability of being the best is integrated, not
sampled (stats/best_arm.py), so the propensities are exact. Rewards between 0 and 1 count as parts of a success.

Source: Thompson 1933; Chapelle & Li 2011; asymptotically optimal by Kaufmann, Korda & Munos 2012.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loudly.core.seams import Floats
from loudly.deliver.bandit import Bandit, BanditSpec
from loudly.stats.best_arm import best_beta


@dataclass(frozen=True, slots=True)
class Believed:
    """The chance of each arm to be the best, by Beta posteriors from a flat prior."""

    def shares(self, pulls: Floats, earned: Floats) -> Floats:
        return best_beta(1 + earned, 1 + np.maximum(0.0, pulls - earned))


def thompson(spec: BanditSpec | None = None) -> Bandit:
    """The strategy.

    >>> from loudly.core.values import Arm
    >>> state = thompson().init((Arm("control", "m/1"), Arm("new", "m/2")), 0)
    >>> thompson().assign(state, np.array([0.2, 0.7])).arm
    array([0, 1])
    """
    return Bandit("thompson", Believed(), spec or BanditSpec())
