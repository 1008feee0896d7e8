"""A lane for plain predictions beside uvicorn's own HTTP protocol: no task, no ASGI messages, the head read once.

A connection begins in the lane. As long as each request on it is a `POST /predict` of HTTP/1.1 with a body of known and modest
length, it is answered here: the batcher tells the connection itself. With the first request that is anything else the connection
goes to uvicorn's protocol, with all its bytes, and stays there. What is answered is the same on both ways.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httptools

from loudly.adapters.asgi_request import Asking, Headers, Reply, Request, failure, new_id, refusal, too_slow
from loudly.adapters.asgi_server import LARGE_BODY, Server
from loudly.adapters.http_parting import part
from loudly.core.clock import stopwatch
from loudly.serve.front import Answered
from loudly.serve.rows import Rows

PATH = "/predict"
LINE = b"POST /predict HTTP/1.1\r\n"
END = b"\r\n\r\n"
STATUS = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
CLOSE = (b"connection", b"close")
MOST_HEAD, MOST_HEADS = 2048, 1024
MOST_KEPT = 2 * LARGE_BODY
# Whoever sends these wants more than the lane gives.
ELSEWHERE = frozenset((b"expect", b"transfer-encoding", b"upgrade", b"connection", b"content-encoding"))


class Head:
    """The head of a request that the lane takes, without its id: what a `Request` knows of it."""

    __slots__ = ("id", "key", "length", "trace")

    def __init__(self, request: Request, named: bool) -> None:
        """named: whether the client gave the request an id of its own."""
        self.id = request.id if named else b""
        self.key, self.trace, self.length = request.key, request.trace, request.length


class Lane:
    """What the connections of one server share. Heads without an id or a trace come again byte for byte, and are read once."""

    def __init__(self, server: Server, keep_alive: float) -> None:
        """keep_alive: seconds after which an idle connection is closed."""
        self.server, self.keep_alive = server, keep_alive
        self.longest = min(LARGE_BODY, server.settings.most_bytes)
        self._heads: dict[bytes, Head | None] = {}

    def head(self, raw: bytes) -> Head | None:
        """A head, with its empty line; None for one that is uvicorn's to read."""
        try:
            return self._heads[raw]
        except KeyError:
            found = self._read(raw)
            if len(raw) <= MOST_HEAD and (found is None or not (found.id or found.trace)):
                if len(self._heads) >= MOST_HEADS:
                    self._heads.clear()
                self._heads[raw] = found
            return found

    def _read(self, raw: bytes) -> Head | None:
        headers = _headers(raw) if raw.startswith(LINE) else None
        if headers is None or any(name in ELSEWHERE for name, _ in headers):
            return None
        request = Request("POST", PATH, headers)
        named = any(name == b"x-request-id" and value == request.id for name, value in headers)
        return Head(request, named) if 0 <= request.length <= self.longest else None


def _headers(raw: bytes) -> Headers | None:
    """The headers of a head, names in lower case; None for one that is not right."""
    found = _Headers()
    try:
        httptools.HttpRequestParser(found).feed_data(raw)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    return found.headers


