"""Off-policy estimates against the truth of simulated logs: coverage, bias, which one is steadier, and when they warn."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import scipy

from loudly.core.values import Evidence
from loudly.errors import DataError
from loudly.stats.betting import Betting
from loudly.stats.off_policy import Logged, dr, effective, ips, ips_exact, overlap_warnings, snips

ARMS, RUNS = 5, 300


class World(NamedTuple):
    """A log with what a reward model says, and the target's true value."""

    log: Logged
    expected: np.ndarray
    foreseen: np.ndarray
    truth: float


def rates(context: np.ndarray) -> np.ndarray:
    """True reward of each arm; (n, ARMS)."""
    return 1 / (1 + np.exp(2.0 - 1.5 * np.sin(context[:, None] + np.arange(ARMS))))


def softmax(scores: np.ndarray) -> np.ndarray:
    made = np.exp(scores - scores.max(axis=1, keepdims=True))
    return made / made.sum(axis=1, keepdims=True)


CONTEXT = np.random.default_rng(0).normal(0, 1, 400_000)
TRUTH = float((softmax(3 * rates(CONTEXT)) * rates(CONTEXT)).sum(axis=1).mean())


def world(seed: int, n: int = 1500, model: float = 1.0, propensity: float = 1.0) -> World:
    """model: 1 is a right reward model, 0 a constant one. propensity: what the logged one is multiplied by (1 is right)."""
    rng = np.random.default_rng(seed)
    context = rng.normal(0, 1, n)
    true = rates(context)
    logging = 0.2 / ARMS + 0.8 * softmax(np.cos(context[:, None] * np.arange(ARMS)))
    action = (rng.random(n)[:, None] > np.cumsum(logging, axis=1)).sum(axis=1).clip(max=ARMS - 1)
    target, row = softmax(3 * true), np.arange(n)
    reward = (rng.random(n) < true[row, action]).astype(float)
    believed = model * true + (1 - model) * 0.4
    log = Logged(reward, logging[row, action] * propensity, target[row, action])
    return World(log, (target * believed).sum(axis=1), believed[row, action], TRUTH)


def estimates(one: World) -> dict[str, Evidence]:
    return {"ips": ips(one.log), "snips": snips(one.log), "dr": dr(one.log, one.expected, one.foreseen)}


def test_intervals_cover_the_truth_and_dr_is_the_narrowest() -> None:
    made = [estimates(world(seed)) for seed in range(RUNS)]
    for name in ("ips", "snips", "dr"):
        found = [m[name] for m in made]
        covered = np.mean([e.low <= TRUTH <= e.high for e in found])  # type: ignore[operator]
        values = np.array([e.effect for e in found], dtype=float)
        assert 0.925 <= covered <= 0.985, name
        assert abs(values.mean() - TRUTH) < 3 * values.std() / math.sqrt(RUNS) + 0.001, name
    width = {name: np.mean([m[name].high - m[name].low for m in made]) for name in ("ips", "snips", "dr")}  # type: ignore[operator]
    assert width["dr"] < width["snips"] < width["ips"]


def test_ignoring_the_propensities_would_fail_that_test() -> None:
    covered = 0
    for seed in range(100):
        reward = world(seed).log.reward
        covered += abs(reward.mean() - TRUTH) < 1.96 * reward.std() / math.sqrt(len(reward))
    assert covered / 100 < 0.7


def test_dr_is_right_when_either_half_is() -> None:
    wrong_model = [estimates(world(seed, model=0.0))["dr"] for seed in range(RUNS)]
    assert np.mean([e.low <= TRUTH <= e.high for e in wrong_model]) >= 0.925  # type: ignore[operator]
    wrong_log = [estimates(world(seed, propensity=0.7)) for seed in range(100)]
    assert np.mean([e["dr"].low <= TRUTH <= e["dr"].high for e in wrong_log]) >= 0.9  # type: ignore[operator]
    assert np.mean([e["ips"].low <= TRUTH <= e["ips"].high for e in wrong_log]) < 0.1  # type: ignore[operator]


@pytest.mark.simulation
def test_rare_rewards_and_uneven_weights_are_covered_too() -> None:
    """Clicks at 2 %, a log of eight arms at a floor, a target that wants one of them: where the linear error is too small."""
    truth, covered, exact = 0.9 * 0.04 + 0.1 * 0.02, {"ips": 0, "snips": 0}, []
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        wanted = rng.random(4000) < 0.1
        reward = (rng.random(4000) < np.where(wanted, 0.04, 0.02)).astype(float)
        log = Logged(reward, np.where(wanted, 0.1, 0.9), np.where(wanted, 0.9, 0.1))
        for name, found in (("ips", ips(log)), ("snips", snips(log))):
            covered[name] += found.low <= truth <= found.high  # type: ignore[operator]
        if seed % 3 == 0:
            found = ips_exact(log, 10.0)
            exact.append(found.low <= truth <= found.high)  # type: ignore[operator]
    assert covered["ips"] / RUNS >= 0.91
    assert covered["snips"] / RUNS >= 0.91
    assert np.mean(exact) >= 0.97


