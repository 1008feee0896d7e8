"""A ramp around another strategy: who takes part, what is logged of it, what counts, and how often its verdicts are wrong."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.core.canon import unit_draw
from loudly.core.clock import DAY, HOUR
from loudly.core.seams import Calls, Feedback, Strategy
from loudly.core.values import Arm, Verdict
from loudly.deliver.ab import MISMATCH, Ab
from loudly.deliver.ab_n import AbN
from loudly.deliver.bandit import BanditSpec, frozen
from loudly.deliver.duel import Duel
from loudly.deliver.epsilon_greedy import epsilon_greedy
from loudly.deliver.evidence import guards
from loudly.deliver.linear_thompson import linear_thompson
from loudly.deliver.linucb import linucb
from loudly.deliver.ramp import Ramp, within
from loudly.deliver.rollout import parse_rollout
from loudly.deliver.thompson import thompson
from loudly.deliver.ucb1 import ucb1
from loudly.errors import ConfigError
from loudly.metrics.table import metric
from loudly.testing.strategy_case import StrategyCase

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


class TestAroundEach(StrategyCase):
    @pytest.fixture(params=KINDS)
    def strategy(self, request: pytest.FixtureRequest) -> Strategy:
        inner = inner_of(request.param)
        if request.param == "ab":
            inner = replace(inner, metric=metric("roc_auc"))
        return Ramp(inner, (0.1, 0.5, 1.0))


# -- who takes part ------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0.001, 0.99), min_size=1, max_size=4, unique=True), st.integers(0, 2**32 - 1), st.sampled_from(KINDS))
def test_units_only_ever_enter_and_meet_the_arm_that_they_always_would_have_met(shares: list[float], seed: int, kind: str) -> None:
    arms = ARMS[: 2 if kind == "ab" else 3]
    ramp = Ramp(inner_of(kind, len(arms)), (*sorted(shares), 1.0))
    draws = np.random.default_rng(seed).random(400)
    context = np.ones((400, 1))
    state = ramp.init(arms, 0)
    everybody = ramp.assign({**state, "step": len(shares)}, draws, context)
    assert everybody.share is None
    before = np.zeros(400, dtype=bool)
    for step in range(len(shares)):
        made = ramp.assign({**state, "step": step}, draws, context)
        assert made.share is not None
        inside = made.share > 0
        assert inside[before].all()
        assert (made.arm[inside] == everybody.arm[inside]).all()
        assert not made.arm[~inside].any()
        assert set(made.share) <= {0.0, ramp.steps[step]}
        alone = [int(ramp.assign({**state, "step": step}, draws[i : i + 1], context[:1]).arm[0]) for i in range(0, 400, 57)]
        assert alone == made.arm[::57].tolist()
        before = inside


@settings(deadline=None, max_examples=60)
@given(st.floats(0.001, 1.0), st.integers(0, 2**32 - 1), st.sampled_from(KINDS))
def test_propensities_are_those_of_the_inner_strategy_and_of_the_share_together(share: float, seed: int, kind: str) -> None:
    """Over all arms they add up to 1, in each context; taken apart again they are those that the inner strategy gave."""
    arms = ARMS[: 2 if kind == "ab" else 3]
    rng, n = np.random.default_rng(seed), 300
    ramp, context = Ramp(inner_of(kind, len(arms)), (share, 1.0)), rng.normal(size=(n, 1))
    state, _ = ramp.inner.update(ramp.init(arms, 0), told(rng, 60, arms))
    inner = np.broadcast_to(ramp.inner.shares(state, context), (n, len(arms)))
    made = ramp.assign(state, rng.random(n), context)
    whole = share * inner
    whole[:, 0] += 1 - share
    assert whole.sum(axis=1) == pytest.approx(np.ones(n))
    assert made.propensity == pytest.approx(whole[np.arange(n), made.arm])
    given_ = feedback(np.zeros(n), made, 0, arms, context)
    rows, kept = within(given_), slice(None) if made.share is None else made.share > 0
    assert rows.propensity is not None
    assert rows.propensity == pytest.approx(inner[np.arange(n), made.arm][kept], rel=1e-6)
    assert len(rows.units) == len(rows.arm) == len(rows.truth)


@pytest.mark.parametrize("kind", KINDS)
def test_real_units_take_part_and_meet_the_arms_as_often_as_is_logged(kind: str) -> None:
    n, arms = 12_000, ARMS[: 2 if kind == "ab" else 3]
    draws = np.array([unit_draw(f"user-{i}", "17") for i in range(n)])
    ramp = Ramp(inner_of(kind, len(arms)), STEPS)
    for step, share in enumerate(STEPS):
        made = ramp.assign({**ramp.init(arms, 0), "step": step}, draws, np.ones((n, 1)))
        if made.share is not None:
            assert abs((made.share > 0).mean() - share) < 4 * np.sqrt(share * (1 - share) / n)
        for arm in range(len(arms)):
            p = made.propensity[made.arm == arm]
            assert np.ptp(p) < 1e-12
            assert abs(len(p) / n - p[0]) < 4 * np.sqrt(p[0] * (1 - p[0]) / n)


def test_it_travels_to_a_worker() -> None:
    for kind in KINDS:
        ramp = Ramp(inner_of(kind), STEPS)
        assert pickle.loads(pickle.dumps(ramp)) == ramp


# -- what counts ---------------------------------------------------------------------------------------------------------------


def told(rng: np.random.Generator, n: int, arms: tuple[Arm, ...]) -> Feedback:
    """Rewards of rows that were spread evenly."""
    arm, context = rng.integers(0, len(arms), n), rng.normal(size=(n, 1))
    reward = (rng.random(n) < 0.3 + 0.2 * (arm == 1)).astype(float)
    scores = {one.name: np.where(arm == i, reward, np.nan) for i, one in enumerate(arms)}
    names = [f"before-{i}" for i in range(n)]
    return Feedback(0, names, arm, np.zeros(n), scores, {}, [0], reward, np.full(n, 1 / len(arms)), context)


def feedback(wrong: Any, made: Any, day: int, arms: tuple[Arm, ...], context: Any = None, units: Any = None) -> Feedback:
    """Answers that are right or wrong (Brier loss 0 or 1), as assigned."""
    n = len(made.arm)
    scores = {one.name: np.where(made.arm == i, wrong, np.nan) for i, one in enumerate(arms)}
    names = [f"u{u}" for u in (units if units is not None else range(n))]
    more = {"reward": 1.0 - wrong, "propensity": made.propensity, "context": context, "share": made.share}
    return Feedback(day * DAY, names, made.arm, np.zeros(n), scores, {}, [day], **more)


def test_rows_of_units_that_did_not_take_part_are_no_evidence_however_late_their_labels_come() -> None:
    """Labelled when all take part, answered when one in ten did: only that one in ten counts."""
    ramp, rng = Ramp(inner_of("ab"), (0.1, 1.0)), np.random.default_rng(0)
    state = ramp.init(ARMS[:2], 0)
    early = ramp.assign(state, rng.random(5000))
    late = feedback((rng.random(5000) < 0.3).astype(float), early, 1, ARMS[:2])
    state, _ = ramp.advance(state, DAY)
    assert state["step"] == 1
    state, _ = ramp.update(state, late)
    assert early.share is not None
    assert state["evidence"]["rows"] == (early.share > 0).sum()
    assert sum(state["ratio"]["counts"]) == (early.share > 0).sum()


def test_a_pass_counts_at_the_end_of_the_last_step_alone_and_a_failure_at_any() -> None:
    ramp, rng = (
        Ramp(replace(inner_of("ab"), spec=parse_rollout("ab for 21d", margin=0.1)), STEPS, 2 * DAY),
        np.random.default_rng(0),
    )
    for missed, decision in (((0.3, 0.1), "PASS"), ((0.3, 0.9), "FAIL")):
        state, seen = ramp.init(ARMS[:2], 0), []
        for day in range(8):
            arm = rng.integers(0, 2, 2000)
            wrong = (rng.random(2000) < np.asarray(missed)[arm]).astype(float)
            scores = {one.name: np.where(arm == i, wrong, np.nan) for i, one in enumerate(ARMS[:2])}
            rows = Feedback(day * DAY, [f"{day}-{i}" for i in range(2000)], arm, np.zeros(2000), scores, {}, [day])
            state, _ = ramp.update(state, replace(rows, share=np.full(2000, ramp.share(state))))
            state, verdict = ramp.advance(state, (day + 1) * DAY)
            seen.append((verdict.decision, state["step"]))
        if decision == "FAIL":
            assert seen[3:] == [("FAIL", 1)] * 5, "it is told when four days are labelled, and grows no more"
        else:
            assert [found for found, _ in seen] == ["UNDECIDED"] * 5 + ["PASS"] * 3
            assert [step for _, step in seen] == [0, 1, 1, 2, 2, 2, 2, 2]
            assert verdict.subject == "ab at 50%, ramped to 100%"
            _, early = ramp.advance({**state, "step": 1, "step_at": 4 * DAY}, 5 * DAY)
            assert "all units for 2d" in early.missing
            assert early.expected_at == 8 * DAY


def test_a_share_does_not_grow_where_units_split_otherwise_or_a_reward_cannot_be_told() -> None:
    ramp, rng = Ramp(inner_of("ab"), STEPS), np.random.default_rng(0)
    state = ramp.init(ARMS[:2], 0)
    arm = (rng.random(4000) < 0.2).astype(np.int64)
    scores = {one.name: np.where(arm == i, 0.0, np.nan) for i, one in enumerate(ARMS[:2])}
    skewed = Feedback(0, [f"u{i}" for i in range(4000)], arm, np.zeros(4000), scores, {}, [0], share=np.full(4000, 0.01))
    state, verdict = ramp.update(state, skewed)
    assert verdict.reason.startswith(MISMATCH)
    state, _ = ramp.advance(state, 5 * DAY)
    assert state["step"] == 0
    bandit = Ramp(inner_of("thompson"), STEPS)
    assert bandit.advance(frozen(bandit.init(ARMS[:2], 0), "the reward failed"), 5 * DAY)[0]["step"] == 0
    assert bandit.advance(bandit.init(ARMS[:2], 0), 5 * DAY)[0]["step"] == 1
    assert bandit.advance(bandit.init(ARMS[:2], 0), 23 * HOUR)[0]["step"] == 0


def test_a_duel_after_the_promotion_takes_rows_as_the_ramp_has_logged_them() -> None:
    """A linear bandit refuses propensities below its floor: those of the log are, for one in ten has taken part."""
    ramp, rng = Ramp(inner_of("linucb"), (0.1, 1.0)), np.random.default_rng(0)
    context = np.ones((2000, 1))
    rows = feedback(np.zeros(2000), ramp.assign(ramp.init(ARMS[:2], 0), rng.random(2000), context), 0, ARMS[:2], context)
    duel = Duel(ramp.inner, ARMS[:2], 1)
    state, _ = duel.update(duel.init(0, ramp.init(ARMS[:2], 0)), rows)
    assert rows.share is not None
    assert sum(state["evidence"]["pulls"]) == (rows.share > 0).sum()


# -- errors and latency: by all answers, at any share --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_errors_of_the_candidate_stop_it_at_one_per_cent_and_a_shared_outage_does_not(kind: str) -> None:
    """A call a row: at 1 % of the units half a per cent of the answers are the candidate's."""
    found = {}
    for broken in (True, False):
        ramp, rng = Ramp(inner_of(kind), STEPS), np.random.default_rng(6)
        state, asked, well, verdict = ramp.init(ARMS[:2], 0), 0, 0, None
        for draw in rng.random(6000):
            arm = int(ramp.assign(state, np.array([draw]), np.ones((1, 1))).arm[0])
            lost = bool(arm) if broken else rng.random() < 0.1
            asked, well = asked + arm, well + (not arm and not lost)
            if lost or arm:
                state, _ = ramp.observe(state, Calls({NAMES[0]: well}))
                state, verdict = ramp.observe(state, Calls({NAMES[arm]: 1}, {NAMES[arm]: int(lost)}))
                well = 0
            if verdict is not None and verdict.failed:
                break
        found[broken] = verdict is not None and verdict.failed, asked
    assert found[True][0]
    assert found[True][1] <= 8, "a few failed answers are enough"
    assert not found[False][0]


