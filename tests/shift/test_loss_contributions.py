"""Columns blamed for confirmed losses: what they add up to, false alarms, and a planted damage found by trees and by sampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from loudly import plugins
from loudly.core.seams import Contributions
from loudly.core.values import Task
from loudly.errors import DataError
from loudly.shift.loss_contributions import LOSS, USE, Explained, blame_losses, harm
from loudly.stats.shapley import sampled_rows

NAMES = ["age", "price", "hour", "noise"]


def rows(rng: Any, n: int) -> tuple[Any, Any]:
    x = rng.normal(size=(n, 4))
    return x, (rng.random(n) < 1 / (1 + np.exp(-1.5 * x[:, 0] - 1.5 * x[:, 1] - 0.5 * x[:, 2]))).astype(float)


def contributions(parts: Any, base: Any = 0.0) -> Contributions:
    """Parts (n, d) of one output, or (n, d, k)."""
    wide = parts if parts.ndim == 3 else parts[:, :, None]
    return Contributions(
        "linear", "output", np.broadcast_to(np.reshape(base, (-1, wide.shape[2])), (len(wide), wide.shape[2])), wide
    )


def linear(x: Any) -> Contributions:
    """The contributions of a linear model: exact, without a fit."""
    return contributions(x * [1.5, 1.5, 0.5, 0.0])


def test_the_harm_of_all_columns_is_the_loss() -> None:
    rng = np.random.default_rng(0)
    made = contributions(rng.normal(size=(50, 3)), rng.normal(size=50))
    score, base = made.score[:, 0], made.base[:, 0]
    label, number = rng.integers(0, 2, 50).astype(float), rng.normal(size=50)
    wrong = np.where(label == 1, -1, 1) * (score - base)
    assert harm(made, label, Task.BINARY).sum(axis=1) == pytest.approx(wrong)
    residual = score - number
    assert harm(made, number, Task.REGRESSION).sum(axis=1) + residual * (base - number) == pytest.approx(residual**2)
    many = contributions(rng.normal(size=(50, 3, 4)), rng.normal(size=(50, 4)))
    code = rng.integers(0, 4, 50)
    assert many.score.shape == (50, 4)
    rest = np.where(np.eye(4)[code] == 1, -np.inf, many.score)
    best = rest.argmax(axis=1)
    margin = rest.max(axis=1) - many.score[np.arange(50), code] - (many.base[np.arange(50), best] - many.base[np.arange(50), code])
    assert harm(many, code.astype(float), Task.MULTICLASS).sum(axis=1) == pytest.approx(margin)


@pytest.mark.parametrize("by_day", [False, True])
def test_nothing_is_blamed_where_nothing_happened(by_day: bool) -> None:
    """Any column of any of 100 pairs of periods, at 5 %; by day also where days share an error of their own."""
    alarms = 0
    for seed in range(100):
        rng, sides = np.random.default_rng(seed), []
        for first in (0, 100):
            x, y = rows(rng, 400)
            day = np.repeat(np.arange(20), 20)
            if by_day:
                x[:, 1] += rng.normal(0, 1, 20)[day]
            sides.append(Explained(linear(x), y, day + first if by_day else None))
        alarms += any((e.p_value or 0.0) <= 0.05 for e in blame_losses(*sides, NAMES, permutations=399, seed=seed))
    assert alarms / 100 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 100)


def test_days_that_share_an_error_alarm_by_rows() -> None:
    alarms = 0
    for seed in range(20):
        rng, sides = np.random.default_rng(seed), []
        for _ in range(2):
            x, y = rows(rng, 400)
            x[:, 1] += rng.normal(0, 2, 8)[np.repeat(np.arange(8), 50)]
            sides.append(Explained(linear(x), y))
        alarms += any((e.p_value or 0.0) <= 0.05 for e in blame_losses(*sides, NAMES, permutations=399, seed=seed))
    assert alarms >= 8


def damaged(x: Any, rng: Any) -> Any:
    """The price comes from another row: its distribution has not moved at all."""
    out = x.copy()
    out[:, 1] = rng.permutation(out[:, 1])
    return out


def test_a_damage_that_no_margin_shows_is_blamed_on_its_column_by_trees() -> None:
    lgb = pytest.importorskip("lightgbm", reason="LOUD: lightgbm is not installed; blame by its trees is not tested")
    rng = np.random.default_rng(1)
    x, y = rows(rng, 3000)
    form = plugins.resolve("format", "lightgbm")()
    model = form.load(form.dump(lgb.LGBMClassifier(n_estimators=40, num_leaves=8, verbose=-1, n_jobs=1).fit(x, y)))
    first = []
    for seed in range(20):
        (a, ya), (b, yb) = rows(rng, 400), rows(rng, 400)
        sides = [Explained(model.contributions(t, x), u) for t, u in ((a, ya), (damaged(b, rng), yb))]
        found = blame_losses(*sides, NAMES, permutations=499, seed=seed)
        first.append((found[0].about, found[0].p_value, found[0].low))
        assert [e.method for e in found] == [LOSS] * 4 + [USE] * 4
    assert np.mean([about == "price" and p <= 0.05 and low > 0 for about, p, low in first]) >= 0.9


def test_sampled_contributions_blame_the_same_column_of_any_model() -> None:
    rng = np.random.default_rng(2)
    x, y = rows(rng, 2000)
    model = LogisticRegression().fit(x, y)

    def predict(given: Any) -> Any:
        return model.predict_proba(given)[:, 1]

    (a, ya), (b, yb) = rows(rng, 500), rows(rng, 500)
    sides = [Explained(sampled_rows(predict, t, x, rng=rng, pairs=4), u) for t, u in ((a, ya), (damaged(b, rng), yb))]
    first = blame_losses(*sides, NAMES)[0]
    assert first.about == "price"
    assert (first.p_value or 1.0) <= 0.01
    assert 0.7 < first.detail["share"] < 1.3, "the whole change is the price's"


def test_a_unit_that_changed_in_a_regression_is_blamed() -> None:
    rng = np.random.default_rng(3)
    (a, _), (b, _) = rows(rng, 300), rows(rng, 300)
    truth = [t @ [1.5, 1.5, 0.5, 0.0] + rng.normal(0, 0.5, 300) for t in (a, b)]
    b[:, 2] *= 10
    found = blame_losses(Explained(linear(a), truth[0]), Explained(linear(b), truth[1]), NAMES, Task.REGRESSION)
    assert found[0].about == "hour"
    assert found[0].unit == "squared error"
    assert found[4].about == "hour", "and it is used far more"
    assert (found[4].p_value or 1.0) <= 0.05


def test_what_cannot_be_told_is_named() -> None:
    x, y = rows(np.random.default_rng(4), 100)
    good = Explained(linear(x), y)
    with pytest.raises(DataError, match="cannot tell"):
        blame_losses(good, Explained(linear(x), np.full(100, np.nan)), NAMES)
    with pytest.raises(DataError, match="do not fit"):
        blame_losses(good, good, NAMES[:2])
    with pytest.raises(DataError, match="both or to neither"):
        blame_losses(good, Explained(linear(x), y, np.arange(100)), NAMES)
    with pytest.raises(DataError, match="needs its day"):
        blame_losses(Explained(linear(x), y, [1]), Explained(linear(x), y, [1]), NAMES)
    many = Explained(linear(np.tile(x, (60, 1))), np.tile(y, 60))
    assert blame_losses(many, good, NAMES, permutations=99)[0].n == 100
