"""Interleaving: fair to both rankings, credit without bias, an A/A that is rarely decided, agreement with A/B."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.core.values import Decision
from loudly.errors import DataError
from loudly.stats.interleave import Interleaved, Preference, interleaved_of, multileave, preference_of, probabilistic, team_draft

Make = Callable[..., Interleaved]
MAKERS: list[Make] = [team_draft, probabilistic]
FIRST, SECOND = tuple("abcdefghij"), tuple("cabdegfhji")
SEEN = 1 / np.arange(1, 11)  # how likely each place is looked at


def clicks(rng: np.random.Generator, shown: Interleaved, relevance: dict[str, float]) -> list[int]:
    """Position-biased clicks: a place is looked at, and the item liked."""
    liked = np.array([relevance[item] for item in shown.items])
    return np.flatnonzero(rng.random(len(liked)) < liked * SEEN[: len(liked)]).tolist()


def decided(make: Make, rng: np.random.Generator, rankings: tuple[Any, Any], relevance: dict[str, float], units: int) -> str:
    preference = Preference()
    for _ in range(units // 20):
        lists = [make(*rankings, rng.random(20)) for _ in range(20)]
        preference = preference.add([shown.credit(clicks(rng, shown, relevance)) for shown in lists])
        verdict = preference.verdict(0.05)
        if verdict.passed or verdict.failed:
            return str(verdict.decision)
    return "UNDECIDED"


rankings = st.permutations(list(range(8))).flatmap(lambda a: st.permutations(list(range(4, 12))).map(lambda b: (a, b)))


@settings(max_examples=60, deadline=None)
@given(rankings, st.sampled_from(MAKERS), st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_a_list_holds_each_item_once_from_either_ranking(pair: Any, make: Make, seed: int, length: int) -> None:
    shown = make(*pair, np.random.default_rng(seed).random(24), length)
    assert len(shown.items) == len(set(shown.items)) == len(shown.teams) == length
    for item, team, sure in zip(shown.items, shown.teams, shown.second, strict=True):
        assert 0 <= sure <= 1
        assert item in pair[0] or item in pair[1]
        if make is team_draft:
            assert item in pair[team]
    assert interleaved_of(json.loads(json.dumps(shown.plain()))) == shown


@given(st.integers(0, 2**32 - 1))
def test_team_draft_shows_the_best_first_and_picks_are_even(seed: int) -> None:
    shown = team_draft(FIRST, SECOND, np.random.default_rng(seed).random(10))
    assert shown.items[0] == (FIRST, SECOND)[shown.teams[0]][0]
    assert sum(shown.teams) == 5
    for place in range(0, 10, 2):
        assert {shown.teams[place], shown.teams[place + 1]} == {0, 1}
    same = team_draft(FIRST, FIRST, np.random.default_rng(seed).random(10))
    assert same.items == FIRST


def test_the_orders_of_several_rankings_are_equally_likely_and_their_chances_are_exact() -> None:
    """One draw from each cell of the unit interval is one of each permutation."""
    ranked = ("abcd", "bcda", "cdab", "dabc")
    lists = [multileave(ranked, np.full(4, (cell + 0.5) / 24)) for cell in range(24)]
    assert len({shown.teams for shown in lists}) == 24
    for shown in lists:
        assert sorted(shown.teams) == [0, 1, 2, 3]
        assert shown.chances == (1 / 4, 1 / 3, 1 / 2, 1.0)
        assert shown.items[0] == ranked[shown.teams[0]][0]
    clicked = lists[0].teams.index(2), lists[0].teams.index(0)
    assert [lists[0].credit(clicked[:1], team) for team in (1, 2)] == [0, 1]
    assert lists[0].credit(clicked, 2) == 0


def test_probabilistic_draws_from_the_soft_ranking() -> None:
    """Each team's first item has probability 1 / rank^3, normalised; and the shared credit is Bayes' rule on the coin."""
    rng, n = np.random.default_rng(0), 20_000
    lists = [probabilistic(FIRST, SECOND, rng.random(20), 1) for _ in range(n)]
    soft = 1 / np.arange(1, 11) ** 3.0
    soft /= soft.sum()
    for team, ranking in enumerate((FIRST, SECOND)):
        mine = [shown.items[0] for shown in lists if shown.teams[0] == team]
        assert len(mine) / n == pytest.approx(0.5, abs=0.015)
        for rank in range(3):
            assert mine.count(ranking[rank]) / len(mine) == pytest.approx(soft[rank], abs=0.015)
    of_c = [shown for shown in lists if shown.items[0] == "c"]
    assert of_c[0].second[0] == pytest.approx(soft[0] / (soft[0] + soft[2]))
    assert np.mean([shown.teams[0] for shown in of_c]) == pytest.approx(of_c[0].second[0], abs=0.01)


def test_the_chances_of_a_probabilistic_list_are_those_of_its_draws() -> None:
    """One coin and one item a place; an item that a ranking has not stands one place below its last."""
    a, b, nowhere = 1.0, 2.0**-3, 3.0**-3
    total = a + b + 2 * nowhere
    shown = probabilistic(("a", "b"), ("c", "d"), np.array([0.2, 0.0, 0.9, 0.999]))
    assert shown.items == ("a", "d")
    assert shown.teams == (0, 1)
    rest = a + b + nowhere
    assert shown.chances == pytest.approx((a / total / 2, b / rest / 2))
    assert shown.second == pytest.approx((nowhere / (a + nowhere), b / rest / (b / rest + nowhere / (b + 2 * nowhere))))
    even = [probabilistic(("a", "b"), ("b", "a"), np.array([0.0, draw]), 1, tau=0.0).items for draw in (0.0, 0.4999, 0.5, 0.9999)]
    assert even == [("a",), ("a",), ("b",), ("b",)], "half of the draws each"


def test_shared_credit_has_the_same_mean_with_less_noise() -> None:
    rng, relevance = np.random.default_rng(1), dict(zip(FIRST, np.linspace(0.9, 0.0, 10), strict=True))
    plain, shared = [], []
    for _ in range(6000):
        shown = probabilistic(FIRST, SECOND, rng.random(20))
        clicked = clicks(rng, shown, relevance)
        plain.append(shown.credit(clicked))
        shared.append(shown.shared(clicked))
    assert np.mean(shared) == pytest.approx(np.mean(plain), abs=3 * np.std(np.subtract(plain, shared)) / math.sqrt(6000))
    assert np.var(shared) < 0.5 * np.var(plain)
    assert np.mean(shared) < -3 * np.std(shared) / math.sqrt(6000), "the first ranking is the better one"


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("pair", [(FIRST, FIRST), (FIRST, FIRST[::-1]), (FIRST, SECOND)], ids=["same", "reversed", "near"])
def test_clicks_that_do_not_care_decide_nothing_at_any_look(make: Make, pair: tuple[Any, Any]) -> None:
    """The lists of 150 lives are drawn from 3,000; clicks are each life's own."""
    rng, runs, units = np.random.default_rng(2), 150, 400
    teams = np.array([make(*pair, rng.random(20)).teams for _ in range(3000)])
    wrong = []
    for _ in range(runs):
        clicked = rng.random((units, 10)) < 0.4 * SEEN
        credit = (clicked * (2 * teams[rng.integers(0, len(teams), units)] - 1)).sum(axis=1)
        wrong.append(Preference().add(credit.tolist()).wins.off(0.05))
    assert np.mean(wrong) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)


