"""`POST /explain`: rows as `/predict` takes them, and what each column contributed to their scores.

An explanation costs up to thousands of rows scored, so few rows are taken at once, one request is at work at a time beside the
predictions, some may wait, and all end at the deadline. Each has a thread of its own: one that a model keeps is lost to nobody
else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from threading import Thread
from typing import Any

from loudly.adapters.asgi_codec import Codec, Refused
from loudly.adapters.asgi_repository import status_of
from loudly.adapters.asgi_request import Reply, encoded
from loudly.adapters.batching import MOST_STUCK
from loudly.config import ServerConfig
from loudly.errors import LoudlyError
from loudly.serve.front import Front

MOST_WAITING = 4


class Explainer:
    """Answers requests for explanations, one after another."""

    def __init__(self, front: Front, settings: ServerConfig) -> None:
        self._front, self._most_rows, self._deadline = front, settings.explain_rows, settings.deadline
        self._turn = asyncio.Lock()
        self._waiting = self._at_work = 0

    async def reply(self, codec: Codec, body: bytes) -> Reply:
        """The explanations of the rows of a body. Raises: Refused."""
        if self._waiting >= MOST_WAITING:
            raise Refused(429, {"detail": "too many explanations are waiting"}, self._deadline)
        if self._at_work >= MOST_STUCK:
            raise Refused(503, {"detail": f"{MOST_STUCK} explanations hang in the model"}, self._deadline)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._deadline):
                async with self._turn:
                    return await self._explained(codec, body)
        except TimeoutError as late:
            raise Refused(503, {"detail": f"no explanation within {self._deadline:g} s; ask for fewer rows"}, 1.0) from late
        except LoudlyError as error:
            raise Refused(status_of(error), {"detail": str(error)}) from error
        finally:
            self._waiting -= 1

    async def _explained(self, codec: Codec, body: bytes) -> Reply:
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(None, codec.read, body)
        if rows.height > self._most_rows:
            raise Refused(413, {"detail": f"a request may have {self._most_rows:,} rows at most"})
        made = await self._beside(lambda: self._front.explain(rows, self._deadline))
        several = {"classes": self._front.classes()} if isinstance(made[0].prediction, list) else {}
        return Reply(200, encoded({"schema_version": codec.version, "explanations": [asdict(one) for one in made], **several}))

    def _beside(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """What comes of the work, on a thread that ends with the process at the latest."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def run() -> None:
            made, wrong = None, None
            try:
                made = work()
            except Exception as raised:  # noqa: BLE001 - whoever waits is told
                wrong = raised
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._tell, future, made, wrong)

        self._at_work += 1
        Thread(target=run, name="loudly-explain", daemon=True).start()
        return future

    def _tell(self, future: asyncio.Future[Any], made: Any, wrong: Exception | None) -> None:
        self._at_work -= 1
        if future.done():
            return
        if wrong is not None:
            future.set_exception(wrong)
        else:
            future.set_result(made)
