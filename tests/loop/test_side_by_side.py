"""Searches and fits where `[executor]` says: the same result however long each fit takes, on processes and on Ray."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from loudly.app.project import load_app
from loudly.app.verbs import memory_stores, open_stores, searches, using_stores
from loudly.core.clock import DataClock
from loudly.core.seams import Executor
from loudly.core.values import Event
from loudly.errors import ExecutorError, TrainingError
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.loop.system import System
from loudly.loop.tally import Tally
from loudly.loop.tell import tell
from loudly.loop.tuning import Tuned, starts, tune
from loudly.plugins import available, names, resolve
from loudly.store.executors import Here

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray warns about itself
WORLD = make_world(days=30, per_day=60)
SPACE: dict[str, Any] = {"C": (1e-4, 10.0, "log"), "used": (1, 4)}
SEARCH = "optuna" if available("search", "optuna") else "random"


class Backwards:
    """Two workers of which the second is always done first."""

    workers = 2

    def map(self, work: Any, items: Any) -> list[Any]:
        return [work(item) for item in reversed(list(items))][::-1]

    def close(self) -> None: ...


@pytest.fixture(scope="module", params=names("executor"))
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if not available("executor", request.param):
        pytest.skip(f"LOUD: the executor {request.param!r} is not installed; searches on it are not tested")
    made = Backwards() if request.param == "here" else resolve("executor", request.param)(2)
    yield made
    made.close()


def system_of(fit: Any, trials: int = 12, space: Any = None) -> System:
    table = WORLD.with_columns(noise=np.random.default_rng(1).normal(size=WORLD.height))
    system = make_app(table).system
    return replace(system, train=replace(system.train, fit=fit, tune=space or SPACE, trials=trials, search=SEARCH, seed=5))


def local_fit() -> Any:
    """A train function as notebooks have them: nobody can import it, nor the class of what it makes."""

    class Ridge:
        """A line through the first columns; the fewer, the worse, so that bad points are known early."""

        def __init__(self, weights: Any) -> None:
            self.weights = weights

        def predict(self, X: Any) -> Any:
            return X[:, : len(self.weights)] @ self.weights

    def fit(X: Any, y: Any, *, C: float = 1.0, used: int = 2) -> Any:
        time.sleep(0.02 * (used % 2))
        seen = X[:, :used]
        return Ridge(np.linalg.solve(seen.T @ seen + np.eye(used) / C, seen.T @ (y - y.mean())))

    return fit


class Watched:
    """A search that writes down what is asked and told."""

    def __init__(self, search: Any) -> None:
        self.search = search
        self.said: list[tuple[str, Any]] = []

    def start_from(self, params: Any) -> None:
        self.search.start_from(params)

    def ask(self) -> Any:
        self.said.append(("asked", made := self.search.ask()))
        return made

    def report(self, params: Any, step: int, loss: float) -> bool:
        self.said.append(("reported", (params, step, loss)))
        return bool(self.search.report(params, step, loss))

    def tell(self, params: Any, loss: float) -> None:
        self.said.append(("told", (params, str(loss))))
        self.search.tell(params, loss)


def searched(system: System, executor: Executor, first: Any = ()) -> tuple[Tuned, list[tuple[str, Any]]]:
    watched = Watched(searches()[SEARCH](system.train.tune, system.train.seed))
    table: Any = system.data()
    return tune(system, table, watched, Tally(), executor, first=first), watched.said


def test_two_workers_find_the_same_whoever_they_are_and_whoever_is_done_first(executor: Executor) -> None:
    system = system_of(local_fit())
    first = starts(system, {"C": 0.5, "used": 4})
    made, said = searched(system, executor, first)
    assert (made, said) == searched(system, Backwards(), first), "and the same once more"
    assert [what for what, _ in said[:2]] == ["asked", "asked"], "two at once"
    assert tuple(params for what, params in said if what == "asked")[:2] == first
    asked = [params for what, params in said if what == "asked"]
    assert [params for what, (params, *_) in said if what == "told"] == asked, "told in the order asked"
    assert made.workers == 2
    assert len(asked) == made.trials == 12
    assert made.value is not None
    assert made.first is not None
    assert made.value >= made.first
    if SEARCH == "optuna":
        assert made.stopped >= 1
        assert len({str(params) for params in asked}) == len(asked), "points that are open keep the next ones away"


def test_one_worker_is_told_of_a_point_before_it_asks_for_the_next() -> None:
    made, said = searched(system_of(local_fit(), trials=3), Here())
    assert [what for what, _ in said if what != "reported"] == ["asked", "told"] * 3
    assert made.workers == 1


def test_an_odd_number_of_points_is_asked_for_as_said(executor: Executor) -> None:
    made, said = searched(system_of(local_fit(), trials=3), executor)
    assert [what for what, _ in said if what != "reported"] == ["asked", "asked", "told", "told", "asked", "told"]
    assert made.trials == 3


def test_a_point_that_is_refused_failed_and_its_neighbours_go_on(executor: Executor) -> None:
    fit = local_fit()

    def picky(X: Any, y: Any, *, C: float = 1.0, used: int = 2) -> Any:
        if used == 3:
            raise ValueError("three is not to my taste")
        return fit(X, y, C=C, used=used)

    made, said = searched(system_of(picky), executor)
    asked = [params for what, params in said if what == "asked"]
    told = [loss for what, (_, loss) in (one for one in said if one[0] == "told")]
    assert made.failed == told.count("nan") == sum(params["used"] == 3 for params in asked) > 0
    assert made.params["used"] != 3
    with pytest.raises(TrainingError, match=r"ValueError: three is not to my taste \(test_side_by_side\.py, line \d+\)"):
        searched(system_of(picky, 4, {"used": [3]}), executor)


def test_equal_points_at_once_are_each_told(executor: Executor) -> None:
    made, said = searched(system_of(local_fit(), 6, {"used": [1, 2]}), executor)
    assert (made.trials, made.failed) == (6, 0)
    assert [params for what, (params, *_) in said if what == "told"] == [params for what, params in said if what == "asked"]


def test_models_that_cannot_predict_are_an_error_of_training_wherever_they_are_judged(executor: Executor) -> None:
    class Mute:
        def predict(self, X: Any) -> Any:
            raise ZeroDivisionError("of the model, not of the fit")

    for place in (executor, Here()):
        with pytest.raises(TrainingError, match=r"cannot predict.*\n.*of the model"):
            searched(system_of(lambda X, y, *, used=1: Mute(), 4, {"used": (1, 4)}), place)


# -- retraining ---------------------------------------------------------------------------------------------------------------

USER_FILE = '''
import os
import numpy as np
import loudly

app = loudly.App("world", label="y", time="at", key="id", metric="roc_auc")
ME = os.getpid()

@app.data
def data():
    import polars as pl
    return pl.read_parquet(os.path.join(os.path.dirname(__file__), "world.parquet"))

class Own:
    """An estimator of the user's; `fits` counts what it has continued from."""
    def __init__(self, X, y, start):
        self.weights = np.linalg.solve(X.T @ X, X.T @ (y - y.mean()))
        self.fits = 1 if start is None else start.fits + 1
        self.began = type(start).__name__
        self.elsewhere = os.getpid() != ME
    def predict(self, X):
        return np.nan_to_num(X) @ self.weights