@pytest.mark.simulation
def test_equal_arms_that_fail_alike_are_rarely_stopped_while_the_share_grows() -> None:
    """By units, at the shares of the moment: at most half of alpha is the errors'."""
    stopped, runs = [], 100
    for seed in range(runs):
        ramp, rng = Ramp(inner_of("ab"), (0.05, 0.3, 1.0)), np.random.default_rng(seed)
        state, bad = ramp.init(ARMS[:2], 0), False
        for day in range(5):
            made = ramp.assign(state, rng.random(2000))
            lost = rng.random(2000) < 0.02
            for arm in made.arm[lost]:
                state, verdict = ramp.observe(state, Calls({}, {NAMES[arm]: 1}))
                bad |= verdict.failed
            given_ = dict(zip(NAMES, np.bincount(made.arm, minlength=2).tolist(), strict=False))
            state, verdict = ramp.observe(state, Calls(given_))
            bad |= guards(state["evidence"], ramp.inner.spec, "") is not None
            state, _ = ramp.advance(state, (day + 1) * DAY)
        stopped.append(bad)
    assert np.mean(stopped) <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / runs)


@pytest.mark.simulation
def test_a_candidate_whose_calls_are_slow_is_found_and_one_of_equal_speed_is_not() -> None:
    for slow in (True, False):
        stopped = []
        for seed in range(10):
            ramp, rng = Ramp(inner_of("ab"), (0.1, 1.0)), np.random.default_rng(seed)
            state, verdict = ramp.init(ARMS[:2], 0), None
            for draw in rng.random(2500):
                arm = int(ramp.assign(state, np.array([draw])).arm[0])
                took = float(rng.exponential(0.01)) + (0.2 if slow and arm else 0.0)
                state, verdict = ramp.observe(state, Calls({NAMES[arm]: 1}, {}, {NAMES[arm]: took}))
                if verdict.failed:
                    break
            stopped.append(verdict is not None and verdict.failed)
        assert np.mean(stopped) > 0.8 if slow else np.mean(stopped) <= 0.1


