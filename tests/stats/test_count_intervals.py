"""Intervals for distances of counts: covered at every look, and each of their parts spends the risk that it was given.

The parts are unions and balls, so wide that no simulation would notice a risk that was not split. Their constants are therefore
held against what the sources say a part is: an e-value at the edge, a tail bound, a ball, each computed here by other means.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy.special import log_ndtr
from scipy.stats import binomtest, dirichlet_multinomial, multinomial

from loudly.stats.count_intervals import (
    fixed_kl_ball,
    js_interval,
    psi_interval,
    total_variation_interval,
    total_variation_reach,
)
from loudly.stats.divergence import js, psi, total_variation
from loudly.stats.dkw import share_sequence
from loudly.stats.multinomial_process import log_likelihood, share_interval

FLAT, SKEWED = np.full(8, 1 / 8), np.arange(1, 9) ** -2.0 / np.sum(np.arange(1, 9) ** -2.0)
# So many rows that what they leave open is nothing beside the other side.
ENDLESS = 10**17


@pytest.mark.simulation
@pytest.mark.parametrize("m", [50, 5000])
@pytest.mark.parametrize("moved", [0.0, 0.3])
def test_distances_are_covered_at_every_look(m: int, moved: float) -> None:
    rng = np.random.default_rng(3)
    shares = (1 - moved) * SKEWED + moved * np.eye(8)[7]
    truth = [total_variation(SKEWED, shares), js(SKEWED, shares), psi(SKEWED, shares)]
    missed = np.zeros(3)
    for _ in range(60):
        reference = rng.multinomial(m, SKEWED)
        out = np.zeros(3, dtype=bool)
        for window in np.cumsum(rng.multinomial(120, shares, size=20), axis=0):
            ends = [f(reference, window) for f in (total_variation_interval, js_interval, psi_interval)]
            out |= [not low <= t <= high + 1e-12 for t, (low, high) in zip(truth, ends, strict=True)]
        missed += out
    assert (missed / 60 <= 0.05).all()
    if moved and m == 5000:
        assert all(low > 0.2 * t for t, (low, _) in zip(truth, ends, strict=True)), "and the shift is seen"


# -- total variation -----------------------------------------------------------------------------------------------------------


def log_bet(reach: float, n: int, log_alpha: float, best_at: int) -> float:
    """Log of the one-sided normal mixture that `n` rows of a share have earned when it lies `reach` off (Howard et al., 2021).

    A bet on every positive drift, half-normal: 2·sqrt(r / (v + r))·exp(s² / 2(v + r))·Φ(s / sqrt(v + r)).
    """
    v, s, told = n / 4, reach * n, -2 * log_alpha
    r = best_at / 4 / (told + math.log(1 + told))
    return math.log(2) + math.log(r / (v + r)) / 2 + s * s / (2 * (v + r)) + float(log_ndtr(s / math.sqrt(v + r)))


@pytest.mark.parametrize(("k", "alpha"), [(2, 0.05), (12, 0.05), (5, 0.4)])
@pytest.mark.parametrize("n", [300, 10_000, 400_000])
def test_each_end_of_a_total_variation_spends_a_quarter_of_the_risk_on_each_side(k: int, alpha: float, n: int) -> None:
    below, above = total_variation_reach(k, ENDLESS, n, alpha)
    of_sets = math.log(alpha / 4) - k * math.log(2)
    for reach, risk in ((above, math.log(alpha / 4)), (below, of_sets)):
        assert -risk <= log_bet(reach, n, risk, 10_000) <= -risk + 0.25, "the window's part: all of its risk, at this look"
    below, above = total_variation_reach(k, n, ENDLESS, alpha)
    assert -2 * n * above**2 == pytest.approx(math.log(alpha / 4), rel=1e-3), "Hoeffding's bound for one set"
    assert -2 * n * below**2 == pytest.approx(of_sets, rel=1e-3), "and for all 2^k of them"


def test_the_reach_of_both_sides_adds_up_around_the_distance_seen() -> None:
    held, seen = [5000, 3000, 2000], [300, 500, 200]
    below, above = total_variation_reach(3, 10_000, 1000, 0.1)
    alone = [total_variation_reach(3, *sizes, 0.1) for sizes in ((10_000, ENDLESS), (ENDLESS, 1000))]
    assert (below, above) == pytest.approx(np.sum(alone, axis=0), rel=1e-4)
    assert below > above
    assert total_variation_interval(held, seen, 0.1) == pytest.approx((0.2 - below, 0.2 + above))
    assert total_variation_interval(held, seen, 0.1) != pytest.approx(total_variation_interval(seen, held, 0.1), abs=1e-3)


def test_the_reach_of_a_share_is_the_least_near_where_it_was_asked_to_be() -> None:
    at = share_sequence(10_000, math.log(0.01), 10_000)
    assert all(at < share_sequence(10_000, math.log(0.01), other) for other in (1000, 4000, 25_000, 100_000))


# -- Jensen-Shannon and PSI ----------------------------------------------------------------------------------------------------


def test_hellinger_bounds_jensen_shannon_and_the_ball_of_the_reference_holds() -> None:
    rng = np.random.default_rng(4)
    for _ in range(300):
        p, q = rng.dirichlet(np.full(6, 0.3)), rng.dirichlet(np.full(6, 0.3))
        assert js(p, q) ** 2 * math.log(2) <= 1 - np.sqrt(p * q).sum() + 1e-12
    counts = rng.multinomial(100, FLAT, size=4000)
    inside = log_likelihood(counts) - counts @ np.log(FLAT) <= 100 * fixed_kl_ball(8, 100, 0.05)
    assert inside.mean() >= 0.95
    assert fixed_kl_ball(8, 0, 0.05) == math.inf


@pytest.mark.parametrize(("k", "n", "alpha"), [(2, 100, 0.05), (8, 100, 0.05), (30, 5000, 0.3)])
def test_the_ball_of_the_reference_is_as_large_as_the_theorem_says(k: int, n: int, alpha: float) -> None:
    """P(KL >= r) <= exp(-n r)·(e n r / (k - 1))^(k - 1), for r above (k - 1) / n (Agrawal 2020, theorem I.2)."""
    ball = fixed_kl_ball(k, n, alpha)
    assert ball > (k - 1) / n
    assert math.exp(-n * ball) * (math.e * n * ball / (k - 1)) ** (k - 1) == pytest.approx(alpha)


def kl_within(reach: float) -> float:
    """The radius in nats of the KL ball within which a Jensen-Shannon distance (base 2) is at most `reach`."""
    return -2 * math.log1p(-(reach**2) * math.log(2))


def test_each_side_of_a_jensen_shannon_distance_has_half_of_the_risk() -> None:
    alpha, shares = 0.1, np.array([4, 3, 2, 1]) / 10
    window = (shares * 1000).astype(int)
    _, reach = js_interval(shares * ENDLESS, window, alpha)
    mixture = dirichlet_multinomial.logpmf(window, np.full(4, 0.5), 1000) - multinomial.logpmf(window, 1000, shares)
    assert mixture + 1000 * kl_within(reach) == pytest.approx(math.log(2 / alpha), abs=1e-3), (
        "at its edge a mixture outbids 2/alpha"
    )
    _, reach = js_interval(window, shares * ENDLESS, alpha)
    assert kl_within(reach) == pytest.approx(fixed_kl_ball(4, 1000, alpha / 2), rel=1e-3)
    low, high = js_interval(window, window[::-1], alpha)
    alone = js_interval(window, shares * ENDLESS, alpha)[1] + js_interval(shares * ENDLESS, window, alpha)[1]
    assert (low, high) == pytest.approx((max(0.0, js(window, window[::-1]) - alone), js(window, window[::-1]) + alone), rel=1e-3)


def test_the_interval_of_the_psi_is_the_range_over_boxes_that_hold_together() -> None:
    """Each share of the reference and of the window has its part of alpha; the sum of terms is at its ends in a corner, or zero."""
    alpha, reference, window = 0.1, [400, 300, 200, 100], [200, 250, 250, 300]
    each = alpha / 8
    ranges = []
    for held, seen in zip(reference, window, strict=True):
        p = binomtest(held, 1000).proportion_ci(1 - each, "exact")
        q = [float(end) for end in share_interval(seen, 1000, each)]
        corners = [(b - a) * math.log(b / a) for a, b in product((p.low, p.high), q)]
        apart = p.high < q[0] or q[1] < p.low
        ranges.append((min(corners) if apart else 0.0, max(corners)))
    assert psi_interval(reference, window, alpha) == pytest.approx(np.sum(ranges, axis=0))


def test_nothing_is_known_of_no_rows() -> None:
    for none in (([0, 0], [5, 5]), ([5, 5], [0, 0])):
        assert total_variation_interval(*none) == js_interval(*none) == (0.0, 1.0)
        assert psi_interval(*none) == (0.0, math.inf)
