"""Statistics tested as statistics: coverage at every look, agreement with judges, bounds that a wrong formula would break."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import ndtr
from scipy.stats import binom, ks_2samp
from sklearn.metrics import average_precision_score, roc_auc_score

from loudly.stats.arm_process import RATIOS, STAKES, ArmProcess
from loudly.stats.auc import area, auc, auc_difference, average_precision, normal_interval
from loudly.stats.confidence_sequence import Running, cautious, difference, interval, radius, stretch
from loudly.stats.divergence import hellinger, js, ks, noise, psi, total_variation
from loudly.stats.placement import BINS, count, grid, placements


def test_the_confidence_sequence_covers_at_every_look() -> None:
    rng = np.random.default_rng(0)
    missed = fixed = 0
    for _ in range(400):
        stream, out, naive = Running(), False, False
        for _ in range(60):
            stream = stream.add(rng.normal(0, 1, 50))
            low, high = interval(stream, 0.05)
            out |= not low <= 0 <= high
            naive |= abs(stream.mean) > 1.96 * stream.deviation / np.sqrt(stream.n)
        missed, fixed = missed + out, fixed + naive
    assert missed / 400 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
    assert fixed / 400 > 0.2, "the naive interval must fail this test, or the test is blind"


def test_its_width_matches_the_published_formula() -> None:
    alpha, n, at = 0.05, 3000, 3000
    rho2 = (-2 * np.log(alpha) + np.log(-2 * np.log(alpha)) + 1) / at
    expected = np.sqrt(2 * (n * rho2 + 1) / (n**2 * rho2) * np.log(np.sqrt(n * rho2 + 1) / alpha))
    assert radius(n, 1.0, alpha, at) == pytest.approx(expected)
    assert 1.4 < expected / (1.96 / np.sqrt(n)) < 2.2


def test_streams_are_sure_about_when_it_was_foretold() -> None:
    """Even odds are even: of streams that go on, half have their interval clear of the margin or of zero by then."""
    rng, margin, sure = np.random.default_rng(5), 0.2, []
    for _ in range(600):
        mean = rng.uniform(-margin, 0)
        stream = Running().add(rng.normal(mean, 1, 500))
        factor = stretch(stream, 0.05, margin)
        low, high = interval(stream, 0.05)
        if low > -margin or high < 0:
            continue
        assert factor is not None
        low, high = interval(stream.add(rng.normal(mean, 1, round(500 * (factor - 1)))), 0.05)
        sure.append(low > -margin or high < 0)
    assert 0.35 < np.mean(sure) < 0.65
    assert stretch(Running(1, 0.0, 0.0), 0.05, margin) is None


batches = st.lists(st.lists(st.floats(-100, 100), max_size=20), max_size=8)


@settings(max_examples=60, deadline=None)
@given(batches)
def test_running_moments_merge_in_any_split(parts: list[list[float]]) -> None:
    whole = np.array([v for part in parts for v in part])
    stream = Running()
    for part in parts:
        stream = stream.add(np.array(part))
    assert stream.n == len(whole)
    if len(whole) > 1:
        assert stream.mean == pytest.approx(whole.mean(), abs=1e-9)
        assert stream.deviation == pytest.approx(whole.std(ddof=1), abs=1e-6)


def test_which_arm_erred_rarely_accuses_an_equal_arm_and_finds_a_worse_one() -> None:
    rng = np.random.default_rng(1)

    def rolled_back(rate: float, worse: float, share: float = 0.1) -> bool:
        process = ArmProcess()
        for _ in range(200):
            candidate, control = rng.binomial(50, rate * worse), rng.binomial(450, rate)
            process = process.add(int(candidate), int(control), share)
            if process.worse(0.05, share):
                return True
        return False

    equal = np.mean([rolled_back(0.02, 1.0) for _ in range(400)])
    worse = np.mean([rolled_back(0.02, 2.0) for _ in range(100)])
    assert equal <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
    assert worse > 0.95


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_the_bet_on_an_equal_arm_is_worth_its_stake_exactly_and_accuses_where_it_is_one_over_the_risk(share: float) -> None:
    """Summed over whose each of so many errors is: no simulation."""
    for errors in (1, 7, 40):
        worth = [math.exp(ArmProcess().add(mine, errors - mine, share).log_e) for mine in range(errors + 1)]
        assert (binom.pmf(np.arange(errors + 1), errors, share) * worth).sum() == pytest.approx(1.0)
    found = ArmProcess().add(9, 1, share).add(3, 2, 1 - share)
    e = math.exp(found.log_e)
    assert e == pytest.approx(_mixed([(9, 1, share), (3, 2, 1 - share)]))
    assert (found.worse(1.001 / e, share), found.worse(0.999 / e, share), found.worse(1.001 / e, 0.8)) == (True, False, False)


def _mixed(stretches: list[tuple[int, int, float]]) -> float:
    """What the stakes have become: an error is the candidate's with r·s / (1 - s + r·s) under a ratio r, with s under none."""
    total = 0.0
    for ratio, stake in zip(RATIOS, STAKES, strict=True):
        for mine, others, s in stretches:
            p = ratio * s / (1 - s + ratio * s)
            stake *= (p / s) ** mine * ((1 - p) / (1 - s)) ** others
        total += stake
    return total


