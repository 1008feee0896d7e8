"""Which versions there are: the model repository extension of the Open Inference Protocol, and promotion by hand.

A version is named in the path, `/v2/repository/models/NAME/versions/N/load`, or in the body, `{"parameters": {"version": "N"}}`.

Source: Triton's model repository extension (index, load, unload), whose clients name no version: they load the newest, and
unload all that was loaded by name.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

from loudly.adapters import inference_protocol as v2
from loudly.adapters.asgi_codec import Refused
from loudly.adapters.asgi_request import Reply, Request, encoded
from loudly.core.values import Kind
from loudly.errors import ClockError, Conflict, LoudlyError, NotFound, RolloutError, StaleWriter, StoreError, WheelAway
from loudly.serve.front import Front
from loudly.serve.request import fits

Body = Callable[[Request], Awaitable[bytes]]
Aside = Callable[[Callable[[], Any]], Awaitable[Any]]


def status_of(error: Exception) -> int:
    """The status that says what an error is to a client."""
    match error:
        case NotFound():
            return 404
        case Conflict() | StaleWriter():
            return 409
        case RolloutError() | WheelAway() | StoreError() | ClockError():
            return 503
        case _:
            return 422


class Repository:
    """The three requests of the extension, and `POST /promote`. most: versions that may be loaded at once."""

    def __init__(self, front: Front, most: int, body: Body, aside: Aside) -> None:
        self._front, self._most, self._body, self._aside = front, most, body, aside

    async def index(self, request: Request) -> Reply:
        """Every version that is registered, with its state; with `{"ready": true}` those that can be asked."""
        ready = (await self._said(request)).get("ready", False)
        if not isinstance(ready, bool):
            raise v2.broken("ready is true or false")
        told = []
        for version, loaded, reason in self._front.repository():
            name, _, number = version.rpartition("/")
            if loaded or not ready:
                told.append({"name": name, "version": number, "state": "READY" if loaded else "UNAVAILABLE", "reason": reason})
        return Reply(200, encoded(told))

    async def promote(self, request: Request) -> Reply:
        """A version answers everything, unless something was decided since the ledger was at the position that is named."""
        said = await self._said(request)
        version, position, reason = (said.get(name) for name in ("version", "ledger", "reason"))
        if not _is_version(version) or type(position) is not int or not (reason and fits(reason, Kind.TEXT)):
            told = 'an object: version, ledger (the position that /status told) and reason (why), as in {"version": "2", ...}'
            raise Refused(422, {"detail": told})
        try:
            await self._aside(lambda: self._front.promote(str(version), position, reason))
        except LoudlyError as wrong:
            raise Refused(status_of(wrong), {"detail": str(wrong)}) from wrong
        return Reply(200, encoded({"champion": self._front.version()}))

    async def load(self, request: Request) -> Reply:
        """A version answers whoever names it, from now on."""
        named = await self._named(request)
        known = [version for version, _, _ in self._front.repository()]
        if not named and not known:
            raise v2.broken("no version is registered yet", 404)
        return await self._do(lambda: self._front.load(named or known[-1], self._most))

    async def unload(self, request: Request) -> Reply:
        """It answers nobody by its name any more; memory is given back when its last request is answered."""
        named = await self._named(request)
        return await self._do(lambda: self._front.unload(named) if named else self._unload_all())

    def _unload_all(self) -> None:
        """What was loaded by name; what the routing asks stays."""
        for version in self._front.loaded():
            with contextlib.suppress(Conflict):
                self._front.unload(version)

    async def _do(self, work: Callable[[], None]) -> Reply:
        try:
            await self._aside(work)
        except LoudlyError as wrong:
            raise v2.broken(str(wrong), status_of(wrong)) from wrong
        return Reply(200, b"")

    async def _named(self, request: Request) -> str:
        """The version that is asked for; "" where none is named."""
        said = (await self._said(request)).get("parameters", {})
        if not isinstance(said, dict) or not _is_version(said.get("version", "")):
            raise v2.broken('parameters are an object, which may name a version, as in {"version": "2"}')
        named = request.version or said.get("version", "")
        if named == "":
            return ""
        return str(named) if "/" in str(named) else f"{self._front.name}/{named}"

    async def _said(self, request: Request) -> dict[str, Any]:
        body = await self._body(request)
        try:
            said = json.loads(body) if body.strip() else {}
        except (ValueError, RecursionError) as wrong:
            raise v2.broken(f"no JSON: {wrong}") from wrong
        if not isinstance(said, dict):
            raise v2.broken("a request is an object, or nothing")
        return said


def _is_version(value: Any) -> bool:
    """Whether it can name a version: a text, or its number."""
    return isinstance(value, str) or type(value) is int
