"""Arms that leave before their rollout is over, and who meets their units from then on.

An arm that surely errs more, is late or is worse leaves alone, as long as another candidate is left. Its units are dealt out over
the arms that stay, by their shares, with what is left of the draw that led to it: nobody else's unit moves. Given that a unit
meets one of the arms that stay, it meets each of them with the probability it always had, whether it was answered before or after.
So neither the comparisons with control nor the sample ratio of the arms that stay know of it, however late a label comes.

Which arms have left is part of the state (`dropped`: name -> the verdict that says why), and of the ledger (`arm_dropped`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from loudly.core.seams import Assignment, Floats, Ints
from loudly.core.values import Verdict, plain

BELOW_ONE = 1 - 2.0**-53


def without(state: Mapping[str, Any], found: Mapping[str, Verdict]) -> dict[str, Any]:
    """The state without some arms more. found: arm -> the verdict that says why."""
    return {**state, "dropped": {**state["dropped"], **{arm: plain(verdict) for arm, verdict in found.items()}}}


def out(state: Mapping[str, Any], arms: Sequence[str]) -> list[int]:
    """Which of the arms have left, as indices, in the order in which they did."""
    return [arms.index(arm) for arm in state["dropped"]]


def staying(state: Mapping[str, Any], arms: Iterable[str]) -> list[str]:
    """Those of the arms that have not left, in their order."""
    return [arm for arm in arms if arm not in state["dropped"]]


def deal(shares: Floats, draws: Floats, gone: Sequence[int]) -> Assignment:
    """The arm into whose share each draw falls, where some arms have left, one after the other. Shapes: shares (k,), draws (n,).

    >>> deal(np.array([0.5, 0.25, 0.25]), np.array([0.1, 0.6, 0.8, 0.99]), [2]).arm
    array([0, 1, 0, 1])
    """
    left = np.array(shares)
    arm, rest = _fall(left, draws)
    for index in gone:
        left[index] = 0.0
        mine = arm == index
        if mine.any():
            arm[mine], rest[mine] = _fall(left, rest[mine])
    return Assignment(arm, (left / left.sum())[arm])


def kept(shares: Floats, gone: Sequence[int]) -> Floats:
    """Shares of which those of the arms that have left go to the others in proportion. Shapes: (..., k)."""
    if not gone:
        return shares
    left = np.array(shares)
    left[..., gone] = 0.0
    return np.asarray(left / left.sum(axis=-1, keepdims=True))


def _fall(shares: Floats, draws: Floats) -> tuple[Ints, Floats]:
    """The arm of each draw, and where within the arm's share it fell, in [0, 1)."""
    ends = np.cumsum(shares)
    ends /= ends[-1]
    arm = np.searchsorted(ends[:-1], draws, side="right").astype(np.int64)
    begins = np.where(arm > 0, ends[arm - 1], 0.0)
    return arm, np.minimum((draws - begins) / (ends[arm] - begins), BELOW_ONE)
