"""The address that a server listens at, and what is found there."""

from __future__ import annotations

import socket

from loudly.errors import ConfigError

BACKLOG = 2048
# Where to look where everybody is listened to.
ANYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def expect_free(host: str, port: int, grpc_port: int) -> None:
    """Nobody listens where a server will. grpc_port: 0 for none. Raises: ConfigError; gRPC itself would share with who does."""
    with open_door(host, port):
        if grpc_port:
            open_door(host, grpc_port, "Stop who does, or name another port in [server] grpc_port.").close()


def open_door(host: str, port: int, do: str = "Stop who does, or name another --port.") -> socket.socket:
    """A listening socket that processes can inherit. Raises: ConfigError where the address is taken."""
    door = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((host, port))
    except OSError as wrong:
        door.close()
        raise ConfigError(f"Nobody can listen at {host}:{port}.", seen=str(wrong), do=do) from wrong
    door.listen(BACKLOG)
    door.set_inheritable(True)
    return door


def pages(host: str, port: int, root: str = "") -> str:
    """Where a browser finds the pages of a project. root: the path that it stands under.

    >>> pages("0.0.0.0", 8000)
    'http://127.0.0.1:8000/-/ shows how it stands, http://127.0.0.1:8000/docs what it takes'
    """
    known = ANYWHERE.get(host, host)
    base = f"http://{f'[{known}]' if ':' in known else known}:{port}{root}"
    return f"{base}/-/ shows how it stands, {base}/docs what it takes"