# -- how often verdicts are wrong ----------------------------------------------------------------------------------------------


def play(ramp: Ramp, seed: int, worse: float, days: int = 10, units: int = 600, late: int = 1) -> tuple[Verdict, int, list[int]]:
    """Days of which each is harder than the one before; labels come late, so mixed from before and after the share has grown.

    Returns the verdict, the step at which it came and how many answers the candidate had given by step.
    """
    rng, state = np.random.default_rng(seed), ramp.init(ARMS[:2], 0)
    draws, waiting = np.random.default_rng(10_000 + seed).random(3000), []
    answers, verdict = [0] * len(ramp.steps), ramp.advance(state, 0)[1]
    for day in range(days):
        unit = rng.choice(3000, units, replace=False)
        made = ramp.assign(state, draws[unit])
        answers[state["step"]] += int(made.arm.sum())
        wrong = (rng.random(units) < 0.1 + 0.05 * day + worse * (made.arm == 1)).astype(float)
        waiting.append(feedback(wrong, made, day, ARMS[:2], units=unit))
        if day >= late:
            state, verdict = ramp.update(state, replace(waiting.pop(0), at=day * DAY))
        if verdict.failed or verdict.passed:
            break
        state, verdict = ramp.advance(state, (day + 1) * DAY)
        if verdict.failed or verdict.passed:
            break
    return verdict, state["step"], answers


