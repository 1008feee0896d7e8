"""Shapley values: against the definition written out, against shap, and their laws."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly import plugins
from loudly.errors import DataError
from loudly.stats.shapley import exact, sampled, sampled_rows, shapley


def curved(X: Any) -> Any:
    return np.tanh(X[:, 0] * X[:, 1]) + X[:, 2] ** 2 - 0.5 * X[:, 0] * X[:, 2] * X[:, 3]


def by_the_definition(value: Callable[[frozenset[int]], float], d: int) -> list[float]:
    """The mean over all orders of the columns of what each adds: Shapley 1953, without any shortcut."""
    told = [0.0] * d
    for order in itertools.permutations(range(d)):
        for place, i in enumerate(order):
            before = frozenset(order[:place])
            told[i] += (value(before | {i}) - value(before)) / math.factorial(d)
    return told


def mixed(score: Any, row: Any, background: Any) -> Callable[[frozenset[int]], float]:
    """The mean score of the background's rows with some columns of the row."""

    def value(inside: frozenset[int]) -> float:
        rows = background.copy()
        rows[:, sorted(inside)] = row[sorted(inside)]
        return float(score(rows).mean())

    return value


def test_exact_is_the_definition() -> None:
    rng = np.random.default_rng(0)
    row, background = rng.normal(size=5), rng.normal(size=(7, 5))
    base, parts, error = exact(curved, row, background)
    assert parts[:, 0] == pytest.approx(by_the_definition(mixed(curved, row, background), 5), abs=1e-12)
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


def stepped(x: Any) -> Any:
    return x[:, 0] * x[:, 1] + np.where(x[:, 2] > 0, 2 * x[:, 3], 0.0)


def test_sampling_many_rows_comes_to_the_values_of_each() -> None:
    rng = np.random.default_rng(0)
    rows, background = rng.normal(size=(4, 4)), rng.normal(size=(20, 4))
    made = sampled_rows(stepped, rows, background, rng=rng, pairs=4000)
    for row, found in zip(rows, made.parts, strict=True):
        assert found == pytest.approx(exact(stepped, row, background)[1], abs=0.08)
    assert made.score[:, 0] == pytest.approx(stepped(rows)), "they add up exactly, sampled or not"


def test_many_rows_are_scored_a_bounded_number_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, asked = np.random.default_rng(5), []
    rows, background = rng.normal(size=(50, 3)), rng.normal(size=(9, 3))

    def score(X: Any) -> Any:
        asked.append(len(X))
        return X[:, 0] * X[:, 1]

    whole = sampled_rows(score, rows, background, rng=np.random.default_rng(6), pairs=2)
    assert set(asked) == {50 * 4}
    monkeypatch.setattr("loudly.stats.shapley.MOST_AT_ONCE", 30)
    pieces = sampled_rows(score, rows, background, rng=np.random.default_rng(6), pairs=2)
    assert max(asked[4:]) <= 30
    assert np.array_equal(pieces.parts, whole.parts)
    assert np.array_equal(pieces.base, whole.base)


def test_what_has_several_outputs_has_contributions_to_each() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(30, 3))
    made = sampled_rows(lambda x: np.stack([x[:, 0], 3 * x[:, 2]], axis=1), rows, np.zeros((1, 3)), rng=rng, pairs=1)
    assert made.parts.shape == (30, 3, 2)
    assert made.parts[:, :, 0] == pytest.approx(rows * [1, 0, 0])
    assert made.parts[:, :, 1] == pytest.approx(rows * [0, 0, 3])


def test_a_column_that_is_not_looked_at_adds_nothing() -> None:
    rng = np.random.default_rng(2)
    made = sampled_rows(lambda x: x[:, 0] ** 2, rng.normal(size=(50, 2)), rng.normal(size=(9, 2)), rng=rng)
    assert (made.parts[:, 1] == 0).all()


def told(fitted: Any, rows: Any) -> Any:
    """What the loaded model says of itself."""
    form = plugins.resolve("format", "lightgbm")()
    return form.load(form.dump(fitted)).contributions(rows, rows)


def test_trees_agree_with_the_definition_over_their_own_leaves() -> None:
    lgb = pytest.importorskip("lightgbm", reason="LOUD: lightgbm is not installed; its contributions are not tested")
    rng = np.random.default_rng(3)
    x = rng.normal(size=(400, 3))
    model = lgb.LGBMRegressor(n_estimators=3, num_leaves=6, verbose=-1, n_jobs=1).fit(x, stepped(np.c_[x, x[:, 0]]))
    made = told(model, x[:5])
    trees = [t["tree_structure"] for t in model.booster_.dump_model()["tree_info"]]

    def walk(node: Any, row: Any, known: frozenset[int]) -> float:
        if "leaf_value" in node:
            return float(node["leaf_value"])
        sides = (node["left_child"], node["right_child"])
        if node["split_feature"] in known:
            return walk(sides[int(row[node["split_feature"]] > node["threshold"])], row, known)
        share = [s.get("internal_count", s.get("leaf_count")) for s in sides]
        return float(np.average([walk(s, row, known) for s in sides], weights=share))

    for row, found in zip(x[:5], made.parts, strict=True):
        by_hand = by_the_definition(lambda known, row=row: sum(walk(t, row, known) for t in trees), 3)
        assert found[:, 0] == pytest.approx(by_hand, abs=1e-9)
    assert made.score[:, 0] == pytest.approx(model.predict(x[:5]))


def test_classes_have_contributions_each() -> None:
    lgb = pytest.importorskip("lightgbm", reason="LOUD: lightgbm is not installed; its contributions are not tested")
    rng = np.random.default_rng(4)
    x = rng.normal(size=(300, 2))
    model = lgb.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(x, np.digitize(x[:, 0], [-0.5, 0.5]))
    made = told(model, x)
    assert made.parts.shape == (300, 2, 3)
    assert made.score == pytest.approx(model.predict_proba(x, raw_score=True))


def test_tables_that_do_not_fit_are_named() -> None:
    with pytest.raises(DataError, match="same columns"):
        sampled_rows(stepped, np.zeros((2, 4)), np.zeros((2, 3)), rng=np.random.default_rng(0))