def test_a_difference_of_two_arms_is_as_uncertain_as_both_are() -> None:
    """Arms of different sizes and spreads: each variance goes with its own arm's rows."""
    rng = np.random.default_rng(8)
    first, second = rng.normal(1.0, 3.0, 400), rng.normal(1.5, 0.5, 50)
    made = difference(Running().add(first), Running().add(second))
    assert (made.n, made.mean) == (450, pytest.approx(second.mean() - first.mean()))
    welch = math.sqrt(first.var(ddof=1) / 400 + second.var(ddof=1) / 50)
    assert made.deviation / math.sqrt(450) == pytest.approx(welch)
    assert difference(Running().add(first), Running().add(second[:1])).n == 0


def test_a_cautious_stream_has_seen_two_values_more_at_its_reach() -> None:
    seen = np.array([0.0, 0.0, 0.0, 1.0])
    two_more = ((np.array([*seen, seen.mean() - 2, seen.mean() + 2]) - seen.mean()) ** 2).sum()
    assert cautious(Running().add(seen), 2.0) == Running(4, 0.25, pytest.approx(two_more))  # type: ignore[arg-type]


def test_a_shared_outage_accuses_nobody() -> None:
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(300):
        process = ArmProcess()
        for look in range(100):
            rate = 0.5 if 30 <= look < 50 else 0.01
            process = process.add(int(rng.binomial(10, rate)), int(rng.binomial(90, rate)), 0.1)
            if process.worse(0.05, 0.1):
                wrong += 1
                break
    assert wrong / 300 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=40))
def test_the_area_and_the_average_precision_are_those_of_scikit_learn(rows: list[tuple[bool, int]]) -> None:
    truth, score = np.array([float(t) for t, _ in rows]), np.array([float(s) for _, s in rows])
    if 0 < truth.sum() < len(truth):
        assert area(truth, score) == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
        assert average_precision(truth, score) == pytest.approx(average_precision_score(truth, score), abs=1e-12)
    else:
        assert np.isnan(area(truth, score))
        assert np.isnan(average_precision(truth, score)) == (truth.sum() == 0)


def test_auc_agrees_with_scikit_learn_and_its_interval_covers() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        truth = (rng.random(400) < 0.3).astype(float)
        score = np.round(rng.normal(truth, 1.2), 1)
        found = auc(truth, score)
        assert found.value == pytest.approx(roc_auc_score(truth, score))
        low, high = normal_interval(found.value, found.error, 0.95)
        covered += low <= 0.7222 <= high  # Phi(1 / (1.2 * sqrt 2))
    assert 0.91 <= covered / 300 <= 0.985