@pytest.mark.simulation
def test_equal_models_are_rarely_rolled_back_and_their_units_are_no_mismatch() -> None:
    runs = 150
    ramp = Ramp(replace(inner_of("ab"), spec=parse_rollout("ab for 21d", margin=0.08)), (0.1, 0.4, 1.0))
    found = [play(ramp, seed, 0.0)[0] for seed in range(runs)]
    assert np.mean([v.failed for v in found]) <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / runs)
    assert not any(MISMATCH in v.reason for v in found)
    assert np.mean([v.passed for v in found]) > 0.5


def test_taken_for_one_experiment_with_all_others_as_control_the_same_equal_models_look_different() -> None:
    """What the ramp must not do, so that the test above is not blind: days get harder while the candidate's share grows."""
    ramp, gaps = Ramp(inner_of("ab"), (0.1, 0.4, 1.0)), []
    for everybody in (True, False):
        gap = []
        for seed in range(40):
            rng, state, loss = np.random.default_rng(seed), ramp.init(ARMS[:2], 0), ([], [])
            for day in range(6):
                made = ramp.assign(state, rng.random(600))
                wrong = rng.random(600) < 0.1 + 0.05 * day
                counts = np.ones(600, dtype=bool) if everybody or made.share is None else made.share > 0
                for arm in (0, 1):
                    loss[arm].extend(wrong[counts & (made.arm == arm)])
                state, _ = ramp.advance(state, (day + 1) * DAY)
            gap.append(np.mean(loss[1]) - np.mean(loss[0]))
        gaps.append(np.mean(gap) / (np.std(gap) / np.sqrt(40)))
    assert gaps[0] > 8, "standard errors away from none"
    assert abs(gaps[1]) < 3


