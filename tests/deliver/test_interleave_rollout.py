"""Interleaving as a strategy: fair lists with the propensities that are logged, one outcome a list, rarely wrong, soon sure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.core.canon import unit_draws
from loudly.core.clock import DAY
from loudly.core.seams import Calls, Feedback, Merged
from loudly.core.values import Arm, Verdict
from loudly.deliver.duel import Duel
from loudly.deliver.interleave import Interleave, probabilistic, team_draft
from loudly.deliver.rollout import RolloutSpec, check_stages, parse_rollout
from loudly.errors import ConfigError, RolloutError

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))
BOTH = pytest.mark.parametrize("make", [team_draft, probabilistic])
ITEMS = 6


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.sampled_from([team_draft, probabilistic]))
def test_a_list_has_each_row_once_and_is_the_same_whoever_merges_it(n: int, seed: int, make: Any) -> None:
    rng = np.random.default_rng(seed)
    scores = [rng.random(n).round(1), rng.random(n)]
    made, again = (merge(make(), scores, "query-7", "5") for _ in range(2))
    assert sorted(made.place) == list(range(n))
    assert set(made.arm) <= {0, 1}
    assert ((made.propensity > 0) & (made.propensity <= 1)).all()
    for ours, theirs in ((made.place, again.place), (made.arm, again.arm), (made.propensity, again.propensity)):
        assert (ours == theirs).all()


@BOTH
def test_the_product_of_the_propensities_is_how_often_a_list_is_shown(make: Any) -> None:
    scores, n = [np.array([0.9, 0.5, 0.2]), np.array([0.1, 0.8, 0.3])], 6_000
    seen: Counter[Any] = Counter()
    chance = {}
    for unit in range(n):
        made = merge(make(), scores, f"q{unit}", "7")
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


def merge(strategy: Interleave, scores: list[Any], unit: str, salt: str) -> Merged:
    """The list of the arms, all of which take part."""
    arms = (*ARMS, Arm("candidate2", "m/3"), Arm("candidate3", "m/4"))[: len(scores)]
    made = strategy.merge(strategy.init(arms, 0), scores, unit, salt)
    assert made is not None
    return made


def queries(strategy: Interleave, state: Any, rng: np.random.Generator, day: int, n: int, noise: Sequence[float]) -> Feedback:
    """Clicks on `n` merged lists: what is relevant is liked, what stands high is seen. noise: of each arm's scores."""
    units, arms, clicks = list[str](), list[int](), list[bool]()
    told: dict[str, list[float]] = {name: [] for name in state["arms"]}
    for query in range(n):
        worth = rng.random(ITEMS)
        scores = [worth + rng.normal(0, 0.01 + spread, ITEMS) for spread in noise]
        scores = [np.full(ITEMS, np.nan) if name in state["dropped"] else s for name, s in zip(told, scores, strict=True)]
        made = strategy.merge(state, scores, f"{day}-{query}", "1")
        assert made is not None
        clicks += (rng.random(ITEMS) < worth / (1 + made.place)).tolist()
        units += [f"{day}-{query}"] * ITEMS
        arms += made.arm.tolist()
        for name, score in zip(told, scores, strict=True):
            told[name] += score.tolist()
    scored = {name: np.array(score) for name, score in told.items()}
    return Feedback(day * DAY, units, np.array(arms), np.array(clicks, dtype=float), scored, {}, [day])


def life(
    strategy: Interleave, seed: int, noise: Sequence[float], days: int = 8, n: int = 60, arms: tuple[Arm, ...] = ARMS
) -> tuple[Verdict, dict[str, Any]]:
    """The verdict that ended it, or the last one, and the state then."""
    rng, state = np.random.default_rng(seed), strategy.init(arms, 0)
    for day in range(days):
        state, verdict = strategy.update(state, queries(strategy, state, rng, day, n, noise))
        state, verdict = strategy.advance(state, (day + 1) * DAY)
        if not verdict.missing:
            break
    return verdict, state


@pytest.mark.simulation
@BOTH
def test_of_equal_rankings_neither_is_often_preferred(make: Any) -> None:
    strategy, runs = make(RolloutSpec("team-draft", days=1, margin=0.0)), 40
    found = [life(strategy, seed, (0.2, 0.2))[0] for seed in range(runs)]
    assert np.mean([not v.missing for v in found]) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)


@BOTH
def test_the_better_ranking_is_soon_preferred_and_the_worse_one_leaves(make: Any) -> None:
    strategy, n = make(RolloutSpec("team-draft", days=2)), 60 if make is team_draft else 250
    assert np.mean([life(strategy, seed, (0.6, 0.0), n=n)[0].passed for seed in range(6)]) > 0.8
    assert np.mean([life(strategy, seed, (0.0, 0.6), n=n)[0].failed for seed in range(6)]) > 0.8


