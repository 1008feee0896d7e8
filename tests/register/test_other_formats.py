"""A plain function, XGBoost, PyTorch and an MLflow URI as models."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from loudly.core.values import Field, Kind, Schema
from loudly.errors import ModelError, UntrustedModel
from loudly.loop.serving import make_ready
from loudly.plugins import resolve
from loudly.register.bundle import pack
from loudly.register.fast_form import fasten
from loudly.register.function_format import Function, FunctionFormat

RNG = np.random.default_rng(2)
X = RNG.normal(size=(300, 4))
Y = (X[:, 0] + RNG.normal(size=300) > 0).astype(int)
SCHEMA = Schema(tuple(Field(f"c{i}", Kind.NUMBER) for i in range(4)))
COLUMNS = [f"c{i}" for i in range(4)]
FEATURES = {"columns": COLUMNS, "codes": {}, "inputs": COLUMNS}
META = {"task": "binary", "classes": ["false", "true"], "metric": "roc_auc", "frame": "numpy"}
SLOPE = 2.0


def score(X: Any, weights: Any, bias: float = 0.0) -> Any:
    return 1 / (1 + np.exp(-(X @ weights + bias))) + 0 * math.pi


def leans_on_its_file(X: Any) -> Any:
    return X[:, 0] * SLOPE


def test_a_function_is_stored_by_its_source_with_its_constants() -> None:
    form, weights = FunctionFormat(), np.array([1.0, 0.5, 0.0, -1.0])
    model = Function(score, weights=weights, bias=0.1)
    data = form.dump(model)
    again = form.restore(data)
    assert again.modules == {"math": "math", "np": "numpy"}
    assert np.array_equal(again.predict(X), score(X, weights, 0.1))
    assert again.digest == model.digest == Function(score, weights=weights.copy(), bias=0.1).digest
    assert model.digest != Function(score, weights=weights, bias=0.2).digest


def test_a_function_that_needs_more_than_itself_is_refused() -> None:
    outer = 3.0

    def closes(X: Any) -> Any:
        return X[:, 0] * outer

    for wrong, told in (
        (leans_on_its_file, "SLOPE"),
        (closes, "outer"),
        (lambda X: X[:, 0], "with a name"),
        (np.sum, "with a name"),
    ):
        with pytest.raises(ModelError, match=told):
            Function(wrong)


def test_a_function_loads_only_under_a_digest_the_ledger_holds() -> None:
    form = FunctionFormat()
    data = pack(form.dump(Function(score, weights=np.ones(4))), "function", SCHEMA, FEATURES, META)
    with pytest.raises(UntrustedModel):
        make_ready(data, (), [form], vouched=False)
    assert make_ready(data, (), [form], vouched=True).model.predict(X).shape == (300,)


@pytest.mark.filterwarnings("ignore")
def test_xgboost_is_native_is_continued_and_has_a_fast_form() -> None:
    xgb = pytest.importorskip("xgboost", reason="LOUD: xgboost is not installed; its format is not tested")
    trees = pytest.importorskip("loudly.adapters.onnx_trees", reason="LOUD: onnx is not installed; no fast form is tried")
    form = resolve("format", "xgboost")()
    holed = np.where(RNG.random(X.shape) < 0.1, np.nan, X)
    for fitted in (
        xgb.XGBClassifier(n_estimators=20, n_jobs=1).fit(holed, Y),
        xgb.XGBClassifier(n_estimators=5, n_jobs=1).fit(holed, Y + (X[:, 1] > 1)),
        xgb.XGBRegressor(n_estimators=20, n_jobs=1).fit(holed, X[:, 0]),
        xgb.XGBClassifier(n_estimators=50, n_jobs=1, early_stopping_rounds=2).fit(X, Y, eval_set=[(X[::-1], Y)], verbose=False),
    ):
        data = form.dump(fitted)
        assert data == form.dump(fitted)
        proba = fitted.predict_proba(holed) if hasattr(fitted, "predict_proba") else fitted.predict(holed)
        expected = proba[:, 1] if proba.ndim == 2 and proba.shape[1] == 2 else proba
        assert np.array_equal(form.load(data).predict(holed), expected.astype(np.float64))
        fast = fasten(form.restore(data), form.load(data), holed, [trees.OnnxTrees()])
        assert fast.verdict.passed, fast.verdict.reason
    first = form.dump(xgb.XGBClassifier(n_estimators=5, n_jobs=1).fit(X, Y))
    more = xgb.XGBClassifier(n_estimators=3, n_jobs=1).fit(X, Y, xgb_model=form.restore(first))
    assert more.get_booster().num_boosted_rounds() == 8


@pytest.mark.filterwarnings("ignore")
def test_torch_is_exported_and_answers_without_its_class_on_one_thread() -> None:
    torch = pytest.importorskip("torch", reason="LOUD: torch is not installed; its format is not tested")
    stored = pytest.importorskip("loudly.adapters.torch_format")
    torch.manual_seed(0)

    class Net(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.line = torch.nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            return torch.softmax(self.line(x), dim=1)

    net, form = Net(), stored.TorchFormat()
    data = form.dump(stored.TorchModel(net, 4))
    loaded = form.load(data)
    expected = net(torch.tensor(X, dtype=torch.float32)).detach().numpy()[:, 1]
    assert np.allclose(loaded.predict(X), expected, atol=1e-6)
    assert np.allclose(loaded.predict(X[:1]), expected[:1], atol=1e-6)
    inside: list[int] = []
    module = loaded._module
    loaded._module = lambda rows: (inside.append(torch.get_num_threads()), module(rows))[1]
    before = torch.get_num_threads()
    loaded.predict(X)
    thread = threading.Thread(target=loaded.predict, args=(X,))
    thread.start()
    thread.join()
    assert inside == [1, 1]
    assert torch.get_num_threads() == before
    with pytest.raises(ModelError, match="cannot export"):
        stored.TorchModel(torch.nn.Linear(3, 1), 4)


@pytest.mark.filterwarnings("ignore")  # MLflow and its dependencies warn about themselves
def test_an_mlflow_uri_is_read_once_and_a_moved_alias_changes_nothing(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="LOUD: mlflow is not installed; its URIs are not tested")
    skl = pytest.importorskip("mlflow.sklearn")
    read = pytest.importorskip("loudly.adapters.mlflow_uri_format")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/m.db")
    mlflow.set_registry_uri(f"sqlite:///{tmp_path}/m.db")
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("e", (tmp_path / "artefacts").as_uri())
    lines = [LogisticRegression(C=c).fit(X, Y) for c in (1.0, 0.001)]
    with mlflow.start_run(experiment_id=experiment):
        for line in lines:
            skl.log_model(line, name="m", registered_model_name="line", pip_requirements=[], skops_trusted_types=None)
    client.set_registered_model_alias("line", "champion", 1)
    model, form = read.MlflowModel("models:/line@champion"), read.MlflowUriFormat()
    data = form.dump(model)
    client.set_registered_model_alias("line", "champion", 2)
    assert np.array_equal(form.load(data).predict(X), lines[0].predict_proba(X)[:, 1])
    assert np.array_equal(read.MlflowModel("models:/line@champion").predict(X), lines[1].predict_proba(X)[:, 1])
    with pytest.raises(ModelError, match="no model at"):
        read.MlflowModel("models:/nobody@champion")
    while mlflow.active_run():
        mlflow.end_run()