def test_the_paired_difference_covers_zero_and_is_antisymmetric() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(300):
        truth = (rng.random(500) < 0.3).astype(float)
        shared = rng.normal(truth, 1)
        a, b = shared + rng.normal(0, 0.7, 500), shared + rng.normal(0, 0.7, 500)
        gap, error, _ = auc_difference(truth, a, b)
        assert auc_difference(truth, b, a)[0] == pytest.approx(-gap)
        low, high = normal_interval(gap, error, 0.95)
        covered += low <= 0 <= high
    assert 0.91 <= covered / 300 <= 0.985


def test_placements_average_to_the_auc_difference() -> None:
    rng = np.random.default_rng(5)
    truth = (rng.random(20_000) < 0.25).astype(float)
    good = 1 / (1 + np.exp(-rng.normal(2 * truth - 1, 1)))
    bad = 1 / (1 + np.exp(-rng.normal(truth - 0.5, 1)))
    seen = {name: [np.zeros(BINS, dtype=np.int64), np.zeros(BINS, dtype=np.int64)] for name in ("good", "bad")}
    gains = Running()
    for first in range(0, 20_000, 500):
        rows = slice(first, first + 500)
        placed = {}
        for name, score in (("good", good), ("bad", bad)):
            placed[name] = placements(truth[rows], score[rows], *seen[name])
            for kept, new in zip(seen[name], count(truth[rows], score[rows]), strict=True):
                kept += new
        known = np.isfinite(placed["good"] - placed["bad"])
        gains = gains.add((placed["good"] - placed["bad"])[known])
    expected = roc_auc_score(truth, good) - roc_auc_score(truth, bad)
    assert gains.mean == pytest.approx(expected, abs=0.01)
    low, high = interval(gains, 0.05)
    assert low < expected < high


def test_divergences_agree_with_scipy_and_know_nothing_of_nothing() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.integers(0, 12, 5000), np.minimum(11, rng.integers(0, 14, 4000))
    p, q = np.bincount(a, minlength=12), np.bincount(b, minlength=12)
    assert ks(p, q) == pytest.approx(ks_2samp(a, b).statistic)
    assert js(p, q) == pytest.approx(jensenshannon(p, q, base=2))
    assert total_variation([1, 0], [0, 1]) == hellinger([1, 0], [0, 1]) == 1
    assert psi(p, p) == 0
    for distance in (js, ks, total_variation, hellinger, psi):
        assert np.isnan(distance(p, np.zeros(12))), distance.__name__
    assert np.isnan(noise(0, 10, 5))


def test_the_noise_floor_is_what_sampling_gives() -> None:
    rng = np.random.default_rng(7)
    shares = rng.dirichlet(np.ones(30) * 3)
    seen = [js(rng.multinomial(20_000, shares), rng.multinomial(900, shares)) for _ in range(200)]
    assert np.mean(seen) == pytest.approx(noise(20_000, 900, 30), rel=0.1)


@pytest.mark.parametrize(
    "scaled", [lambda z: 1e-7 * ndtr(z), lambda z: 1 - 1e-7 * ndtr(-z), lambda z: z, lambda z: 10 + z, lambda z: -5 - z]
)
def test_placements_tell_scores_apart_wherever_they_lie(scaled: Any) -> None:
    """Small probabilities of rare events, sure ones, margins, places in a ranking: all but ties on a grid of [0, 1] alone."""
    rng = np.random.default_rng(6)
    truth = (rng.random(20_000) < 0.25).astype(float)
    score = scaled(rng.normal(1.5 * truth, 1))
    first, rest = slice(0, 10_000), slice(10_000, None)
    found = placements(truth[rest], score[rest], *count(truth[first], score[first]))
    positive = truth[rest] > 0.5
    told = (found[positive].mean() + found[~positive].mean()) / 2
    assert told == pytest.approx(roc_auc_score(truth, score), abs=0.02)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2))
def test_a_larger_score_is_never_in_a_bin_before(scores: list[float]) -> None:
    bins = grid(np.sort(scores))
    assert (np.diff(bins) >= 0).all()
    assert bins[0] >= 0
    assert bins[-1] < BINS