def test_within_the_margin_is_good_enough_and_days_are_waited_for() -> None:
    strategy = team_draft(parse_rollout("interleave team draft for 14d", margin=0.3))
    rng, state = np.random.default_rng(0), strategy.init(ARMS, 0)
    for day in range(4):
        state, verdict = strategy.update(state, queries(strategy, state, rng, day, 100, (0.2, 0.2)))
        state, verdict = strategy.advance(state, (day + 1) * DAY)
        assert verdict.passed == (day == 3)
    assert "at most the margin" in verdict.reason
    assert verdict.evidence[0].about == "candidate"


def test_a_list_counts_once_and_one_that_an_arm_has_not_scored_not_at_all() -> None:
    strategy, rng = team_draft(), np.random.default_rng(0)
    first = queries(strategy, strategy.init(ARMS, 0), rng, 0, 50, (0.1, 0.1))
    once, _ = strategy.update(strategy.init(ARMS, 0), first)
    again, _ = strategy.update(once, first)
    assert again["evidence"]["pairs"]["candidate"]["preference"] == once["evidence"]["pairs"]["candidate"]["preference"]
    lost = {"control": first.scores["control"], "candidate": np.full(len(first.units), np.nan)}
    nothing, verdict = strategy.update(strategy.init(ARMS, 0), Feedback(0, first.units, first.arm, first.truth, lost, {}, [0]))
    preference = nothing["evidence"]["pairs"]["candidate"]["preference"]
    assert preference["ties"] == sum(preference["wins"]["counts"]) == 0
    assert verdict.missing


def test_a_reward_weighs_what_a_row_has_earned() -> None:
    strategy = team_draft()
    scores = {"control": np.zeros(3), "candidate": np.zeros(3)}
    given_ = Feedback(0, ["q"] * 3, np.array([0, 0, 1]), np.ones(3), scores, {}, [0], np.array([0.1, 0.1, 0.9]))
    state, _ = strategy.update(strategy.init(ARMS, 0), given_)
    assert state["evidence"]["pairs"]["candidate"]["preference"]["wins"]["counts"] == [0, 1]


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
    wrong = ("50% for 7d", "among 1 for 7d", "on x for 7d", "0.1")
    odd = ("", " for 7d", " somehow 7d", " probabilistically among 3 for 7d")
    for text in ("team-draft for 7d", *(f"interleave{w}" for w in odd), *(f"{draft} {w}" for w in wrong)):
        with pytest.raises(ConfigError):
            parse_rollout(text)
    with pytest.raises(ConfigError, match="ends the rollout"):
        check_stages(tuple(map(parse_rollout, ("interleave team draft for 7d", "canary 5% 100%"))))


# -- several candidates -----------------------------------------------------------------------------------------------------------

FOUR = (*ARMS, Arm("candidate2", "m/3"), Arm("candidate3", "m/4"))