def test_the_sign_process_holds_its_risk_over_many_looks_and_a_sign_test_would_not() -> None:
    rng, runs = np.random.default_rng(3), 200
    wrong = naive = 0
    for _ in range(runs):
        signs = rng.choice([-1, 1], 600)
        wrong += Preference().add(signs.tolist()).wins.off(0.05)
        n = np.arange(1, 601)
        naive += bool((np.abs(np.cumsum(signs)) > 1.96 * np.sqrt(n))[20:].any())
    assert wrong / runs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)
    assert naive / runs > 0.25


@pytest.mark.parametrize("make", MAKERS)
def test_the_better_ranking_is_found_whichever_side_it_is_on(make: Make) -> None:
    rng, relevance = np.random.default_rng(4), dict(zip(FIRST, np.linspace(0.9, 0.0, 10), strict=True))
    worse = ("d", "e", "f", "a", "b", "c", *FIRST[6:])
    assert [decided(make, rng, (worse, FIRST), relevance, 1500) for _ in range(10)].count("PASS") >= 9
    assert [decided(make, rng, (FIRST, worse), relevance, 1500) for _ in range(10)].count("FAIL") >= 9


@pytest.mark.parametrize("make", MAKERS)
def test_it_agrees_with_the_clicks_that_each_ranking_would_earn_alone(make: Make) -> None:
    """Random pairs of rankings: the winner by interleaving is the one with more clicks a unit, by their exact expectation."""
    rng, right, judged, relevance = np.random.default_rng(5), 0, 0, dict(zip(FIRST, np.linspace(0.9, 0.0, 10), strict=True))
    while judged < 10:
        pair = tuple(rng.permutation(FIRST).tolist()), tuple(rng.permutation(FIRST).tolist())
        expected = [float(sum(relevance[item] * SEEN[place] for place, item in enumerate(ranking))) for ranking in pair]
        if abs(expected[1] - expected[0]) < 0.2:
            continue
        wanted = "PASS" if expected[1] > expected[0] else "FAIL"
        found = decided(make, rng, pair, relevance, 1500)
        assert found in (wanted, "UNDECIDED")
        judged, right = judged + 1, right + (found == wanted)
    assert right >= 8


def test_the_state_is_plain_and_ties_are_kept_apart() -> None:
    one = Preference().add([1, -1, 0, 2, 0.5])
    two = preference_of(json.loads(json.dumps(Preference().add([1, -1]).plain()))).add([0, 2, 0.5])
    assert one == two
    told = one.verdict(0.05)
    assert told.evidence[0].effect == 0.75
    assert told.evidence[0].detail["ties"] == 1
    assert told.missing
    assert Preference().verdict(0.05).evidence[0].effect is None


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_a_margin_of_the_wins_is_kept_where_the_lower_end_lies_above_it(alpha: float) -> None:
    low, high = Preference().count(210, 190, 50).wins.interval(1, alpha)
    assert 0.3 < low < 0.475 < high
    for margin, decision in ((0.5 - low + 1e-6, Decision.PASS), (0.5 - low - 1e-6, Decision.UNDECIDED)):
        verdict = Preference().count(210, 190, 50).verdict(alpha, margin=margin)
        assert verdict.decision is decision
        assert (verdict.evidence[0].low, verdict.evidence[0].high) == (low, high)


def test_clicks_on_one_place_count_once() -> None:
    shown = Interleaved(("a", "b"), (0, 1), (0.25, 1.0))
    assert shown.credit([0, 0, 0, 1]) == 0
    assert shown.shared([0, 0, 1]) == pytest.approx(0.5)


@pytest.mark.parametrize("make", MAKERS)
def test_impossible_rankings_are_refused(make: Make) -> None:
    for pair in ((("a", "a"), ("b",)), ((), ("b",))):
        with pytest.raises(DataError, match="each of them once"):
            make(*pair, np.zeros(9))
    with pytest.raises(DataError, match="draw for every place"):
        make(FIRST, SECOND, np.zeros(3))
