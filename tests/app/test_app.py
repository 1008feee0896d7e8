"""Mistakes in the user's file fail when it is loaded, with the nearest valid choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from loudly import App
from loudly.core.clock import DAY
from loudly.errors import ConfigError, LoudlyError, UserFileError
from loudly.loop.policy import Stage


def new() -> App:
    return App("m", label="y", time="t", key="k", metric="roc_auc")


def test_functions_stay_callable_and_the_system_has_them_all() -> None:
    app = new()

    @app.data(private=["who"])
    def data() -> str:
        return "table.csv"

    @app.train(tune={"depth": (2, 9)}, trials=5)
    def fit(X: Any, y: Any, *, depth: int = 3) -> Any:
        return depth

    @app.feature
    def hour(t: Any) -> Any:
        return t

    app.retrain("stateful", every="30d")
    assert data() == "table.csv"
    assert fit(None, None, depth=4) == 4
    system = app.system
    assert system.private == ("who",)
    assert system.features == (hour,)
    assert system.train.trials == 5
    assert system.retrain.stage is Stage.STATEFUL
    assert system.retrain.every == 30 * DAY


def test_the_reward_of_a_bandit_is_given_once_and_numbers_may_be_predicted_with_it() -> None:
    app = App("m", label="y", time="t", key="k", metric="rmse")
    app.data(lambda: "t.csv")
    app.train(lambda X, y: None)
    app.rollout("shadow 1d", "linucb on age, income among 3 for 14d")

    @app.reward
    def worth(rows: Any, answers: Any) -> Any:
        return rows, answers

    assert worth(1, 2) == (1, 2)
    assert app.system.reward is worth
    assert [spec.arms for spec in app.system.rollout] == [2, 3]
    with pytest.raises(UserFileError, match="given twice"):
        app.reward(worth)


def bad_metric() -> None:
    App("m", label="y", time="t", key="k", metric="roc_auk")


def same_columns() -> None:
    App("m", label="y", time="y", key="k", metric="roc_auc")


def unknown_tune() -> None:
    new().train(tune={"dept": (1, 2)})(lambda X, y, *, depth=3: None)


def wrong_train() -> None:
    new().train(lambda data, y: None)


def unknown_stage() -> None:
    new().retrain("statless")


def drift_trigger() -> None:
    new().retrain(on=["drift"])


def growth_in_words() -> None:
    new().retrain(growth="30%")  # type: ignore[arg-type]


def growth_in_percent() -> None:
    new().retrain(growth=30)


def wrong_rollout() -> None:
    new().rollout("canery 5% 100%")


def wrong_duration() -> None:
    new().labels(arrive_within="soon")


def wrong_expectation() -> None:
    new().behaviour(expect="sme")


def wrong_slice() -> None:
    new().slice(lambda: None)


def private_text() -> None:
    new().data(private="who")(lambda: "t.csv")


def path_for_a_function() -> None:
    new().data("trips.parquet")  # type: ignore[call-overload]


def model_for_a_function() -> None:
    new().train(object())  # type: ignore[call-overload]


def wrong_reward() -> None:
    new().reward(lambda rows: rows)


def bandit_before_another_stage() -> None:
    new().rollout("thompson for 14d", "canary 5% 100%")


def bandit_without_a_reward() -> None:
    app = App("m", label="y", time="t", key="k", metric="rmse")
    app.data(lambda: "t.csv")
    app.train(lambda X, y: None)
    app.rollout("ucb1 for 14d")
    _ = app.system


@pytest.mark.parametrize(
    ("mistake", "hint"),
    [
        (bad_metric, "did you mean 'roc_auc'"),
        (same_columns, "three columns"),
        (unknown_tune, "did you mean 'depth'"),
        (wrong_train, "starts with X and y"),
        (unknown_stage, "did you mean 'stateless'"),
        (drift_trigger, "drift alone never retrains"),
        (growth_in_words, r"growth=0\.3 for 30 % more"),
        (growth_in_percent, r"growth=0\.3 for 30 % more"),
        (wrong_rollout, "did you mean 'canary'"),
        (wrong_duration, "not a duration"),
        (wrong_expectation, "did you mean 'same'"),
        (wrong_slice, "one argument"),
        (private_text, "list of columns"),
        (path_for_a_function, "above a function that returns it"),
        (model_for_a_function, "app.train decorates a function"),
        (wrong_reward, "two arguments, the rows and the answers"),
        (bandit_before_another_stage, "ends the rollout"),
        (bandit_without_a_reward, "@app.reward"),
    ],
)
def test_mistakes_fail_on_loading_with_a_hint(mistake: Callable[[], None], hint: str) -> None:
    with pytest.raises(LoudlyError, match=hint):
        mistake()


def test_an_unfinished_app_says_what_is_missing() -> None:
    with pytest.raises(UserFileError, match=r"no @app\.data and no @app\.train"):
        _ = new().system
    app = new()
    app.data(lambda: "t.csv")
    with pytest.raises(UserFileError, match="given twice"):
        app.data(lambda: "t.csv")
    with pytest.raises(ConfigError):
        app.rollout("canary 5% 100%", alpha=0.9)
