"""One HTTP request and its reply, as plain as ASGI allows."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import parse_qsl

import msgspec

from loudly.adapters.asgi_codec import Refused
from loudly.core.canon import finite

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

LOG = logging.getLogger("loudly.serve")
ID = re.compile(rb"[\x21-\x7e]{1,128}")
TRACE = re.compile(rb"(?!ff)([0-9a-f]{2})(-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(-.*)?")
JSON = b"application/json"
PATIENCE = 8
IDS = 256


class Gone(Exception):
    """The client has left; nobody waits for an answer."""


async def gone() -> Mapping[str, Any]:
    """What a client that has left says."""
    return {"type": "http.disconnect"}


class Reply:
    """Status, body and headers of an answer."""

    __slots__ = ("body", "headers", "kind", "status")

    def __init__(self, status: int, body: bytes, kind: bytes = JSON, headers: Headers = ()) -> None:
        self.status, self.body, self.kind, self.headers = status, body, kind, headers


class Asking(Protocol):
    """What is known of a request beside its body, as `Request` has it. note: request id and traceparent, for the log."""

    id: bytes
    trace: bytes
    key: bytes
    version: str

    @property
    def note(self) -> tuple[str, str]: ...


class Request:
    """What came in. id: the client's own X-Request-Id, or a new one.  trace: its W3C traceparent, or nothing.

    key: of `Authorization: Bearer KEY`, or else of `X-API-Key: KEY`, in whichever order they come.  version: who is asked by
    name, "" for nobody.  length: of the body, as it was announced, or -1.
    """

    __slots__ = ("_receive", "headers", "id", "key", "length", "method", "path", "query", "trace", "version")

    def __init__(self, method: str, path: str, headers: Headers, receive: Receive = gone, query: bytes = b"") -> None:
        self.method, self.path, self.headers, self._receive, self.query = method, path, headers, receive, query
        self.version = ""
        self.id, self.trace, self.key, self.length = b"", b"", b"", -1
        for name, value in headers:
            if name == b"content-length":
                self.length = int(value) if value.isdigit() and len(value) < 19 else -1
            elif name == b"authorization":
                self.key = value[7:].strip() if value[:7].lower() == b"bearer " else self.key
            elif name == b"x-api-key":
                self.key = self.key or value.strip()
            elif name == b"x-request-id" and ID.fullmatch(value):
                self.id = value
            elif name == b"traceparent":
                self.trace = _trace(value)
        self.id = self.id or new_id()

    @property
    def note(self) -> tuple[str, str]:
        """Request id and traceparent, for the log."""
        return self.id.decode(), self.trace.decode()

    def asked(self, name: str) -> str | None:
        """A parameter of the query; the last one where it is given twice."""
        return dict(parse_qsl(self.query.decode("latin-1"), keep_blank_values=True)).get(name) if self.query else None

    def header(self, name: bytes) -> str | None:
        """A header by its name in lower case."""
        return next((value.decode("latin-1") for known, value in self.headers if known == name), None)

    async def body(self, most: int) -> bytes:
        """The whole body. Raises: Refused above `most` bytes, Gone where the client leaves before its end."""
        if self.length > most:
            if self.header(b"expect") is None:
                await self._discard(0, most)
            raise too_large(most)
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Gone
        data: bytes = message.get("body", b"")
        if not message.get("more_body", False) and len(data) <= most:
            return data
        chunks, size = [data], len(data)
        while message.get("more_body", False):
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > most:
                chunks.clear()
                if message.get("more_body", False):
                    await self._discard(size, most)
                raise too_large(most)
        if size > most:
            raise too_large(most)
        return b"".join(chunks)

    async def _discard(self, size: int, most: int) -> None:
        """Lets a client that sends too much finish, within reason: one that is cut off does not hear why."""
        more = True
        while more and size <= PATIENCE * most:
            message = await self._receive()
            more = message["type"] == "http.request" and bool(message.get("more_body", False))
            size += len(message.get("body", b""))


_IDS: list[bytes] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_IDS.clear)


def new_id() -> bytes:
    """32 hexadecimal digits of chance. The system is asked for some hundred at once: a call of it costs more than all the rest.

    >>> len(new_id()), new_id() == new_id()
    (32, False)
    """
    try:
        return _IDS.pop()
    except IndexError:
        drawn = os.urandom(16 * IDS).hex().encode()
        _IDS.extend(drawn[at : at + 32] for at in range(32, len(drawn), 32))
        return drawn[:32]


def _trace(value: bytes) -> bytes:
    """A traceparent in version 00; of a later version what 00 knows is taken. Source: W3C Trace Context, 3.2.4."""
    found = TRACE.fullmatch(value)
    if found is None or (found[1] == b"00" and found[3]):
        return b""
    return b"00" + found[2]


def too_slow(seconds: float, what: str = "body") -> Refused:
    """408, which names the limit."""
    return Refused(408, {"detail": f"the {what} did not come within {seconds:g} s"})


def too_large(most: int) -> Refused:
    """413, which names the limit."""
    return Refused(413, {"detail": f"a request may have {most:,} bytes at most"})


def refusal(refused: Refused) -> Reply:
    """The reply of a refusal; after one that was cut short the connection is closed."""
    headers: list[tuple[bytes, bytes]] = []
    if refused.retry_after is not None:
        headers.append((b"retry-after", str(max(1, round(refused.retry_after + 0.5))).encode()))
    if refused.allow:
        headers.append((b"allow", refused.allow.encode()))
    if refused.status == 401:
        headers.append((b"www-authenticate", refused.challenge))
    if refused.status in (408, 413):
        headers.append((b"connection", b"close"))
    return Reply(refused.status, encoded(refused.content), JSON, headers)


def failure(request: Asking, wrong: Exception) -> Reply:
    """The reply to a request that raised: its refusal, or a 500 that names it, which is logged with its trace."""
    if isinstance(wrong, Refused):
        return refusal(wrong)
    known = {"request_id": request.id.decode(), "trace_id": request.trace[3:35].decode()}
    LOG.error("LOUD request %(request_id)s failed, trace %(trace_id)s", known, exc_info=wrong, extra=known)
    return refusal(Refused(500, {"detail": f"an error of the server's own; request {known['request_id']}"}))


def encoded(content: Any) -> bytes:
    """JSON; NaN and infinities have no word in it and are null."""
    return msgspec.json.encode(content, enc_hook=lambda value: finite(float(value)))
