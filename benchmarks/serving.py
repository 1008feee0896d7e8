"""One row of 30 features a request over real HTTP: loudly with everything on, as a ratio to FastAPI + pydantic + the same model.

Twice: as it comes (the model on a thread), and inline (the model on the event loop, for models of microseconds).

Everything on: API keys, a rate limit, request ids, router, metrics, every answer logged durably and folded into the monitor. The
peer does none of that. Load: wrk (apt-get install wrk), 1, 16 and 64 connections, peers interleaved, medians of three runs, on one
machine with the servers. An answer that is not 2xx, or a broken socket, ends the benchmark.
Run: python benchmarks/serving.py [--seconds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl
from pydantic import create_model
from sklearn.ensemble import HistGradientBoostingClassifier

import loudly
from loudly.adapters import asgi_server, uvicorn_run
from loudly.app.server import LiveFront, Ticker
from loudly.app.verbs import memory_stores
from loudly.config import ServerConfig
from loudly.core.clock import DAY, WallClock
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.serve.router import Routing, Served
from loudly.store.segments import SegmentWriter

FEATURES = [f"f{i}" for i in range(30)]
CONNECTIONS = (1, 16, 64)
KEY = "benchmark"
PORTS = {"loudly": 8731, "inline": 8733, "fastapi": 8732}
Row = create_model("Row", id=(str, ...), at=(str, ...), **dict.fromkeys(FEATURES, (float, ...)))  # type: ignore[call-overload]
Answer = create_model("Answer", prediction=(float, ...), version=(str, ...))
LUA = """
local n = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer %s"
request = function()
  n = n + 1
  return wrk.format(nil, "/predict", nil, '{"id":"r' .. n .. '",%s}')
end
"""


def world(rows: int = 4000) -> pl.DataFrame:
    """A made-up table of 30 features."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, len(FEATURES))).round(3)
    y = rng.random(rows) < 1 / (1 + np.exp(-X[:, 0] - X[:, 1]))
    at = pl.Series(WallClock().now() - 41 * DAY + np.arange(rows) * DAY // 100, dtype=pl.Int64).cast(pl.Datetime("us"))
    return pl.DataFrame({"id": [f"t{i}" for i in range(rows)], "at": at, **{f: X[:, i] for i, f in enumerate(FEATURES)}, "y": y})


def model() -> HistGradientBoostingClassifier:
    """100 trees of 31 leaves."""
    return HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0)


def serve_loudly(kind: str, peer: str) -> None:
    """The wheel, as `loudly serve` runs it; "inline" asks the model on the event loop."""
    table = world()
    app = loudly.App("bench", label="y", time="at", key="id", metric="roc_auc")
    app.data(lambda: table)

    @app.train(holdout="7d")
    def fit(X: Any, y: Any) -> Any:
        return model().fit(X, y)

    folder = Path(tempfile.mkdtemp())
    stores = replace(memory_stores("bench"), traffic=SegmentWriter(folder))
    live = Live(app.system, stores, WallClock(), key=b"bench")
    assert not found(live, table)
    assert live.retrain("benchmark", "benchmark")
    if kind == "none":
        assert live.router is not None
        live.router.swap(Routing(Served("bench/0", lambda rows: np.full(rows.height, 0.5), lambda rows: np.full(rows.height, 0.5))))
    os.environ["BENCH_KEY"] = KEY
    settings = ServerConfig(keys=("predict=env:BENCH_KEY",), rate=1e6, drain=0.0, inline=peer == "inline")
    ticker = Ticker(live, settings.tick)
    server = asgi_server.build(LiveFront(live), ticker.start, ticker.stop, settings)
    uvicorn_run.run(server, "127.0.0.1", PORTS[peer], settings.drain)
    shutil.rmtree(folder)


def serve_fastapi(kind: str) -> None:
    """The peer: a FastAPI application as its documentation writes it, with `async def`, its faster way."""
    import uvicorn
    from fastapi import FastAPI

    table = world()
    fitted = model().fit(table.select(FEATURES).to_numpy(), table["y"].to_numpy())
    app = FastAPI()

    @app.post("/predict", response_model=Answer)
    async def predict(row: Row) -> Any:  # type: ignore[valid-type]
        X = np.array([[getattr(row, f) for f in FEATURES]])
        score = 0.5 if kind == "none" else float(fitted.predict_proba(X)[0, 1])
        return {"prediction": score, "version": "1"}

    uvicorn.run(app, host="127.0.0.1", port=PORTS["fastapi"], log_level="warning")