def test_the_exact_interval_is_that_of_betting_on_weighted_rewards_at_its_risk() -> None:
    rng = np.random.default_rng(6)
    p = rng.uniform(0.2, 1.0, 400)
    log = Logged((rng.random(400) < 0.4) * 1.0, p, np.full(400, 0.5))
    found, stream = ips_exact(log, 2.5, 0.9), Betting(0.1).add(log.reward * 0.5 / p / 2.5)
    assert (found.low, found.high) == pytest.approx((2.5 * stream.low, 2.5 * stream.high))
    assert found.confidence == 0.9


def test_the_jackknife_is_leave_one_out() -> None:
    log = world(3, n=60).log
    value = [float((log.weights[k] * log.reward[k]).sum() / log.weights[k].sum()) for k in (np.arange(60) != i for i in range(60))]
    error = math.sqrt(59 / 60 * ((np.array(value) - np.mean(value)) ** 2).sum())
    found = snips(log, confidence=0.5)
    assert found.high is not None
    assert found.effect is not None
    assert (found.high - found.effect) / error == pytest.approx(0.68, abs=0.02)


def test_the_jackknife_has_as_many_degrees_of_freedom_as_the_rows_are_worth() -> None:
    log = Logged(np.array([1.0, 0.0] * 6), np.array([0.9] * 8 + [0.05] * 4), np.full(12, 0.9))
    found, half = snips(log, confidence=0.95), snips(log, confidence=0.5)
    assert found.high is not None
    assert half.high is not None
    assert found.effect == half.effect is not None
    t = scipy.stats.t(effective(log.weights) - 1)
    assert (found.high - found.effect) / (half.high - half.effect) == pytest.approx(t.ppf(0.975) / t.ppf(0.75))


def test_a_row_that_carries_all_weight_has_nobody_to_leave_out() -> None:
    found = snips(Logged(np.array([1.0, 0.0, 0.0]), np.full(3, 0.5), np.array([1.0, 0.0, 0.0])))
    assert (found.effect, found.low, found.high) == (1.0, 1.0, 1.0)
    assert any("one row carries 100%" in told for told in found.detail["warnings"])


def test_weights_are_what_they_say() -> None:
    even = Logged(np.array([1.0, 0.0, 1.0, 1.0]), np.full(4, 0.5), np.full(4, 0.5))
    assert ips(even).effect == snips(even).effect == 0.75
    assert effective(even.weights) == 4
    rng = np.random.default_rng(5)
    weights = rng.lognormal(0, 1, 200_000)
    assert effective(weights) / 200_000 == pytest.approx(math.exp(-1), rel=0.05)


def test_poor_overlap_is_said_aloud_and_good_overlap_is_not() -> None:
    assert overlap_warnings(world(1).log) == ()
    rng = np.random.default_rng(6)
    seldom = rng.random(3000) < 0.004
    reward = (rng.random(3000) < 0.3).astype(float)
    thin = Logged(reward, np.where(seldom, 0.004, 0.996), np.where(seldom, 0.98, 0.02))
    told = " ".join(overlap_warnings(thin))
    assert "poor overlap" in told
    assert "one row carries" in told
    assert snips(thin).detail["warnings"]
    broken = world(2, propensity=0.5).log
    assert "propensities are wrong" in " ".join(overlap_warnings(broken))
    never = Logged(reward, np.full(3000, 0.5), np.zeros(3000))
    assert "says nothing" in overlap_warnings(never)[0]
    assert snips(never).effect is None
    rare = Logged(np.eye(1, 3000)[0], np.full(3000, 0.5), np.full(3000, 0.5))
    assert "hangs on 1.0 rewarded" in overlap_warnings(rare)[0]


def test_few_rows_are_few_whatever_they_weigh() -> None:
    few, enough = (Logged(np.arange(n) % 2.0, np.full(n, 0.5), np.full(n, 0.5)) for n in (98, 100))
    (said,) = overlap_warnings(few)
    assert "98 rows are worth 98" in said
    assert overlap_warnings(enough) == ()


def test_impossible_logs_are_refused() -> None:
    two = np.array([0.5, 0.5])
    for bad in ((two, np.array([0.0, 0.5]), two), (two, two, np.array([0.5, 2.0])), (two, two, two[:1]), (two * np.nan, two, two)):
        with pytest.raises(DataError):
            Logged(*bad)
    with pytest.raises(DataError, match="above its bound"):
        ips_exact(Logged(two, two, np.ones(2)), 1.5)
    with pytest.raises(DataError, match="foresees"):
        dr(Logged(two, two, two), two[:1], two)
