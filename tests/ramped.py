"""Ramps around every strategy that takes one, and labelled answers of their units."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from loudly.core.clock import DAY
from loudly.core.seams import Feedback
from loudly.core.values import Arm
from loudly.deliver.ab import Ab
from loudly.deliver.ab_n import AbN
from loudly.deliver.bandit import BanditSpec
from loudly.deliver.epsilon_greedy import epsilon_greedy
from loudly.deliver.linear_thompson import linear_thompson
from loudly.deliver.linucb import linucb
from loudly.deliver.rollout import parse_rollout
from loudly.deliver.thompson import thompson
from loudly.deliver.ucb1 import ucb1
from loudly.metrics.table import metric

ARMS = tuple(Arm(name, f"m/{i}") for i, name in enumerate(("control", "candidate", "candidate2")))
NAMES = [arm.name for arm in ARMS]
STEPS = (0.01, 0.1, 1.0)
SPEC = BanditSpec(floor=0.2, alone=True)


def inner_of(kind: str, arms: int = 2) -> Any:
    spec = parse_rollout(f"ab among {arms} for 14d", margin=0.06)
    return {
        "ab": lambda: Ab(replace(spec, steps=(0.5,)), metric("brier")),
        "ab-n": lambda: AbN(spec, metric("brier")),
        "epsilon-greedy": lambda: epsilon_greedy(SPEC),
        "thompson": lambda: thompson(SPEC),
        "ucb1": lambda: ucb1(SPEC),
        "linucb": lambda: linucb(1, SPEC),
        "linear-thompson": lambda: linear_thompson(1, SPEC),
    }[kind]()


KINDS = ("ab", "ab-n", "epsilon-greedy", "thompson", "ucb1", "linucb", "linear-thompson")


def feedback(wrong: Any, made: Any, day: int, arms: tuple[Arm, ...], context: Any = None, units: Any = None) -> Feedback:
    """Answers that are right or wrong (Brier loss 0 or 1), as assigned."""
    n = len(made.arm)
    scores = {one.name: np.where(made.arm == i, wrong, np.nan) for i, one in enumerate(arms)}
    names = [f"u{u}" for u in (units if units is not None else range(n))]
    more = {"reward": 1.0 - wrong, "propensity": made.propensity, "context": context, "share": made.share}
    return Feedback(day * DAY, names, made.arm, np.zeros(n), scores, {}, [day], **more)