def start(peer: str, kind: str) -> subprocess.Popen[bytes]:
    """A server in a process of its own."""
    return subprocess.Popen([sys.executable, "-W", "ignore", __file__, "--serve", peer, "--model", kind])


def wait(peer: str, process: subprocess.Popen[bytes]) -> None:
    """Until it answers."""
    for _ in range(1200):
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{PORTS[peer]}/predict", method="POST")
            request.add_header("Authorization", f"Bearer {KEY}")
            request.add_header("Content-Type", "application/json")
            with urllib.request.urlopen(request, body(0)) as answer:
                assert answer.status == 200
                return
        except OSError:
            assert process.poll() is None, f"{peer} did not start"
            time.sleep(0.05)
    raise SystemExit(f"{peer} did not answer")


def body(index: int) -> bytes:
    """A request."""
    return f'{{"id":"w{index}",{row_text()}}}'.encode()


def row_text() -> str:
    """All of a row but its key."""
    values = np.random.default_rng(1).normal(size=len(FEATURES)).round(3)
    return '"at":"2026-01-01T00:00:00",' + json.dumps(dict(zip(FEATURES, values.tolist(), strict=True)))[1:-1]


def cpu(process: subprocess.Popen[bytes]) -> float:
    """Seconds of processor time that the server has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(peer: str, process: subprocess.Popen[bytes], connections: int, seconds: int, script: Path) -> dict[str, float]:
    """One run of wrk. Ends the benchmark at the first answer that is not 2xx."""
    spent = cpu(process)
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "60s",
        "--latency",
        "-s",
        str(script),
        f"http://127.0.0.1:{PORTS[peer]}",
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in told or "Socket errors" in told:
        raise SystemExit(f"{peer} at {connections} connections: answers that are not 2xx\n{told}")
    count = int(re.search(r"(\d+) requests in", told)[1])  # type: ignore[index]
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1])  # type: ignore[index]
    p50, p99 = (_ms(re.search(rf"{p}%\s+([\d.]+)(us|ms|s)", told)) for p in (50, 99))
    return {"rps": rate, "p50": p50, "p99": p99, "cpu": (cpu(process) - spent) / count * 1e6}


def _ms(found: Any) -> float:
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


def compare(kind: str, seconds: int, script: Path) -> None:
    """Both peers with one model, interleaved."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for peer in PORTS:
            processes[peer] = start(peer, kind)
            wait(peer, processes[peer])
        for connections in CONNECTIONS:
            runs: dict[str, list[dict[str, float]]] = {peer: [] for peer in PORTS}
            for peer in PORTS:
                load(peer, processes[peer], connections, 1, script)
            for _ in range(3):
                for peer in PORTS:
                    runs[peer].append(load(peer, processes[peer], connections, seconds, script))
            median = {p: {k: statistics.median(r[k] for r in found) for k in found[0]} for p, found in runs.items()}
            for peer, m in median.items():
                print(
                    f"{kind:<5} {connections:>3} connections  {peer:<8} {m['rps']:>8,.0f} requests/s"
                    f"  p50 {m['p50']:6.2f} ms  p99 {m['p99']:7.2f} ms  {m['cpu']:6.0f} µs of processor a request"
                )
            for peer in ("loudly", "inline"):
                ratio = median[peer]["rps"] / median["fastapi"]["rps"]
                used = median[peer]["cpu"] / median["fastapi"]["cpu"]
                print(f"{'':<23}{peer} / FastAPI  {ratio:.2f} x the requests, {used:.2f} x the processor", flush=True)
    finally:
        for process in processes.values():
            process.terminate()
            process.wait(30)


def main() -> None:
    """Runs what the arguments say."""
    said = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said.add_argument("--serve", choices=tuple(PORTS))
    said.add_argument("--model", choices=("hgb", "none"))
    said.add_argument("--seconds", type=int, default=3)
    given = said.parse_args()
    if given.serve:
        if given.serve == "fastapi":
            serve_fastapi(given.model)
        else:
            serve_loudly(given.model, given.serve)
        return
    if shutil.which("wrk") is None:
        raise SystemExit("This benchmark needs wrk: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "row.lua"
        script.write_text(LUA % (KEY, row_text()))
        for kind in [given.model] if given.model else ["hgb", "none"]:
            compare(kind, given.seconds, script)


if __name__ == "__main__":
    main()
