"""The status page over HTTP: `/-/`, for browsers.

A browser sends no bearer token, so here, and only here, the key may also be the password of HTTP Basic: a page is read and changes
nothing, and a browser that remembers a password sends it along with whatever another site makes it ask.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from loudly.adapters.asgi_codec import Refused
from loudly.adapters.asgi_request import Reply, Request
from loudly.adapters.meters import Meters
from loudly.serve.front import Front
from loudly.web.status_page import render

HTML = b"text/html; charset=utf-8"
# Nothing is fetched, nothing is run, nobody frames it, and nobody keeps it.
GUARDS = (
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
CHALLENGE = b'Basic realm="loudly", charset="UTF-8"'
PATH = "/-/"
Aside = Callable[[Callable[[], bytes]], Awaitable[bytes]]
Measured = Callable[[], tuple[int, int, int]]


class StatusPage:
    """What a browser is shown. measured: what the batchers of the server say now."""

    def __init__(self, front: Front, meters: Meters, aside: Aside, measured: Measured) -> None:
        self._front, self._meters, self._aside, self._measured = front, meters, aside, measured

    async def reply(self, request: Request) -> Reply:
        """The page."""
        counted = self._meters.figures(*self._measured())
        return Reply(200, await self._aside(lambda: render(self._front.overview(), counted).encode()), HTML, GUARDS)


@contextmanager
def by_password(request: Request) -> Iterator[None]:
    """Around the admission of a visitor of the page: the key may be the password, and a browser is told to ask for it."""
    request.key = request.key or password(request.header(b"authorization") or "")
    try:
        yield
    except Refused as refused:
        raise Refused(refused.status, refused.content, refused.retry_after, challenge=CHALLENGE) from refused


def password(header: str) -> bytes:
    """The password of HTTP Basic, whoever it is; b"" for a header that is none.

    >>> password("Basic " + base64.b64encode("anybody:a:key".encode()).decode()), password("Basic ?"), password("Bearer x")
    (b'a:key', b'', b'')
    """
    kind, _, told = header.partition(" ")
    if kind.lower() != "basic":
        return b""
    try:
        return base64.b64decode(told.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
