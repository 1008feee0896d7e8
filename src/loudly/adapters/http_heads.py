"""uvicorn's own protocol, where a head is concerned more careful than it is.

An offer to go on in HTTP/2 (Java's client makes it with every request, curl with `--http2`) is declined, as RFC 9110 allows, and
the request is answered: uvicorn drops its body. A head that does not end, or does not come, ends the connection: uvicorn would hold
it for ever, and copy all of it with each piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http import httptools_impl

from loudly.adapters.asgi_codec import Refused
from loudly.adapters.asgi_request import Request, refusal, too_slow
from loudly.adapters.http_lane import written
from loudly.adapters.http_parting import part

MOST_HEAD = 64 * 1024
# What offers another protocol; without these it is a plain request.
OFFER = frozenset((b"upgrade", b"connection", b"http2-settings"))


class Heads(httptools_impl.HttpToolsProtocol):
    """A connection. What one read of the socket brings at once is not counted, so a head may be somewhat longer than the limit."""

    def __init__(self, slow: float, *given: Any) -> None:
        """slow: seconds that a head may take.  given: as uvicorn makes its protocol."""
        super().__init__(*given)
        self._slow, self._size, self._inside = slow, 0, False
        self._late: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._size = self._size + len(data) if self._inside else 0
        if self._size > MOST_HEAD:
            self._refuse(Refused(431, {"detail": f"a head may have {MOST_HEAD:,} bytes at most"}))
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            told = "Invalid HTTP request received."
            self.logger.warning(told)
            self.send_400_response(told)
        except httptools.HttpParserUpgrade as offered:
            if self._declines():
                self._go_on(data[offered.args[0] :])
            elif self._should_upgrade():
                self.handle_websocket_upgrade()
        if self._inside and self._late is None and self.parser is not None:
            self._late = self.loop.call_later(self._slow, self._refuse, too_slow(self._slow, "head"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._inside = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._arrived()
        if not self._declines():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._declines():
            super().on_message_complete()

    def _declines(self) -> bool:
        """Whether the request offers a protocol that is not spoken here. CONNECT has no other meaning: uvicorn answers it."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT" and not self._should_upgrade()

    def _go_on(self, rest: bytes) -> None:
        """The request once more, without the offer, at which a parser stops before the body. rest: from there on."""
        lines = [self.parser.get_method(), b" ", self.url, f" HTTP/{self.parser.get_http_version()}\r\n".encode()]
        for name, value in self.headers:
            if name not in OFFER:
                lines += (name, b": ", value, b"\r\n")
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"".join((*lines, b"\r\n", rest)))

    def _arrived(self) -> None:
        self._inside = False
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self, refused: Refused) -> None:
        """Says why where no other answer is under way, and ends the connection."""
        self._arrived()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            reply = refusal(refused)
            self.transport.write(written(Request("", "", ()), reply, self.server_state.default_headers, closing=True))
            part(self.transport, self.connection_lost)
        else:
            self.transport.close()


def careful(slow: float) -> Callable[..., Heads]:
    """What uvicorn makes a connection of."""
    return lambda config, server_state, app_state, _loop=None: Heads(slow, config, server_state, app_state, _loop)
