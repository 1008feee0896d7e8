"""The guards of every strategy, to the digit: which share an event is held against, and how much of the risk is spent on it.

Both are exact, so they are tested as such: the e-value of a few events, computed here, is one over the risk at which they just
suffice. No simulation would see a share or a risk that is wrong by a factor of two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from loudly.core.seams import Calls
from loudly.core.values import Arm
from loudly.deliver.ab import Ab
from loudly.deliver.ab_n import AbN
from loudly.deliver.bandit import BanditSpec
from loudly.deliver.blue_green import blue_green
from loudly.deliver.canary import Canary
from loudly.deliver.epsilon_greedy import epsilon_greedy
from loudly.deliver.interleave import team_draft
from loudly.deliver.latency import WARM_UP
from loudly.deliver.ramp import Ramp
from loudly.deliver.rollout import parse_rollout
from loudly.deliver.shadow import shadow
from loudly.metrics.table import metric
from loudly.stats.arm_process import RATIOS, STAKES

BRIER = metric("brier")
NAMES = ("control", "candidate", "candidate2")


@dataclass(frozen=True)
class Case:
    """made: at some alpha.  arms: how many.  errors, late: shares an event is held against, and the parts of alpha for it."""

    made: Callable[[float], Any]
    errors: tuple[float, float]
    late: tuple[float, float]
    arms: int = 2
    both: bool = False


def ab(alpha: float, text: str = "ab 50% for 14d") -> Any:
    spec = parse_rollout(text, alpha=alpha)
    return AbN(spec, BRIER) if spec.arms > 2 else Ab(spec, BRIER)


def greedy(alpha: float) -> Any:
    return epsilon_greedy(BanditSpec(floor=0.2, alone=True, alpha=alpha))


def canary(alpha: float, paired: bool) -> Any:
    return Canary(parse_rollout("canary 10% 50% 100%", alpha=alpha, paired=paired), BRIER)


# Of three arms at a tenth of the units each candidate has a thirtieth, control that and the other nine tenths.
THIRTIETH = (1 / 30) / (1 / 30 + 1 / 30 + 0.9)
CASES = {
    "ab": Case(ab, (0.5, 0.5), (0.5, 0.1)),
    "ab at 20 %": Case(lambda alpha: ab(alpha, "ab 20% for 14d"), (0.2, 0.5), (0.2, 0.1)),
    "ab at 20 %, both in a call": Case(lambda alpha: ab(alpha, "ab 20% for 14d"), (0.2, 0.5), (0.5, 0.1), both=True),
    "ab of 3": Case(lambda alpha: ab(alpha, "ab among 3 for 14d"), (0.5, 0.25), (0.5, 0.05), 3),
    "ab of 3, uneven": Case(lambda alpha: ab(alpha, "ab 60% 15% 25% for 14d"), (0.2, 0.25), (0.2, 0.05), 3),
    "ab ramped": Case(lambda alpha: Ramp(ab(alpha), (0.1, 1.0)), (0.05, 0.5), (0.05, 0.1)),
    "ab of 3, ramped": Case(lambda a: Ramp(ab(a, "ab among 3 for 14d"), (0.1, 1.0)), (THIRTIETH, 0.25), (THIRTIETH, 0.05), 3),
    "canary": Case(lambda alpha: canary(alpha, False), (0.1, 0.5), (0.1, 0.1)),
    "canary, paired": Case(lambda alpha: canary(alpha, True), (0.5, 0.5), (0.5, 0.1), both=True),
    "shadow": Case(lambda alpha: shadow(parse_rollout("shadow 1d", alpha=alpha), BRIER), (0.5, 0.5), (0.5, 0.1), both=True),
    "blue-green": Case(
        lambda alpha: blue_green(parse_rollout("blue-green", alpha=alpha), BRIER), (0.5, 0.5), (0.5, 0.1), both=True
    ),
    "interleaving": Case(
        lambda alpha: team_draft(parse_rollout("interleave team draft for 14d", alpha=alpha)), (0.5, 0.5), (0.5, 0.1)
    ),
    "interleaving of 3": Case(
        lambda a: team_draft(parse_rollout("interleave team draft among 3 for 14d", alpha=a)), (0.5, 0.25), (0.5, 0.05), 3
    ),
    # A bandit has no interval whose half it would leave; of errors an arm is held against all others together.
    "bandit": Case(greedy, (0.5, 1.0), (0.5, 0.1)),
    "bandit of 3": Case(greedy, (1 / 3, 0.5), (0.5, 0.05), 3),
    "bandit of 3, ramped": Case(lambda alpha: Ramp(greedy(alpha), (0.1, 1.0)), (1 / 30, 0.5), (THIRTIETH, 0.05), 3),
}


def e_value(events: int, others: int, share: float) -> float:
    """Of so many events of the candidate and of the others, each by itself, by a bet on each ratio."""
    bets = [(r / (1 - share + r * share)) ** events * (1 / (1 - share + r * share)) ** others for r in RATIOS]
    return math.fsum(stake * bet for stake, bet in zip(STAKES, bets, strict=True))


def enough(share: float, part: float) -> tuple[int, float]:
    """How many events of a candidate there are to be, with one of control's, and the alpha at which they just suffice."""
    for events in range(2, 40):
        alpha = 1 / (part * e_value(events, 1, share))
        if alpha < 0.2:
            return events, alpha
    raise AssertionError("never enough")


