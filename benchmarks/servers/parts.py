"""Where the time of a request goes: µs of processor by part, in one process and without a socket, beside the whole.

Each part is the very code that serves, called by itself on what a request of 30 features brings; the whole is the lane of plain
predictions, driven by as many clients as there are connections. With sockets it is the server's process as wrk loads it, beside
what an empty ASGI application costs under uvicorn.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvloop

from loudly.adapters.asgi_codec import Codec, answers
from loudly.adapters.http_lane import Connection, Lane, Plain
from loudly.adapters.uvicorn_run import COLLECT, KEEP_ALIVE_SECONDS, SWITCH_SECONDS
from loudly.app.server import LiveFront, answered_of
from loudly.serve.attempt import Attempt
from loudly.serve.rows import Rows, joined
from servers import ours, world
from servers.load import Ask, NotRun, Server
from servers.ours import Setting
from servers.peers import NAMED
from servers.world import KEY

PORT = 8737
CONNECTIONS = (1, 16, 64)
ROUNDS, REQUESTS, FOLDED = 5, 4000, 2048
BODY = NAMED.encode()
HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:8731\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n" % (KEY.encode(), len(BODY))
)
DATE = [(b"date", b"Thu, 01 Jan 2026 00:00:00 GMT")]
WHOLE = (Setting("none", "inline"), Setting("none"), Setting("none", "inline", off=True))
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


def empty_server(folder: Path) -> Mapping[int, float]:
    """Connections -> µs a request of uvicorn around an empty application."""
    code = "from servers.parts import empty; from loudly.adapters import uvicorn_run; uvicorn_run.run(empty, '127.0.0.1', %d, 0.0)"
    env = {"PYTHONPATH": ":".join(sys.path)}
    server = Server("empty", [sys.executable, "-c", code % PORT], Ask(PORT, "/", NAMED, 0.5, {}), env, folder)
    return loaded(server)


def cost(work: Callable[[], object], rows: int = 1, calls: int = 2000) -> float:
    """µs of processor a row; the least of a few rounds, for other people's work only adds."""
    found = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(calls):
            work()
        found.append((time.process_time() - begun) / calls / rows * 1e6)
    return min(found)


@dataclass(slots=True)
class State:
    """What uvicorn's server knows of its connections."""

    connections: set[Any] = field(default_factory=set)
    default_headers: Sequence[tuple[bytes, bytes]] = field(default_factory=lambda: DATE)
    total_requests: int = 0


class Client:
    """A transport without a socket: asks again as soon as it is answered."""

    def __init__(self, lane: Lane, state: State, requests: int) -> None:
        self.left, self.loop = requests, asyncio.get_running_loop()
        self.connection = Connection(lane, state, list)
        self.done = self.loop.create_future()
        self.connection.connection_made(self)  # type: ignore[arg-type]

    def is_closing(self) -> bool:
        return False

    def ask(self) -> None:
        """The next request."""
        self.loop.call_soon(self.connection.data_received, HEAD + BODY)

    def write(self, answer: bytes) -> None:
        """An answer comes."""
        if not answer.startswith(b"HTTP/1.1 200 "):
            self.done.set_exception(NotRun(f"an answer is not 200: {answer!r}"))
        elif self.left > 1:
            self.left -= 1
            self.ask()
        else:
            self.done.set_result(None)


