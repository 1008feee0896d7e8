"""Features, slices, rules and behaviours of the user's that fail: no model comes of it, and the function is named by its line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingRegressor

from conftest import SINCE, make_app, make_world
from loudly.app.app import App
from loudly.app.verbs import memory_stores
from loudly.core.clock import DataClock
from loudly.errors import UserFileError
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live

TABLE = make_world(days=30)


def reason(app: App) -> str:
    """Why a training by hand makes no model."""
    live = Live(app.system, memory_stores("world"), DataClock(SINCE), key=b"key")
    assert not found(live, TABLE)
    assert live.retrain("by hand", "a test") is None
    failed = [r.event for r in live.stores.ledger.read() if r.event.kind == "retrain_failed"]
    return str(failed[-1].data["reason"])


def raises(x1: Any) -> Any:
    raise ValueError("no such unit")


def odd(made: Any) -> Callable[[Any], Any]:
    def function(x1: Any) -> Any:
        return made

    return function


@pytest.mark.parametrize("kind", ["feature", "slice", "rule", "behaviour"])
def test_a_function_that_raises_is_named_by_its_line(kind: str) -> None:
    app = make_app(TABLE)
    (app.behaviour(expect="same") if kind == "behaviour" else getattr(app, kind))(raises)
    told = reason(app)
    assert f"The {kind} 'raises' failed." in told
    assert "ValueError: no such unit (test_user_functions.py, line " in told


@pytest.mark.parametrize(
    ("kind", "made", "told"),
    [
        ("feature", 3, "must return a Series"),
        ("feature", pl.Series([1.0]), "must return a Series"),
        ("slice", [True], "must give one value a row"),
        ("slice", TABLE, "must give one value a row.\n  Seen: a table"),
        ("slice", True, "must give one value a row.\n  Seen: bool"),
        ("slice", [["a"]] * 840, "must give one value a row.\n  Seen: List(String)"),
        ("rule", [0.5], "must give one score a row"),
        ("rule", np.zeros((840, 2)), "must give one score a row"),
        ("rule", "high", "gave no numbers"),
        ("behaviour", None, "must give rows"),
    ],
)
def test_a_function_that_gives_something_else_is_told(kind: str, made: Any, told: str) -> None:
    app = make_app(TABLE)
    (app.behaviour(expect="same") if kind == "behaviour" else getattr(app, kind))(odd(made))
    assert told in reason(app)


@pytest.mark.parametrize("fit", [HistGradientBoostingRegressor(max_iter=2), DummyClassifier()])
def test_a_model_of_another_task_is_no_model(fit: Any) -> None:
    """One number, or two classes, for a label of three: neither has a log loss."""
    three = TABLE.with_columns(y=pl.Series([("a", "b", "c")[i % 3] for i in range(TABLE.height)]))
    app = App("world", label="y", time="at", key="id", metric="log_loss")
    app.data(lambda: three)

    @app.train
    def train(X: Any, y: Any) -> Any:
        return fit.fit(X[y < 2], y[y < 2])

    live = Live(app.system, memory_stores("world"), DataClock(SINCE), key=b"key")
    assert not found(live, three)
    assert live.retrain("by hand", "a test") is None
    failed = [r.event for r in live.stores.ledger.read() if r.event.kind == "retrain_failed"]
    assert "for a label of 3 classes" in str(failed[-1].data["reason"])


def test_an_ignored_column_that_is_not_there_is_told() -> None:
    system = replace(make_app(TABLE).system, ignored=("x11",))
    with pytest.raises(UserFileError, match=r"The column 'x11' in ignored=.* is not in the table"):
        found(Live(system, memory_stores("world"), DataClock(SINCE), key=b"key"), TABLE)


def test_another_label_than_that_of_the_newest_dataset_is_told() -> None:
    stores = memory_stores("world")
    assert not found(Live(make_app(TABLE).system, stores, DataClock(SINCE), key=b"key"), TABLE)
    renamed = replace(make_app(TABLE).system, label="yy")
    with pytest.raises(UserFileError, match=r"The label column 'yy' is not in the newest dataset.*\n.*did you mean 'y'"):
        reopen(Live(renamed, stores, DataClock(SINCE), key=b"key"))
