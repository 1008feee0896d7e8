"""Our own server, as the benchmark runs it in a process of its own; and what is switched on in it.

Everything on: validation, API keys, a rate limit, request ids, router, metrics, every answer logged durably and folded into the
monitor's profiles, and one shadow: a second version that scores every row. Off: the same HTTP server, codec and batching around
the bare model, and nothing else. Run: python -m servers.ours --model hgb --port 8731 (in benchmarks/)
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import loudly
from loudly.adapters import asgi_server, uvicorn_run
from loudly.app.server import LiveFront, answered_of
from loudly.app.ticker import Ticker
from loudly.app.verbs import memory_stores
from loudly.config import ServerConfig
from loudly.core.clock import WallClock, stopwatch
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.serve.attempt import Attempt
from loudly.serve.front import Answered
from loudly.serve.replies import CANDIDATE, CONTROL, NOTHING, Replies
from loudly.serve.rows import Rows
from loudly.store.segments import SegmentWriter
from servers.load import Ask, Server
from servers.peers import NAMED
from servers.world import KEY, fitted, table

ROLES = "predict+admin=env:BENCH_KEY"
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Setting:
    """kind: hgb (scikit-learn itself), fast (what it was compiled to), lgbm (as it comes) or none.

    ask: thread (the default), inline, or one (inline, a row at a time: no batching).  off: everything.
    """

    kind: str
    ask: str = "thread"
    log: bool = True
    shadow: bool = True
    off: bool = False

    @property
    def name(self) -> str:
        told = [self.kind, self.ask, *(["off"] if self.off else [])]
        return "-".join([*told, *([] if self.log else ["no-log"]), *([] if self.shadow else ["no-shadow"])])

    @property
    def model(self) -> str:
        """What peers would load for the same model."""
        return "hgb" if self.kind == "fast" else self.kind


def wheel(setting: Setting, folder: Path) -> Live:
    """A wheel with a champion, and with a shadow that runs for as long as we look."""
    made = table()
    app = loudly.App("bench", label="y", time="at", key="id", metric="roc_auc")
    app.data(lambda: made)
    app.rollout("shadow 30d", deadline="60d")

    @app.train(holdout="7d")
    def fit(X: Any, y: Any) -> Any:
        return fitted(setting.kind, X, y)

    stores = memory_stores("bench")
    if setting.kind == "hgb":
        stores = replace(stores, fast={})
    stores = replace(stores, traffic=SegmentWriter(folder) if setting.log else None)
    live = Live(app.system, stores, WallClock(), key=b"bench", timer=stopwatch)
    assert not found(live, made)
    assert live.retrain("benchmark", "the champion")
    if setting.shadow:
        live.retrain("benchmark", "the shadow")
        assert live.state.rollout is not None, "the shadow did not begin"
    if setting.kind == "none":
        _cost_nothing(live)
    return live


class Free:
    """A model of no cost."""

    def predict(self, X: Any) -> Any:
        """(n, 30) -> (n,)."""
        return np.full(len(X), 0.5)


def _cost_nothing(live: Live) -> None:
    """Every version answers 0.5 at once."""
    live.ready = {ref: replace(ready, model=Free()) for ref, ready in live.ready.items()}
    live.route()


class Bare:
    """A front of the model alone: no router, no log, no monitor."""

    def __init__(self, live: Live) -> None:
        front = LiveFront(live)
        self._schema, self._version = front.schema(), front.version() or ""
        self.name, self.key, self.label_name = front.name, front.key, front.label_name
        assert live.router is not None
        self._score = live.router.routing.control.score

    def answer(self, rows: Rows, attempt: Attempt) -> Answered:
        n, scores = rows.height, self._score(rows)
        whole = np.zeros(n, dtype=np.int64), np.ones(n), np.zeros(n, dtype=bool)
        counts = {CONTROL: n, CANDIDATE: 0}
        replies = Replies(scores, *whole, {CONTROL: scores}, (self._version, ""), counts, NOTHING, (), {})
        return answered_of(replies, attempt)

    def schema(self, version: str = "") -> Any:
        return self._schema

    def classes(self, version: str = "") -> Sequence[str]:
        return ()

    def loaded(self) -> Sequence[str]:
        return (self._version,)

    def version(self) -> str:
        return self._version

    def example(self) -> Mapping[str, Any]:
        return {}

    def settle(self) -> None: ...

    def flush(self) -> None: ...

    def status(self) -> Mapping[str, Any]:
        return {}


class Unmetered:
    """Counts nothing."""

    shared = ""

    def request(self, path: str, status: int, seconds: float) -> None: ...

    def answered(self, answered: Answered, first: int, last: int) -> None: ...


def build(setting: Setting, live: Live) -> asgi_server.Server:
    """The ASGI application."""
    os.environ["BENCH_KEY"] = KEY
    settings = ServerConfig(inline=setting.ask != "thread", batch=1 if setting.ask == "one" else 64)
    if setting.off:
        bare: Any = Bare(live)
        server = asgi_server.build(bare, lambda: None, lambda: None, settings)
        server.meters = Unmetered()  # type: ignore[assignment]
        return server
    return asgi_server.build(LiveFront(live), *_ticking(live, settings.tick), replace(settings, keys=(ROLES,), rate=1e6))


def _ticking(live: Live, every: float) -> tuple[Callable[[], None], Callable[[], None]]:
    """Starts and stops the thread that tells the time."""
    tickers: list[Ticker] = []

    def start() -> None:
        tickers.append(Ticker(live, every))
        tickers[-1].start()

    return start, lambda: tickers[-1].stop()


def serve(setting: Setting, port: int) -> None:
    """Until SIGTERM."""
    with tempfile.TemporaryDirectory() as folder:
        uvicorn_run.run(build(setting, wheel(setting, Path(folder))), "127.0.0.1", port, 0.0)


def start(setting: Setting, port: int, expected: Mapping[str, float], folder: Path) -> Server:
    """The server in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "servers.ours", "--port", str(port), *_said(setting)]
    env = {"PYTHONPATH": f"{HERE.parent}:{os.environ.get('PYTHONPATH', '')}"}
    ask = Ask(port, "/predict", NAMED, expected[setting.model], {"Authorization": f"Bearer {KEY}"})
    return Server(f"loudly-{setting.name}", command, ask, env, folder)


def _said(setting: Setting) -> Sequence[str]:
    flags = {"--no-log": not setting.log, "--no-shadow": not setting.shadow, "--off": setting.off}
    return ["--model", setting.kind, "--ask", setting.ask, *(name for name, on in flags.items() if on)]


def main() -> None:
    """Serves what the arguments say."""
    said = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said.add_argument("--model", choices=("hgb", "fast", "lgbm", "none"), required=True)
    said.add_argument("--ask", choices=("thread", "inline", "one"), default="thread")
    said.add_argument("--port", type=int, required=True)
    for name in ("--no-log", "--no-shadow", "--off"):
        said.add_argument(name, action="store_true")
    given = said.parse_args()
    serve(Setting(given.model, given.ask, not given.no_log, not given.no_shadow, given.off), given.port)


if __name__ == "__main__":
    main()
