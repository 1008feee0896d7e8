"""A ramp under way: what stops it at any share, and how often its verdicts are wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from loudly.core.clock import DAY
from loudly.core.seams import Calls
from loudly.core.values import Evidence, Verdict
from loudly.deliver.ab import MISMATCH
from loudly.deliver.evidence import guards
from loudly.deliver.ramp import Ramp
from loudly.deliver.rollout import parse_rollout
from naive import naive
from ramped import ARMS, KINDS, NAMES, STEPS, feedback, inner_of

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


def late_at(seed: int, slower: float, calls: int = 2500) -> int | None:
    """After how many calls a candidate that takes so many times as long is stopped at a twentieth of them, looked at after each."""
    ramp, rng = Ramp(inner_of("ab"), (0.1, 1.0)), np.random.default_rng(seed)
    state = ramp.init(ARMS[:2], 0)
    for n, draw in enumerate(rng.random(calls)):
        arm = int(ramp.assign(state, np.array([draw])).arm[0])
        took = float(rng.exponential(0.01)) * (slower if arm else 1.0)
        state, verdict = ramp.observe(state, Calls({NAMES[arm]: 1}, {}, {NAMES[arm]: took}))
        if verdict.failed:
            return n + 1
    return None


@pytest.mark.simulation
def test_a_candidate_whose_calls_are_twice_as_slow_is_found_and_one_of_equal_speed_is_not() -> None:
    """Exactly which share and which risk: test_guards.py. At equal speeds one call in ninety is slow, else one in ten."""
    assert [late_at(seed, 1.0) for seed in range(20)] == [None] * 20
    slow = [late_at(seed, 2.0) for seed in range(15)]
    assert sum(at is not None for at in slow) >= 12


# -- how often verdicts are wrong ----------------------------------------------------------------------------------------------


@dataclass
class Run:
    """How a run ended.  step: at which it did.  answers: of the candidate, by step.  looks: the evidence at each."""

    verdict: Verdict
    step: int
    answers: list[int]
    looks: list[Evidence]


def play(
    ramp: Ramp, seed: int, worse: float, *, days: int = 10, units: int = 600, late: int = 1, slope: float = 0.05, looks: int = 1
) -> Run:
    """Days of which each is harder (or easier) than the one before; labels come late, so mixed from before and after the share
    has grown.
    """
    rng, state = np.random.default_rng(seed), ramp.init(ARMS[:2], 0)
    draws, waiting = np.random.default_rng(10_000 + seed).random(3000), []
    made = Run(ramp.advance(state, 0)[1], 0, [0] * len(ramp.steps), [])
    for day in range(days):
        unit = rng.choice(3000, units, replace=False)
        assigned = ramp.assign(state, draws[unit])
        made.answers[state["step"]] += int(assigned.arm.sum())
        usual = 0.1 + slope * day - min(0.0, slope) * days
        wrong = (rng.random(units) < usual + worse * (assigned.arm == 1)).astype(float)
        waiting.append(feedback(wrong, assigned, day, ARMS[:2], units=unit))
        labelled = replace(waiting.pop(0), at=day * DAY) if day >= late else None
        for look in range(looks if labelled else 0):
            state, made.verdict = ramp.update(state, labelled.take(np.arange(units) % looks == look))
            made.looks.append(made.verdict.evidence[0])
            if made.verdict.failed or made.verdict.passed:
                break
        if not (made.verdict.failed or made.verdict.passed):
            state, made.verdict = ramp.advance(state, (day + 1) * DAY)
        made.step = state["step"]
        if made.verdict.failed or made.verdict.passed:
            break
    return made


@pytest.mark.simulation
def test_equal_models_are_rarely_rolled_back_and_their_units_are_no_mismatch() -> None:
    runs = 150
    ramp = Ramp(replace(inner_of("ab"), spec=parse_rollout("ab for 21d", margin=0.08)), (0.1, 0.4, 1.0))
    found = [play(ramp, seed, 0.0).verdict for seed in range(runs)]
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
@pytest.mark.parametrize("slope", [0.05, -0.05])
def test_a_model_worse_by_the_margin_is_rarely_promoted_through_a_ramp(slope: float) -> None:
    """Also where days get easier while its share grows, which flatters it where all others are taken for its control."""
    runs, margin = 150, 0.08
    ramp = Ramp(replace(inner_of("ab"), spec=parse_rollout("ab for 21d", margin=margin)), (0.1, 0.4, 1.0))
    found = [play(ramp, seed, margin, slope=slope, looks=6) for seed in range(runs)]
    limit = 0.025 + 2 * np.sqrt(0.025 * 0.975 / runs)
    assert np.mean([run.verdict.passed for run in found]) <= limit
    looked_once = [any(naive(look)[0] > -margin for look in run.looks) for run in found]
    assert np.mean(looked_once) > limit, "the interval of one look must fail this test, or the test is blind"


def test_a_harm_that_is_confirmed_at_a_small_share_is_rolled_back_before_it_gets_more() -> None:
    """Each step lasts as long as a verdict needs days: the candidate never meets more than one in ten units."""
    ramp = Ramp(replace(inner_of("ab"), spec=replace(parse_rollout("ab for 40d"), rows=100)), (0.1, 1.0), 12 * DAY)
    found = [play(ramp, seed, 0.35, days=12) for seed in range(40)]
    assert np.mean([run.verdict.failed and run.step == 0 for run in found]) > 0.9
    assert all(run.answers[1] == 0 for run in found if run.step == 0)


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