def accused(state: Mapping[str, Any], verdict: Any) -> bool:
    """Whether it is to go, or has left already where another candidate is left."""
    return bool(verdict.failed or state.get("dropped"))


def begun(case: Case, alpha: float) -> tuple[Any, Any]:
    """A strategy under way that has answered as its shares say."""
    made = case.made(alpha)
    state = made.init(tuple(Arm(name, f"m/{i}") for i, name in enumerate(NAMES[: case.arms])), 0)
    state, verdict = made.observe(state, Calls(dict.fromkeys(NAMES[: case.arms], 1)))
    assert not accused(state, verdict)
    return made, state


@pytest.mark.parametrize("name", CASES)
def test_failed_units_are_held_against_the_share_by_assignment_at_their_part_of_the_risk(name: str) -> None:
    case = CASES[name]
    events, alpha = enough(*case.errors)
    for factor, told in ((1.01, True), (0.99, False)):
        made, state = begun(case, alpha * factor)
        state, verdict = made.observe(state, Calls({}, {"control": 1}))
        for _ in range(events):
            assert not accused(state, verdict)
            state, verdict = made.observe(state, Calls({}, {"candidate": 1}))
        assert accused(state, verdict) is told


@pytest.mark.parametrize("name", CASES)
def test_slow_calls_are_those_beyond_what_control_has_shown_at_their_part_of_the_risk(name: str) -> None:
    """Beyond 1.5 times the 95th percentile of control's first hundred; where both answer a call, each is slow with one half."""
    case = CASES[name]
    events, alpha = enough(*case.late)
    shown = np.random.default_rng(0).permutation(np.linspace(0.01, 0.02, WARM_UP))
    limit = 1.5 * float(np.quantile(shown, 0.95))
    slow, quick = limit * 1.001, limit * 0.999

    def call(made: Any, state: Any, control: float | None, candidate: float | None) -> tuple[Any, Any]:
        if case.both:
            control, candidate = control or quick, candidate or quick
        seconds = {arm: took for arm, took in zip(NAMES, (control, candidate), strict=False) if took is not None}
        return made.observe(state, Calls(dict.fromkeys(seconds, 1), {}, seconds))

    for factor, told in ((1.01, True), (0.99, False)):
        made, state = begun(case, alpha * factor)
        for took in shown:
            state, verdict = call(made, state, float(took), None)
        for _ in range(60):
            state, verdict = call(made, state, quick, None)
            state, verdict = call(made, state, None, quick)
        state, verdict = call(made, state, slow, None)
        for _ in range(events):
            assert not accused(state, verdict)
            state, verdict = call(made, state, None, slow)
        assert accused(state, verdict) is told


def test_calls_of_another_size_have_a_limit_of_their_own() -> None:
    """A call of a thousand rows is no slow call of one row."""
    made, state = begun(CASES["ab"], 0.05)
    for size, took in ((1, 0.01), (1000, 1.0)):
        for _ in range(WARM_UP + 50):
            state, _ = made.observe(state, Calls({"control": size}, {}, {"control": took}))
    for _ in range(50):
        state, verdict = made.observe(state, Calls({"candidate": 1000}, {}, {"candidate": 1.2}))
        assert not accused(state, verdict)
    for _ in range(50):
        state, verdict = made.observe(state, Calls({"candidate": 1}, {}, {"candidate": 0.1}))
    assert accused(state, verdict)
