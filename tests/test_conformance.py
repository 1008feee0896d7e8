"""Every line of the plugin table under the conformance tests of its kind: a new line is under test by itself.

A part that is not installed is skipped, and the skip says so. A part that is made otherwise than its neighbours says how in
`MADE`; a new kind says here where it is tested.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from logistic_graph import logistic_graph
from loudly import plugins
from loudly.core.seams import Assignment
from loudly.deliver.ab import Ab
from loudly.deliver.canary import Canary
from loudly.deliver.rollout import RolloutSpec
from loudly.metrics.table import metric as metric_of
from loudly.register.function_format import Function
from loudly.register.graph import mean
from loudly.testing.blobs_case import BlobsCase
from loudly.testing.detector_case import DetectorCase
from loudly.testing.executor_case import ExecutorCase
from loudly.testing.format_case import FormatCase
from loudly.testing.ledger_case import LedgerCase
from loudly.testing.metric_case import MetricCase
from loudly.testing.notify_case import NotifyCase
from loudly.testing.search_case import SearchCase
from loudly.testing.strategy_case import StrategyCase
from loudly.testing.tracker_case import TrackerCase
from loudly.train.random_search import RandomSearch

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 4))
Y = (X[:, 0] + RNG.normal(size=300) > 0).astype(float)
# kinds whose parts are functions or whole programs, and where these are tested
ELSEWHERE = {
    "batch": "serve/test_batch.py",
    "fast": "register/test_fast_form.py",
    "server": "serve/test_server.py",
    "check": "validate/test_validate.py",
    "stream": "shift/streams/test_streams_conform.py",
    "source": "shift/test_checkpoint.py",  # SourceCase; Kafka in adapters/test_kafka_source.py
    "representation": "shift/test_represent.py",
    "kernel": "adapters/test_torch_kernel.py",
    "reduce": "adapters/test_ray_profile.py",
    "spans": "adapters/test_otel_spans.py",
}
ROLLOUTS = ("shadow", "canary", "blue-green", "ab", "ab-n")  # the other strategies are bandits, with settings of their own
CASES = {"ledger", "blobs", "executor", "format", "search", "tracker", "strategy", "notify", "metric", "detector"}


def part(kind: str, name: str) -> Any:
    """The object behind a line of the table; a line whose library is not installed skips, aloud."""
    with warnings.catch_warnings():  # libraries warn about themselves when they are imported
        warnings.simplefilter("ignore")
        if not plugins.available(kind, name):
            extra = plugins.TABLE[kind][name][1]
            pytest.skip(f"LOUD: the {kind} {name!r} is not tested here: pip install 'loudly[{extra}]'")
        return plugins.resolve(kind, name)


def every(kind: str, scope: Any = "function") -> Any:
    """A fixture over the names of a kind."""
    return pytest.fixture(params=plugins.names(kind), scope=scope)


def test_every_kind_of_the_table_has_its_case() -> None:
    for kind in plugins.TABLE:
        assert (kind in CASES) != (kind in ELSEWHERE), f"write a case for the kind {kind!r} in loudly.testing and walk it here"
    for place in ELSEWHERE.values():
        assert (Path(__file__).parent / place).exists()


class TestDetectors(DetectorCase):
    @every("detector")
    def detector(self, request: pytest.FixtureRequest) -> Any:
        return part("detector", request.param)


class TestLedgers(LedgerCase):
    @every("ledger")
    def ledger(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
        kind = part("ledger", request.param)
        made: dict[str, Callable[[], Any]] = {
            "memory": kind,
            "sqlite": lambda: kind(tmp_path / "ledger.db"),
            "postgres": lambda: kind(request.getfixturevalue("postgres")),
        }
        ledger = made.get(request.param, lambda: kind(f"file://{tmp_path}/ledger"))()
        if request.param == "postgres":
            ledger._db.execute("TRUNCATE loudly_events")
        yield ledger
        ledger.close()


class TestBlobs(BlobsCase):
    @every("blobs")
    def blobs(self, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
        kind = part("blobs", request.param)
        made: dict[str, Callable[[], Any]] = {"memory": kind, "files": lambda: kind(tmp_path / "blobs")}
        return made.get(request.param, lambda: kind(f"file://{tmp_path}/remote"))()


@pytest.mark.filterwarnings("ignore")  # Ray warns about itself
class TestExecutors(ExecutorCase):
    @every("executor", scope="class")
    def executor(self, request: pytest.FixtureRequest) -> Iterator[Any]:
        kind = part("executor", request.param)
        made = kind() if request.param == "here" else kind(2)
        yield made
        made.close()


def _lightgbm() -> Any:
    lgb = pytest.importorskip("lightgbm")
    return lgb.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1, random_state=1, deterministic=True).fit(X, Y)


def _onnx() -> Any:
    graph = logistic_graph()
    return pytest.importorskip("loudly.adapters.onnx_format").OnnxModel(graph)


def _line() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)


def _xgboost() -> Any:
    xgb = pytest.importorskip("xgboost")
    return xgb.XGBClassifier(n_estimators=5, n_jobs=1).fit(X, Y)


@cache
def _torch() -> Any:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1), torch.nn.Sigmoid())
    return pytest.importorskip("loudly.adapters.torch_format").TorchModel(module, 4)


def first_column(X: Any, slope: float) -> Any:
    return 1 / (1 + np.exp(-slope * np.nan_to_num(X[:, 0])))


@cache
def _mlflow() -> Any:
    mlflow = pytest.importorskip("mlflow")
    skl = pytest.importorskip("mlflow.sklearn")
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        skl.save_model(_line(), f"{folder}/model", pip_requirements=[])
        assert mlflow
        return pytest.importorskip("loudly.adapters.mlflow_uri_format").MlflowModel(f"{folder}/model")


class Halved:
    """An estimator that only pickle can store."""

    def predict(self, given: Any) -> Any:
        return np.nan_to_num(given[:, 0]) / 2


@pytest.mark.filterwarnings("ignore")  # torch and MLflow warn about their own parts
class TestFormats(FormatCase):
    @every("format")
    def form(self, request: pytest.FixtureRequest) -> Any:
        return part("format", request.param)()

    @pytest.fixture
    def fitted(self, form: Any) -> Any:
        made: dict[str, Callable[[], Any]] = {
            "lightgbm": _lightgbm,
            "onnx": _onnx,
            "xgboost": _xgboost,
            "torch": _torch,
            "function": lambda: Function(first_column, slope=2.0),
            "mlflow-uri": _mlflow,
            "graph": lambda: mean([_line(), HistGradientBoostingClassifier(max_iter=3).fit(X, Y)], [3, 1]),
            "graph-with-code": lambda: mean([_line(), Halved()]),
        }
        return made.get(form.name, _line)()


class TestSearches(SearchCase):
    @every("search")
    def make(self, request: pytest.FixtureRequest) -> Any:
        return part("search", request.param)


@pytest.mark.filterwarnings("ignore")  # MLflow and its dependencies warn about themselves
class TestTrackers(TrackerCase):
    @every("tracker")
    def tracker(self, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
        kind = part("tracker", request.param)
        return kind() if request.param == "none" else kind(f"sqlite:///{tmp_path}/mirror.db", tmp_path / "mirror", "conformance")


class TestStrategies(StrategyCase):
    @every("strategy")
    def strategy(self, request: pytest.FixtureRequest) -> Any:
        made = part("strategy", request.param)
        if request.param == "ramp":  # around the others in deliver/test_ramp.py
            return made(Ab(RolloutSpec("ab", steps=(0.5,)), metric_of("roc_auc")), (0.1, 0.5, 1.0))
        if request.param in ROLLOUTS:
            return made(RolloutSpec(request.param, steps=(0.1, 0.5, 1.0)), metric_of("roc_auc"))
        return made(2) if "features" in inspect.signature(made).parameters else made()


class TestNotifiers(NotifyCase):
    @every("notify")
    def notify(self, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
        shut = {"file": {"path": tmp_path / "no such folder" / "alarms.jsonl"}, "webhook": {"address": "http://127.0.0.1:9/"}}
        return partial(part("notify", request.param), **shut.get(request.param, {}))

    @pytest.fixture
    def shut(self) -> None:
        """The doors of `notify` are."""


class TestMetrics(MetricCase):
    @every("metric")
    def metric(self, request: pytest.FixtureRequest) -> Any:
        return part("metric", request.param)[request.param]


# -- the cases themselves: a part that breaks its promise is caught ----------------------------------------------------------


class Backwards:
    """An executor whose results come in the wrong order."""

    def map(self, work: Any, items: Any) -> list[Any]:
        return [work(item) for item in reversed(list(items))]


class Unseeded(RandomSearch):
    """A search that forgets its seed."""

    def __init__(self, space: Any, seed: int) -> None:
        super().__init__(space, int(np.random.default_rng().integers(2**32)))


class Boastful(Canary):
    """A canary that logs a propensity it does not have."""

    def assign(self, state: Any, draws: Any, context: Any = None) -> Any:
        made = super().assign(state, draws, context)
        return Assignment(made.arm, np.full(len(draws), 0.5), made.shadows)


class Forgetful(Canary):
    """A canary that changes the state it was given."""

    def observe(self, state: Any, calls: Any) -> Any:
        state["now"] += 1
        return super().observe(state, calls)


def mute(verdict: Any) -> None:
    """A notifier that loses alarms."""


SPEC = RolloutSpec("canary", steps=(0.1, 0.5, 1.0))


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Backwards(), ExecutorCase().test_results_come_in_the_order_of_the_items),
        (Unseeded, SearchCase().test_the_same_seed_gives_the_same_search_and_another_another),
        (Boastful(SPEC, metric_of("roc_auc")), StrategyCase().test_propensities_are_the_frequencies),
        (Forgetful(SPEC, metric_of("roc_auc")), StrategyCase().test_the_state_is_plain_json_resumable_and_never_changed_in_place),
        (replace(metric_of("mse"), better=1), MetricCase().test_better_says_which_way),
        (
            replace(metric_of("mse"), compute=lambda t, s, w: float(np.mean((t - s) ** 2))),
            MetricCase().test_a_weight_counts_a_row_as_often,
        ),
    ],
)
def test_a_part_that_breaks_its_promise_is_caught(broken: Any, promise: Callable[[Any], None]) -> None:
    with pytest.raises(AssertionError):
        promise(broken)


def test_a_notifier_that_loses_alarms_is_caught(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError):
        NotifyCase().test_where_its_door_is_shut_the_alarm_is_said_on_standard_error(mute, capfd)
