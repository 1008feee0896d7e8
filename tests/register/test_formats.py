"""How models are stored: deterministic bytes, no code on load where the format allows it, pickles only when vouched for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import skops.io as sio
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from logistic_graph import WEIGHTS, logistic_graph
from loudly.core.values import Field, Kind, Schema
from loudly.errors import ModelError, UntrustedModel
from loudly.loop.serving import make_ready
from loudly.plugins import resolve
from loudly.register.bundle import pack, unpack
from loudly.register.pickle_format import PickleFormat
from loudly.register.skops_format import SkopsFormat

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 4))
Y = (X[:, 0] + RNG.normal(size=300) > 0).astype(float)
SCHEMA = Schema(tuple(Field(f"c{i}", Kind.NUMBER) for i in range(4)))
FEATURES = {"columns": ["c0", "c1", "c2", "c3"], "codes": {}, "inputs": ["c0", "c1", "c2", "c3"]}
META = {"task": "binary", "classes": ["false", "true"], "metric": "roc_auc", "frame": "numpy"}


class Odd:
    """An estimator that only pickle can store."""

    def predict(self, given: Any) -> Any:
        return np.asarray(given)[:, 0]


ESTIMATORS = [
    LogisticRegression(),
    make_pipeline(StandardScaler(), LogisticRegression()),
    HistGradientBoostingClassifier(max_iter=5, random_state=0),
    RandomForestRegressor(5, random_state=0),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_skops_gives_equal_bytes_for_equal_fits_and_equal_answers(estimator: Any) -> None:
    form = SkopsFormat()
    one = form.dump(estimator.fit(X, Y))
    two = form.dump(estimator.fit(X.copy(), Y.copy()))
    assert form.accepts(estimator)
    assert one == two
    expected = estimator.predict_proba(X)[:, 1] if hasattr(estimator, "predict_proba") else estimator.predict(X)
    assert np.array_equal(form.load(one).predict(X), expected)


def test_lightgbm_is_native_text_and_can_be_continued() -> None:
    lgb = pytest.importorskip("lightgbm")
    form = resolve("format", "lightgbm")()
    fitted = lgb.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1, random_state=1, deterministic=True).fit(X, Y)
    data = form.dump(fitted)
    assert data.startswith(b"tree\n")
    assert np.allclose(form.load(data).predict(X), fitted.booster_.predict(X))
    more = lgb.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(X, Y, init_model=form.restore(data))
    assert more.booster_.num_trees() == 8
    with pytest.raises(ModelError):
        form.load(b"nonsense")


def test_onnx_graphs_are_served_as_they_are() -> None:
    pytest.importorskip("onnxruntime")
    graph = logistic_graph()
    served = pytest.importorskip("loudly.adapters.onnx_format")
    fitted = served.OnnxModel(graph)
    form = served.OnnxFormat()
    answers = form.load(form.dump(fitted)).predict(X)
    assert answers.shape == (300,)
    assert np.allclose(answers, 1 / (1 + np.exp(-(X @ np.array(WEIGHTS)))), atol=1e-5)
    with pytest.raises(ModelError):
        form.load(b"nonsense")


def test_a_bundle_is_deterministic_and_self_contained() -> None:
    model = SkopsFormat().dump(LogisticRegression().fit(X, Y))
    one, two = (pack(model, "skops", SCHEMA, FEATURES, META) for _ in range(2))
    assert one == two
    found = unpack(one)
    assert (found.model, found.format, found.schema) == (model, "skops", SCHEMA)
    with pytest.raises(ModelError, match="no model of ours"):
        unpack(b"PK nonsense")


def test_a_pickle_loads_only_if_the_ledger_vouches_for_it() -> None:
    form = PickleFormat()
    assert not SkopsFormat().accepts(Odd())
    data = pack(form.dump(Odd()), "pickle", SCHEMA, FEATURES, META)
    with pytest.raises(UntrustedModel, match="runs code"):
        make_ready(data, (), [form], vouched=False)
    assert make_ready(data, (), [form], vouched=True).model.predict(X).shape == (300,)
    with pytest.raises(ModelError, match="not at hand"):
        make_ready(data, (), [SkopsFormat()], vouched=True)


def test_skops_refuses_types_that_are_not_scikit_learns() -> None:
    with pytest.raises(UntrustedModel, match="Odd"):
        SkopsFormat().restore(sio.dumps(Odd()))
