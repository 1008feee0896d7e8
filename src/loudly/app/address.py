"""The address that a server listens at."""

from __future__ import annotations

import socket

from loudly.errors import ConfigError

BACKLOG = 2048


def open_door(host: str, port: int) -> socket.socket:
    """A listening socket that processes can inherit. Raises: ConfigError where the address is taken."""
    door = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((host, port))
    except OSError as wrong:
        door.close()
        raise ConfigError(
            f"Nobody can listen at {host}:{port}.", seen=str(wrong), do="Stop who does, or name another --port."
        ) from wrong
    door.listen(BACKLOG)
    door.set_inheritable(True)
    return door