@app.train
def fit(X, y, *, start=None):
    assert start is None or isinstance(start, Own)
    return Own(np.nan_to_num(X), y, start)

@app.recipe
def elsewhere(X, y):
    if os.getpid() == ME:
        raise ValueError("at home")
    return Own(np.nan_to_num(X), y, None)

app.labels(arrive_within="1d")
app.rollout("ab among 3 for 8d", margin=0.2)
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    WORLD.write_parquet(folder / "world.parquet")
    (folder / "apart.py").write_text(USER_FILE)
    return folder


def events(live: Live, kind: str) -> list[Event]:
    return [r.event for r in live.stores.ledger.read() if r.event.kind == kind]


def test_a_model_of_the_users_own_class_comes_back_is_stored_and_continued_from(project: Path, executor: Executor) -> None:
    app = load_app(project / "apart.py")
    live = Live(app.system, replace(memory_stores("world"), executor=executor), DataClock(SINCE), key=b"k")
    assert not found(live, app.system.data())  # type: ignore[arg-type]
    assert live.retrain("first training", "none yet", offer=False) == "world/1"
    live.promote("world/1", "a test")
    live.retrain("by hand", "stateful", offer=False, stateful=True)
    assert live.state.versions.keys() >= {"world/1", "world/2"}
    away = not isinstance(executor, Backwards)
    for version, fits in (("world/1", 1), ("world/2", 2)):
        made: Any = live.ready[version].estimator()
        assert type(made).__module__ == "loudly_user_apart"
        assert (made.fits, made.elsewhere) == (fits, away)
    failed = [str(e.data["reason"]) for e in events(live, "retrain_failed")]
    assert ("world/3" in live.state.versions) == away
    assert [reason.startswith("the recipe elsewhere") for reason in failed] == ([] if away else [True])


