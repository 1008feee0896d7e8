"""The disagreement test of tiny windows: its formula written out, its level, what it hears and what it is deaf to on purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loudly.errors import DataError
from loudly.shift.two_sample.disagreement import fit_disagreement


def rows(rng: Any, n: int) -> Any:
    """Four columns; the answer depends on the first two."""
    return rng.normal(size=(n, 4))


def along(x: Any, column: int, by: float) -> Any:
    """The rows moved along one column."""
    return x + by * np.eye(4)[column]


def answers(x: Any) -> Any:
    return x[:, 0] + x[:, 1] > 0


@pytest.mark.parametrize("n", [10, 50])
def test_the_level_holds_in_tiny_windows(n: int) -> None:
    """Each null with a reference of its own. 0.05 + 3 standard errors."""
    p = []
    for seed in range(40):
        rng = np.random.default_rng((seed, n))
        x = rows(rng, 80)
        p.append(fit_disagreement(x, answers(x), seed=seed).check(rows(rng, n), permutations=99).p_value)
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 40)
    assert np.mean(np.array(p) <= 0.5) <= 0.5 + 3 * np.sqrt(0.25 / 40)


def test_it_hears_what_the_answers_depend_on_and_is_hard_of_hearing_for_the_rest() -> None:
    rng = np.random.default_rng(0)
    x = rows(rng, 400)
    fitted = fit_disagreement(x, answers(x))
    harmful = [fitted.check(along(rows(rng, 10), 0, 2.0)).p_value <= 0.05 for _ in range(40)]
    harmless = [fitted.check(along(rows(rng, 10), 3, 8.0)).p_value <= 0.05 for _ in range(40)]
    assert np.mean(harmful) >= 0.9
    assert np.mean(harmless) <= 0.5, "eight standard deviations, which every test of columns hears: trees split on noise a little"
    blind = fit_disagreement(x)
    assert np.mean([blind.check(along(rows(rng, 10), 3, 3.0)).p_value <= 0.05 for _ in range(20)]) >= 0.8, "no answers: all count"


def test_the_head_is_the_ridge_regression_that_it_says_it_is() -> None:
    """Fit half asked to change by 0, window by 1, one penalty: solved as one system over all rows."""
    rng = np.random.default_rng(1)
    x, window = rows(rng, 60), rows(rng, 5)
    fitted = fit_disagreement(x, answers(x), seed=3)
    one = np.random.default_rng(3).permutation(60)[:30]

    def members(table: Any) -> Any:
        at = fitted.trees.apply(table).reshape(len(table), -1)
        return np.concatenate([at[:, [j]] == known for j, known in enumerate(fitted.leaves)], axis=1) / np.sqrt(at.shape[1])

    usual = members(x[one]).mean(axis=0)
    both, asked = np.concatenate([members(x[one]), members(window)]) - usual, np.repeat([0.0, 1.0], [30, 5])
    weights = np.linalg.solve(both.T @ both + 3.0 * np.eye(both.shape[1]), both.T @ asked)
    assert fitted.check(window, permutations=19).effect == pytest.approx(float(((members(window) - usual) @ weights).mean()))


def test_a_users_own_boosting_grows_the_trees() -> None:
    lgb = pytest.importorskip("lightgbm", reason="LOUD: lightgbm is not installed; its leaves are not tested")
    rng = np.random.default_rng(2)
    x = rows(rng, 300)
    grown = lgb.LGBMClassifier(n_estimators=20, num_leaves=8, min_child_samples=5, verbose=-1, n_jobs=1)
    fitted = fit_disagreement(x, np.digitize(x[:, 0], [-0.5, 0.5]), trees=grown)
    found = fitted.check(along(rows(rng, 20), 0, 3.0))
    assert found.p_value <= 0.01
    assert found.detail["supervised"]


def test_what_cannot_be_tested_is_named() -> None:
    rng = np.random.default_rng(3)
    x = rows(rng, 100)
    with pytest.raises(DataError, match="needs its answer"):
        fit_disagreement(x, np.ones(3))
    with pytest.raises(DataError, match="too few rows"):
        fit_disagreement(x[:10])
    with pytest.raises(DataError, match="too few rows"):
        fit_disagreement(x).check(x[:0])
    with pytest.raises(DataError, match="NaN"):
        fit_disagreement(x).check(x[:5] * np.nan)
    alike = fit_disagreement(x, np.zeros(100))
    assert not alike.supervised
    found = alike.check(rows(rng, 300))
    assert (found.n, found.detail["rows_used"]) == (300, 100)
    assert fit_disagreement(x).check(x[:1]).p_value is not None
