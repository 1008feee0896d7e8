"""`POST /explain`: rows as `/predict` takes them, and what each column contributed to their scores.

An explanation costs up to thousands of rows scored, so few rows are taken at once, one request is at work at a time beside the
predictions, some may wait, and all end at the deadline.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from loudly.adapters.asgi_codec import Codec, Refused
from loudly.adapters.asgi_repository import status_of
from loudly.adapters.asgi_request import Reply, encoded
from loudly.config import ServerConfig
from loudly.errors import LoudlyError
from loudly.serve.front import Front

MOST_WAITING = 4


class Explainer:
    """Answers requests for explanations, one after another."""

    def __init__(self, front: Front, settings: ServerConfig) -> None:
        self._front, self._most_rows, self._deadline = front, settings.explain_rows, settings.deadline
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def reply(self, codec: Codec, body: bytes) -> Reply:
        """The explanations of the rows of a body. Raises: Refused."""
        if self._waiting >= MOST_WAITING:
            raise Refused(429, {"detail": "too many explanations are waiting"}, self._deadline)
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
        made = await loop.run_in_executor(None, self._front.explain, rows, self._deadline)
        return Reply(200, encoded({"schema_version": codec.version, "explanations": [asdict(one) for one in made]}))
