"""What a command need not import it does not: a status is told without MLflow, and a server is ready sooner."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from logistic_graph import logistic_graph
from loudly.app.project import load_app
from loudly.app.verbs import formats, ship, train, using_stores
from loudly.core.clock import DAY, WallClock
from loudly.errors import ExtraMissing
from loudly.plugins import names
from loudly.register.lazy_format import LazyFormat

HEAVY = ("mlflow", "lightgbm", "xgboost", "torch", "onnxruntime", "ray", "optuna")
# What judging, training and batches need, and answering does not; scipy itself is light.
LATE = ("sklearn", "skops", "pandas", "pyarrow", *(f"scipy.{n}" for n in ("linalg", "optimize", "sparse", "special", "stats")))
TOLD = f"print(json.dumps([m for m in {HEAVY + LATE!r} if m in sys.modules]))"
OPENED = f"""
import json, sys
from loudly.app.verbs import status, using_stores
with using_stores("idle", None) as opened:
    status(opened)
{TOLD}
"""
PROCESSES = f"""
import json, sys
import loudly.cli.commands, loudly.app.server, loudly.app.wheel, loudly.app.worker
{TOLD}
"""
ANSWERED = f"""
import json, sys
from pathlib import Path
from loudly.app.project import load_app
from loudly.app.server import application, open_wheel
from loudly.config import ServerConfig
from loudly.serve.attempt import Attempt
from loudly.serve.rows import of_table
import polars as pl
wheel = open_wheel(load_app(Path("app.py")))
application([(wheel.front, wheel.ticker.start, wheel.ticker.stop, ServerConfig())], "127.0.0.1")
rows = of_table(pl.read_parquet("rows.parquet").tail(600).drop("y"), wheel.front.schema())
answered = wheel.front.answer(rows, Attempt((600,)))
assert not any(answered.fallbacks), answered
with wheel.live.lock:
    wheel.live.answering.fold()
assert wheel.live.book.waiting == 600
{TOLD}
"""
APP = """
from pathlib import Path

import loudly

app = loudly.App("light", label="y", time="at", key="id", metric="roc_auc")


@app.data
def rows():
    return Path(__file__).with_name("rows.parquet")


@app.train(holdout="2d")
def fit(X, y):
    {fit}
"""
LIGHTGBM = "import lightgbm; return lightgbm.LGBMClassifier(n_estimators=20, verbose=-1).fit(X, y)"
ONNX = "from loudly.adapters.onnx_format import OnnxModel; return OnnxModel(Path(__file__).with_name('graph.onnx').read_bytes())"


def make_project(folder: Path, fit: str, gaps: float) -> None:
    """A project with a champion. gaps: the share of values that are missing in one column."""
    rng, n = np.random.default_rng(0), 2000
    X = rng.normal(size=(n, 3))
    at = pl.Series(WallClock().now() - 20 * DAY + np.arange(n) * DAY // 100).cast(pl.Datetime("us"))
    table = pl.DataFrame({"id": [f"r{i}" for i in range(n)], "at": at, "x1": X[:, 0], "x2": X[:, 1], "x3": X[:, 2]})
    gone = pl.Series(rng.random(n) < gaps)
    table = table.with_columns(
        x3=pl.when(~gone).then("x3"),
        group=pl.Series(rng.choice(["north", "south"], n)),
        y=pl.Series((rng.random(n) < 1 / (1 + np.exp(-X[:, 0] - 2 * X[:, 1]))).astype(int)),
    )
    table.write_parquet(folder / "rows.parquet")
    (folder / "app.py").write_text(APP.format(fit=fit))
    app = load_app(folder / "app.py")
    with using_stores(app.name, app.folder) as opened:
        train(app.system, opened)
        assert ship(app.system, opened, None).passed


def heavy_of(script: str, folder: Path) -> set[str]:
    """The heavy modules that a fresh interpreter has imported when the script has ended."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_opening_the_stores_imports_no_heavy_library(tmp_path: Path) -> None:
    assert heavy_of(OPENED, tmp_path) == set()


def test_no_process_of_a_server_imports_what_only_judging_and_training_need(tmp_path: Path) -> None:
    assert heavy_of(PROCESSES, tmp_path) == set()


def test_a_lightgbm_model_answers_without_its_wrapper_and_what_that_imports(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    make_project(tmp_path, LIGHTGBM, gaps=0.1)
    assert heavy_of(ANSWERED, tmp_path) == set()


def test_an_onnx_model_answers_with_its_runtime_alone(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "graph.onnx").write_bytes(logistic_graph())
    make_project(tmp_path, ONNX, gaps=0.0)
    assert heavy_of(ANSWERED, tmp_path) == {"onnxruntime"}


def test_every_format_of_the_table_is_there_by_name_in_its_order() -> None:
    assert [form.name for form in formats()] == list(names("format"))


def test_a_format_that_is_not_installed_takes_nothing_and_says_what_to_install() -> None:
    def missing() -> object:
        raise ExtraMissing("the format", "some-extra", "a library")

    form = LazyFormat("absent", missing)  # type: ignore[arg-type]
    assert not form.accepts(object())
    with pytest.raises(ExtraMissing, match="some-extra"):
        form.load(b"")