def whole(server: Any, clients: int) -> float:
    """µs a request of the server without sockets, asked by `clients` at once; also what is folded in between."""

    async def all_clients() -> None:
        lane = Lane(server, KEEP_ALIVE_SECONDS)
        async with server.running():
            for count in (REQUESTS // 4, *[REQUESTS] * ROUNDS):
                everybody = [Client(lane, State(), count // clients) for _ in range(clients)]
                begun = time.process_time()
                for client in everybody:
                    client.ask()
                await asyncio.gather(*(client.done for client in everybody))
                found.append((time.process_time() - begun) / (count // clients * clients) * 1e6)
                for client in everybody:
                    client.connection.connection_lost(None)

    found: list[float] = []
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(all_clients())
    finally:
        gc.unfreeze()
    return min(found[1:])


def loaded(server: Server) -> Mapping[int, float]:
    """Connections -> µs of processor a request under wrk, of the server's process."""
    try:
        server.wait()
        server.load(16, 1.0)
        return {c: statistics.median(server.load(c, 2.0).cpu for _ in range(3)) for c in CONNECTIONS}
    finally:
        server.stop()


def by_part(n: int) -> Mapping[str, float]:
    """µs a request when `n` are answered together: part -> cost."""
    with tempfile.TemporaryDirectory() as folder:
        live = ours.wheel(Setting("none"), Path(folder))
        server = ours.build(Setting("none"), live)
        front = LiveFront(live)
        schema = front.schema()
        assert schema is not None
        assert live.router is not None
        codec, lane = Codec(schema, 10_000), Lane(server, KEEP_ALIVE_SECONDS)
        connection = Connection(lane, State(), list)

        def rows() -> Any:
            return joined([codec.read(BODY) for _ in range(n)])

        batch, rollout = rows(), live.router.routing.rollout
        units = list(batch.columns["id"])
        attempt = Attempt((1,) * n, (NOTE,) * n)
        replies = live.router.answer(batch, units, attempt, behind=True)
        answered = answered_of(replies, attempt)

        def fresh() -> Rows:
            return Rows(schema, None, n, batch.records)

        def fold() -> None:
            for _ in range(max(1, FOLDED // n)):
                scored = fresh()
                scored._numbers = batch.numbers
                live.answering._log(scored, replies, [(*NOTE, 1)] * n, "", rollout)
            live.answering.fold()

        def admitted() -> None:
            head = lane.head(HEAD)
            assert head is not None
            server.admit(Plain(head, connection), "predict")

        def metered() -> None:
            server.meters.answered(answered, 0, 1)
            server.meters.request("/predict", 200, 0.001)

        read = cost(rows, n)
        folded = cost(fold, max(1, FOLDED // n) * n, 10)
        live.stores = replace(live.stores, traffic=None)
        unlogged = cost(fold, max(1, FOLDED // n) * n, 10)
        return {
            "head, request id, key, rate": cost(admitted),
            "JSON to checked rows": read,
            "router, a model of no cost": cost(lambda: live.router.answer(fresh(), units, attempt, behind=True), n),  # type: ignore[union-attr]
            "log of the prediction": folded - unlogged,
            "shadow (of no cost), profiles, label book, rollout": unlogged,
            "answers as lists": cost(lambda: answered_of(replies, attempt), n),
            "JSON of the answer": cost(lambda: answers(codec.version, answered, 0, 1)),
            "metrics": cost(metered),
        }


def run() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        expected = world.save(Path(folder))
        empty_costs = empty_server(Path(folder))
        served = {s.name: loaded(ours.start(s, PORT, expected, Path(folder))) for s in WHOLE}
    tables = {n: by_part(n) for n in CONNECTIONS}
    totals: dict[tuple[str, int], float] = {}
    for setting in WHOLE:
        with tempfile.TemporaryDirectory() as folder:
            live = ours.wheel(setting, Path(folder))
            server = ours.build(setting, live)
            for n in CONNECTIONS:
                totals[setting.name, n] = whole(server, n)
    print("\nwhere a request's time goes: µs of processor, a model of no cost, requests that are answered together")
    print(f"{'part':<48}" + "".join(f"{n:>9}" for n in CONNECTIONS))
    for part in tables[1]:
        print(f"{part:<48}" + "".join(f"{tables[n][part]:>9.1f}" for n in CONNECTIONS))
    sums = {n: sum(tables[n].values()) for n in CONNECTIONS}
    rest = {n: totals["none-inline", n] - sums[n] for n in CONNECTIONS}
    print(f"{'lane, event loop, waiting, batching (the rest)':<48}" + "".join(f"{rest[n]:>9.1f}" for n in CONNECTIONS))
    for name, costs in served.items():
        print(f"{f'the server without sockets, {name}':<48}" + "".join(f"{totals[name, n]:>9.1f}" for n in CONNECTIONS))
        print(f"{f'its process under wrk, {name}':<48}" + "".join(f"{costs[n]:>9.1f}" for n in CONNECTIONS))
    print(f"{'uvicorn around an empty application, under wrk':<48}" + "".join(f"{empty_costs[n]:>9.1f}" for n in CONNECTIONS))
    sys.stdout.flush()
