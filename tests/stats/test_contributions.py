"""Contributions against Shapley values written out: every subset of the columns, for a function and for trees."""

from __future__ import annotations

from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pytest

from loudly import plugins
from loudly.errors import DataError
from loudly.stats.contributions import rows_of, sampled_contributions


def shapley(value: Any, d: int) -> Any:
    """The definition: a column's weighted gain over all subsets of the others. value: subset -> number."""
    out = np.zeros(d)
    for j in range(d):
        for size in range(d):
            for chosen in combinations([c for c in range(d) if c != j], size):
                weight = factorial(size) * factorial(d - size - 1) / factorial(d)
                out[j] += weight * (value({*chosen, j}) - value(set(chosen)))
    return out


def curved(x: Any) -> Any:
    return x[:, 0] * x[:, 1] + np.where(x[:, 2] > 0, 2 * x[:, 3], 0.0)


def test_sampling_comes_to_the_values_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    rows, background = rng.normal(size=(4, 4)), rng.normal(size=(20, 4))
    made = sampled_contributions(curved, rows, background, rng=rng, pairs=4000)
    for row, found in zip(rows, made.values, strict=True):

        def value(known: set[int], row: Any = row) -> float:
            mixed = background.copy()
            mixed[:, list(known)] = row[list(known)]
            return float(curved(mixed).mean())

        assert found == pytest.approx(shapley(value, 4), abs=0.08)
    assert made.score == pytest.approx(curved(rows)), "they add up exactly, sampled or not"


def test_what_has_several_outputs_has_contributions_to_each() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(30, 3))
    made = sampled_contributions(lambda x: np.stack([x[:, 0], 3 * x[:, 2]], axis=1), rows, np.zeros((1, 3)), rng=rng, pairs=1)
    assert made.values.shape == (30, 3, 2)
    assert made.values[:, :, 0] == pytest.approx(rows * [1, 0, 0])
    assert made.values[:, :, 1] == pytest.approx(rows * [0, 0, 3])


def test_a_column_that_is_not_looked_at_adds_nothing() -> None:
    rng = np.random.default_rng(2)
    made = sampled_contributions(lambda x: x[:, 0] ** 2, rng.normal(size=(50, 2)), rng.normal(size=(9, 2)), rng=rng)
    assert (made.values[:, 1] == 0).all()


def told(fitted: Any, rows: Any) -> Any:
    """What the loaded model says of itself."""
    form = plugins.resolve("format", "lightgbm")()
    return rows_of(form.load(form.dump(fitted)).contributions(rows, rows))


def test_trees_agree_with_the_definition_over_their_own_leaves() -> None:
    lgb = pytest.importorskip("lightgbm", reason="LOUD: lightgbm is not installed; its contributions are not tested")
    rng = np.random.default_rng(3)
    x = rng.normal(size=(400, 3))
    model = lgb.LGBMRegressor(n_estimators=3, num_leaves=6, verbose=-1, n_jobs=1).fit(x, curved(np.c_[x, x[:, 0]]))
    made = told(model, x[:5])
    trees = [t["tree_structure"] for t in model.booster_.dump_model()["tree_info"]]

    def walk(node: Any, row: Any, known: set[int]) -> float:
        if "leaf_value" in node:
            return float(node["leaf_value"])
        sides = (node["left_child"], node["right_child"])
        if node["split_feature"] in known:
            return walk(sides[int(row[node["split_feature"]] > node["threshold"])], row, known)
        share = [s.get("internal_count", s.get("leaf_count")) for s in sides]
        return float(np.average([walk(s, row, known) for s in sides], weights=share))

    for row, found in zip(x[:5], made.values, strict=True):
        assert found == pytest.approx(shapley(lambda known, row=row: sum(walk(t, row, known) for t in trees), 3), abs=1e-9)
    assert made.score == pytest.approx(model.predict(x[:5]))


def test_classes_have_contributions_each() -> None:
    lgb = pytest.importorskip("lightgbm", reason="LOUD: lightgbm is not installed; its contributions are not tested")
    rng = np.random.default_rng(4)
    x = rng.normal(size=(300, 2))
    model = lgb.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(x, np.digitize(x[:, 0], [-0.5, 0.5]))
    made = told(model, x)
    assert made.values.shape == (300, 2, 3)
    assert made.score == pytest.approx(model.predict_proba(x, raw_score=True))


def test_tables_that_do_not_fit_are_named() -> None:
    with pytest.raises(DataError, match="same columns"):
        sampled_contributions(curved, np.zeros((2, 4)), np.zeros((2, 3)), rng=np.random.default_rng(0))
