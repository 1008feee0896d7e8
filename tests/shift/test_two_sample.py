"""Two-sample tests against scipy and against their formulas written out; levels and power stand in the conformance tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist

from loudly.errors import ConfigError, DataError
from loudly.shift.represent.autoencoder import trained_encoder, untrained_encoder
from loudly.shift.represent.black_box import decision, softmax
from loudly.shift.represent.linear import principal_components, sparse_projection
from loudly.shift.two_sample.chi_squared import chi_squared
from loudly.shift.two_sample.classifier import classifier
from loudly.shift.two_sample.energy import energy
from loudly.shift.two_sample.kolmogorov_smirnov import holm, kolmogorov_smirnov, ks_distances, ks_p_values
from loudly.shift.two_sample.mean_embedding import fourier_features, mean_embedding
from loudly.shift.two_sample.mmd import mmd
from loudly.shift.two_sample.mmd_agg import mmd_agg
from loudly.shift.two_sample.mmd_fuse import mmd_fuse
from loudly.stats.permutation import aggregate, p_value, quadratic, subsets, window_means


@pytest.mark.filterwarnings("ignore")  # scipy warns of its own p-value at some sizes
@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), m=st.integers(1, 60), ties=st.booleans(), seed=st.integers(0, 1000))
def test_ks_distances_are_scipys(n: int, m: int, ties: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
    if ties:
        a, b = a.round(), b.round()
    assert ks_distances(a, b) == pytest.approx([stats.ks_2samp(a[:, j], b[:, j]).statistic for j in range(3)])


@pytest.mark.parametrize("n", [5, 20, 200, 1000])
def test_ks_p_values_are_exact_for_equal_sizes(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(n, 20)), rng.normal(0.2, 1, size=(n, 20))
    ours = ks_p_values(ks_distances(a, b), n, n)
    theirs = [stats.ks_2samp(a[:, j], b[:, j], method="exact").pvalue for j in range(20)]
    assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(1, 7), (5, 15), (20, 30), (9, 1000), (5000, 2), (99, 101)])
def test_ks_p_values_of_small_samples_are_exact(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(n, 12)), rng.normal(np.linspace(0, 9, 12), 1, size=(m, 12))
    theirs = [stats.ks_2samp(a[:, j], b[:, j], method="exact").pvalue for j in range(12)]
    assert ks_p_values(ks_distances(a, b), n, m) == pytest.approx(theirs, rel=1e-9)
    assert ks_p_values(np.zeros(1), n, m) == [1.0]


def test_ks_p_values_of_small_samples_are_no_smaller_than_they_may_be() -> None:
    """6 and 9 rows: by the asymptotic distribution .063 of the p-values under the null are at most .05."""
    rng = np.random.default_rng(0)
    d = np.concatenate([ks_distances(rng.normal(size=(6, 50)), rng.normal(size=(9, 50))) for _ in range(200)])
    p = ks_p_values(d, 6, 9)
    assert 0.055 < (stats.kstwo.sf(d, 4) <= 0.05).mean() < 0.07
    for level in (0.01, 0.03, 0.05, 0.1):
        assert (p <= level).mean() <= level + 2.6 * np.sqrt(level * (1 - level) / len(p))


def test_ks_p_values_of_other_sizes_are_scipys_asymptotic_ones() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5918, 5)), rng.normal(0.05, 1, size=(958, 5))
    theirs = [stats.ks_2samp(a[:, j], b[:, j], method="asymp").pvalue for j in range(5)]
    assert ks_p_values(ks_distances(a, b), 5918, 958) == pytest.approx(theirs, rel=1e-9)


def test_chi_squared_is_scipys_and_empty_classes_have_no_say() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 300), rng.choice(5, 200, p=[0.3, 0.2, 0.2, 0.2, 0.1])
    table = np.stack([np.bincount(a, minlength=5), np.bincount(b, minlength=5)])
    assert chi_squared(a, b).p_value == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)
    assert chi_squared(["x"] * 10, ["x"] * 20).p_value == 1.0
    with pytest.raises(DataError):
        chi_squared([], [1])


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 25), m=st.integers(2, 25), seed=st.integers(0, 100))
def test_quadratic_is_the_unbiased_mmd_written_out_for_every_split(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n + m, 2))
    kernel = np.exp(-(cdist(rows, rows) ** 2))
    windows = subsets(n + m, n, 5, rng)
    for found, window in zip(quadratic(kernel, windows), windows, strict=True):
        rest = np.setdiff1d(np.arange(n + m), window)
        a, b, c = kernel[np.ix_(window, window)], kernel[np.ix_(rest, rest)], kernel[np.ix_(window, rest)]
        own = (a.sum() - np.trace(a)) / (n * (n - 1)) + (b.sum() - np.trace(b)) / (m * (m - 1)) - 2 * c.mean()
        assert found == pytest.approx(own, abs=1e-9)
    assert sorted(windows[0]) == list(range(m, n + m)), "the first split is the one that was observed"
    assert window_means(rows, windows)[3] == pytest.approx(rows[windows[3]].mean(axis=0))


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.1, 0.7, 0.3]])
def test_splits_with_the_same_rows_tie_whatever_their_order(values: list[float]) -> None:
    """The observed rows stand one after another, which rounds otherwise than a random order; a tie must count as one."""
    rng = np.random.default_rng(0)
    rows = np.repeat(values, 40)[:, None]
    drawn = rng.choice(len(rows), 30, replace=False)
    split = np.stack([np.sort(drawn), *(rng.permutation(drawn) for _ in range(20))])
    other = split // 40 * 40 + (split % 40 + 7) % 40  # other rows of the same values
    windows = np.concatenate([split, other])
    kernel = np.exp(-(cdist(rows, rows) ** 2)).astype(np.float32)
    assert p_value(quadratic(kernel, windows)) == 1.0
    assert p_value(window_means(rows.astype(np.float32), windows)[:, 0]) == 1.0


@pytest.mark.parametrize("test", [mmd, mmd_agg, mmd_fuse, energy, mean_embedding])
def test_values_that_cannot_be_squared_and_no_permutations_are_refused(test: Any) -> None:
    """A statistic of NaN had a p-value of 0 here, and of 1 there."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 2))
    with pytest.raises(DataError, match="too far apart"):
        test(x * 1e200, x * 1e200 + 1e201, rng=rng)
    with pytest.raises(DataError, match="no p-value"):
        test(x, x + 1, rng=rng, permutations=0)
    assert test(x * 1e15, x * 1e15 + 5e15, rng=rng, permutations=99).p_value <= 0.05


