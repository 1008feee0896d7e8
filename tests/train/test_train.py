from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loudly.core.values import Task
from loudly.errors import LoudlyError, TrainingError, UserFileError
from loudly.train import ladder
from loudly.train.fit import answers, fit_once, takes_start
from loudly.train.ladder import climb
from loudly.train.random_search import RandomSearch
from loudly.train.run import run_key
from loudly.train.space import read_space

X, Y = np.zeros((10, 2)), np.zeros(10)


class Model:
    """Predicts what it was told."""

    def __init__(self, told: Any) -> None:
        self.told = told

    def predict(self, given: Any) -> Any:
        return self.told


def test_the_function_gets_what_it_asks_for_and_nothing_else() -> None:
    def fit(X: Any, y: Any, *, depth: int = 1, seed: int, categories: list[int], start: Any = None) -> Model:
        return Model((depth, seed, categories, start, np.random.random()))

    one = fit_once(fit, X, Y, {"depth": 4}, seed=7, categories=(1,), start="champion").estimator
    two = fit_once(fit, X, Y, {"depth": 4}, seed=7, categories=(1,), start="champion").estimator
    assert isinstance(one, Model)
    assert isinstance(two, Model)
    assert one.told[:4] == (4, 7, [1], "champion")
    assert one.told == two.told, "seeded"
    assert takes_start(fit)
    assert not takes_start(lambda X, y: None)


@pytest.mark.parametrize(
    ("fit", "params", "hint"),
    [
        (lambda X, y: None, {}, "nothing that predicts"),
        (lambda X, y: 1 / 0, {}, "ZeroDivisionError"),
        (lambda X, y, depth=1: Model(0), {"dept": 2}, "did you mean 'depth'"),
    ],
)
def test_mistakes_in_the_function_are_named(fit: Any, params: dict[str, Any], hint: str) -> None:
    with pytest.raises(TrainingError, match=hint):
        fit_once(fit, X, Y, params, seed=0)


def test_the_key_of_a_run_depends_on_everything_that_goes_in() -> None:
    def fit(X: Any, y: Any) -> None: ...

    base = ("d", [fit], {"a": 1}, 0, None, {"columns": []})
    keys = {run_key(*base)}
    for i, other in enumerate(("e", [run_key], {"a": 2}, 1, "m/1", {"columns": ["x"]})):
        keys.add(run_key(*base[:i], other, *base[i + 1 :]))  # type: ignore[arg-type]
    assert len(keys) == 7
    assert run_key(*base) in keys


def test_the_ladder_stops_a_model_that_a_rule_beats() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2000, 3))
    truth = (features[:, 0] + rng.normal(0, 0.5, 2000) > 0).astype(float)
    fit_part, held = slice(0, 1000), slice(1000, 2000)
    given = (features[fit_part], truth[fit_part], features[held], truth[held])
    good = 1 / (1 + np.exp(-2 * features[held, 0]))
    passed = climb(*given, good, task=Task.BINARY, name="roc_auc", rules={"weak": features[held, 1]}, seed=0)
    assert passed.passed
    assert [e.about for e in passed.evidence] == ["random", "prior", "rule weak", "simple", "yours"]
    beaten = climb(*given, features[held, 1], task=Task.BINARY, name="roc_auc", rules={"strong": features[held, 0]}, seed=0)
    assert beaten.failed
    assert "rule strong" in beaten.reason


def test_the_simple_rung_knows_a_class_that_the_newest_rows_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "SIMPLE_ROWS", 100)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2))
    y = (X[:, 0] > 0.5).astype(float)
    y[-100:] = 0.0
    score = 1 / (1 + np.exp(-X[:, 0]))
    found = climb(X, y, X[:400], y[:400], score[:400], task=Task.BINARY, name="roc_auc", rules={}, seed=0)
    simple = next(e.effect for e in found.evidence if e.about == "simple")
    assert simple is not None
    assert simple > 0.95


@pytest.mark.parametrize("space", [{"a": (3, 1)}, {"a": (0, 1, "log")}, {"a": "x"}, {"a": []}, {"a": (1, 2, "exp")}, {"a": 3}])
def test_impossible_spaces_are_refused(space: dict[str, Any]) -> None:
    with pytest.raises(UserFileError, match="is no space"):
        read_space(space)


def bowl(params: dict[str, Any]) -> float:
    return float((np.log10(params["rate"]) + 2) ** 2 + (params["depth"] - 6) ** 2 / 10 + (params["kind"] == "bad"))


SPACE: dict[str, Any] = {"rate": (1e-4, 1.0, "log"), "depth": (1, 12), "kind": ["good", "bad"]}


def test_optuna_finds_more_than_chance() -> None:
    optuna_search = pytest.importorskip("loudly.adapters.optuna_search")

    def best(make: Any, seed: int) -> tuple[float, list[Any]]:
        search, asked, losses = make(SPACE, seed), [], []
        for _ in range(40):
            params = search.ask()
            asked.append(params)
            losses.append(bowl(params))
            search.tell(params, losses[-1])
        return min(losses), asked

    theirs = [best(optuna_search.OptunaSearch, s)[0] for s in range(8)]
    chance = [best(RandomSearch, s)[0] for s in range(8)]
    assert np.median(theirs) < np.median(chance)
    first = optuna_search.OptunaSearch(SPACE, 0)
    with pytest.raises(LoudlyError, match="not asked for"):
        first.tell({"rate": 0.5, "depth": 1, "kind": "bad"}, 0.0)


class Odd:
    """A model that answers what it is told to."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def predict(self, X: Any) -> Any:
        if isinstance(self.made, Exception):
            raise self.made
        return self.made


def test_a_model_that_cannot_answer_each_row_is_named() -> None:
    assert answers(Odd(np.zeros(3)), None, 3).shape == (3,)
    for made, told in (
        (KeyError("x"), "cannot predict.*\n.*KeyError"),
        (np.zeros(2), r"answers of shape \(2,\) to 3 rows"),
        (np.zeros((3, 2, 1)), "does not answer each row"),
        (np.float64(1.0), "does not answer each row"),
    ):
        with pytest.raises(TrainingError, match=told):
            answers(Odd(made), None, 3)


@pytest.mark.parametrize(
    ("classes", "shape", "fits"),
    [
        (0, (3,), True),
        (0, (3, 4), False),
        (2, (3,), True),
        (2, (3, 2), False),
        (4, (3, 4), True),
        (4, (3, 3), False),
        (4, (3,), False),
    ],
)
def test_answers_have_the_shape_that_the_label_asks_for(classes: int, shape: tuple[int, ...], fits: bool) -> None:
    model = Odd(np.zeros(shape))
    if fits:
        assert answers(model, None, 3, classes).shape == shape
    else:
        with pytest.raises(TrainingError, match=r"as its label asks.*\n.*answers of shape"):
            answers(model, None, 3, classes)


def test_a_train_function_that_ends_the_program_is_named_by_its_line() -> None:
    def fit(X: Any, y: Any) -> Any:
        raise SystemExit(2)

    with pytest.raises(TrainingError, match=r"SystemExit: 2 \(test_train.py, line \d+\)"):
        fit_once(fit, None, None, {}, seed=0)