class _Headers:
    """Hears the parser."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


class Plain:
    """A request in the lane, and the seat where its answer goes."""

    __slots__ = ("_begun", "_connection", "_told", "id", "key", "rows", "trace", "version")

    def __init__(self, head: Head, connection: Connection) -> None:
        self.id, self.key, self.trace, self.version = head.id or new_id(), head.key, head.trace, ""
        self._connection, self._told, self._begun = connection, False, stopwatch()
        self.rows: Rows | None = None

    @property
    def note(self) -> tuple[str, str]:
        """Request id and traceparent, for the log."""
        return self.id.decode(), self.trace.decode()

    def done(self) -> bool:
        """Whether the client has its answer."""
        return self._told

    def set_result(self, found: tuple[Answered, int]) -> None:
        """The batch's answers, and where the request's own begin."""
        assert self.rows is not None
        try:
            reply = self._connection.lane.server.predictor.reply(self.rows, *found)
        except Exception as wrong:  # noqa: BLE001 - whatever it is, the client is told
            reply = failure(self, wrong)
        self.tell(reply)

    def set_exception(self, wrong: Exception) -> None:
        """What came in the place of an answer."""
        predictor = self._connection.lane.server.predictor
        if self.rows is not None:
            try:
                self.set_result(predictor.otherwise(wrong, self.rows, self))
                return
            except Exception as said:  # noqa: BLE001 - it is what the client is told
                wrong = said
        self.tell(failure(self, wrong))

    def tell(self, reply: Reply) -> None:
        """The reply, whatever it is, goes out and is counted."""
        self._told = True
        self._connection.answer(self, reply)
        self._connection.lane.server.count(self, PATH, reply.status, stopwatch() - self._begun)


class Connection:
    """A connection, as asyncio's protocols are, and as uvicorn's server knows its own: one request at a time, in order."""

    def __init__(self, lane: Lane, state: Any, elsewhere: Callable[[], Any]) -> None:
        """state: uvicorn's, of the server.  elsewhere: makes the protocol that takes what the lane does not."""
        self.lane, self._state, self._elsewhere = lane, state, elsewhere
        self._transport: asyncio.Transport | None = None
        self._kept = b""
        self._asked: Plain | None = None
        self._leaving = self._paused = self._deaf = False
        self._slow: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._heard = 0.0

    # -- what asyncio calls ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client has come."""
        self._transport = transport
        self._state.connections.add(self)
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        self._idle = loop.call_later(self.lane.keep_alive, self._look)

    def connection_lost(self, _: Exception | None) -> None:
        """It has left; an answer under way is made, and goes nowhere."""
        self._state.connections.discard(self)
        self._quiet()
        self._kept, self._leaving = b"", True

    def eof_received(self) -> None:
        """It says no more: asyncio closes the connection."""

    def pause_writing(self) -> None:
        """It does not read what it gets: it is asked for nothing more meanwhile."""
        self._paused = True

    def resume_writing(self) -> None:
        """It reads again."""
        self._paused = False
        self._go_on()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, of its part, or of several."""
        self._kept = self._kept + data if self._kept else data
        if self._asked is None:
            self._go_on()
        if len(self._kept) > MOST_KEPT and self._transport is not None and not self._deaf:
            self._deaf = True
            self._transport.pause_reading()

    def shutdown(self) -> None:
        """uvicorn's server stops: what is asked is answered, and then the connection is closed."""
        self._leaving = True
        if self._asked is None and not self._kept and self._transport is not None:
            self._transport.close()

    @property
    def _open(self) -> asyncio.Transport | None:
        """The transport while an answer would reach the client: nothing is asked for a connection that closes."""
        return None if self._transport is None or self._transport.is_closing() else self._transport

    # -- requests ----------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Takes the next request that is whole."""
        while self._kept and self._asked is None and not self._paused and (transport := self._open):
            end = self._kept.find(END) + len(END)
            head = self.lane.head(self._kept[:end]) if end >= len(END) else None
            if head is None:
                self._hand_over()
                return
            whole = end + head.length
            if len(self._kept) < whole:
                self._wait(head)
                return
            body, self._kept = self._kept[end:whole], self._kept[whole:]
            if self._deaf and len(self._kept) <= LARGE_BODY:
                self._deaf = False
                transport.resume_reading()
            self._ask(Plain(head, self), body)

    def _ask(self, asked: Plain, body: bytes) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        self._asked = asked
        try:
            asked.rows = self.lane.server.take(asked, body, asked)
        except Exception as wrong:  # noqa: BLE001 - whatever it is, the client is told
            asked.set_exception(wrong)

    def answer(self, asked: Plain, reply: Reply) -> None:
        """Writes it, and takes the next request where one has come already."""
        transport, self._asked = self._transport, None
        if transport is None or transport.is_closing():
            return
        closing = self._leaving or self.lane.server.draining or CLOSE in reply.headers
        transport.write(written(asked, reply, self._state.default_headers, closing))
        self._state.total_requests += 1
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        if self._slow is not None:
            self._slow, self._kept = None, b""
            part(transport, self.connection_lost)
        elif closing:
            transport.close()
        elif self._kept:
            loop.call_soon(self._go_on)
        elif self._idle is None:
            self._idle = loop.call_later(self.lane.keep_alive, self._look)

    def _wait(self, head: Head) -> None:
        """For the rest of a body, as long as the server is patient."""
        if self._slow is None:
            slow = self.lane.server.settings.slow
            loop = asyncio.get_running_loop()
            self._slow = loop.call_later(slow, lambda: Plain(head, self).tell(refusal(too_slow(slow))))

    def _hand_over(self) -> None:
        """The connection is uvicorn's from here on, and this is out of it."""
        transport, kept = self._transport, self._kept
        assert transport is not None
        self.connection_lost(None)
        self._transport = None
        if self._deaf:
            transport.resume_reading()
        other = self._elsewhere()
        other.connection_made(transport)
        transport.set_protocol(other)
        other.data_received(kept)

    def _look(self) -> None:
        """Closes a connection on which nothing was asked for too long."""
        self._idle = None
        loop, transport = asyncio.get_running_loop(), self._transport
        left = self._heard + self.lane.keep_alive - loop.time()
        if transport is None or transport.is_closing():
            return
        if left <= 0 and self._asked is None and not self._kept:
            transport.close()
        else:
            self._idle = loop.call_later(max(1.0, left), self._look)

    def _quiet(self) -> None:
        for timer in (self._slow, self._idle):
            if timer is not None:
                timer.cancel()
        self._slow = self._idle = None


def written(asked: Asking, reply: Reply, first: Headers, closing: bool) -> bytes:
    """A reply as it goes over the wire. first: headers that every answer of the server has."""
    lines = [STATUS[reply.status]]
    for name, value in (*first, *reply.headers):
        if (name, value) != CLOSE:
            lines += (name, b": ", value, b"\r\n")
    if asked.trace:
        lines += (b"traceparent: ", asked.trace, b"\r\n")
    if closing:
        lines.append(b"connection: close\r\n")
    lines.append(b"content-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n\r\n" % (reply.kind, len(reply.body), asked.id))
    lines.append(reply.body)
    return b"".join(lines)


def protocol(server: Server, elsewhere: Callable[..., Any], keep_alive: float) -> Callable[..., Connection]:
    """What uvicorn makes a connection of. elsewhere: its own protocol."""
    lane = Lane(server, keep_alive)

    def make(config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> Connection:
        return Connection(lane, server_state, lambda: elsewhere(config, server_state, app_state, _loop))

    return make
