"""A real server on loopback, in a thread, for tests that speak HTTP to it."""

from __future__ import annotations

import threading
import time
from typing import Any

import polars as pl
import pytest

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

from command_line import free_port  # noqa: E402
from conftest import SINCE, make_app  # noqa: E402
from loudly.adapters.asgi_server import build  # noqa: E402
from loudly.adapters.uvicorn_run import lane  # noqa: E402
from loudly.app.server import LiveFront  # noqa: E402
from loudly.app.verbs import memory_stores  # noqa: E402
from loudly.config import ServerConfig  # noqa: E402
from loudly.core.clock import DataClock  # noqa: E402
from loudly.loop.founding import found  # noqa: E402
from loudly.loop.live import Live  # noqa: E402
from loudly.plugins import resolve  # noqa: E402


class Server:
    """A uvicorn of our own in a thread, on loopback."""

    def __init__(self, live: Live, settings: ServerConfig | None = None, spans: Any = None) -> None:
        self.live, self.front, self.settings = live, LiveFront(live), settings or ServerConfig()
        self.url = f"http://127.0.0.1:{free_port()}"
        app = build(self.front if spans is None else spans.front(self.front), lambda: None, lambda: None, self.settings)
        self.app = app = app if spans is None else spans.app(app)
        if self.settings.grpc_port:
            app = resolve("server", "grpc")(app, "127.0.0.1", self.settings)
        port = int(self.url.rsplit(":", 1)[1])
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", http=lane(app))
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> Server:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(10)


def make_live(table: pl.DataFrame) -> tuple[Live, DataClock]:
    clock = DataClock(SINCE)
    live = Live(make_app(table).system, memory_stores("world"), clock, key=b"replay")
    known = table.filter(pl.col("at") < pl.lit("2024-02-01").str.to_datetime())
    come = pl.col("at") < pl.lit("2024-01-31").str.to_datetime()
    assert not found(
        live, known.with_columns(y=pl.when(come | (pl.col("at") == pl.lit("2024-01-31").str.to_datetime())).then(pl.col("y")))
    )
    live.retrain("first training", "there is no model yet")
    return live, clock


def rows_of(table: pl.DataFrame, since: int, until: int) -> list[dict[str, Any]]:
    at = pl.col("at").dt.epoch("us")
    rows = table.filter((at >= since) & (at < until)).drop("y").to_dicts()
    return [{**row, "at": row["at"].isoformat()} for row in rows]
