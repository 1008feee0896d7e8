"""Several models in one process: each project's own server under `/models/NAME`, and nothing that they share.

A request is handed to one server by its path, before anything of it is read; keys, limits, counters, ledger and log are that
server's alone. `/v2/models/NAME` and `/v2/repository/models/NAME` lead to the same servers, so that clients of the protocol find
them; `/health`, `/ready`, `/v2`, `/v2/health/live` and `/v2/health/ready` speak for the process and name nobody.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from loudly import __version__
from loudly.adapters import inference_protocol as v2
from loudly.adapters.asgi_codec import Refused
from loudly.adapters.asgi_request import Receive, Reply, Send, encoded, refusal
from loudly.adapters.asgi_server import Server

PREFIXES = ("/models/", "/v2/models/", "/v2/repository/models/")


def build(servers: Mapping[str, Server]) -> Models:
    """The application of several servers, by the names of their models."""
    return Models(servers)


class Models:
    """An ASGI application over others. `draining` is theirs."""

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self._servers = dict(servers)

    @property
    def draining(self) -> bool:
        return any(server.draining for server in self._servers.values())

    @draining.setter
    def draining(self, said: bool) -> None:
        for server in self._servers.values():
            server.draining = said

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Around serving: all of them run, or none."""
        async with AsyncExitStack() as stack:
            for server in self._servers.values():
                await stack.enter_async_context(server.running())
            yield

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            async with self.running():
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
            return
        root = scope.get("root_path", "")
        path = scope["path"].removeprefix(root)
        for prefix in PREFIXES:
            name = path.removeprefix(prefix).partition("/")[0] if path.startswith(prefix) else ""
            if name in self._servers:
                inner = f"{root}/models/{name}" if prefix == "/models/" else root
                await self._servers[name]({**scope, "root_path": inner}, receive, send)
                return
        reply = self._own(scope["method"], path)
        headers = [(b"content-type", reply.kind), (b"content-length", b"%d" % len(reply.body)), *reply.headers]
        if self.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def _own(self, method: str, path: str) -> Reply:
        """What is asked of the process itself."""
        ready = all(server.ready for server in self._servers.values())
        answers = {
            "/health": (200, {"status": "alive"}),
            "/ready": (200 if ready else 503, {"ready": ready}),
            "/v2": (200, v2.server(__version__)),
            "/v2/health/live": (200, {"live": True}),
            "/v2/health/ready": (200 if ready else 503, {"ready": ready}),
        }
        if path not in answers:
            return refusal(Refused(404, {"detail": "Not Found"}))
        if method != "GET":
            return refusal(Refused(405, {"detail": "Method Not Allowed"}))
        status, told = answers[path]
        return Reply(status, encoded(told))
