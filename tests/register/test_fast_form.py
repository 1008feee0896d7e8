"""Fast forms: the same answers on another engine, at the cuts of the trees too, or the original serves and that is said."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor
from threadpoolctl import threadpool_info, threadpool_limits

from loudly.core.seams import FastForm
from loudly.core.values import Decision, Field, Kind, Schema
from loudly.errors import ModelError
from loudly.loop.serving import make_ready
from loudly.plugins import resolve
from loudly.register.bundle import pack, unpack
from loudly.register.fast_form import Fast, fasten
from loudly.register.pickle_format import PickleFormat
from loudly.register.skops_format import SklearnModel, SkopsFormat

RNG = np.random.default_rng(3)
X = RNG.normal(size=(1500, 5))
X[:, 4] = RNG.integers(0, 6, 1500)
HOLED = np.where(RNG.random(X.shape) < 0.1, np.nan, X)
Y = (X[:, 0] + (X[:, 4] == 2) + RNG.normal(size=1500) > 0.3).astype(int)
Y3 = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)
SCHEMA = Schema(tuple(Field(f"c{i}", Kind.NUMBER) for i in range(5)))
COLUMNS = [f"c{i}" for i in range(5)]
FEATURES = {"columns": COLUMNS, "codes": {}, "inputs": COLUMNS}
META = {"task": "binary", "classes": ["false", "true"], "metric": "roc_auc", "frame": "numpy", "params": {}}

TREES = [
    (HistGradientBoostingClassifier(max_iter=30, random_state=0), HOLED, Y),
    (HistGradientBoostingClassifier(max_iter=5, random_state=0), HOLED, Y3),
    (HistGradientBoostingRegressor(max_iter=10, random_state=0), HOLED, 1000 * X[:, 0]),
    (HistGradientBoostingRegressor(loss="poisson", max_iter=5), X, Y),
    (RandomForestClassifier(10, random_state=0), HOLED, Y),
    (RandomForestRegressor(5, random_state=0, n_jobs=2), X, X[:, 0]),
    (ExtraTreesClassifier(5, random_state=0), X, Y3),
    (DecisionTreeRegressor(random_state=0), X, X[:, 1]),
]
LINEAR = [
    (make_pipeline(StandardScaler(), LogisticRegression()), X, Y),
    (make_pipeline(StandardScaler(), LogisticRegression()), X, Y3),
    (Ridge(), X, X[:, 0]),
]


def named(case: Any) -> str:
    return type(case[0]).__name__ if isinstance(case, tuple) else ""


def forms(name: str) -> list[FastForm]:
    module, kind = {"onnx-trees": ("onnx_trees", "OnnxTrees"), "onnx-sklearn": ("onnx_sklearn", "OnnxSklearn")}[name]
    pytest.importorskip("onnx", reason="LOUD: onnx is not installed; fast forms by ONNX are not tested")
    if name == "onnx-sklearn":
        pytest.importorskip("skl2onnx", reason="LOUD: skl2onnx is not installed; fast forms by it are not tested")
    return [getattr(pytest.importorskip(f"loudly.adapters.{module}"), kind)()]


@pytest.mark.parametrize("case", TREES, ids=named)
def test_trees_answer_the_same_in_onnx_even_at_their_cuts(case: Any) -> None:
    estimator, given, truth = case
    estimator.fit(given, truth)
    fast = fasten(estimator, SklearnModel(estimator), given, forms("onnx-trees"))
    assert fast.verdict.passed, fast.verdict.reason
    gaps = {e.about: e.effect for e in fast.verdict.evidence}
    assert {"training rows", "values at the cuts", "rows with values never seen", "one row at a time"} <= set(gaps)
    assert max(gaps.values()) <= 1e-12 * max(1, np.abs(truth).max()), "doubles: not a single row changes side"
    assert fast.data == fasten(estimator, SklearnModel(estimator), given, forms("onnx-trees")).data


@pytest.mark.parametrize("case", LINEAR, ids=named)
def test_linear_pipelines_answer_the_same_in_doubles(case: Any) -> None:
    estimator, given, truth = case
    fast = fasten(estimator.fit(given, truth), SklearnModel(estimator), given, forms("onnx-sklearn"))
    assert fast.verdict.passed, fast.verdict.reason
    assert max(e.effect or 0 for e in fast.verdict.evidence) <= 1e-9
    assert fast.refuses == ("nan", "infinite")


@pytest.mark.parametrize("estimator", [RandomForestClassifier(5), LogisticRegression()], ids=lambda e: type(e).__name__)
def test_what_the_original_refuses_its_fast_form_refuses(estimator: Any) -> None:
    estimator.fit(X, Y)
    form, kind = SkopsFormat(), "onnx-sklearn" if isinstance(estimator, LogisticRegression) else "onnx-trees"
    model = form.dump(estimator)
    fast = fasten(estimator, form.load(model), X, forms(kind))
    data = pack(model, "skops", SCHEMA, FEATURES, {**META, "fast": fast.plain()}, fast.data)
    onnx = pytest.importorskip("loudly.adapters.onnx_format").OnnxFormat()
    ready = make_ready(data, (), [form, onnx], True, {kind: lambda: forms(kind)[0]})
    assert ready.served == kind
    assert np.allclose(ready.model.predict(X), estimator.predict_proba(X)[:, 1], atol=1e-12)
    refused = 0
    for value in (np.nan, np.inf, -np.inf, 1e39):
        row = X[:1].copy()
        row[0, 2] = value
        try:
            with np.errstate(over="ignore"):
                expected = estimator.predict_proba(row)[:, 1]
        except ValueError:
            refused += 1
            with pytest.raises(ModelError):
                ready.model.predict(row)
        else:
            assert np.allclose(ready.model.predict(row), expected, atol=1e-12)
    assert refused


class Rounded:
    """A fast form that cuts in float32, as converters do."""

    name, runs = "rounded", ""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def accepts(self, fitted: object) -> bool:
        return True

    def compile(self, fitted: object, width: int) -> bytes:
        return b"-"

    def cuts(self, fitted: object) -> Any:
        return forms("onnx-trees")[0].cuts(fitted)

    def load(self, data: bytes) -> Any:
        return self

    def predict(self, given: Any) -> Any:
        return SklearnModel(self.estimator).predict(np.asarray(given, dtype=np.float32).astype(np.float64))


class Broken(Rounded):  # a test's own
    name = "broken"

    def compile(self, fitted: object, width: int) -> bytes:
        raise TypeError("Expected an int, got a boolean\nand much more")


def test_float32_cuts_are_found_out_and_the_next_form_is_tried() -> None:
    estimator = HistGradientBoostingClassifier(max_iter=30, random_state=0).fit(X, Y)
    rounded = fasten(estimator, SklearnModel(estimator), X, [Rounded(estimator)])
    assert rounded.verdict.failed
    assert "values at the cuts" in rounded.verdict.reason
    assert rounded.data == b""
    both = fasten(estimator, SklearnModel(estimator), X, [Broken(estimator), Rounded(estimator), *forms("onnx-trees")])
    assert (both.verdict.decision, both.form) == (Decision.PASS, "onnx-trees")


def test_a_converter_that_fails_is_said_in_one_line() -> None:
    estimator = HistGradientBoostingClassifier(max_iter=2).fit(X, Y)
    fast = fasten(estimator, SklearnModel(estimator), X, [Broken(estimator)])
    assert fast.verdict.reason == "broken could not be made: TypeError: Expected an int, got a boolean and much more"
    nothing = fasten(estimator, SklearnModel(estimator), X, [])
    assert nothing.verdict.decision is Decision.UNDECIDED
    assert "HistGradientBoostingClassifier" in nothing.verdict.reason


def test_splits_on_sets_of_categories_are_not_said_by_the_graph_so_the_original_serves() -> None:
    estimator = HistGradientBoostingClassifier(max_iter=5, categorical_features=[4]).fit(X, Y)
    fast = fasten(estimator, SklearnModel(estimator), X, forms("onnx-trees"))
    assert fast.verdict.failed
    assert "categories" in fast.verdict.reason


@pytest.mark.parametrize("truth", [Y, Y3], ids=["binary", "multiclass"])
def test_lightgbm_answers_to_the_last_bit_with_categories_and_holes_from_many_threads(truth: Any) -> None:
    lgb = pytest.importorskip("lightgbm")
    of_a_row = pytest.importorskip("loudly.adapters.lightgbm_row")
    fitted = lgb.LGBMClassifier(n_estimators=20, verbose=-1, n_jobs=1).fit(HOLED, truth, categorical_feature=[4])
    form = resolve("format", "lightgbm")()
    text = form.dump(fitted)
    fast = fasten(form.restore(text), form.load(text), HOLED, [of_a_row.LightGBMRow()])
    assert fast.verdict.passed
    assert fast.data == text
    assert {e.effect for e in fast.verdict.evidence} == {0.0}
    model, expected = of_a_row.LightGBMRow().load(text), form.load(text).predict(HOLED)
    wrong: list[int] = []

    def ask(worker: int) -> None:
        mine = range(worker, 400, 4)
        wrong.extend(i for i in mine if not np.array_equal(model.predict(HOLED[i : i + 1])[0], expected[i]))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    with pytest.raises(ModelError, match="other columns"):
        model.predict(HOLED[:, :3])


def test_a_fast_form_that_reads_the_models_own_bytes_is_not_stored_twice() -> None:
    once, twice = pack(b"m", "skops", SCHEMA, FEATURES, META, b"m"), pack(b"m", "skops", SCHEMA, FEATURES, META, b"f")
    assert once == pack(b"m", "skops", SCHEMA, FEATURES, META)
    assert (unpack(once).fast, unpack(twice).fast) == (b"m", b"f")


def test_the_original_serves_where_fast_forms_are_off_gone_or_have_failed() -> None:
    estimator = HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(X, Y)
    form = SkopsFormat()
    model = form.dump(estimator)
    fast = fasten(estimator, form.load(model), X, forms("onnx-trees"))

    def ready(said: Fast | None, at_hand: Any) -> Any:
        meta = {**META, **({"fast": said.plain()} if said else {})}
        return make_ready(pack(model, "skops", SCHEMA, FEATURES, meta, said.data if said else b""), (), [form], True, at_hand)

    failed = fasten(estimator, form.load(model), X, [Broken(estimator)])
    for found, why in (
        (ready(fast, {}), "switched off"),
        (ready(fast, {"onnx-trees": lambda: None}), "not installed"),
        (ready(failed, {}), "could not be made"),
        (ready(None, {}), "no fast form was asked for"),
    ):
        assert found.served == "original"
        assert why in found.told
        assert np.array_equal(found.model.predict(X), estimator.predict_proba(X)[:, 1])


class Asking(BaseEstimator):
    """Tells how many threads it is given."""

    def __init__(self, n_jobs: int = 4) -> None:
        self.n_jobs = n_jobs

    def predict(self, given: Any) -> Any:
        most = max((pool["num_threads"] for pool in threadpool_info()), default=1)
        return np.full(len(given), float(max(most, self.n_jobs)))


def test_a_call_runs_on_one_thread_and_gives_the_pools_back() -> None:
    HistGradientBoostingClassifier(max_iter=1).fit(X, Y)  # its OpenMP is loaded
    form = PickleFormat()
    estimator = Asking()
    with threadpool_limits(3):
        model = form.load(form.dump(estimator))
        assert model.predict(X[:4]).tolist() == [1.0] * 4
        assert {pool["num_threads"] for pool in threadpool_info()} == {3}
        answers: list[float] = []
        threads = [threading.Thread(target=lambda: answers.append(model.predict(X[:1])[0])) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [1.0] * 8
        assert {pool["num_threads"] for pool in threadpool_info()} == {3}
    assert estimator.n_jobs == 4, "the user's estimator is left as it was"
