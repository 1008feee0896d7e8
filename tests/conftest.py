"""Small worlds for tests: a stream of rows with a known law, and a system over it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import numpy as np
import polars as pl
import pytest
from hypothesis import settings
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from command_line import Project, shipped_project
from loudly.app.app import App
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, instant
from loudly.loop.stores import Stores

SINCE = instant("2024-02-01")

# The same examples at every run, so that a red test tells of the change and not of the draw; `make fuzz` draws others.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("fuzz", derandomize=False, deadline=None)
settings.load_profile("fixed")


def make_world(days: int = 60, per_day: int = 120, seed: int = 0, turn: int | None = None) -> pl.DataFrame:
    """Rows of `days` days: y depends on x1, x2 and the group; from day `turn` on the sign of x1 is turned round."""
    rng = np.random.default_rng(seed)
    n = days * per_day
    day = np.repeat(np.arange(days), per_day)
    first = instant("2024-01-01")
    at = first + day * DAY + np.sort(rng.integers(0, DAY, (days, per_day)), axis=1).ravel()
    x1, x2 = rng.normal(size=n).round(2), rng.normal(20, 5, n).round(1)
    group = rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])
    sign = np.where(day >= turn, -1.0, 1.0) if turn is not None else 1.0
    score = sign * 1.6 * x1 + 0.12 * (x2 - 20) + 0.5 * (group == "b") - 0.6
    y = rng.random(n) < 1 / (1 + np.exp(-score))
    return pl.DataFrame(
        {
            "id": [f"r{i:06d}" for i in range(n)],
            "at": pl.Series(at, dtype=pl.Int64).cast(pl.Datetime("us")),
            "x1": x1,
            "x2": x2,
            "group": group,
            "y": y,
        }
    )


def make_app(table: pl.DataFrame, **policy: Any) -> App:
    """An app over a world with a logistic regression."""
    app = App("world", label="y", time="at", key="id", metric="roc_auc")

    @app.data
    def data() -> pl.DataFrame:
        return table

    @app.feature
    def x2_centred(x2: pl.Series) -> pl.Series:
        return x2 - 20

    @app.train(holdout="7d")
    def fit(X: Any, y: Any, *, C: float = 1.0) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=C)).fit(X, y)

    @app.slice
    def group(rows: pl.DataFrame) -> pl.Series:
        return rows["group"]

    app.labels(arrive_within="1d")
    app.rollout("shadow 1d", "canary 10% 50% 100%", margin=0.05, deadline="20d")
    app.retrain(**{"growth": 0.5, "cooldown": "5d", "enough_labels": 200, "at_most": 10, **policy})
    return app


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests begin first: they mostly wait, for servers and for clients, and others compute beside them."""
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def world() -> pl.DataFrame:
    return make_world()


@pytest.fixture(scope="session")
def table() -> pl.DataFrame:
    """A world of fifty days, to serve."""
    return make_world(days=50)


@pytest.fixture(scope="session")
def rows(table: pl.DataFrame) -> list[dict[str, Any]]:
    """The first day that is served, as clients send it."""
    day = pl.col("at").dt.epoch("us").is_between(SINCE, SINCE + DAY, closed="left")
    return [{**row, "at": row["at"].isoformat()} for row in table.filter(day).drop("y").to_dicts()]


@pytest.fixture
def server(table: pl.DataFrame) -> Iterator[Any]:
    """A server of its own for a test, whose champion has learned from the table."""
    live_server = pytest.importorskip("live_server")
    with live_server.Server(live_server.make_live(table)[0]) as running:
        yield running


@pytest.fixture
def stores() -> Stores:
    return memory_stores("world")


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose first version is champion, made once: for reading, or to be copied."""
    return shipped_project(tmp_path_factory.mktemp("shipped"))


@pytest.fixture(scope="session")
def raw_flights() -> pl.DataFrame:
    pytest.importorskip("lightgbm")
    table: pl.DataFrame = pytest.importorskip("loudly.demo.nycflights").raw()
    return table


App_of = Callable[..., App]


def _postgres_binary(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real PostgreSQL of our own, on a free port, as the user `postgres` where we are root."""
    psycopg = pytest.importorskip("psycopg", reason="LOUD: psycopg is not installed, the PostgreSQL ledger is not tested")
    initdb, server = _postgres_binary("initdb"), _postgres_binary("postgres")
    if initdb is None or server is None:
        pytest.skip("LOUD: no PostgreSQL on this machine, its ledger is not tested")
    folder = Path("/tmp") / f"loudly-pg-{os.getpid()}"
    folder.mkdir(mode=0o777)
    user: str | None = None
    if os.getuid() == 0:
        user = "postgres" if any(p.pw_name == "postgres" for p in pwd.getpwall()) else "nobody"
        shutil.chown(folder, user)
    run = {"cwd": folder, "user": user, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([initdb, "-D", "data", "-U", "loudly", "-A", "trust"], check=True, **run)  # type: ignore[call-overload]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [server, "-D", "data", "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"]
    process = subprocess.Popen(command, **run)  # type: ignore[call-overload]
    dsn = f"host=127.0.0.1 port={port} user=loudly dbname=postgres"
    for _ in range(100):
        try:
            psycopg.connect(dsn).close()
            break
        except psycopg.OperationalError:
            time.sleep(0.1)
    yield dsn
    process.terminate()
    process.wait(20)
    shutil.rmtree(folder, ignore_errors=True)
