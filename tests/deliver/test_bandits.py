"""Bandits: exact propensities, plain states, late rewards, regret against published bounds, verdicts, logs that can be judged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from loudly import plugins
from loudly.core.seams import Calls, Feedback, Strategy
from loudly.core.values import Arm
from loudly.deliver.bandit import BanditSpec, greedy, pick
from loudly.deliver.epsilon_greedy import epsilon_greedy
from loudly.deliver.linear import foresee
from loudly.deliver.linear_thompson import linear_thompson
from loudly.deliver.linucb import linucb
from loudly.deliver.thompson import thompson
from loudly.deliver.ucb1 import ucb1
from loudly.errors import DataError, RolloutError
from loudly.serve.replies import Served
from loudly.serve.router import Router, Routing
from loudly.stats.best_arm import best_beta, best_normal
from loudly.stats.betting import Bernstein
from loudly.stats.off_policy import Logged, ips, overlap_warnings, snips
from loudly.testing.play import Played, fixed, lai_robbins, linear, play, ucb1_bound

SPEC, NO_FLOOR, EVEN = BanditSpec(floor=0.1), BanditSpec(floor=0.0), BanditSpec(floor=1.0)
ARMS = tuple(Arm(name, f"m/{i}") for i, name in enumerate(("control", "b", "c")))
KINDS: dict[str, Callable[[BanditSpec], Strategy]] = {
    "epsilon-greedy": lambda spec: epsilon_greedy(spec),
    "thompson": lambda spec: thompson(spec),
    "ucb1": lambda spec: ucb1(spec),
    "linucb": lambda spec: linucb(2, spec),
    "linear-thompson": lambda spec: linear_thompson(2, spec),
}
PLAIN = ("epsilon-greedy", "thompson", "ucb1")
THETA = np.array([[0.5, 0.0, 0.0], [0.2, 0.6, 0.0], [0.2, 0.0, 0.6]])


def told(rng: np.random.Generator, n: int, rates: tuple[float, ...] = (0.3, 0.5, 0.4)) -> Feedback:
    """Rewards of n evenly spread rows."""
    arm = rng.integers(0, len(rates), n)
    reward = (rng.random(n) < np.asarray(rates)[arm]).astype(float)
    context = np.column_stack([np.ones(n), rng.random(n)])
    return Feedback(0, [""] * n, arm, reward, {}, {}, (), reward, np.full(n, 1 / len(rates)), context)


def runs(strategy: Strategy, world: object, rows: int, batch: int, n: int, delay: int = 0) -> list[Played]:
    return [play(strategy, world, rows, batch, np.random.default_rng(seed), delay) for seed in range(n)]  # type: ignore[arg-type]


def lost(lives: list[Played]) -> np.ndarray:
    """(rows,) mean regret."""
    return np.mean([life.regret for life in lives], axis=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_is_plain_resumable_and_never_changed_in_place(kind: str) -> None:
    strategy = KINDS[kind](SPEC)
    assert strategy.name == kind
    state, rng = strategy.init(ARMS, 0), np.random.default_rng(0)
    for at in range(1, 5):
        before, given = json.dumps(state, sort_keys=True), told(rng, 60)
        one, verdict = strategy.update(state, given)
        two, again = strategy.update(json.loads(before), given)
        assert json.dumps(state, sort_keys=True) == before
        assert json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
        assert verdict == again
        state, _ = strategy.advance(one, at)
        state, _ = strategy.observe(state, Calls({"control": 5, "b": 5, "c": 5}))
    carried = strategy.init(ARMS, 9, state["evidence"])
    assert carried["evidence"] == state["evidence"]
    other = strategy.init(ARMS[:2], 9, state["evidence"])
    assert other["evidence"]["pulls"] == [0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_logged_propensities_are_the_frequencies(kind: str) -> None:
    strategy, n = KINDS[kind](SPEC), 30_000
    state, _ = strategy.update(strategy.init(ARMS, 0), told(np.random.default_rng(1), 40))
    context = np.tile([1.0, 0.7], (n, 1))
    made = strategy.assign(state, np.random.default_rng(2).random(n), context)
    for arm in range(3):
        p = made.propensity[made.arm == arm]
        assert len(p) > 0, "the floor reaches every arm"
        assert np.ptp(p) == 0
        assert p[0] >= 0.1 / 3 - 1e-12
        assert abs(len(p) / n - p[0]) < 4 * math.sqrt(p[0] * (1 - p[0]) / n)
    exact = sum(float(made.propensity[made.arm == arm][0]) for arm in range(3))
    assert exact == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("kind", ["linucb", "linear-thompson"])
def test_propensities_follow_the_context_row_by_row(kind: str) -> None:
    strategy = KINDS[kind](SPEC)
    state, _ = strategy.update(strategy.init(ARMS, 0), told(np.random.default_rng(1), 200))
    rng = np.random.default_rng(3)
    context = np.column_stack([np.ones(8), np.linspace(0, 1, 8)])
    seen = np.zeros((8, 3))
    for _ in range(3000):
        made = strategy.assign(state, rng.random(8), context)
        seen[np.arange(8), made.arm] += 1
    expected = strategy.shares(state, context)
    assert np.abs(seen / 3000 - expected).max() < 4.5 * 0.5 / math.sqrt(3000)
    assert np.allclose(expected[np.arange(8), made.arm], made.propensity)


def test_an_arm_without_a_share_is_never_drawn() -> None:
    draws = np.concatenate([np.random.default_rng(0).random(10_000), [0.0, 0.5, 1 - 1e-16, np.nextafter(1, 0)]])
    for shares in ([0.5, 0.0, 0.5], [0.1, 0.2, 0.7, 0.0], [0.0, 1 / 3, 1 / 3, 1 / 3], [0.1] * 10 + [0.0]):
        for given in (np.array(shares), np.tile(shares, (len(draws), 1))):
            made = pick(given, np.minimum(draws, np.nextafter(1, 0)))
            assert made.propensity.min() > 0
    assert greedy(np.array([[1.0, 2.0], [3.0, 3.0]])).tolist() == [[0.0, 1.0], [0.5, 0.5]]


@pytest.mark.parametrize(("a", "b"), [
    ([1, 1, 1], [1, 1, 1]), ([2, 5, 30], [3, 9, 60]), ([5001, 2, 40], [5000, 2, 41]), ([1, 2], [1000, 1999]), ([1] * 10, [1] * 10),
])  # fmt: skip
def test_the_integral_is_what_a_sampler_draws(a: list[float], b: list[float]) -> None:
    drawn = np.random.default_rng(4).beta(a, b, (400_000, len(a))).argmax(axis=1)
    sampled = np.bincount(drawn, minlength=len(a)) / 400_000
    assert best_beta(np.array(a, dtype=float), np.array(b, dtype=float)) == pytest.approx(sampled, abs=0.0035)


def test_the_integral_of_gaussians_is_what_a_sampler_draws() -> None:
    mean = np.array([[0.0, 0.1, 0.5], [0.0, 0.0, 0.001], [3.0, 2.0, 1.0]])
    deviation = np.array([[1.0, 0.01, 0.3], [1e-6, 1.0, 2.0], [0.5, 1.0, 3.0]])
    drawn = np.random.default_rng(5).normal(mean, deviation, (400_000, 3, 3)).argmax(axis=2)
    sampled = np.stack([np.bincount(drawn[:, row], minlength=3) / 400_000 for row in range(3)])
    assert best_normal(mean, deviation) == pytest.approx(sampled, abs=0.0035)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_learned_does_not_depend_on_how_late_rewards_were_bundled(kind: str) -> None:
    strategy, whole = KINDS[kind](SPEC), told(np.random.default_rng(6), 90)
    assert whole.reward is not None
    assert whole.propensity is not None
    assert whole.context is not None
    one, _ = strategy.update(strategy.init(ARMS, 0), whole)
    state = strategy.init(ARMS, 0)
    for rows in np.split(np.random.default_rng(7).permutation(90), [1, 1, 40]):
        part = Feedback(0, [""] * len(rows), whole.arm[rows], whole.truth[rows], {}, {}, (),
                        whole.reward[rows], whole.propensity[rows], whole.context[rows])  # fmt: skip
        state, _ = strategy.update(state, part)
    draws, context = np.random.default_rng(8).random(500), np.column_stack([np.ones(500), np.linspace(0, 1, 500)])
    first, second = strategy.assign(one, draws, context), strategy.assign(state, draws, context)
    assert np.allclose(first.propensity, second.propensity)
    assert (first.arm == second.arm).all()


@pytest.mark.simulation
def test_thompson_loses_no_more_than_lai_robbins_asks_and_the_even_spread_loses_all() -> None:
    """The slope of the regret on ln(n) between 1,000 and 4,000 rows, against the constant of the lower bound."""
    for rates, n in (((0.8, 0.9), 15), ((0.2, 0.1, 0.1), 15)):
        constant, rows = lai_robbins(rates), 4000
        lives = lost(runs(thompson(NO_FLOOR), fixed(rates), rows, 20, n))
        slope = (lives[-1] - lives[999]) / math.log(4)
        assert 0.1 * constant < slope < 1.6 * constant
        assert lives[-1] < 1.2 * constant * math.log(rows)
        even = rows * (max(rates) - np.mean(rates))
        assert lost(runs(epsilon_greedy(EVEN), fixed(rates), rows, 50, 5))[-1] == pytest.approx(even, rel=0.05)
        assert lives[-1] < 0.15 * even


@pytest.mark.simulation
def test_ucb1_stays_under_its_bound_grows_as_the_logarithm_and_loses_more_than_thompson() -> None:
    rates, rows = (0.8, 0.9), 4000
    bound = lost(runs(ucb1(NO_FLOOR), fixed(rates), rows, 20, 10))
    assert 2 * lai_robbins(rates) * math.log(rows) < bound[-1] < ucb1_bound(rates, rows)
    assert 0.5 < (bound[3999] - bound[1999]) / (bound[1999] - bound[999]) < 1.7, "a doubling costs as much as the one before"
    assert bound[-1] > 3 * lost(runs(thompson(NO_FLOOR), fixed(rates), rows, 20, 10))[-1]


@pytest.mark.simulation
def test_the_floor_costs_what_it_says_and_cooling_saves_it() -> None:
    rates, rows = (0.2, 0.6), 4000
    price = 0.1 * 0.2 * np.arange(1, rows + 1)
    constant = lost(runs(epsilon_greedy(SPEC), fixed(rates), rows, 20, 12))
    assert constant[-1] - constant[1999] == pytest.approx(price[-1] - price[1999], rel=0.1)
    sampled = lost(runs(thompson(SPEC), fixed(rates), rows, 20, 10))
    assert sampled[-1] - sampled[1999] == pytest.approx(price[-1] - price[1999], rel=0.15)
    cooled = lost(runs(epsilon_greedy(NO_FLOOR, cool=10.0), fixed(rates), rows, 20, 12))
    assert cooled[-1] < 0.75 * constant[-1]
    assert (cooled[3999] - cooled[1999]) / (cooled[1999] - cooled[999]) < 1.5, "as the logarithm, not as time"


def test_a_delay_costs_about_what_is_answered_meanwhile() -> None:
    rates = (0.2, 0.6)
    soon, late = (lost(runs(thompson(NO_FLOOR), fixed(rates), 3000, 20, 15, delay))[-1] for delay in (0, 15))
    assert soon < late < soon + 15 * 20 * 0.2 * 1.5


@pytest.mark.simulation
@pytest.mark.parametrize("kind", ["linucb", "linear-thompson"])
def test_choosing_by_context_grows_slower_than_the_root_of_time(kind: str) -> None:
    """The bound is Õ(d √n): four times the rows at most double the loss. A bandit blind to the context loses with every row."""
    strategy = linucb(3, NO_FLOOR) if kind == "linucb" else linear_thompson(3, NO_FLOOR)
    lives = lost(runs(strategy, linear(THETA), 6000, 30, 6))
    assert lives[5999] < 2.0 * lives[1499]
    blind = lost(runs(thompson(NO_FLOOR), linear(THETA), 6000, 60, 3))
    assert blind[5999] > 3.0 * blind[1499]
    assert lives[-1] < 0.15 * blind[-1]


@pytest.mark.simulation
@pytest.mark.parametrize("kind", ["thompson", "ucb1", "epsilon-greedy"])
def test_another_policy_can_be_judged_by_the_log_that_a_bandit_left(kind: str) -> None:
    """The rows of a bandit depend on each other; the propensities make the weights right all the same."""
    covered, world, mean_weight = 0, fixed((0.3, 0.5, 0.4)), []
    for seed in range(50):
        life = play(KINDS[kind](BanditSpec(floor=0.3)), world, 1500, 50, np.random.default_rng(seed))
        log = Logged(life.reward, life.propensity, np.array([0.6, 0.1, 0.3])[life.arm])
        found = snips(log)
        covered += found.low <= 0.35 <= found.high  # type: ignore[operator]
        mean_weight.append(log.weights.mean())
        assert ips(log).n == 1500
    assert covered / 50 >= 0.88
    assert np.mean(mean_weight) == pytest.approx(1.0, abs=0.03)
    wrong = Logged(life.reward, np.full(1500, 1 / 3), np.array([0.6, 0.1, 0.3])[life.arm])
    assert "propensities are wrong" in " ".join(overlap_warnings(wrong))


@pytest.mark.simulation
@pytest.mark.parametrize("kind", PLAIN)
def test_equal_arms_are_rarely_told_apart_and_a_better_one_is_found(kind: str) -> None:
    equal = runs(KINDS[kind](SPEC), fixed((0.3, 0.3)), 2000, 100, 60)
    wrong = np.mean([any(v.passed or v.failed for v in life.verdicts) for life in equal])
    assert wrong <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 60)
    better = runs(KINDS[kind](SPEC), fixed((0.3, 0.5, 0.2)), 6000, 200, 12)
    assert np.mean([life.verdicts[-1].passed and "arm 1 surely" in life.verdicts[-1].reason for life in better]) > 0.8
    worse = runs(KINDS[kind](SPEC), fixed((0.6, 0.3)), 6000, 200, 12)
    assert np.mean([life.verdicts[-1].failed for life in worse]) > 0.8
    assert not any(v.passed for life in worse for v in life.verdicts)


@pytest.mark.simulation
@pytest.mark.parametrize("kind", ["linucb", "linear-thompson"])
def test_the_policy_is_held_against_control_alone(kind: str) -> None:
    """Exact though the weights are large: an asymptotic interval on the same gains was wrong in 26 % of these equal lives."""
    make: Callable[[BanditSpec], Strategy] = (lambda s: linucb(3, s)) if kind == "linucb" else (lambda s: linear_thompson(3, s))
    same, spread = linear(np.tile([0.3, 0.2, 0.0], (3, 1))), BanditSpec(floor=0.4)
    for spec in (SPEC, spread):
        equal = runs(make(spec), same, 2000, 100, 25)
        assert np.mean([any(v.passed or v.failed for v in life.verdicts) for life in equal]) <= 0.05
    better = runs(make(spread), linear(THETA), 10_000, 200, 8)
    assert np.mean([life.verdicts[-1].passed for life in better]) > 0.8
    worse = runs(make(spread), linear(THETA[[1, 0, 0]] * np.array([[2.0], [0.2], [0.2]])), 6000, 200, 8)
    assert np.mean([life.verdicts[-1].failed for life in worse]) > 0.8
    missing = play(make(NO_FLOOR), same, 300, 100, np.random.default_rng(0)).verdicts[-1].missing
    assert "floor" in missing


def test_the_linear_bandits_are_the_published_ones() -> None:
    """Algorithm 1 of Li et al. row by row, and a sampler of the Gaussian posteriors of Agrawal & Goyal."""
    given = told(np.random.default_rng(1), 120)
    assert given.reward is not None
    assert given.context is not None
    gram, towards = [np.eye(2) for _ in ARMS], [np.zeros(2) for _ in ARMS]
    for arm, x, reward in zip(given.arm, given.context, given.reward, strict=True):
        gram[arm], towards[arm] = gram[arm] + np.outer(x, x), towards[arm] + reward * x
    x = np.array([1.0, 0.8])
    mean = np.array([x @ np.linalg.solve(a, b) for a, b in zip(gram, towards, strict=True)])
    spread = np.array([math.sqrt(x @ np.linalg.solve(a, x)) for a in gram])
    for width in (0.0, 1.0, 30.0):
        greedy_one = linucb(2, NO_FLOOR, width=width)
        state, _ = greedy_one.update(greedy_one.init(ARMS, 0), given)
        assert greedy_one.shares(state, x[None])[0].argmax() == (mean + width * spread).argmax()
    seen = foresee(state, x[None])
    assert seen.mean[0] == pytest.approx(mean)
    assert seen.spread[0] == pytest.approx(spread)
    posterior = linear_thompson(2, NO_FLOOR, noise=0.4)
    state, _ = posterior.update(posterior.init(ARMS, 0), given)
    drawn = np.random.default_rng(2).normal(mean, 0.4 * spread, (200_000, 3)).argmax(axis=1)
    assert posterior.shares(state, x[None])[0] == pytest.approx(np.bincount(drawn) / 200_000, abs=0.005)


def test_the_gain_over_control_is_the_doubly_robust_sum() -> None:
    strategy, rng = linucb(2, BanditSpec(floor=0.5)), np.random.default_rng(9)
    state, _ = strategy.update(strategy.init(ARMS, 0), told(rng, 200))
    given = told(rng, 400)
    assert given.reward is not None
    assert given.context is not None
    assert given.propensity is not None
    control = given.context @ np.asarray(state["evidence"]["theta"])[0]
    error = given.reward - control
    by_hand = error - np.where(given.arm == 0, error / given.propensity, 0.0)
    fresh = {**state, "evidence": {**state["evidence"], "lift": Bernstein().plain()}}
    _, verdict = strategy.update(fresh, given)
    assert verdict.evidence[0].effect == pytest.approx(by_hand.mean())
    low = given.propensity * 0.1
    with pytest.raises(DataError, match="below the floor"):
        strategy.update(state, replace(given, propensity=low))


def test_the_gain_over_control_is_estimated_without_bias() -> None:
    """True gain of the policies that were followed, from the known world, against the verdict's effect."""
    gaps, spec = [], BanditSpec(floor=0.4)
    for seed in range(40):
        life = play(linear_thompson(3, spec), linear(THETA), 2000, 100, np.random.default_rng(seed))
        control = 0.5
        best = float(np.mean(np.maximum(0.5, 0.2 + 0.6 * np.maximum(*np.random.default_rng(0).random((2, 200_000))))))
        true = best - life.regret[-1] / 2000 - control
        gaps.append(life.verdicts[-1].evidence[0].effect - true)  # type: ignore[operator]
    assert abs(np.mean(gaps)) < 3 * np.std(gaps) / math.sqrt(40) + 0.003


