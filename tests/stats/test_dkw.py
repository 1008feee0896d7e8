"""Bands that hold at every look: published constants, coverage by simulation, and tests that a smaller constant would fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import kstwobign

from loudly.stats.dkw import band, crossing, fixed_band, height, ks_interval, share_band, share_sequence

GRID = np.linspace(0, 1, 513)[1:]
LOOKS = np.unique(np.geomspace(32, 10_000, 120).astype(int))


def paths(rng: np.random.Generator, runs: int, power: float = 1.0) -> np.ndarray:
    """(runs, looks, grid) empirical distribution functions of U^power, at every look."""
    out = np.empty((runs, len(LOOKS), len(GRID)))
    for run in range(runs):
        cells = np.minimum((rng.random(LOOKS[-1]) ** power * 512).astype(int), 511)
        before, counts = 0, np.zeros(512)
        for look, n in enumerate(LOOKS):
            counts += np.bincount(cells[before:n], minlength=512)
            out[run, look], before = np.cumsum(counts) / n, n
    return out


def test_the_constants_are_the_published_ones() -> None:
    # confseq (the authors' library) asserts this value in its own tests
    assert band(1000, 0.05, first=100) == pytest.approx(0.08204769, abs=1e-6)
    for alpha in (0.25, 0.05, 1e-4):
        assert crossing(0.85, height(alpha)) == pytest.approx(alpha, rel=1e-6)
        assert height(alpha) <= 0.8 * math.log(1612 / alpha), "the paper's closed form bounds it"
    assert fixed_band(1000, 0.05) == pytest.approx(kstwobign.isf(0.05) / math.sqrt(1000), rel=2e-3)
    assert band(31, 0.05) == math.inf


def test_the_band_holds_at_every_look_and_is_not_absurdly_wide() -> None:
    gaps = np.abs(paths(np.random.default_rng(0), 300) - GRID).max(axis=2)
    at = np.array([band(int(n), 0.05) for n in LOOKS])
    fixed = np.array([fixed_band(int(n), 0.05) for n in LOOKS])
    assert (gaps > at).any(axis=1).mean() <= 0.05
    assert (gaps > 0.6 * at).any(axis=1).mean() > 0.05, "a smaller constant must fail, or the test is blind"
    assert (gaps > fixed).any(axis=1).mean() > 0.12, "the band of a fixed n must fail, or the test is blind"
    assert band(10_000, 0.05) <= 2.5 * fixed_band(10_000, 0.05)


def test_one_point_holds_at_every_look() -> None:
    rng = np.random.default_rng(1)
    share = np.cumsum(rng.random((4000, 5000)) < 0.5, axis=1) / np.arange(1, 5001)
    reach = np.array([share_sequence(n, math.log(0.05), best_at=1000) for n in range(1, 5001)])
    missed = (share - 0.5 > reach).any(axis=1).mean()
    assert missed <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 4000)
    assert missed > 0.01, "not much wider than it must be"
    fixed = np.array([share_band(n, math.log(0.05)) for n in range(1, 5001)])
    assert (share - 0.5 > fixed).any(axis=1).mean() > 0.1, "a fixed n must fail, or the test is blind"


@pytest.mark.parametrize(("power", "reference_n"), [(1.0, 300), (1.0, 20_000), (1.6, 300), (1.6, 20_000)])
def test_the_distance_to_a_finite_reference_is_covered_at_every_look(power: float, reference_n: int) -> None:
    rng = np.random.default_rng(2)
    streams = paths(rng, 150, power)
    held = np.minimum((rng.random((150, reference_n)) * 512).astype(int), 511)
    reference = np.cumsum([np.bincount(row, minlength=512) for row in held], axis=1) / reference_n
    truth = np.abs(GRID ** (1 / power) - GRID).max()
    effects = np.abs(streams - reference[:, None, :]).max(axis=2)
    ends = np.array([[ks_interval(e, reference_n, int(n)) for e, n in zip(row, LOOKS, strict=True)] for row in effects])
    covered = (ends[:, :, 0] <= truth) & (truth <= ends[:, :, 1] + 1e-9)
    assert (~covered.all(axis=1)).mean() <= 0.05
    low, high = ends[:, -1].mean(axis=0)
    assert high - low < (0.12 if reference_n == 20_000 else 0.3)
    if power > 1 and reference_n == 20_000:
        assert low > 0.05, "a true distance of 0.13 is seen"


@pytest.mark.parametrize("alpha", [0.05, 0.4])
def test_each_end_of_a_distance_spends_a_quarter_of_the_risk_on_each_side(alpha: float) -> None:
    """So wide are all four together that coverage alone would not see a risk that was not split."""
    endless, n = 10**17, 2000
    low, high = ks_interval(0.5, endless, n, alpha)
    assert 0.5 - low == pytest.approx(band(n, alpha / 4), rel=1e-4)
    assert high - 0.5 == pytest.approx(share_sequence(n, math.log(alpha / 4)), rel=1e-4)
    low, high = ks_interval(0.5, n, endless, alpha)
    assert 0.5 - low == pytest.approx(kstwobign.isf(alpha / 4) / math.sqrt(n), rel=2e-3)
    assert math.exp(-2 * n * (high - 0.5) ** 2) == pytest.approx(alpha / 4, rel=1e-3), "Hoeffding's bound for one point"
    both = ks_interval(0.5, n, n, alpha)
    alone = ks_interval(0.5, n, endless, alpha), ks_interval(0.5, endless, n, alpha)
    assert both == pytest.approx([sum(ends) - 0.5 for ends in zip(*alone, strict=True)], rel=1e-4)
    assert ks_interval(0.5, n, n, alpha, bin_error=0.03) == pytest.approx((both[0], both[1] + 0.03))


def test_nothing_is_known_of_no_rows() -> None:
    assert ks_interval(0.2, 1000, 0) == (0.0, 1.0)
    assert ks_interval(0.2, 0, 1000) == (0.0, 1.0)
