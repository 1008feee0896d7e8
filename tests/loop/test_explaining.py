"""Explanations of real versions: exact where the model is a sum, additive always, of the version that answers the unit."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from conftest import SINCE, make_app, make_world
from live_server import make_live
from loudly.app.app import App
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock
from loudly.core.seams import Contributions
from loudly.core.values import Task
from loudly.deliver.rollout import RolloutSpec
from loudly.errors import DataError, ModelError, RolloutError
from loudly.loop.explaining import Explaining
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.register.skops_format import SklearnModel
from loudly.serve.rows import Rows, of_table

TABLE = make_world(days=45)


def live_with(fit: Any, task: str = "binary", frame: str = "numpy") -> Live:
    """A wheel over the world whose champion comes from a train function."""
    noisy = TABLE["x1"].to_numpy() + np.random.default_rng(5).normal(0, 2, TABLE.height)
    words = np.array(["low", "middle", "high"])[np.digitize(noisy, [-1.0, 1.0])]
    label = {"binary": TABLE["y"], "multiclass": pl.Series(words), "regression": pl.Series(noisy)}
    table = TABLE.with_columns(y=label[task])
    app = App("world", label="y", time="at", key="id", metric={"regression": "rmse"}.get(task, "log_loss"))
    app.data(lambda: table)
    app.train(holdout="7d", frame=frame)(fit)
    app.labels(arrive_within="1d")
    live = Live(app.system, memory_stores("world"), DataClock(SINCE), key=b"replay")
    assert not found(live, table.filter(pl.col("at").dt.epoch("us") < SINCE))
    live.retrain("first training", "there is no model yet")
    if live.state.champion is None:
        live.promote("world/1", "whatever the gate says")
    return live


def rows_of(live: Live, n: int = 6) -> tuple[Rows, pl.DataFrame]:
    ready = live.ready[live.state.champion or ""]
    table = TABLE.filter(pl.col("at").dt.epoch("us") >= SINCE).head(n).drop("y")
    return of_table(table, ready.schema), table


def linked(space: str, score: Any) -> Any:
    score = np.asarray(score)
    if space == "log-odds":
        return 1 / (1 + np.exp(-score))
    if space == "logits":
        return np.exp(score) / np.exp(score).sum()
    return score


def check(live: Live, method: str, space: str) -> list[Any]:
    rows, table = rows_of(live)
    told = Explaining(live).explain(rows, 60.0)
    ready = live.ready["world/1"]
    expected = ready.format.load(ready.bundle.model).predict(
        ready.features.frame(table) if ready.frame == "polars" else ready.features.matrix(table)
    )
    assert len(told) == table.height
    for one, prediction in zip(told, expected, strict=True):
        assert (one.method, one.space, one.version, one.arm) == (method, space, "world/1", "control")
        assert tuple(one.contributions) == ready.features.columns
        total = np.asarray(one.base) + np.sum([np.asarray(v) for v in one.contributions.values()], axis=0)
        assert total == pytest.approx(np.asarray(one.score), abs=1e-9)
        assert linked(space, one.score) == pytest.approx(prediction, abs=1e-5)
        assert np.asarray(one.prediction) == pytest.approx(prediction)
    return told


def test_a_logistic_regression_behind_a_scaler_is_exact_in_log_odds() -> None:
    live, _ = make_live(make_world(days=50))
    told = check(live, "linear", "log-odds")
    rows, table = rows_of(live)
    ready = live.ready["world/1"]
    model = ready.format.restore(ready.bundle.model)
    weights = model[-1].coef_[0] / model[0].scale_
    X = ready.features.matrix(table)
    difference = np.diff([list(one.contributions.values()) for one in told], axis=0)
    assert difference == pytest.approx(np.diff(X, axis=0) * weights, abs=1e-9)
    again = Explaining(live).explain(rows, 60.0)
    assert again == told, "the background is drawn by a fixed seed"


def test_linear_models_of_three_tasks() -> None:
    check(live_with(lambda X, y: LogisticRegression(max_iter=500).fit(X, y), "multiclass"), "linear", "logits")
    check(live_with(lambda X, y: LinearRegression().fit(X, y), "regression"), "linear", "output")


def test_what_is_no_sum_of_its_columns_gets_shapley_values_of_its_output() -> None:
    boosted = HistGradientBoostingClassifier(max_iter=20, random_state=0)
    told = check(live_with(lambda X, y: boosted.fit(X, y)), "shapley", "output")
    assert all(one.error == 0 for one in told)
    check(live_with(lambda X, y: boosted.fit(X, y), frame="polars"), "shapley", "output")
    crossed = make_pipeline(PolynomialFeatures(2), StandardScaler(), LogisticRegression(max_iter=500))
    check(live_with(lambda X, y: crossed.fit(X, y)), "shapley", "output")


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_lightgbm_is_explained_by_its_own_trees(task: str) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    kind = lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier
    space = {"binary": "log-odds", "multiclass": "logits", "regression": "output"}[task]
    live = live_with(lambda X, y: kind(n_estimators=20, verbose=-1, n_jobs=1).fit(X, y), task)
    told = check(live, "tree-shap", space)
    with warnings.catch_warnings():  # shap's plots use what matplotlib is about to drop
        warnings.simplefilter("ignore")
        shap = pytest.importorskip("shap", reason="LOUD: shap is not installed; TreeSHAP is held against its sums alone")
        ready = live.ready["world/1"]
        _, table = rows_of(live)
        theirs = shap.TreeExplainer(ready.format.restore(ready.bundle.model)).shap_values(ready.features.matrix(table))
    ours = np.array([list(one.contributions.values()) for one in told])
    theirs = np.asarray(theirs)
    if task == "binary" and theirs.ndim == 3:
        theirs = theirs[..., -1]
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_xgboost_is_explained_by_its_own_trees() -> None:
    xgboost = pytest.importorskip("xgboost", reason="LOUD: xgboost is not installed; its explanations are not tested")
    check(live_with(lambda X, y: xgboost.XGBClassifier(n_estimators=20, n_jobs=1).fit(X, y)), "tree-shap", "log-odds")
    told = live_with(lambda X, y: xgboost.XGBRegressor(n_estimators=20, n_jobs=1).fit(X, y), "regression")
    check(told, "tree-shap", "output")


def test_a_model_whose_sum_is_not_what_it_predicts_is_not_believed() -> None:
    live, _ = make_live(make_world(days=50))
    ready = live.ready["world/1"]

    class Boaster:
        def predict(self, X: Any) -> Any:
            return np.full(len(X), 0.5)

        def contributions(self, X: Any, _: Any) -> Contributions:
            return Contributions("linear", "output", np.zeros(1), np.ones((*X.shape, 1)))

    live.ready["world/1"] = replace(ready, model=Boaster(), served="original")
    told = Explaining(live).explain(rows_of(live)[0], 60.0)
    assert {one.method for one in told} == {"shapley"}
    assert all(abs(v) < 1e-12 for one in told for v in one.contributions.values())


def test_each_row_is_explained_by_the_version_that_answers_its_unit() -> None:
    live, clock = make_live(make_world(days=50))
    app = make_app(make_world(days=50))
    assert app.system.rollout[1].strategy == "canary"
    assert live.retrain("by hand", "another version", offer=False) == "world/2"
    live.system = replace(live.system, rollout=(RolloutSpec("ab", (0.5,), hold=10 * DAY, deadline=20 * DAY),))
    live.offer("world/2", "by hand")
    rows, _ = rows_of(live, 60)
    told = Explaining(live).explain(rows, 60.0)
    assert live.router is not None
    answered = live.router.answer(rows, list(rows.columns["id"]))
    versions = [answered.versions[a] for a in answered.arm.tolist()]
    assert set(versions) == {"world/1", "world/2"}
    assert [one.version for one in told] == versions
    assert [one.prediction for one in told] == pytest.approx(answered.answer.tolist(), abs=1e-6)
    assert clock.now() == SINCE


def test_what_cannot_be_explained_says_why() -> None:
    live, _ = make_live(make_world(days=50))
    rows, _ = rows_of(live)
    ready = live.ready["world/1"]
    live.ready["world/1"] = replace(ready, model=_Flat(), served="original")
    with pytest.raises(TimeoutError):
        Explaining(live).explain(rows, -1.0)
    live.ready["world/1"] = replace(ready, model=_Broken(), served="original")
    with pytest.raises(ModelError, match="ZeroDivisionError"):
        Explaining(live).explain(rows, 60.0)
    live.retraining._base = None
    with pytest.raises(DataError, match="training rows"):
        Explaining(live).explain(rows, 60.0)
    empty = Live(live.system, memory_stores("world"), DataClock(SINCE), key=b"replay")
    with pytest.raises(RolloutError):
        Explaining(empty).explain(rows, 60.0)


def test_only_a_linear_model_says_that_it_is_one() -> None:
    X = np.random.default_rng(0).normal(size=(50, 3))
    y = X[:, 0] > 0
    assert SklearnModel(HistGradientBoostingClassifier(max_iter=2).fit(X, y)).contributions(X, X) is None
    assert SklearnModel(LogisticRegression().fit(X, y)).contributions(X, X) is not None
    assert Task.BINARY.value == "binary"


class _Flat:
    def predict(self, X: Any) -> Any:
        return np.full(len(X), 0.5)


class _Broken:
    def predict(self, X: Any) -> Any:
        raise ZeroDivisionError