@pytest.mark.parametrize("kind", KINDS)
def test_an_arm_that_errs_is_named_before_any_reward(kind: str) -> None:
    strategy = KINDS[kind](SPEC)
    answered = {"control": 500, "b": 300, "c": 200}
    state, verdict = strategy.observe(strategy.init(ARMS, 0), Calls(answered, {"control": 2, "b": 3, "c": 25}))
    assert not verdict.failed, "another candidate is left"
    assert "25 of 30 failed answers are those of c" in state["dropped"]["c"]["reason"]
    _, verdict = strategy.observe(state, Calls(answered, {"control": 2, "b": 60}))
    assert verdict.failed
    state, verdict = strategy.observe(strategy.init(ARMS, 0), Calls(answered, {"control": 5, "b": 3, "c": 2}))
    assert not verdict.failed
    assert not state["dropped"]


def test_rows_of_unknown_context_are_spread_evenly_and_not_learned_from() -> None:
    strategy = linucb(2, NO_FLOOR)
    given = told(np.random.default_rng(1), 100)
    state, _ = strategy.update(strategy.init(ARMS, 0), given)
    shares = strategy.shares(state, np.array([[1.0, np.nan], [1.0, 0.5]]))
    assert np.allclose(shares[0], 1 / 3)
    assert shares[1].max() == 1
    blank = Feedback(0, [""] * 2, given.arm[:2], given.truth[:2], {}, {}, (), np.ones(2), np.ones(2), np.full((2, 2), np.nan))
    after, _ = strategy.update(state, blank)
    assert after["evidence"]["theta"] == pytest.approx(np.array(state["evidence"]["theta"]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_name_on_the_table_is_that_of_the_strategy(kind: str) -> None:
    made = plugins.resolve("strategy", kind)
    assert (made(2, SPEC) if "linear" in kind or kind == "linucb" else made(SPEC)) == KINDS[kind](SPEC)


def test_two_arms_behind_the_router_learn_from_what_it_logs() -> None:
    """The router knows control and candidate; a bandit without context is a strategy like any other."""
    bandit = thompson(SPEC)
    state = bandit.init((Arm("control", "m/1"), Arm("candidate", "m/2")), 0)
    old, new = (Served(v, lambda table, r=rate: np.full(table.height, r)) for v, rate in (("m/1", 0.2), ("m/2", 0.4)))
    router, rng = Router(Routing(old, (new,), bandit, state, "salt")), np.random.default_rng(0)
    for look in range(20):
        units = [f"{look}-{i}" for i in range(200)]
        replies = router.answer(pl.DataFrame({"x": np.zeros(200)}), units)
        assert not replies.fallback.any()
        assert (replies.answer == np.where(replies.arm == 1, 0.4, 0.2)).all()
        reward = (rng.random(200) < replies.answer).astype(float)
        state, _ = bandit.observe(state, Calls(replies.answered, replies.failed, replies.seconds))
        given = Feedback(look, units, replies.arm, reward, {}, {}, (), reward, replies.propensity)
        state, verdict = bandit.update(state, given)
        router.swap(Routing(old, (new,), bandit, state, "salt"))
    assert verdict.passed
    assert verdict.evidence[0].about == "candidate"
    assert replies.arm.mean() > 0.85
    assert state["evidence"]["answered"]["control"] + state["evidence"]["answered"]["candidate"] == 4000


def test_a_bandit_carries_on_what_another_has_learned_but_no_models_of_another_context() -> None:
    state, _ = thompson(SPEC).update(thompson(SPEC).init(ARMS, 0), told(np.random.default_rng(1), 100))
    assert ucb1(SPEC).init(ARMS, 1, state["evidence"])["evidence"]["pulls"] == state["evidence"]["pulls"]
    linear_state = linucb(2, SPEC).init(ARMS, 1, state["evidence"])
    with pytest.raises(RolloutError, match="another context"):
        linucb(3, SPEC).init(ARMS, 2, linear_state["evidence"])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(RolloutError, match="impossible bandit"):
        BanditSpec(floor=1.5)
    with pytest.raises(RolloutError, match="two arms"):
        thompson().init(ARMS[:1], 0)
    given = told(np.random.default_rng(1), 10)
    state = thompson().init(ARMS, 0)
    for reward in (None, np.full(10, 2.0), np.full(10, np.nan)):
        with pytest.raises(DataError):
            thompson().update(state, Feedback(0, [""] * 10, given.arm, given.truth, {}, {}, (), reward))
    with pytest.raises(DataError, match="not"):
        thompson().update(thompson().init(ARMS[:2], 0), Feedback(0, [], np.array([2]), np.ones(1), {}, {}, (), np.ones(1)))
    contextual = linucb(2)
    for context in (None, np.ones((1, 3)), np.ones(2)):
        with pytest.raises(DataError, match="2 features"):
            contextual.assign(contextual.init(ARMS, 0), np.array([0.5]), context)
