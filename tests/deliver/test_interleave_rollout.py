"""Interleaving as a strategy: fair lists with the propensities that are logged, one outcome a list, rarely wrong, soon sure."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.core.canon import unit_draws
from loudly.core.clock import DAY
from loudly.core.seams import Calls, Feedback
from loudly.core.values import Arm, Verdict
from loudly.deliver.interleave import Interleave, probabilistic, team_draft
from loudly.deliver.rollout import RolloutSpec, check_stages, parse_rollout
from loudly.errors import ConfigError

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))
BOTH = pytest.mark.parametrize("make", [team_draft, probabilistic])
ITEMS = 6


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.sampled_from([team_draft, probabilistic]))
def test_a_list_has_each_row_once_and_is_the_same_whoever_merges_it(n: int, seed: int, make: Any) -> None:
    rng = np.random.default_rng(seed)
    scores = [rng.random(n).round(1), rng.random(n)]
    made, again = (make().merge(scores, "query-7", "5") for _ in range(2))
    assert sorted(made.place) == list(range(n))
    assert set(made.arm) <= {0, 1}
    assert ((made.propensity > 0) & (made.propensity <= 1)).all()
    for ours, theirs in ((made.place, again.place), (made.arm, again.arm), (made.propensity, again.propensity)):
        assert (ours == theirs).all()


@BOTH
def test_the_product_of_the_propensities_is_how_often_a_list_is_shown(make: Any) -> None:
    scores, n = [np.array([0.9, 0.5, 0.2]), np.array([0.1, 0.8, 0.3])], 12_000
    seen: Counter[Any] = Counter()
    chance = {}
    for unit in range(n):
        made = make().merge(scores, f"q{unit}", "7")
        shown = (*made.place.tolist(), *made.arm.tolist())
        seen[shown] += 1
        chance[shown] = float(made.propensity.prod())
    assert sum(chance.values()) == pytest.approx(1.0, abs=0.05 if make is probabilistic else 1e-9)
    for shown, count in seen.items():
        assert abs(count / n - chance[shown]) < 5 * np.sqrt(chance[shown] / n) + 1 / n


def test_draws_of_a_unit_are_uniform_and_alone_those_of_many() -> None:
    drawn = np.array([unit_draws(f"u{i}", "s", 4) for i in range(4000)])
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 0.02
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.06
    assert unit_draws("u1", "s", 2) == unit_draws("u1", "s", 50)[:2] != unit_draws("u1", "t", 2)


def queries(strategy: Interleave, rng: np.random.Generator, day: int, n: int, noise: tuple[float, float]) -> Feedback:
    """Clicks on `n` merged lists: what is relevant is liked, what stands high is seen. noise: of each arm's scores."""
    units, arms, clicks, given_ = [], [], [], ([], [])  # type: ignore[var-annotated]
    for query in range(n):
        worth = rng.random(ITEMS)
        scores = [worth + rng.normal(0, 0.01 + spread, ITEMS) for spread in noise]
        made = strategy.merge(scores, f"{day}-{query}", "1")
        clicks += (rng.random(ITEMS) < worth / (1 + made.place)).tolist()
        units += [f"{day}-{query}"] * ITEMS
        arms += made.arm.tolist()
        for told, score in zip(given_, scores, strict=True):
            told += score.tolist()
    scored = {arm.name: np.array(told) for arm, told in zip(ARMS, given_, strict=True)}
    return Feedback(day * DAY, units, np.array(arms), np.array(clicks, dtype=float), scored, {}, [day])


def life(strategy: Interleave, seed: int, noise: tuple[float, float], days: int = 8, n: int = 60) -> Verdict:
    rng, state = np.random.default_rng(seed), strategy.init(ARMS, 0)
    for day in range(days):
        state, verdict = strategy.update(state, queries(strategy, rng, day, n, noise))
        state, verdict = strategy.advance(state, (day + 1) * DAY)
        if not verdict.missing:
            break
    return verdict


@BOTH
def test_of_equal_rankings_neither_is_often_preferred(make: Any) -> None:
    strategy, runs = make(RolloutSpec("team-draft", days=1, margin=0.0)), 60
    found = [life(strategy, seed, (0.2, 0.2)) for seed in range(runs)]
    assert np.mean([not v.missing for v in found]) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)


