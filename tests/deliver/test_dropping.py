"""Arms that leave alone: nobody else's unit moves, what is logged is the probability, and who is left is judged as before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loudly.core.canon import canonical
from loudly.core.clock import DAY
from loudly.core.seams import Calls, Feedback
from loudly.core.values import Arm
from loudly.deliver.ab import MISMATCH
from loudly.deliver.ab_n import AbN
from loudly.deliver.bandit import Bandit, BanditSpec, frozen
from loudly.deliver.dropping import deal
from loudly.deliver.linucb import linucb
from loudly.deliver.rollout import parse_rollout
from loudly.deliver.thompson import thompson
from loudly.metrics.table import metric

ARMS = tuple(Arm(name, f"m/{i}") for i, name in enumerate(("control", "candidate", "candidate2", "candidate3")))
NAMES = [arm.name for arm in ARMS]
EVEN = dict.fromkeys(NAMES, 500)


@given(st.lists(st.integers(1, 50), min_size=3, max_size=6), st.integers(0, 2**32 - 1), st.data())
def test_whoever_leaves_no_other_unit_moves_and_the_propensity_is_the_frequency(
    parts: list[int], seed: int, data: st.DataObject
) -> None:
    shares = np.array(parts) / sum(parts)
    order = data.draw(st.permutations(range(1, len(parts))))[: data.draw(st.integers(1, len(parts) - 2))]
    draws, even = np.random.default_rng(seed).random(300), (np.arange(40_000) + 0.5) / 40_000
    before = deal(shares, draws, [])
    for n in range(1, len(order) + 1):
        made, gone = deal(shares, draws, order[:n]), order[:n]
        assert not np.isin(made.arm, gone).any()
        stays = ~np.isin(before.arm, gone[-1:])
        assert (made.arm[stays] == before.arm[stays]).all()
        left = np.where(np.isin(np.arange(len(parts)), gone), 0.0, shares)
        assert made.propensity == pytest.approx((left / left.sum())[made.arm])
        assert np.bincount(deal(shares, even, gone).arm, minlength=len(parts)) / 40_000 == pytest.approx(
            left / left.sum(), abs=2e-3
        )
        alone = [deal(shares, draws[i : i + 1], gone).arm[0] for i in range(0, 300, 37)]
        assert alone == made.arm[::37].tolist()
        before = made


def labelled(state: Any, test: AbN, rng: np.random.Generator, day: int, rows: int, wrong: tuple[float, ...]) -> Feedback:
    """Answers, right or wrong, of whom the strategy says; a unit comes back with the same draw."""
    unit = rng.integers(0, 100_000, rows)
    made = test.assign(state, np.random.default_rng(7).random(100_000)[unit])
    missed = (rng.random(rows) < np.asarray(wrong)[made.arm]).astype(float)
    scores = {one.name: np.where(made.arm == i, missed, np.nan) for i, one in enumerate(ARMS[: len(wrong)])}
    return Feedback(day * DAY, [f"u{u}" for u in unit], made.arm, np.zeros(rows), scores, {}, [day])


def test_a_candidate_that_is_surely_worse_loses_its_share_and_the_better_one_wins() -> None:
    test, rng = AbN(parse_rollout("ab among 3 for 14d", margin=0.1), metric("brier")), np.random.default_rng(0)
    state, first = test.init(ARMS[:3], 0), None
    draws = np.random.default_rng(1).random(4000)
    before = test.assign(state, draws)
    for day in range(14):
        state, verdict = test.update(state, labelled(state, test, rng, day, 900, (0.3, 0.9, 0.1)))
        state, verdict = test.advance(state, (day + 1) * DAY)
        first = day if first is None and state["dropped"] else first
        if verdict.passed:
            break
    assert first is not None
    assert list(state["dropped"]) == ["candidate"]
    assert "surely worse" in state["dropped"]["candidate"]["reason"]
    assert verdict.passed
    assert verdict.evidence[0].about == "candidate2"
    after = test.assign(state, draws)
    kept = before.arm != 1
    assert (after.arm[kept] == before.arm[kept]).all()
    assert set(after.arm[~kept]) == {0, 2}
    assert after.propensity == pytest.approx(np.full(4000, 0.5))


def test_after_an_arm_has_left_equal_arms_are_no_mismatch_and_rarely_worse() -> None:
    """Labels of rows from before come late and mixed with those of after; units of the arm that left come back elsewhere."""
    test, runs, wrong, off = AbN(parse_rollout("ab among 4 for 14d", margin=0.0), metric("brier")), 60, [], []
    for seed in range(runs):
        rng, state = np.random.default_rng(seed), test.init(ARMS, 0)
        waiting, bad, mismatched = [], False, False
        for day in range(8):
            waiting.append(labelled(state, test, rng, day, 400, (0.3,) * 4))
            if day == 2:
                state, _ = test.observe(state, Calls(EVEN, {"candidate2": 200}))
                assert list(state["dropped"]) == ["candidate2"]
            if len(waiting) > 2:
                state, verdict = test.update(state, replace(waiting.pop(0), at=day * DAY, days=[day]))
                bad |= day >= 4 and any(e.high is not None and (e.high < 0 or e.low > 0) for e in verdict.evidence)
                mismatched |= verdict.reason.startswith(MISMATCH)
        wrong.append(bad)
        off.append(mismatched)
    assert np.mean(wrong) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)
    assert np.mean(off) <= 0.05


@pytest.mark.simulation
@pytest.mark.parametrize("make", [
    lambda spec: thompson(spec), lambda spec: linucb(1, spec), lambda spec: AbN(parse_rollout("ab among 4"), metric("brier")),
])  # fmt: skip
def test_an_arm_whose_calls_are_slow_leaves_and_one_of_equal_speed_does_not(make: Any) -> None:
    """One row a call, so that only the assignment tells who could have been called."""
    strategy, left, wrong = make(BanditSpec(floor=0.4)), [], []
    for seed, slow in [(s, 0.5) for s in range(4)] + [(s, 0.0) for s in range(10)]:
        rng, state = np.random.default_rng(seed), strategy.init(ARMS, 0)
        context = np.ones((1, 1))
        for _ in range(1500):
            arm = NAMES[int(strategy.assign(state, rng.random(1), context).arm[0])]
            took = float(rng.exponential(0.01)) + (0.1 if arm == "candidate2" and rng.random() < slow else 0.0)
            state, verdict = strategy.observe(state, Calls({arm: 1}, {arm: 0}, {arm: took}))
            assert not verdict.failed
            if state["dropped"]:
                break
        (left if slow else wrong).append(list(state["dropped"]))
    assert np.mean([arms == ["candidate2"] for arms in left]) > 0.7
    assert not any(wrong), "the risk is 0.5 % a life"


@pytest.mark.parametrize("strategy", [thompson(BanditSpec(floor=0.1)), linucb(1, BanditSpec(floor=0.1))])
def test_single_calls_that_fail_drop_an_arm_and_a_shared_outage_drops_none(strategy: Any) -> None:
    for broken, wanted in ((1.0, ["candidate"]), (0.0, [])):
        rng, state = np.random.default_rng(3), strategy.init(ARMS[:3], 0)
        for _ in range(700):
            arm = NAMES[int(strategy.assign(state, rng.random(1), np.ones((1, 1))).arm[0])]
            lost = rng.random() < (broken if arm == "candidate" else 0.0) or (not broken and rng.random() < 0.5)
            state, _ = strategy.observe(state, Calls({arm: 1}, {arm: int(lost)}))
        assert list(state["dropped"]) == wanted
        if wanted:
            assert (strategy.assign(state, rng.random(500), np.ones((500, 1))).arm != 1).all()


def test_of_a_bandit_that_keeps_one_arm_the_surely_worse_leave_and_the_last_one_is_a_failure() -> None:
    spec = BanditSpec(floor=0.5, days=2, alone=True)
    bandit, rng = thompson(spec), np.random.default_rng(0)
    state = bandit.init(ARMS[:3], 0)
    for day in range(3):
        made = bandit.assign(state, rng.random(4000))
        reward = (rng.random(4000) < np.array([0.5, 0.1, 0.5])[made.arm]).astype(float)
        given_ = Feedback(day * DAY, [""] * 4000, made.arm, reward, {}, {}, [day], reward, made.propensity)
        state, verdict = bandit.update(state, given_)
        assert list(state["dropped"]) == (["candidate"] if day else [])
    assert state["shares"][1] == 0
    assert verdict.decision == "UNDECIDED"
    assert "candidate," not in verdict.reason
    again, verdict = bandit.observe(state, Calls(EVEN, {"candidate2": 200}))
    assert verdict.failed, "no candidate is left"
    assert list(again["dropped"]) == ["candidate"]
    assert canonical(again)
    for_study = Bandit("thompson", bandit.rule, replace(spec, alone=False))
    assert not for_study.advance({**state, "dropped": {}}, 9 * DAY)[0]["dropped"], "who only learns keeps its floor"


def test_a_frozen_bandit_decides_nothing_by_rewards_and_still_drops_what_fails() -> None:
    bandit, rng = thompson(BanditSpec(margin=1.0)), np.random.default_rng(0)
    state = bandit.init(ARMS[:3], 0)
    made = bandit.assign(state, rng.random(4000))
    reward = np.where(made.arm == 1, 1.0, 0.0)
    state, verdict = bandit.update(state, Feedback(0, [""] * 4000, made.arm, reward, {}, {}, [0], reward, made.propensity))
    assert verdict.passed
    stopped = frozen(state, "the reward failed")
    _, verdict = bandit.advance(stopped, DAY)
    assert verdict.decision == "UNDECIDED"
    assert "the reward failed" in verdict.missing
    again, _ = bandit.observe(stopped, Calls(EVEN, {"candidate2": 200}))
    assert list(again["dropped"]) == ["candidate2"]
    assert again["frozen"]
