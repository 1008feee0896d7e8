"""The e-process against a finite reference: exact expectations by enumeration, false alarms at every look, power, intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, betabinom, binom

from loudly.stats.multinomial_process import (
    fixed_share_interval,
    log_e,
    log_e_ordered,
    log_likelihood,
    log_predictive,
    multinomial_process,
    multinomial_process_of,
    share_interval,
)

FLAT, SKEWED = np.full(8, 1 / 8), np.arange(1, 9) ** -2.0 / np.sum(np.arange(1, 9) ** -2.0)


@pytest.mark.parametrize(("m", "n"), [(1, 5), (5, 50), (20, 10), (20, 100), (100, 30)])
def test_the_e_value_has_expectation_at_most_one_whatever_the_distribution(m: int, n: int) -> None:
    """Summed over every reference and every window of two categories: no simulation."""
    held, seen = np.arange(m + 1), np.arange(n + 1)
    windows = np.stack([seen, n - seen], axis=-1)
    ours = np.array([log_e([r, m - r], windows) for r in held])
    plug_in = np.array([log_predictive(windows, np.ones(2)) - log_predictive(windows, np.array([r + 1, m - r + 1])) for r in held])
    blind = 0.0
    for p in (1e-3, 0.01, 0.1, 0.3, 0.5):
        chance = binom.pmf(held, m, p)[:, None] * binom.pmf(seen, n, p)
        assert (chance * np.exp(ours)).sum() <= 1
        blind = max(blind, float((chance * np.exp(plug_in)).sum()))
    assert m >= n or blind > 1, "taking the reference for the truth must fail, or the test is blind"


@pytest.mark.parametrize("a", [0.1, 0.3, 0.6])
def test_the_bound_it_rests_on_holds(a: float) -> None:
    for n in (1, 2, 3, 7, 20, 60):
        x = np.arange(n + 1)
        for p in np.geomspace(1e-4, 0.5, 60):
            ratio = log_likelihood(np.stack([x, n - x], -1)) - binom.logpmf(x, n, p) + binom.logpmf(x, n, 0.5) + n * math.log(2)
            assert np.exp(binom.logpmf(x, n, p) + a * ratio).sum() <= 1 / (1 - a)


@pytest.mark.parametrize("m", [20, 200, 20_000])
@pytest.mark.parametrize("shares", [FLAT, SKEWED], ids=["flat", "skewed"])
def test_false_alarms_stay_below_alpha_at_every_look(m: int, shares: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    alarms = known = 0
    for _ in range(200):
        reference = rng.multinomial(m, shares)
        window = np.cumsum(rng.multinomial(25, shares, size=80), axis=0)
        alarms += bool(log_e(reference, window).max() >= math.log(1 / 0.05))
        sure = (reference + 0.5) / (m + 4)
        known += bool((log_predictive(window, np.full(8, 0.5)) - window @ np.log(sure)).max() >= math.log(1 / 0.05))
    assert alarms / 200 <= 0.05
    assert m == 20_000 or known / 200 > 0.2, "taking a finite reference for the truth must fail, or the test is blind"


@pytest.mark.parametrize(
    ("m", "moved", "rows"), [(200, 0.4, 400), (2000, 0.2, 400), (20_000, 0.2, 250), (20_000, 0.1, 1000), (20_000, 0.05, 8000)]
)
def test_it_finds_a_moved_share_within_so_many_rows(m: int, moved: float, rows: int) -> None:
    rng = np.random.default_rng(1)
    shares = (1 - moved) * FLAT + moved * np.eye(8)[7]
    found = [float(log_e(rng.multinomial(m, FLAT), rng.multinomial(rows, shares))) >= math.log(20) for _ in range(60)]
    assert np.mean(found) >= 0.8


def test_cuts_of_an_order_find_small_shifts_sooner_and_raise_no_more_alarms() -> None:
    rng = np.random.default_rng(5)
    moved = 0.94 * FLAT + 0.06 * np.eye(8)[7]
    sooner, alarms = [], 0
    for _ in range(100):
        reference = rng.multinomial(20_000, FLAT)
        sooner.append([float(f(reference, w)) for w in [rng.multinomial(2000, moved)] for f in (log_e_ordered, log_e)])
        same = np.cumsum(rng.multinomial(25, FLAT, size=60), axis=0)
        alarms += bool(log_e_ordered(rng.multinomial(200, FLAT), same).max() >= math.log(20))
    assert alarms / 100 <= 0.05
    power = (np.array(sooner) >= math.log(20)).mean(axis=0)
    assert power[0] > power[1] + 0.2
    assert log_e_ordered([5, 5], [2, 8]) == log_e([5, 5], [2, 8])


def test_twenty_rows_tell_little_but_not_nothing() -> None:
    assert float(log_e([20, 0], [0, 500])) >= math.log(20)
    assert float(log_e([12, 8], [150, 350])) < math.log(20)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3), max_size=6))
def test_the_process_resumes_and_does_not_mind_the_order(parts: list[list[int]]) -> None:
    whole = back = multinomial_process([30, 20, 10])
    for part in parts:
        whole = multinomial_process_of(whole.add(part).plain())
    for part in reversed(parts):
        back = back.add(part)
    assert whole == back
    assert math.isfinite(whole.log_e)


def test_a_share_is_covered_at_every_look_and_its_fixed_interval_is_clopper_and_pearson() -> None:
    rng = np.random.default_rng(2)
    n = np.arange(10, 2001, 10)
    for p in (0.0, 0.01, 0.2, 0.5):
        hits = np.cumsum(rng.binomial(10, p, size=(400, 200)), axis=1)
        low, high = share_interval(hits, np.broadcast_to(n, hits.shape), 0.05)
        assert ((p < low) | (p > high)).any(axis=1).mean() <= 0.05
        plain = fixed_share_interval(hits, np.broadcast_to(n, hits.shape), 0.05)
        assert p in (0.0, 0.01) or ((p < plain[0]) | (p > plain[1])).any(axis=1).mean() > 0.1, "fixed n must fail here"
    low, high = fixed_share_interval([3, 40], [50, 50], 0.05)
    assert low == pytest.approx(beta.ppf(0.025, [3, 40], [48, 11]))
    assert high == pytest.approx(beta.ppf(0.975, [4, 41], [47, 10]))
    assert share_interval(0, 0, 0.05) == (0.0, 1.0)


def test_bins_with_an_order_bet_one_half_on_all_of_them_and_one_half_on_cuts() -> None:
    """The mean of e-values, each by itself: with more cuts than are asked for, they are spread."""
    held, seen = np.arange(20, 50), np.arange(50, 20, -1)
    for cuts, places in ((40, range(1, 30)), (3, (1, 15, 29))):
        each = [math.exp(log_e([held[:i].sum(), held[i:].sum()], [seen[:i].sum(), seen[i:].sum()])) for i in places]
        mean = (math.exp(log_e(held, seen)) + np.mean(each)) / 2
        assert float(log_e_ordered(held, seen, cuts)) == pytest.approx(math.log(mean))


@pytest.mark.parametrize(("hits", "n", "alpha"), [(30, 1000, 0.05), (7, 12, 0.3), (0, 40, 0.05)])
def test_a_share_is_out_where_an_even_mixture_outbids_it_one_over_the_risk_times(hits: int, n: int, alpha: float) -> None:
    low, high = (float(end) for end in share_interval(hits, n, alpha))
    for end in (low, high) if hits else (high,):
        assert betabinom.pmf(hits, n, 0.5, 0.5) / binom.pmf(hits, n, end) == pytest.approx(1 / alpha, rel=1e-6)
    assert hits or low == 0.0


def test_a_stream_has_left_where_its_e_value_is_one_over_the_risk() -> None:
    stream = multinomial_process([300, 200, 100]).add([40, 40, 60])
    p = math.exp(-stream.log_e)
    assert 1e-6 < p < 0.5
    assert (stream.shifted(1.001 * p), stream.shifted(0.999 * p)) == (True, False)


def test_nothing_is_known_of_no_rows() -> None:
    for none in (([0, 0], [5, 5]), ([5, 5], [0, 0])):
        assert float(log_e(*none)) <= 0
