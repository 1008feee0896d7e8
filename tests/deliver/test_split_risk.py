"""Several arms share one risk: each has its part of it, in a test, in a bandit, in a draft and after a promotion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loudly.core.seams import Feedback
from loudly.core.values import Decision, Evidence
from loudly.deliver.ab_n import AbN, ratio_of
from loudly.deliver.bandit import BanditSpec
from loudly.deliver.dropping import without
from loudly.deliver.duel import Duel
from loudly.deliver.epsilon_greedy import epsilon_greedy
from loudly.deliver.interleave import team_draft
from loudly.deliver.linucb import linucb
from loudly.deliver.rollout import parse_rollout
from loudly.metrics.table import metric
from loudly.stats.betting import Bernstein
from loudly.stats.interleave import Preference
from ramped import ARMS, NAMES, feedback

ALPHA, ROWS = 0.06, 600


def learned(strategy: Any) -> tuple[dict[str, Any], Feedback, tuple[Evidence, ...]]:
    """After some rewards: the state, what it was told, and the evidence of its verdict."""
    rng, context = np.random.default_rng(0), np.ones((ROWS, 1))
    state = strategy.init(ARMS, 0)
    made = strategy.assign(state, rng.random(ROWS), context)
    told = feedback((rng.random(ROWS) < 0.4).astype(float), made, 0, ARMS, context)
    state, verdict = strategy.update(state, told)
    return state, told, verdict.evidence


def about(found: tuple[Evidence, ...]) -> dict[str, Evidence]:
    return {one.about: one for one in found}


def test_each_arm_of_a_bandit_has_a_part_of_the_risk() -> None:
    _, told, found = learned(epsilon_greedy(BanditSpec(floor=0.2, alpha=ALPHA)))
    assert told.reward is not None
    for index, name in enumerate(NAMES):
        stream = Bernstein(ALPHA / 3).add(told.reward[told.arm == index])
        one = about(found)[name]
        assert one.confidence == pytest.approx(1 - ALPHA / 3)
        assert (one.effect, one.low, one.high) == pytest.approx((stream.mean, stream.low, stream.high))


def test_a_bandit_keeps_an_arm_whose_lower_end_is_within_the_margin_of_all_other_upper_ends() -> None:
    _, _, found = learned(epsilon_greedy(BanditSpec(floor=0.2, alpha=ALPHA)))
    arms = about(found)
    lead = max(NAMES[1:], key=lambda name: arms[name].low or 0.0)
    apart = max(arms[name].high or 0.0 for name in NAMES if name != lead) - (arms[lead].low or 0.0)
    assert apart > 0
    for margin, decision in ((apart + 1e-9, Decision.PASS), (apart - 1e-9, Decision.UNDECIDED)):
        strategy = epsilon_greedy(BanditSpec(floor=0.2, alpha=ALPHA, margin=margin))
        state, _, _ = learned(strategy)
        assert strategy.advance(state, 1)[1].decision is decision


def test_an_arm_of_a_bandit_leaves_where_its_upper_end_is_below_the_lower_end_of_control() -> None:
    strategy, left = epsilon_greedy(BanditSpec(floor=0.2, alpha=ALPHA, alone=True)), []
    for rate in np.linspace(0.3, 0.1, 11):
        rng, state = np.random.default_rng(1), strategy.init(ARMS, 0)
        made = strategy.assign(state, rng.random(ROWS))
        wrong = (rng.random(ROWS) > np.where(made.arm == 1, rate, 0.5)).astype(float)
        told = feedback(wrong, made, 0, ARMS)
        assert told.reward is not None
        mine, control = (Bernstein(ALPHA / 3).add(told.reward[told.arm == arm]) for arm in (1, 0))
        left.append("candidate" in strategy.update(state, told)[0]["dropped"])
        assert left[-1] is (mine.high < control.low)
    assert set(left) == {True, False}


def test_each_candidate_of_a_linear_bandit_has_a_part_of_the_risk_and_its_gain_is_doubly_robust() -> None:
    """Before anything is learned a model foresees 0 everywhere: what is left of it are weighted rewards."""
    floor = 0.3
    _, told, found = learned(linucb(1, BanditSpec(floor=floor, alpha=ALPHA, alone=True)))
    assert told.reward is not None
    assert told.propensity is not None
    weighted = told.reward / told.propensity
    for index, name in enumerate(NAMES[1:], start=1):
        gain = np.where(told.arm == index, weighted, np.where(told.arm == 0, -weighted, 0.0))
        most = 3 / floor
        stream = Bernstein(ALPHA / 2).add((gain / most + 1) / 2)
        one = about(found)[name]
        assert one.confidence == pytest.approx(1 - ALPHA / 2)
        assert (one.effect, one.low, one.high) == pytest.approx(
            [(2 * end - 1) * most for end in (stream.mean, stream.low, stream.high)]
        )
    policy, most = about(found)["policy - control"], 3 / floor - 1
    gain = np.where(told.arm == 0, told.reward - weighted, told.reward)
    stream = Bernstein(ALPHA).add((gain / most + 1) / 2)
    assert policy.confidence == pytest.approx(1 - ALPHA)
    assert (policy.effect, policy.low, policy.high) == pytest.approx(
        [(2 * end - 1) * most for end in (stream.mean, stream.low, stream.high)]
    )


def test_each_candidate_of_a_draft_has_a_part_of_the_risk() -> None:
    strategy = team_draft(parse_rollout("interleave team draft among 3 for 14d", alpha=ALPHA))
    state = strategy.init(ARMS, 0)
    pairs = {
        name: {**pair, "preference": Preference().count(30, 45, 9).plain()} for name, pair in state["evidence"]["pairs"].items()
    }
    one = strategy.against_control({**state, "evidence": {"days": [], "pairs": pairs}}, "candidate").evidence[0]
    assert one.confidence == pytest.approx(1 - ALPHA / 2)
    assert (one.low, one.high) == pytest.approx(Preference().count(30, 45, 9).wins.interval(1, ALPHA / 2))


def test_what_was_promoted_of_several_is_judged_against_control_alone_at_the_part_it_had() -> None:
    strategy = AbN(parse_rollout("ab 50% 30% 20% for 14d", alpha=ALPHA), metric("accuracy"))
    state, told, found = learned(strategy)
    duel = Duel(strategy, ARMS, 2)
    begun = duel.init(0, state)
    assert begun["ratio"]["shares"] == pytest.approx([5 / 7, 2 / 7])
    assert begun["ratio"]["counts"] == [(told.arm == 0).sum(), (told.arm == 2).sum()]
    _, verdict = duel.advance(begun, 1)
    late, before = verdict.evidence[0], about(found)["candidate2"]
    assert late.confidence == pytest.approx(1 - ALPHA / 2)
    assert (late.effect, late.low, late.high) == (before.effect, before.low, before.high)
    more = replace(told, units=[f"late-{i}" for i in range(ROWS)])
    state, _ = duel.update(begun, more)
    assert state["evidence"]["rows"] == 2 * (told.arm != 1).sum()
    assert state["ratio"]["counts"] == [2 * (told.arm == 0).sum(), 2 * (told.arm == 2).sum()]


def test_units_of_the_arms_that_stay_are_held_against_their_own_shares() -> None:
    strategy = AbN(parse_rollout("ab 50% 30% 20% for 14d"), metric("accuracy"))
    state = strategy.init(ARMS, 0)
    assert ratio_of(state).shares == pytest.approx((0.5, 0.3, 0.2))
    gone = without(state, {"candidate": strategy.advance(state, 1)[1]})
    assert ratio_of(gone).shares == pytest.approx((5 / 7, 2 / 7))