@settings(deadline=None)
@given(st.integers(2, 4), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_of_several_rankings_each_round_has_a_pick_of_each_the_best_that_it_has_left(k: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = [rng.random(n).round(1) for _ in range(k)]
    made = merge(team_draft(), scores, "query-7", "5")
    order = np.argsort(made.place)
    assert sorted(made.place) == list(range(n))
    for first in range(0, n, k):
        picks = order[first : first + k]
        assert len(set(made.arm[picks])) == len(picks)
        assert made.propensity[picks] == pytest.approx([1 / (k - turn) for turn in range(len(picks))])
    for place, row in enumerate(order):
        left = order[place:]
        mine = scores[made.arm[row]]
        assert mine[row] == mine[left].max()


def test_the_product_of_the_propensities_of_three_is_how_often_a_list_is_shown() -> None:
    scores, n = [np.array([0.9, 0.5, 0.2, 0.1]), np.array([0.1, 0.8, 0.3, 0.4]), np.array([0.2, 0.1, 0.9, 0.3])], 6_000
    seen: Counter[Any] = Counter()
    chance = {}
    for unit in range(n):
        made = merge(team_draft(), scores, f"q{unit}", "7")
        shown = (*made.place.tolist(), *made.arm.tolist())
        seen[shown] += 1
        chance[shown] = float(made.propensity.prod())
    assert sum(chance.values()) == pytest.approx(1.0)
    for shown, count in seen.items():
        assert abs(count / n - chance[shown]) < 5 * np.sqrt(chance[shown] / n) + 1 / n


@pytest.mark.simulation
def test_of_four_equal_rankings_none_is_often_preferred_or_dropped() -> None:
    strategy, runs = team_draft(RolloutSpec("team-draft", days=1, margin=0.0, arms=4)), 40
    found = [life(strategy, seed, (0.2,) * 4, arms=FOUR) for seed in range(runs)]
    wrong = [not verdict.missing or bool(state["dropped"]) for verdict, state in found]
    assert np.mean(wrong) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)


def test_the_best_of_four_wins_and_who_is_worse_leaves_the_lists() -> None:
    strategy = team_draft(RolloutSpec("team-draft", days=2, margin=0.0, arms=4))
    won = left = 0
    for seed in range(5):
        verdict, state = life(strategy, seed, (0.5, 0.0, 0.7, 2.0), n=300, days=12, arms=FOUR)
        won += verdict.passed and verdict.evidence[0].about == "candidate"
        assert "candidate" not in state["dropped"]
        left += list(state["dropped"]) == ["candidate3"]
    assert won >= 4
    assert left >= 2, "in the others the best was told before"
    verdict, state = life(strategy, 9, (0.0, 0.6, 0.3, 2.0), n=200, days=12, arms=FOUR)
    assert verdict.failed
    assert len(state["dropped"]) == 2, "the last one left ends it"


def test_it_agrees_with_the_clicks_that_each_ranking_would_earn_alone() -> None:
    """Random noise for each arm: who surely wins earns more clicks than control when its list is shown as it is."""
    strategy, rng, judged = team_draft(RolloutSpec("team-draft", days=1, margin=0.0, arms=3)), np.random.default_rng(3), 0
    for seed in range(8):
        noise = rng.choice([0.0, 0.4, 1.5], 3, replace=False).tolist()
        worth = rng.random((4000, ITEMS))
        alone = []
        for spread in noise:
            order = np.argsort(-(worth + rng.normal(0, 0.01 + spread, worth.shape)), axis=1)
            alone.append(float((np.take_along_axis(worth, order, axis=1) / np.arange(1, ITEMS + 1)).sum(axis=1).mean()))
        verdict, _ = life(strategy, seed, noise, n=200, days=10, arms=FOUR[:3])
        if verdict.passed:
            winner = [arm.name for arm in FOUR].index(verdict.evidence[0].about)
            assert alone[winner] == max(alone)
        if verdict.failed:
            assert alone[0] == max(alone)
        judged += not verdict.missing
    assert judged >= 6


def test_a_failing_one_of_several_leaves_alone_and_is_asked_no_more() -> None:
    strategy, state = team_draft(RolloutSpec("team-draft", arms=3)), team_draft().init(FOUR[:3], 0)
    answered = dict.fromkeys(state["arms"], 900)
    left, verdict = strategy.observe(state, Calls(answered, {"candidate2": 60}))
    assert verdict.missing
    assert list(left["dropped"]) == ["candidate2"]
    assert "failed answers" in left["dropped"]["candidate2"]["reason"]
    assert strategy.assign(left, np.zeros(2)).shadows == ("candidate",)
    scores = [np.array([0.3, 0.2, 0.1]), np.array([0.1, 0.2, 0.3]), np.full(3, np.nan)]
    made = strategy.merge(left, scores, "q", "s")
    assert made is not None
    assert set(made.arm) == {0, 1}
    assert strategy.merge(state, scores, "q", "s") is None, "it takes part, and has not scored"
    both, verdict = strategy.observe(left, Calls(answered, {"candidate": 60}))
    assert verdict.failed
    assert both["dropped"] == left["dropped"]


def test_one_that_was_promoted_is_held_against_control_alone() -> None:
    strategy = team_draft(RolloutSpec("team-draft", days=1, margin=0.0, arms=3))
    duel, rng = Duel(strategy, FOUR[:3], 2), np.random.default_rng(0)
    for noise, wanted in (((0.0, 3.0, 3.0), "FAIL"), ((3.0, 3.0, 0.0), "PASS")):
        state = duel.init(0)
        for day in range(4):
            state, verdict = duel.update(state, queries(strategy, strategy.init(FOUR[:3], 0), rng, day, 200, noise))
            state, verdict = duel.advance(state, (day + 1) * DAY)
        assert verdict.decision == wanted
        assert verdict.evidence[0].about == "candidate2"


def test_arms_that_make_no_sense_are_refused() -> None:
    with pytest.raises(RolloutError, match="by team draft further ones"):
        probabilistic().init(FOUR[:3], 0)
    with pytest.raises(RolloutError, match="control and a candidate"):
        team_draft().init(FOUR[1:3], 0)
    assert parse_rollout("interleave team draft among 3 for 14d").arms == 3