@pytest.mark.simulation
def test_a_model_worse_by_the_margin_is_rarely_promoted_through_a_ramp() -> None:
    runs = 120
    ramp = Ramp(replace(inner_of("ab"), spec=parse_rollout("ab for 21d", margin=0.08)), (0.1, 0.4, 1.0))
    found = [play(ramp, seed, 0.08)[0].passed for seed in range(runs)]
    assert np.mean(found) <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / runs)


def test_a_harm_that_is_confirmed_at_a_small_share_is_rolled_back_before_it_gets_more() -> None:
    """Each step lasts as long as a verdict needs days: the candidate never meets more than one in ten units."""
    ramp = Ramp(replace(inner_of("ab"), spec=replace(parse_rollout("ab for 40d"), rows=100)), (0.1, 1.0), 12 * DAY)
    found = [play(ramp, seed, 0.35, days=12) for seed in range(40)]
    assert np.mean([verdict.failed and step == 0 for verdict, step, _ in found]) > 0.9
    assert all(answers[1] == 0 for verdict, step, answers in found if step == 0)


@pytest.mark.simulation
@pytest.mark.parametrize("kind", ["thompson", "ab-n"])
def test_of_several_equal_arms_none_is_called_worse_too_often_through_a_ramp(kind: str) -> None:
    runs, wrong = 80, []
    for seed in range(runs):
        ramp, rng = Ramp(inner_of(kind, 3), (0.2, 0.6, 1.0)), np.random.default_rng(seed)
        state, verdict = ramp.init(ARMS, 0), None
        for day in range(6):
            made = ramp.assign(state, rng.random(400))
            lost = (rng.random(400) < 0.2 + 0.05 * day).astype(float)
            state, verdict = ramp.update(state, feedback(lost, made, day, ARMS, units=rng.integers(0, 2**40, 400)))
            assert not (verdict.passed and day < 2)
            state, verdict = ramp.advance(state, (day + 1) * DAY)
        wrong.append(bool(state["dropped"]) or (verdict is not None and verdict.failed))
    assert np.mean(wrong) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)


# -- the text ------------------------------------------------------------------------------------------------------------------


def test_the_text_is_read() -> None:
    spec = parse_rollout("ab 40% 30% 30% for 21d ramped 1% 10% 100% every 2d")
    assert (spec.ramp, spec.hold, spec.deadline, spec.shares) == (STEPS, 2 * DAY, 21 * DAY, (0.4, 0.3, 0.3))
    spec = parse_rollout("linucb on age, income 10% among 3 for 14d ramped 5% 100% every 12h")
    assert (spec.ramp, spec.hold, spec.columns, spec.arms, spec.floor) == ((0.05, 1.0), 12 * HOUR, ("age", "income"), 3, 0.1)
    assert parse_rollout("thompson ramped 0.5% 100%").hold == DAY
    assert parse_rollout("ab for 21d").said() == {k: v for k, v in parse_rollout("ab for 21d").said().items() if k != "ramp"}


@pytest.mark.parametrize(("text", "why"), [
    ("ab for 21d ramped 10% 1% 100%", "grow to 100 %"),
    ("ab for 21d ramped 1% 10%", "grow to 100 %"),
    ("ab for 21d ramped 0% 100%", "grow to 100 %"),
    ("ab for 21d ramped 1% 1% 100%", "grow to 100 %"),
    ("thompson ramped 100%", "two steps"),
    ("thompson ramped", "shares, and how long"),
    ("thompson ramped 5% 100% for 14d", "stands before it"),
    ("ab for 2d ramped 1% 10% 100% every 1d", "deadline"),
    ("canary 5% 100% ramped 1% 100%", "a ramp itself"),
    ("shadow 1d ramped 1% 100%", "Only an A/B test or a bandit"),
    ("blue-green ramped 1% 100%", "Only an A/B test or a bandit"),
    ("interleave team draft for 14d ramped 1% 100%", "Only an A/B test or a bandit"),
])  # fmt: skip
def test_impossible_ramps_are_refused_and_what_to_say_instead_is_told(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_rollout(text)
