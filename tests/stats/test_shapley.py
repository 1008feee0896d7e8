"""Shapley values: against the definition written out, against shap, and their laws."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.stats.shapley import exact, sampled, shapley


def curved(X: Any) -> Any:
    return np.tanh(X[:, 0] * X[:, 1]) + X[:, 2] ** 2 - 0.5 * X[:, 0] * X[:, 2] * X[:, 3]


def by_the_definition(score: Any, row: Any, background: Any) -> list[float]:
    """The mean over all orders of the columns of what each adds: Shapley 1953, without any shortcut."""

    def value(inside: frozenset[int]) -> float:
        mixed = background.copy()
        mixed[:, sorted(inside)] = row[sorted(inside)]
        return float(score(mixed).mean())

    d = len(row)
    told = [0.0] * d
    for order in itertools.permutations(range(d)):
        for place, i in enumerate(order):
            before = frozenset(order[:place])
            told[i] += (value(before | {i}) - value(before)) / math.factorial(d)
    return told


def test_exact_is_the_definition() -> None:
    rng = np.random.default_rng(0)
    row, background = rng.normal(size=5), rng.normal(size=(7, 5))
    base, parts, error = exact(curved, row, background)
    assert parts[:, 0] == pytest.approx(by_the_definition(curved, row, background), abs=1e-12)
    assert base[0] == pytest.approx(curved(background).mean())
    assert parts[4, 0] == pytest.approx(0, abs=1e-12), "a column that plays no part"
    assert not error.any()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_contributions_add_up_to_score_minus_base(d: int, m: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    row, background, weights = rng.normal(size=d), rng.normal(size=(m, d)), rng.normal(size=(d, k))
    for count in (
        shapley(lambda X: np.tanh(X @ weights), row, background, rng),
        sampled(lambda X: np.tanh(X @ weights), row, background, rng),
    ):
        base, parts, _ = count
        assert parts.shape == (d, k)
        assert base == pytest.approx(np.tanh(background @ weights).mean(axis=0))
        assert base + parts.sum(axis=0) == pytest.approx(np.tanh(row @ weights), abs=1e-9)


def test_sampling_is_right_in_the_mean_and_its_errors_are_as_large_as_said() -> None:
    rng = np.random.default_rng(1)
    row, background = rng.normal(size=5), rng.normal(size=(24, 5))
    _, truth, _ = exact(curved, row, background)
    draws = [sampled(curved, row, background, np.random.default_rng(seed)) for seed in range(400)]
    parts, errors = np.stack([d[1] for d in draws]), np.stack([d[2] for d in draws])
    spread = parts.std(axis=0, ddof=1)
    off = np.abs(parts.mean(axis=0) - truth) / np.maximum(spread / math.sqrt(400), 1e-12)
    assert (off[:4] < 4).all()
    # the background's rows are fixed and each is used, so the true spread is at most what is said
    assert (spread[:4] <= 1.1 * errors.mean(axis=0)[:4]).all()


def test_a_linear_function_is_sampled_without_any_doubt_beyond_its_background() -> None:
    rng = np.random.default_rng(2)
    row, background, weights = rng.normal(size=20), rng.normal(size=(16, 20)), rng.normal(size=20)
    _, parts, _ = shapley(lambda X: X @ weights, row, background, rng)
    assert parts[:, 0] == pytest.approx(weights * (row - background.mean(axis=0)))


def test_shap_counts_the_same() -> None:
    with warnings.catch_warnings():  # shap's plots use what matplotlib is about to drop
        warnings.simplefilter("ignore")
        shap = pytest.importorskip(
            "shap", reason="LOUD: shap is not installed; Shapley values are held against the definition alone"
        )
        rng = np.random.default_rng(3)
        rows, background = rng.normal(size=(4, 6)), rng.normal(size=(10, 6))
        theirs = shap.explainers.Exact(curved, shap.maskers.Independent(background, max_samples=100))(rows)
    for row, values, base in zip(rows, theirs.values, theirs.base_values, strict=True):
        ours = exact(curved, row, background)
        assert ours[1][:, 0] == pytest.approx(values, abs=1e-9)
        assert ours[0][0] == pytest.approx(base)
