"""Several candidates against one control: shares, sticky units, risk over all candidates together, sample ratio, who wins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loudly.core.clock import DAY
from loudly.core.seams import Calls, Feedback
from loudly.core.values import Arm, Decision, Verdict
from loudly.deliver.ab import MISMATCH
from loudly.deliver.ab_n import AbN
from loudly.deliver.bandit import BanditSpec
from loudly.deliver.linucb import linucb
from loudly.deliver.rollout import RolloutSpec, check_stages, parse_rollout
from loudly.deliver.thompson import thompson
from loudly.errors import ConfigError, RolloutError
from loudly.metrics.table import metric
from loudly.testing.play import fixed, linear, play


def arms_of(k: int) -> tuple[Arm, ...]:
    names = ("control", "candidate", *(f"candidate{i}" for i in range(2, k)))
    return tuple(Arm(name, f"m/{i}") for i, name in enumerate(names))


def make(text: str = "ab among 3 for 14d", **settings: Any) -> AbN:
    return AbN(parse_rollout(text, **settings), metric("brier"))


def labelled(rng: np.random.Generator, day: int, rows: int, wrong: tuple[float, ...], shares: Any = None) -> Feedback:
    """Answers that are right or wrong (Brier loss 0 or 1)."""
    arms = arms_of(len(wrong))
    arm = rng.choice(len(wrong), rows, p=shares)
    missed = (rng.random(rows) < np.asarray(wrong)[arm]).astype(float)
    scores = {one.name: np.where(arm == i, missed, np.nan) for i, one in enumerate(arms)}
    return Feedback(day * DAY, [f"{day}-{i}" for i in range(rows)], arm, np.zeros(rows), scores, {}, [day])


def life(test: AbN, seed: int, wrong: tuple[float, ...], days: int = 14, rows: int = 300, shares: Any = None) -> Verdict:
    rng, state = np.random.default_rng(seed), test.init(arms_of(len(wrong)), 0)
    _, verdict = test.advance(state, 1)
    for day in range(days):
        for _ in range(2):
            one = labelled(rng, day, rows // 2, wrong, shares)
            state, verdict = test.update(state, replace(one, units=[f"{_}/{u}" for u in one.units]))
            if not verdict.missing:
                return verdict
        state, verdict = test.advance(state, (day + 1) * DAY)
        if not verdict.missing:
            return verdict
    return verdict


@given(st.lists(st.integers(1, 50), min_size=3, max_size=7), st.integers(0, 2**32 - 1))
def test_shares_sum_to_one_are_what_units_get_and_units_stay(parts: list[int], seed: int) -> None:
    shares = [p / sum(parts) for p in parts]
    test = AbN(replace(RolloutSpec("ab"), arms=len(parts), shares=tuple(shares)), metric("brier"))
    state = test.init(arms_of(len(parts)), 0)
    assert sum(state["shares"]) == pytest.approx(1.0, abs=1e-12)
    draws = np.random.default_rng(seed).random(500)
    made = test.assign(state, draws)
    assert made.propensity == pytest.approx(np.asarray(state["shares"])[made.arm])
    even = test.assign(state, (np.arange(20_000) + 0.5) / 20_000).arm
    assert np.bincount(even, minlength=len(parts)) / 20_000 == pytest.approx(np.array(shares), abs=1e-3)
    later, _ = test.advance(test.update(state, labelled(np.random.default_rng(0), 0, 90, (0.3,) * len(parts)))[0], 3 * DAY)
    assert (test.assign(later, draws).arm == made.arm).all()


def test_shares_of_fewer_arms_are_scaled_up() -> None:
    test = make("ab 40% 30% 30% for 14d")
    assert test.init(arms_of(3), 0)["shares"] == pytest.approx([0.4, 0.3, 0.3])
    assert test.init(arms_of(2), 0)["shares"] == pytest.approx([4 / 7, 3 / 7])
    assert test.init(arms_of(5), 0)["shares"] == pytest.approx([0.2] * 5)
    for arms in (arms_of(2)[:1], (Arm("control", "a"), Arm("control", "b")), (Arm("a", "a"), Arm("b", "b"))):
        with pytest.raises(RolloutError):
            test.init(arms, 0)


@pytest.mark.simulation
@pytest.mark.parametrize("k", [3, 5])
def test_of_equal_models_any_is_rarely_called_worse(k: int) -> None:
    """Over all looks and candidates together: the interval of *some* candidate leaves out 0 with probability alpha at most."""
    test, runs = make(f"ab among {k} for 14d", margin=0.02), 60
    wrong = []
    for seed in range(runs):
        rng, state, out = np.random.default_rng(seed), test.init(arms_of(k), 0), False
        for day in range(10):
            state, verdict = test.update(state, labelled(rng, day, 60 * k, (0.3,) * k))
            assert not verdict.reason.startswith(MISMATCH)
            out |= day >= 3 and any(e.high is not None and (e.high < 0 or e.low > 0) for e in verdict.evidence)
        wrong.append(out)
    assert np.mean(wrong) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize("k", [2, 4])
def test_equal_arms_of_a_bandit_are_rarely_told_apart(k: int) -> None:
    bandit = thompson(BanditSpec(floor=0.1, days=1))
    equal = [play(bandit, fixed((0.3,) * k), 2000, 100, np.random.default_rng(seed)) for seed in range(60)]
    wrong = np.mean([any(v.passed or v.failed for v in one.verdicts) for one in equal])
    assert wrong <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)


def test_the_better_candidate_wins_and_is_named() -> None:
    test = make(margin=0.1)
    found = [life(test, seed, (0.3, 0.3, 0.1), rows=600) for seed in range(25)]
    assert np.mean([v.passed and v.evidence[0].about == "candidate2" for v in found]) > 0.9
    assert all("candidate2 wins" in v.reason for v in found if v.passed and v.evidence[0].about == "candidate2")


def test_candidates_that_are_all_worse_leave_and_one_alone_does_not_end_the_test() -> None:
    test = make(margin=0.02)
    found = [life(test, seed, (0.1, 0.5, 0.5), rows=900) for seed in range(20)]
    assert np.mean([v.failed for v in found]) > 0.9
    one = life(test, 0, (0.3, 0.7, 0.3), days=6, rows=600)
    assert one.decision is Decision.UNDECIDED
    assert "candidate: surely worse" in one.reason
    assert one.missing.startswith("candidate2: ")


def test_when_its_time_is_over_the_best_of_those_that_passed_wins() -> None:
    test, rng = make("ab among 3 for 8d", margin=0.12), np.random.default_rng(3)
    state = test.init(arms_of(3), 0)
    for day in range(8):
        shares = (0.49, 0.49, 0.02)
        state, verdict = test.update(state, labelled(rng, day, 500, (0.3, 0.25, 0.25), shares=shares))
        state = {**state, "ratio": {**state["ratio"], "counts": [0, 0, 0], "peak": 0.0}}  # the split is not what is tested here
        state, verdict = test.advance(state, day * DAY + 1)
        assert verdict.decision is Decision.UNDECIDED
    _, verdict = test.advance(state, 8 * DAY)
    assert verdict.passed
    assert verdict.evidence[0].about == "candidate"


def test_a_mismatch_of_any_arm_stops_the_analysis_and_errors_still_end_it() -> None:
    test = make(margin=0.05)
    rng, state = np.random.default_rng(1), test.init(arms_of(3), 0)
    for day in range(6):
        state, verdict = test.update(state, labelled(rng, day, 900, (0.3, 0.1, 0.1), shares=(1 / 3, 0.4, 4 / 15)))
    assert verdict.decision is Decision.UNDECIDED
    assert verdict.reason.startswith(f"{MISMATCH}: ")
    assert "candidate" in verdict.reason
    answered = {"control": 1000, "candidate": 1000, "candidate2": 1000}
    _, verdict = test.observe(state, Calls(answered, {"candidate2": 300}))
    assert verdict.failed
    assert "candidate2" in verdict.subject
    _, verdict = test.observe(test.init(arms_of(3), 0), Calls(answered, {"control": 5, "candidate": 4, "candidate2": 6}))
    assert not verdict.failed


def test_a_candidate_whose_calls_are_slow_leaves_and_the_test_goes_on() -> None:
    test, rng = make(), np.random.default_rng(0)
    state, verdict = test.init(arms_of(3), 0), None
    for _ in range(900):
        name = rng.choice(["control", "candidate", "candidate2"])
        took = float(rng.exponential(0.01)) + (0.1 if name == "candidate2" and rng.random() < 0.4 else 0.0)
        state, verdict = test.observe(state, Calls({name: 1}, {}, {name: took}))
        if state["dropped"]:
            break
    assert verdict is not None
    assert not verdict.failed
    assert list(state["dropped"]) == ["candidate2"]
    assert "slow calls" in verdict.reason


# -- what a rollout asks of a bandit --------------------------------------------------------------------------------------------


def test_a_bandit_waits_for_the_days_and_the_time_and_an_arm_within_the_margin_wins() -> None:
    spec = BanditSpec(floor=0.5, margin=0.15, days=3, hold=2 * DAY)
    bandit, rng = thompson(spec), np.random.default_rng(0)
    state, seen = bandit.init(arms_of(3), 0), []
    for day in range(4):
        made = bandit.assign(state, rng.random(3000))
        reward = (rng.random(3000) < np.array([0.5, 0.5, 0.2])[made.arm]).astype(float)
        given = Feedback(day * DAY, [""] * 3000, made.arm, reward, {}, {}, [day], reward, made.propensity)
        state, verdict = bandit.update(state, given)
        state, verdict = bandit.advance(state, (day + 1) * DAY)
        seen.append(verdict)
    assert [v.decision for v in seen[:2]] == [Decision.UNDECIDED] * 2
    assert "2 more labelled days" in seen[0].missing
    assert seen[3].passed
    assert seen[3].evidence[0].about == "candidate"
    assert "at most 0.15 less than any other" in seen[3].reason
    strict = thompson(replace(spec, margin=0.0))
    assert strict.advance(state, 5 * DAY)[1].decision is Decision.UNDECIDED
    early = thompson(replace(spec, hold=9 * DAY)).advance(state, 5 * DAY)[1]
    assert early.expected_at == 9 * DAY
    left, _ = bandit.observe(bandit.init(arms_of(3), 0), Calls({a.name: 500 for a in arms_of(3)}, {"candidate": 90}))
    assert list(left["dropped"]) == ["candidate"], "errors wait for nothing"


def test_a_linear_bandit_judges_each_candidate_alone_where_one_is_to_stay() -> None:
    """The policy gains by choosing; no candidate alone may be called better for that."""
    crossed = np.array([[0.5, 0.0, 0.0], [0.1, 0.8, 0.0], [0.1, 0.0, 0.8]])
    better = np.array([[0.2, 0.0, 0.0], [0.6, 0.0, 0.0], [0.1, 0.0, 0.2]])
    spec = BanditSpec(floor=0.4, alone=True)
    choosing = [play(linucb(3, spec), linear(crossed), 8000, 200, np.random.default_rng(s)) for s in range(6)]
    assert not any(v.passed and v.evidence[0].effect > 0.05 for one in choosing for v in one.verdicts)
    assert all("policy" in one.verdicts[-1].evidence[-1].about for one in choosing)
    found = [play(linucb(3, spec), linear(better), 8000, 200, np.random.default_rng(s)).verdicts[-1] for s in range(6)]
    assert np.mean([v.passed and v.evidence[0].about == "arm 1" for v in found]) > 0.8
    same = [play(linucb(3, spec), linear(crossed[[0, 0, 0]]), 2000, 100, np.random.default_rng(s)) for s in range(30)]
    assert np.mean([any(v.passed or v.failed for v in one.verdicts) for one in same]) <= 0.05
    worse = [play(linucb(3, spec), linear(better[[1, 0, 2]]), 8000, 200, np.random.default_rng(s)).verdicts[-1] for s in range(4)]
    assert np.mean([v.failed for v in worse]) > 0.7


def test_the_gain_of_a_candidate_alone_is_estimated_without_bias() -> None:
    theta, gaps = np.array([[0.3, 0.2, 0.0], [0.2, 0.5, 0.1], [0.2, 0.0, 0.1]]), []
    for seed in range(30):
        never = BanditSpec(floor=0.4, alone=True, days=99)
        one = play(linucb(3, never), linear(theta), 2000, 100, np.random.default_rng(seed))
        effects = {e.about: e.effect for e in one.verdicts[-1].evidence}
        gaps.append([effects["arm 1"] - (0.5 - 0.4), effects["arm 2"] - (0.25 - 0.4)])  # type: ignore[operator]
    assert (np.abs(np.mean(gaps, axis=0)) < 3 * np.std(gaps, axis=0) / np.sqrt(30) + 0.003).all()


# -- the text ------------------------------------------------------------------------------------------------------------------


def test_the_text_of_several_arms_and_of_bandits_is_read() -> None:
    spec = parse_rollout("ab 40% 30% 30% for 21d", paired=True)
    assert (spec.arms, spec.shares, spec.deadline, spec.paired) == (3, (0.4, 0.3, 0.3), 21 * DAY, False)
    assert parse_rollout("ab among 4").shares == (0.25,) * 4
    assert parse_rollout("ab 60% 40%") == parse_rollout("ab 40%")
    assert parse_rollout("ab 50% for 14d adjusted by x1").columns == ("x1",)
    spec = parse_rollout("epsilon-greedy 0.1 for 14d")
    assert (spec.bandit, spec.floor, spec.arms, spec.deadline, spec.columns) == (True, 0.1, 2, 14 * DAY, ())
    assert parse_rollout("epsilon-greedy 10% for 14d") == spec
    spec = parse_rollout("linear-thompson on age, net income among 3 5% for 20d")
    assert (spec.contextual, spec.columns, spec.arms, spec.floor) == (True, ("age", "net income"), 3, 0.05)
    assert set(parse_rollout("ab 50% for 14d").said()) == set(parse_rollout("shadow 1d").said()), "older ledgers hold this digest"


@pytest.mark.parametrize("text", [
    "ab 40% 30%", "ab among 1", "ab 40% 30% 30% among 4", "ab 100% 0% 0%", "ab adjusted by a, b", "ab 0.3", "thompson 2",
    "thompson 0.1 0.2", "thompson on a", "thompson forever", "linucb for 7d", "linucb 0 on a for 7d", "shadow among 3 1d",
    "canary 5% 100% adjusted by a", "ucb1 for 12h", "thompson among 1", "linucb on a on b",
])  # fmt: skip
def test_impossible_texts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_rollout(text)


def test_what_chooses_between_several_arms_or_by_rewards_comes_last() -> None:
    last = tuple(map(parse_rollout, ("shadow 1d", "canary 5% 100%", "thompson among 3 for 14d")))
    assert check_stages(last) == last
    for texts in (("thompson", "canary 5% 100%"), ("ab among 3", "shadow 1d")):
        with pytest.raises(ConfigError, match="ends the rollout"):
            check_stages(tuple(map(parse_rollout, texts)))