class Slope:
    """A model that is known before it is fitted."""

    def __init__(self, C: float) -> None:
        self.C = C

    def predict(self, X: Any) -> Any:
        return 1 / (1 + np.exp(-self.C * X[:, 0]))


class Lost(Here):
    """An executor whose worker dies."""

    def map(self, work: Any, items: Any) -> list[Any]:
        raise ExecutorError("A worker ended.", seen="-9", do="Take fewer rows.")


@pytest.mark.parametrize("space", [{}, SPACE], ids=["in a fit", "in a search"])
def test_a_worker_that_dies_is_a_retraining_that_failed(space: Any) -> None:
    system = system_of(local_fit())
    system = replace(system, train=replace(system.train, tune=space))
    live = Live(system, replace(memory_stores("world"), executor=Lost()), DataClock(SINCE), key=b"k")
    assert not found(live, system.data())  # type: ignore[arg-type]
    assert live.retrain("first training", "none yet") is None
    (failed,) = events(live, "retrain_failed")
    assert "A worker ended." in str(failed.data["reason"])


def trained(kind: str, workers: int, folder: Path, **tuned: Any) -> tuple[Event, list[Event]]:
    """What `App.train` registers by that executor."""
    folder.mkdir()
    (folder / "loudly.toml").write_text(f'[executor]\nkind = "{kind}"\nworkers = {workers}\n')
    fresh = datetime.combine(datetime.now(UTC).date(), datetime.min.time()) - WORLD["at"].max()  # type: ignore[operator]
    app = make_app(WORLD.with_columns(pl.col("at") + fresh))
    if tuned:
        app._train = None

        @app.train(holdout="7d", **tuned)
        def fit(X: Any, y: Any, *, C: float = 1.0) -> Any:
            return Slope(C)

    app.folder = folder
    assert app.train() == "world/1"
    with using_stores(app.name, folder) as (stores, _):
        told = [r.event for r in stores.ledger.read()]
    return next(e for e in told if e.kind == "version_registered"), told


@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_the_same_model_whatever_the_configuration_says(kind: str, tmp_path: Path) -> None:
    if not available("executor", kind):
        pytest.skip(f"LOUD: the executor {kind!r} is not installed; training on it is not tested")
    here, there = (trained(name, 1, tmp_path / name)[0].data["model_version"] for name in ("here", kind))
    assert here["model"] == there["model"]  # type: ignore[call-overload, index]


def test_the_configured_executor_searches_and_the_ledger_says_how_many_at_once(tmp_path: Path) -> None:
    _, told = trained("processes", 2, tmp_path / "project", tune={"C": (1e-3, 10.0, "log")}, trials=3)
    (search,) = [e for e in told if e.kind == "search_finished"]
    assert search.data["workers"] == 2
    assert "best of 3 points, 2 side by side" in tell(search)
    assert "side by side" not in tell(replace(search, data={k: v for k, v in search.data.items() if k != "workers"})), "of before"


@pytest.mark.parametrize("kind", ["here", "processes", "ray"])
def test_nothing_is_started_until_there_is_work(kind: str, tmp_path: Path) -> None:
    if not available("executor", kind):
        pytest.skip(f"LOUD: the executor {kind!r} is not installed")
    (tmp_path / "loudly.toml").write_text(f'[executor]\nkind = "{kind}"\nworkers = 3\n')
    stores, _ = open_stores("world", tmp_path)
    assert stores.executor.workers == (1 if kind == "here" else 3)
    assert getattr(stores.executor, "_pool", None) is None
    stores.close()
