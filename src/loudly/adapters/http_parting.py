"""The end of a connection whose client is still speaking.

To close a socket with bytes in it that nobody read is, in TCP, a reset: it may take the last answer away before the client has read
it. So after that answer the server says no more, reads and drops what comes, and closes when the client does or its time is up, as
nginx does (`lingering_close`). Source: RFC 9112, 9.6.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PARTING = 5.0
Lost = Callable[[Exception | None], object]


class Parting(asyncio.Protocol):
    """Hears a client out."""

    def __init__(self, transport: asyncio.Transport, lost: Lost) -> None:
        self._lost = lost
        self._over = asyncio.get_running_loop().call_later(PARTING, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left, or its time is up."""
        self._over.cancel()
        self._lost(exc)


def part(transport: asyncio.Transport, lost: Lost) -> None:
    """Ends a connection behind its last answer, which is written already.

    lost: what its protocol until now does once it is gone. Until then that one may close the transport, as it does at a shutdown.
    """
    if not transport.can_write_eof():  # TLS has no half of an end
        transport.close()
        return
    transport.set_protocol(Parting(transport, lost))
    transport.resume_reading()
    transport.write_eof()