@BOTH
def test_the_better_ranking_is_soon_preferred_and_the_worse_one_leaves(make: Any) -> None:
    strategy, n = make(RolloutSpec("team-draft", days=2)), 60 if make is team_draft else 250
    assert np.mean([life(strategy, seed, (0.6, 0.0), n=n).passed for seed in range(6)]) > 0.8
    assert np.mean([life(strategy, seed, (0.0, 0.6), n=n).failed for seed in range(6)]) > 0.8


def test_within_the_margin_is_good_enough_and_days_are_waited_for() -> None:
    strategy = team_draft(parse_rollout("interleave team draft for 14d", margin=0.3))
    rng, state = np.random.default_rng(0), strategy.init(ARMS, 0)
    for day in range(4):
        state, verdict = strategy.update(state, queries(strategy, rng, day, 100, (0.2, 0.2)))
        state, verdict = strategy.advance(state, (day + 1) * DAY)
        assert verdict.passed == (day == 3)
    assert "at most the margin" in verdict.reason
    assert verdict.evidence[0].about == "candidate"


def test_a_list_counts_once_and_one_that_an_arm_has_not_scored_not_at_all() -> None:
    strategy, rng = team_draft(), np.random.default_rng(0)
    first = queries(strategy, rng, 0, 50, (0.1, 0.1))
    once, _ = strategy.update(strategy.init(ARMS, 0), first)
    again, _ = strategy.update(once, first)
    assert again["evidence"]["preference"] == once["evidence"]["preference"]
    lost = {"control": first.scores["control"], "candidate": np.full(len(first.units), np.nan)}
    nothing, verdict = strategy.update(strategy.init(ARMS, 0), Feedback(0, first.units, first.arm, first.truth, lost, {}, [0]))
    assert nothing["evidence"]["preference"]["ties"] == sum(nothing["evidence"]["preference"]["wins"]["counts"]) == 0
    assert verdict.missing


def test_a_reward_weighs_what_a_row_has_earned() -> None:
    strategy = team_draft()
    scores = {"control": np.zeros(3), "candidate": np.zeros(3)}
    given_ = Feedback(0, ["q"] * 3, np.array([0, 0, 1]), np.ones(3), scores, {}, [0], np.array([0.1, 0.1, 0.9]))
    state, _ = strategy.update(strategy.init(ARMS, 0), given_)
    assert state["evidence"]["preference"]["wins"]["counts"] == [0, 1]


def test_a_slow_or_failing_candidate_ends_it() -> None:
    strategy = team_draft()
    _, verdict = strategy.observe(strategy.init(ARMS, 0), Calls({"control": 900, "candidate": 900}, {"candidate": 40}))
    assert verdict.failed
    state = strategy.init(ARMS, 0)
    for i in range(300):
        took = {"control": 0.01 + 0.001 * (i % 7), "candidate": 0.1}
        state, verdict = strategy.observe(state, Calls({"control": 10, "candidate": 10}, {}, took))
    assert verdict.failed
    assert "slow calls" in verdict.reason


def test_the_text_is_read_and_what_makes_no_sense_is_refused() -> None:
    spec = parse_rollout("interleave probabilistically for 7d", alpha=0.1)
    assert (spec.strategy, spec.deadline, spec.paired, spec.alpha) == ("probabilistic", 7 * DAY, False, 0.1)
    assert (spec.interleaves, spec.rewarded, spec.bandit) == (True, True, False)
    draft = "interleave team draft"
    wrong = ("50% for 7d", "among 3 for 7d", "on x for 7d", "0.1")
    for text in ("interleave", "interleave for 7d", "interleave somehow 7d", "team-draft for 7d", *(f"{draft} {w}" for w in wrong)):
        with pytest.raises(ConfigError):
            parse_rollout(text)
    with pytest.raises(ConfigError, match="ends the rollout"):
        check_stages(tuple(map(parse_rollout, ("interleave team draft for 7d", "canary 5% 100%"))))
