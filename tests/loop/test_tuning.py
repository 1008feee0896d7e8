"""The search for parameters with real Optuna: start points first, early stops over time splits, one seed one search."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from conftest import SINCE, make_app, make_world
from loudly.app.verbs import memory_stores, searches
from loudly.core.clock import DataClock
from loudly.core.values import Event
from loudly.data.split import rolling
from loudly.errors import TrainingError
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.loop.system import System
from loudly.loop.tally import Tally
from loudly.loop.tell import tell
from loudly.loop.tuning import Tuned, Tuning, starts, tune
from loudly.store.executors import Here
from loudly.train.random_search import RandomSearch

pytest.importorskip("optuna", reason="LOUD: optuna is not installed; the search is not tested")
WORLD = make_world(days=30, per_day=60)
SPACE: dict[str, Any] = {"C": (1e-4, 10.0, "log"), "used": (1, 4)}


def fit(X: Any, y: Any, *, C: float = 1.0, used: int = 2, names: Any = None) -> Any:
    """The fewer columns are used, the worse: a space in which bad points are known early."""
    return Seeing(LogisticRegression(C=C).fit(X[:, :used].copy(), y), used)


class Seeing:
    """A model of the first columns."""

    def __init__(self, model: Any, used: int) -> None:
        self.model, self.used = model, used

    def predict(self, X: Any) -> Any:
        return self.model.predict(X[:, : self.used])

    def predict_proba(self, X: Any) -> Any:
        return self.model.predict_proba(X[:, : self.used])


def system_of(function: Any = fit, trials: int = 25, search: str = "optuna", space: Any = None) -> System:
    app = make_app(WORLD.with_columns(noise=pl.Series(np.random.default_rng(1).normal(size=WORLD.height))))
    system = app.system
    spec = replace(system.train, fit=function, tune=space or SPACE, trials=trials, search=search, seed=5)
    return replace(system, train=spec)


class Watched:
    """A search that writes down what it was asked and told."""

    def __init__(self, search: Any) -> None:
        self.search = search
        self.asked: list[dict[str, Any]] = []
        self.steps: list[tuple[int, int, float]] = []

    def start_from(self, params: Any) -> None:
        self.search.start_from(params)

    def ask(self) -> dict[str, Any]:
        self.asked.append(self.search.ask())
        return self.asked[-1]

    def report(self, params: Any, step: int, loss: float) -> bool:
        self.steps.append((len(self.asked) - 1, step, loss))
        return bool(self.search.report(params, step, loss))

    def tell(self, params: Any, loss: float) -> None:
        self.search.tell(params, loss)


def searched(system: System, first: Any = ()) -> tuple[Tuned, Watched]:
    watched = Watched(searches()[system.train.search](system.train.tune, system.train.seed))
    return tune(system, system.data(), watched, Tally(), Here(), first=first), watched  # type: ignore[arg-type]


def test_points_are_stopped_over_the_splits_and_the_best_is_none_of_them() -> None:
    made, watched = searched(system_of())
    assert made.trials == 25
    assert made.folds == 3
    assert made.stopped >= 3
    study = watched.search._study
    states = [t.state.name for t in study.trials]
    assert states.count("PRUNED") == made.stopped
    assert states.count("COMPLETE") == made.trials - made.stopped
    lengths = [sum(1 for i, *_ in watched.steps if i == trial) for trial in range(made.trials)]
    assert set(lengths) <= {1, 2}
    assert study.best_params == made.params
    assert made.value == pytest.approx(-study.best_value)


def test_the_start_points_are_the_first_and_the_search_never_ends_below_them() -> None:
    champion = {"C": 0.5, "used": 4, "gone": 1}
    system = system_of(trials=8)
    first = starts(system, champion)
    assert first == ({"C": 0.5, "used": 4}, {"C": 1.0, "used": 2})
    for kind in ("optuna", "random"):
        made, watched = searched(replace(system, train=replace(system.train, search=kind)), first)
        assert tuple(watched.asked[:2]) == first
        assert made.value is not None
        assert made.first is not None
        assert made.value >= made.first


def test_the_same_seed_gives_the_same_search() -> None:
    one, two = searched(system_of()), searched(system_of())
    assert one[0] == two[0]
    assert one[1].asked == two[1].asked
    assert one[1].steps == two[1].steps
    other = replace(system_of(), train=replace(system_of().train, seed=6))
    assert searched(other)[1].asked != one[1].asked


def test_random_search_stops_nothing() -> None:
    made, _ = searched(system_of(search="random", trials=6))
    assert made.stopped == 0


def test_a_point_that_the_train_function_refuses_failed_and_the_search_goes_on() -> None:
    def picky(X: Any, y: Any, *, C: float = 1.0, used: int = 2) -> Any:
        if used == 3:
            raise ValueError("three is not to my taste")
        return fit(X, y, C=C, used=used)

    made, watched = searched(system_of(picky))
    assert made.failed == sum(p["used"] == 3 for p in watched.asked) > 0
    assert made.params["used"] != 3
    with pytest.raises(TrainingError, match="not to my taste"):
        searched(system_of(picky, space={"used": [3]}))


def test_splits_move_on_in_time_and_never_look_ahead() -> None:
    last = None
    for older, newer in rolling(WORLD, "at", 3):
        assert older["at"].max() < newer["at"].min()  # type: ignore[operator]
        assert last is None or older.height > last
        last = older.height
    assert newer["at"].max() == WORLD["at"].max()


def live_of(system: System) -> Live:
    live = Live(system, memory_stores("world"), DataClock(SINCE), key=b"k")
    table = system.data()
    assert isinstance(table, pl.DataFrame)
    assert not found(live, table)
    return live


def search_events(live: Live) -> list[Event]:
    return [r.event for r in live.stores.ledger.read() if r.event.kind == "search_finished"]


def test_parameters_are_kept_until_somebody_tunes_again_from_the_champions() -> None:
    live = live_of(system_of(trials=6))
    assert live.retrain("first training", "there is no model yet") == "world/1"
    (event,) = search_events(live)
    assert event.data["starts"] == [{"C": 1.0, "used": 2}]
    assert "over 3 time splits" in tell(event)
    live.retrain("by hand", "again", offer=False)
    assert len(search_events(live)) == 1, "kept"
    told: list[tuple[str, int, int | None]] = []
    live.retraining.tuning = Tuning(again=True, progress=lambda *said: told.append(said))
    live.retrain("by hand", "tuned again", offer=False)
    _, again = search_events(live)
    assert again.data["starts"][0] == event.data["params"]  # type: ignore[index]
    assert [t for t in told if t[0] == "searching"] == [("searching", i, 6) for i in range(7)]
    assert told[-1][0] == "fitting and judging"


def test_without_optuna_points_are_drawn_at_random_and_that_is_loud() -> None:
    system = system_of(trials=4)
    live = Live(system, replace(memory_stores("world"), searches={"random": RandomSearch}), DataClock(SINCE), key=b"k")
    assert not found(live, system.data())  # type: ignore[arg-type]
    live.retrain("first training", "there is no model yet")
    assert search_events(live)[0].data["search"] == "random"
    loud = [str(r.event.data["reason"]) for r in live.stores.ledger.read() if r.event.kind == "guarantee_weakened"]
    assert any("optuna is not installed" in reason for reason in loud)
