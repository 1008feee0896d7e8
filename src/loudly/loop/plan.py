"""A plan is data with reasons in it. `explain` and `apply` consume the same list, so what is shown is what is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from loudly.core.canon import Json
from loudly.core.clock import iso
from loudly.core.values import Verdict


@dataclass(frozen=True, slots=True)
class Retrain:
    """Fit a candidate. `trigger` is the ranked reason; `stateful` continues from the champion."""

    trigger: str
    reason: str
    stateful: bool = False


@dataclass(frozen=True, slots=True)
class NextStage:
    """The rollout's stage has passed and another follows."""

    version: str
    stage: int
    reason: str


@dataclass(frozen=True, slots=True)
class Promote:
    """The candidate becomes the champion."""

    version: str
    reason: str
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class RollBack:
    """The candidate leaves; the champion, which stayed warm, answers everything."""

    version: str
    reason: str
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Confirm:
    """The labels of a promotion's rollout have come, or have had their time, and nothing speaks against it."""

    version: str
    reason: str
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """Something wanted to happen and was not allowed to: a guarantee at work, said aloud."""

    wanted: str
    reason: str


Step = Retrain | NextStage | Promote | RollBack | Confirm | Hold


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens next, as of `at`. No steps: nothing to do, and `idle` says why."""

    at: int
    steps: tuple[Step, ...]
    idle: str = ""


def headline(step: Step) -> str:
    """One line for people.

    >>> headline(Hold("retrain", "the feed is broken: temp"))
    'hold retrain: the feed is broken: temp'
    """
    match step:
        case Retrain(trigger, reason, stateful):
            how = "stateful, from the champion" if stateful else "stateless"
            return f"retrain ({how}) on {trigger}: {reason}"
        case NextStage(version, stage, reason):
            return f"move {version} to stage {stage + 1}: {reason}"
        case Promote(version, reason):
            return f"promote {version}: {reason}"
        case RollBack(version, reason):
            return f"roll back {version}: {reason}"
        case Confirm(version, reason):
            return f"confirm {version}: {reason}"
        case Hold(wanted, reason):
            return f"hold {wanted}: {reason}"
        case _:
            assert_never(step)


def explain(plan: Plan) -> tuple[str, ...]:
    """The plan as lines, in the order in which `apply` would do them."""
    if not plan.steps:
        return (f"{iso(plan.at)}  nothing to do: {plan.idle}",)
    return tuple(f"{iso(plan.at)}  {headline(step)}" for step in plan.steps)


def step_data(step: Step) -> dict[str, Json]:
    """A step as plain JSON, for `--json` and the ledger."""
    return {"step": type(step).__name__, "headline": headline(step)}
