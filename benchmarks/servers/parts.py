"""Where the time of a request goes: µs of processor by part, in one process and without a socket, beside the whole.

Each part is the very code that serves, called by itself on what a request of 30 features brings; the whole is the ASGI
application, driven by as many clients as there are connections. HTTP is what an empty ASGI application costs under uvicorn.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from loudly.adapters.asgi_codec import Codec, answers
from loudly.adapters.asgi_request import Request
from loudly.adapters.uvicorn_run import COLLECT
from loudly.app.server import LiveFront, answered_of
from loudly.serve.attempt import Attempt
from loudly.serve.rows import Rows, joined
from servers import ours
from servers.load import Ask, NotRun, Server
from servers.ours import Setting
from servers.peers import NAMED
from servers.world import KEY

PORT = 8737
CONNECTIONS = (1, 16, 64)
ROUNDS, REQUESTS = 5, 4000
HEADERS = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"authorization", f"Bearer {KEY}".encode())]
NOTE = ("0123456789abcdef0123456789abcdef", "")


async def empty(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
    """An ASGI application that reads a body and says 200 with as many bytes as an answer has."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"138")]})
    await send({"type": "http.response.body", "body": b'{"answer":0.5' + b" " * 124 + b"}"})


def http(folder: Path) -> Mapping[int, float]:
    """Connections -> µs a request of uvicorn around an empty application."""
    code = "from servers.parts import empty; from loudly.adapters import uvicorn_run; uvicorn_run.run(empty, '127.0.0.1', %d, 0.0)"
    env = {"PYTHONPATH": ":".join(sys.path)}
    server = Server("empty", [sys.executable, "-c", code % PORT], Ask(PORT, "/", NAMED, 0.5, {}), env, folder)
    try:
        server.wait()
        server.load(16, 1.0)
        return {c: statistics.median(server.load(c, 1.0).cpu for _ in range(3)) for c in CONNECTIONS}
    finally:
        server.stop()


def cost(work: Callable[[], object], rows: int = 1, calls: int = 2000) -> float:
    """µs of processor a row; the least of a few rounds, for other people's work only adds."""
    found = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(calls):
            work()
        found.append((time.process_time() - begun) / calls / rows * 1e6)
    return min(found)


def whole(server: Any, clients: int) -> float:
    """µs a request of the application, asked by `clients` at once; also what is folded in between."""
    body = NAMED.encode()
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [*HEADERS, (b"content-length", b"%d" % len(body))]}

    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise NotRun(f"an answer is not 200: {message}")

    async def client(requests: int) -> None:
        for _ in range(requests):
            await server(scope, receive, send)

    async def all_clients() -> None:
        async with server.running():
            for count in (REQUESTS // 4, *[REQUESTS] * ROUNDS):
                begun = time.process_time()
                await asyncio.gather(*(client(count // clients) for _ in range(clients)))
                found.append((time.process_time() - begun) / (count // clients * clients) * 1e6)

    found: list[float] = []
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(all_clients())
    finally:
        gc.unfreeze()
    return min(found[1:])


def by_part(n: int) -> Mapping[str, float]:
    """µs a request when `n` are answered together: part -> cost."""
    with tempfile.TemporaryDirectory() as folder:
        live = ours.wheel(Setting("none"), Path(folder))
        server = ours.build(Setting("none"), live)
        front = LiveFront(live)
        schema = front.schema()
        assert schema is not None
        assert live.router is not None
        codec, body = Codec(schema, 10_000), NAMED.encode()

        def rows() -> Any:
            return joined([codec.read(body) for _ in range(n)])

        batch = rows()
        units = list(batch.columns["id"])
        attempt = Attempt((1,) * n, (NOTE,) * n)
        replies = live.router.answer(batch, units, attempt, behind=True)
        answered = answered_of(replies)
        notes = Attempt((1,) * n, (NOTE,) * n)

        def fold() -> None:
            for _ in range(max(1, 512 // n)):
                fresh = Rows(schema, None, n, batch.records)
                live.answering._log(fresh, replies, notes, range(n))
            live.answering.fold()

        read = cost(rows, n)
        folded = cost(fold, max(1, 512 // n) * n, 20)
        live.stores = replace(live.stores, traffic=None)
        unlogged = cost(fold, max(1, 512 // n) * n, 20)
        return {
            "headers, request id, key, rate": cost(lambda: server._find(Request("POST", "/predict", HEADERS, None))),  # type: ignore[arg-type]
            "JSON to checked rows": read,
            "router, a model of no cost": cost(lambda: live.router.answer(batch, units, attempt, behind=True), n),  # type: ignore[union-attr]
            "log of the prediction": folded - unlogged,
            "shadow (of no cost), profiles, label book, rollout": unlogged,
            "answers as lists": cost(lambda: answered_of(replies), n),
            "JSON of the answer": cost(lambda: answers(codec.version, answered, 0, 1)),
            "metrics": cost(lambda: (server.meters.answered(answered, 0, 1), server.meters.request("/predict", 200, 0.001))),
        }


def run() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        empty_costs = http(Path(folder))
    tables = {n: by_part(n) for n in CONNECTIONS}
    totals: dict[tuple[str, int], float] = {}
    for setting in (Setting("none", "inline"), Setting("none"), Setting("none", "inline", off=True)):
        with tempfile.TemporaryDirectory() as folder:
            live = ours.wheel(setting, Path(folder))
            server = ours.build(setting, live)
            for n in CONNECTIONS:
                totals[setting.name, n] = whole(server, n)
    print("\nwhere a request's time goes: µs of processor, a model of no cost, requests that are answered together")
    print(f"{'part':<48}" + "".join(f"{n:>9}" for n in CONNECTIONS))
    print(f"{'HTTP: uvicorn around an empty application':<48}" + "".join(f"{empty_costs[n]:>9.1f}" for n in CONNECTIONS))
    for part in tables[1]:
        print(f"{part:<48}" + "".join(f"{tables[n][part]:>9.1f}" for n in CONNECTIONS))
    sums = {n: sum(tables[n].values()) for n in CONNECTIONS}
    rest = {n: totals["none-inline", n] - sums[n] for n in CONNECTIONS}
    print(f"{'event loop, waiting, batching, ASGI (the rest)':<48}" + "".join(f"{rest[n]:>9.1f}" for n in CONNECTIONS))
    for name in dict.fromkeys(name for name, _ in totals):
        print(f"{f'the application without HTTP, {name}':<48}" + "".join(f"{totals[name, n]:>9.1f}" for n in CONNECTIONS))
    sys.stdout.flush()