def test_odd_arguments_are_named_and_none_is_a_category() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        classifier(x, x, rng=rng, by="acuracy")
    with pytest.raises(ConfigError, match="above zero"):
        mmd(x, x, rng=rng, bandwidth=0.0)
    assert chi_squared(["a", None] * 50, ["a"] * 100).p_value < 1e-6


def test_energy_is_the_distance_written_out() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), rng.normal(0.5, 1, size=(40, 3))
    within = cdist(x, x).sum() / (30 * 29) + cdist(y, y).sum() / (40 * 39)
    assert energy(x, y, rng=rng, permutations=19).effect == pytest.approx(2 * cdist(x, y).mean() - within, rel=1e-4)


def test_fourier_features_approximate_their_kernel() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    features = fourier_features(x, 1.5, 20_000, rng)
    assert features @ features.T == pytest.approx(np.exp(-(cdist(x, x) ** 2) / (2 * 1.5**2)), abs=0.05)


def test_holm_rejects_in_steps() -> None:
    assert holm(np.array([0.001, 0.02, 0.04, 0.5]), 0.05).tolist() == [True, False, False, False]
    assert holm(np.array([0.04, 0.01, 0.02]), 0.05).tolist() == [True, True, True]


def test_an_aggregated_p_value_is_uniform_or_above_under_the_null() -> None:
    """Any two statistics of exchangeable splits: rejections are at most the level."""
    rng = np.random.default_rng(0)
    found = [aggregate([a := rng.normal(size=100), 0.7 * a + rng.normal(size=100)])[0] for _ in range(2000)]
    for level in (0.02, 0.05, 0.2):
        assert np.mean(np.array(found) <= level) <= level + 3 * np.sqrt(level / 2000)
    assert np.mean(np.array(found) <= 0.05) > 0.03, "and not far below"
    assert p_value(np.array([5.0, 1, 2, 3])) == 0.25


@pytest.mark.parametrize("test", [mmd_fuse, mmd_agg])
def test_many_bandwidths_see_what_the_median_one_misses(test: Any) -> None:
    """Two clusters far apart, whose inner width has halved: the median bandwidth sees one cluster as one point."""
    hits, median = 0, 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x, y = (rng.choice([-50, 50], (250, 1)) + rng.normal(0, width, (250, 1)) for width in (1.0, 0.5))
        hits += test(x, y, rng=rng, permutations=199).p_value <= 0.05
        median += mmd(x, y, rng=rng, permutations=199).p_value <= 0.05
    assert hits >= 9
    assert median <= 4


def test_the_classifier_sees_an_interaction_that_no_column_shows() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 2))
    y = rng.normal(size=(800, 2))
    y[:, 1] = np.abs(y[:, 1]) * np.sign(y[:, 0])
    assert classifier(x, y, rng=rng).p_value < 0.01
    assert classifier(x, y, rng=rng, by="accuracy").p_value < 0.01
    assert kolmogorov_smirnov(x, y).p_value > 0.05


@pytest.mark.parametrize("bad", [np.zeros((5, 2)), np.full((5, 3), np.nan), np.zeros((0, 3)), np.zeros((2, 2, 2))])
def test_what_cannot_be_tested_is_named(bad: Any) -> None:
    with pytest.raises(DataError):
        mmd(np.zeros((5, 3)), bad, rng=np.random.default_rng(0))
    with pytest.raises(DataError):
        kolmogorov_smirnov(np.zeros((5, 3)), bad)


def test_representations_have_the_shapes_they_promise_and_are_fitted_once() -> None:
    rng = np.random.default_rng(0)
    x, image = rng.normal(size=(200, 12)), rng.random((7, 784))
    for made in (principal_components(x, 4), sparse_projection(x, 4), trained_encoder(x, 4, 8, 2)):
        assert made(x).shape == (200, 4)
        assert np.array_equal(made(x)[:5], made(x)[:5])
        assert made(x[:3]) == pytest.approx(made(x)[:3])
    assert untrained_encoder(28)(image).shape == (7, 32)
    assert untrained_encoder(28, colours=1)(image[:0]).shape == (0, 32)
    assert np.array_equal(untrained_encoder(28, seed=3)(image), untrained_encoder(28, seed=3)(image))
    with pytest.raises(DataError):
        untrained_encoder(28)(x)
    assert softmax(lambda rows: rows[:, 0])(x).shape == (200, 1)
    assert decision(lambda rows: rows[:, 0])(x).shape == (200, 1)
