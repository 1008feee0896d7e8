"""uvicorn, told to stop without losing a request.

On SIGTERM every answer says "Connection: close" and `/ready` says no, so clients leave by themselves; idle connections stay
open for `drain` seconds, as a client may just be writing on one. Then no new connection is let in, what has come in is
answered, and the server stops. A second signal stops it at once.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import socket
import struct
import sys
from typing import Any

import uvicorn

from loudly.adapters.asgi_server import Server
from loudly.adapters.http_heads import careful
from loudly.adapters.http_lane import protocol
from loudly.config import ServerConfig

GRACE_SECONDS = 30
# Longer than the minute of most load balancers: who closes an idle connection first must be the client.
KEEP_ALIVE_SECONDS = 75
# The event loop must not wait 5 ms for a thread that folds or predicts.
SWITCH_SECONDS = 0.0005
# What is there at the start stays; looking through all of it again and again would cost 100 ms each time.
COLLECT = (20_000, 20, 50)
LOOK_SECONDS = 0.05
QUIET_LOOKS = 6
# A classic BPF program for a listening socket: a segment that only wants to begin a connection (SYN without ACK) is dropped.
LOAD, AND, EQUAL, RETURN = 0x30, 0x54, 0x15, 0x06
NO_SYN = ((LOAD, 0, 0, 13), (AND, 0, 0, 0x12), (EQUAL, 0, 1, 0x02), (RETURN, 0, 0, 0), (RETURN, 0, 0, 0xFFFFFFFF))
SO_ATTACH_FILTER = 26


def run(app: Any, host: str, port: int, drain: float = 5.0, door: socket.socket | None = None) -> None:
    """Serves the application until SIGINT or SIGTERM. drain: seconds for clients to leave.

    door: a socket that listens already, in the place of host and port; other processes may take connections from it, too.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        http=lane(app),
    )
    server = uvicorn.Server(config)
    door = config.bind_socket() if door is None else door
    stopping: list[asyncio.Task[None]] = []

    def stop(*_: Any) -> None:
        if stopping or not server.started:
            server.should_exit = True
            return
        app.draining = True
        stopping.append(asyncio.get_running_loop().create_task(_drain(server, door, drain)))

    whole = server.serve

    async def serve(sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        server.handle_exit = lambda *_: loop.call_soon_threadsafe(stop)  # type: ignore[method-assign, assignment]
        await whole(sockets)

    server.serve = serve  # type: ignore[method-assign]
    server.run(sockets=[door])


def lane(app: Any) -> Any:
    """The protocol, with a lane for plain predictions where the application is one plain server."""
    if not isinstance(app, Server):
        return careful(ServerConfig().slow)
    return protocol(app, careful(app.settings.slow), KEEP_ALIVE_SECONDS)


async def _drain(server: uvicorn.Server, door: socket.socket, seconds: float) -> None:
    """Waits until the clients have left, or their time is over; then shuts the door, lets in who stands in it, and stops."""
    quiet = 0
    for _ in range(round(seconds / LOOK_SECONDS)):
        quiet = 0 if server.server_state.connections else quiet + 1
        if quiet >= QUIET_LOOKS:
            break
        await asyncio.sleep(LOOK_SECONDS)
    _shut(door)
    await asyncio.sleep(LOOK_SECONDS)
    server.should_exit = True


def _shut(door: socket.socket) -> bool:
    """No new connection from now on, while those in the kernel's queue can still be taken; where the kernel can do that."""
    if not sys.platform.startswith("linux"):
        return False
    program = b"".join(struct.pack("HBBI", *line) for line in NO_SYN)
    held = ctypes.create_string_buffer(program)
    try:
        door.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(NO_SYN), ctypes.addressof(held)))
    except OSError:
        return False
    return True
