"""Online FDR: the published outputs, the promised rate by simulation, states that resume."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import zeta
from scipy.stats import norm

from loudly.stats.online_fdr import (
    ELond,
    Lord,
    Saffron,
    e_bh,
    e_lond_of,
    lord_of,
    lord_weight,
    saffron_of,
    saffron_weight,
)

# The worked example of the reference implementation (Bioconductor's onlineFDR), levels and discoveries as it prints them.
P = [2.9e-8, 0.06743, 0.01514, 0.08174, 0.00171, 3.6e-5, 0.79149, 0.27201, 0.28295, 7.59e-8, 0.69274, 0.30443, 0.00136, 0.72342]
P += [0.54757]
LORD = [2.675839e-4, 2.4664457e-3, 5.732818e-4, 4.872805e-4, 4.059066e-4, 3.447286e-4, 2.9745013e-3, 8.450114e-4, 7.305648e-4]
LORD += [6.243143e-4, 3.2185913e-3, 1.0617227e-3, 9.256825e-4, 8.019657e-4, 7.059610e-4]
SAFFRON = [0.005468627, 0.010937254, 0.010937254, 0.010937254, 0.010937254, 0.021874508, 0.032811762, 0.010823845, 0.010823845]
SAFFRON += [0.010823845, 0.021761099, 0.009265591, 0.009265591, 0.020202846, 0.009064367]


@pytest.mark.parametrize(
    ("rule", "levels", "found"),
    [(Lord(0.05), LORD, {0, 5, 9}), (Saffron(0.05), SAFFRON, {0, 4, 5, 9, 12})],
    ids=["lord", "saffron"],
)
def test_levels_and_discoveries_are_the_published_ones(rule: Lord | Saffron, levels: list[float], found: set[int]) -> None:
    hits = set()
    for i, p in enumerate(P):
        assert rule.level == pytest.approx(levels[i], rel=1e-6), i
        rule, hit = rule.test(p)
        hits |= {i} if hit else set()
    assert hits == found


def test_weights_sum_to_one() -> None:
    assert zeta(1.6) * saffron_weight(1) == pytest.approx(1, abs=1e-6)
    assert sum(lord_weight(j) for j in range(1, 200_000)) < 1
    assert all(a >= b for a, b in pairwise([lord_weight(j) for j in range(3, 500)]))


def runs(rng: np.random.Generator, share: float, shared: float) -> tuple[np.ndarray, np.ndarray]:
    """Whether each of 300 tests has an effect, and its z-score (a common part makes nulls dependent)."""
    real = rng.random(300) < share
    noise = np.sqrt(1 - shared) * rng.normal(size=300) + np.sqrt(shared) * rng.normal()
    return real, noise + 3.5 * real


def rate(rule: Lord | Saffron | ELond, share: float, shared: float, seed: int) -> tuple[float, float]:
    """False discovery rate and power over 200 runs."""
    rng = np.random.default_rng(seed)
    false, power = [], []
    for _ in range(200):
        real, z = runs(rng, share, shared)
        state, hits = rule, np.zeros(300, dtype=bool)
        told = 3.5 * z - 3.5**2 / 2 if isinstance(rule, ELond) else norm.sf(z)
        for i, value in enumerate(told):
            state, hits[i] = state.test(float(value))  # type: ignore[assignment]
        false.append((hits & ~real).sum() / max(1, hits.sum()))
        power.append((hits & real).sum() / max(1, real.sum()))
    return float(np.mean(false)), float(np.mean(power))


@pytest.mark.simulation
@pytest.mark.parametrize("rule", [Lord(0.1), Saffron(0.1), ELond(0.1)], ids=["lord", "saffron", "elond"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_the_share_of_false_discoveries_is_what_was_promised(rule: Lord | Saffron | ELond, share: float) -> None:
    false, power = rate(rule, share, 0.0, 1)
    assert false <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 200)
    if share >= 0.1:
        assert power > (0.08 if isinstance(rule, ELond) else 0.3)


def test_levels_of_e_lond_grow_with_what_it_has_found() -> None:
    rule, found = ELond(0.05), 0
    for test, log_e in enumerate([9.0, 0.0, 9.0, 0.0], 1):
        assert rule.level == pytest.approx(0.05 * test**-1.6 / zeta(1.6) * (found + 1))
        rule, hit = rule.test(log_e)
        found += hit
    assert found == 2


def test_e_lond_keeps_its_promise_under_dependence_and_uncorrected_tests_do_not() -> None:
    false, _ = rate(ELond(0.1), 0.05, 0.8, 2)
    assert false <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 200)
    rng = np.random.default_rng(3)
    naive = [
        (lambda real, z: ((norm.sf(z) < 0.1) & ~real).sum() / max(1, (norm.sf(z) < 0.1).sum()))(*runs(rng, 0.05, 0)) for _ in P
    ]
    assert np.mean(naive) > 0.3, "uncorrected tests must fail, or the simulation is blind"


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_e_bh_keeps_its_promise_under_any_dependence(shared: float) -> None:
    rng = np.random.default_rng(4)
    false, power = [], []
    for _ in range(400):
        real, z = runs(rng, 0.2, shared)
        hits = e_bh(3.5 * z - 3.5**2 / 2, 0.1)
        false.append((hits & ~real).sum() / max(1, hits.sum()))
        power.append((hits & real).sum() / max(1, real.sum()))
    assert np.mean(false) <= 0.1
    assert np.mean(power) > 0.4


def test_e_bh_by_hand_and_at_the_edges() -> None:
    e = np.log([100.0, 45, 31, 2, np.e])
    assert e_bh(e, 0.1).tolist() == [True, True, True, False, False]
    assert e_bh(np.log([49.0, 24]), 0.05).tolist() == [True, True]
    assert e_bh(np.log([39.0, 21]), 0.05).tolist() == [True, True], "two that reach 20 carry each other"
    assert not e_bh(np.log([39.0, 19]), 0.05).any()
    assert not e_bh([np.nan, 0.0], 0.05).any()
    assert e_bh([], 0.05).tolist() == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=40), st.integers(0, 40))
def test_states_resume(ps: list[float], cut: int) -> None:
    for rule, back in ((Lord(0.2), lord_of), (Saffron(0.2), saffron_of), (ELond(0.2), e_lond_of)):
        whole = resumed = rule
        for i, p in enumerate(ps):
            if i == cut:
                resumed = back(resumed.plain())
            value = -np.log(p + 1e-9) if isinstance(rule, ELond) else p
            whole, resumed = whole.test(value)[0], resumed.test(value)[0]  # type: ignore[assignment]
        assert whole == resumed
