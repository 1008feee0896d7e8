"""Predictions: rows to answers through the batcher, the same behind an ASGI request and behind the lane of plain ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from loudly.adapters.asgi_codec import Codec, Refused, answers
from loudly.adapters.asgi_repository import status_of
from loudly.adapters.asgi_request import Asking, Reply
from loudly.adapters.batching import Batcher, Batchers, Full, Late, Seat
from loudly.adapters.meters import Meters
from loudly.config import ServerConfig
from loudly.core.values import Schema
from loudly.errors import LoudlyError
from loudly.serve.attempt import Attempt
from loudly.serve.front import Answered, Front
from loudly.serve.rows import Rows, version_of

# A body that is no rows of the schema: of `/predict`, and of the Open Inference Protocol.
UNFIT = (422, 400)
A = TypeVar("A")


class Predictor:
    """Who reads rows, and who answers them: by the routing, or by a version that is asked by name."""

    def __init__(self, front: Front, settings: ServerConfig, meters: Meters) -> None:
        self.front, self.settings, self.meters = front, settings, meters
        self.batcher = self._batcher("")
        self._named = Batchers(self._batcher)
        self._codecs: dict[str, Codec] = {}

    def batchers(self) -> Sequence[Batcher]:
        """All there are."""
        return (self.batcher, *self._named.all())

    def schema(self, version: str) -> Schema:
        """The schema of a version, of the champion for "". Raises: Refused where it does not answer."""
        schema = self.front.schema(version)
        if schema is not None:
            return schema
        if not version:
            raise Refused(503, {"detail": "nothing answers yet: there is no champion"})
        told = f"version {version[:80]!r} is not loaded; loaded: {', '.join(self.front.loaded()) or 'none'}"
        raise Refused(404, {"detail": told, "error": told})

    def reader(self, version: str) -> Codec:
        """The codec of a version's schema, of the champion's for "". Raises: Refused where it does not answer."""
        schema, known = self.schema(version), self._codecs.get(version)
        if known is None or known.schema is not schema:
            if len(self._codecs) > self.settings.max_versions:
                self._codecs.clear()
            known = self._codecs[version] = Codec(schema, self.settings.most_rows)
        return known

    def read(self, version: str, reading: Callable[[Codec], A]) -> A:
        """What is read by the codec of a version; rows that do not fit the champion's schema are noted. Raises: Refused."""
        codec = self.reader(version)
        try:
            return reading(codec)
        except Refused as wrong:
            if wrong.status in UNFIT and not version:
                self.front.refuse(wrong.rows, wrong.why)
            raise

    async def answer(self, rows: Rows, request: Asking) -> tuple[Answered, int]:
        """The batch's answers, and where the request's own begin. Raises: Refused."""
        try:
            named = request.version
            batcher = self._named.of(named, self.front.loaded()) if named else self.batcher
            return await batcher.submit(rows, request.note)
        except (Full, Late, LoudlyError) as wrong:
            return self.otherwise(wrong, rows, request)

    def take(self, rows: Rows, request: Asking, seat: Seat) -> None:
        """The same without waiting: the seat is told. Raises: Full."""
        self.batcher.take(rows, request.note, seat)

    def otherwise(self, wrong: Exception, rows: Rows, request: Asking) -> tuple[Answered, int]:
        """What a request gets that was not answered. Raises: Refused, or what was raised where nothing is known of it."""
        match wrong:
            case Full():
                raise Refused(429, {"detail": "too many rows are waiting"}, wrong.seconds) from wrong
            case Late():
                return self._late(wrong, rows, request), 0
            case LoudlyError():
                raise Refused(status_of(wrong), {"detail": str(wrong)}) from wrong
        raise wrong

    def reply(self, rows: Rows, answered: Answered, first: int) -> Reply:
        """The reply to a request whose rows begin at `first` of what was answered; they are counted."""
        last = first + rows.height
        self.meters.answered(answered, first, last)
        several = isinstance(answered.predictions[first], list)
        # All that answer together score the same classes: no rollout holds a model against one of others.
        classes = self.front.classes(answered.versions[first]) or self.front.classes() if several else ()
        return Reply(200, answers(version_of(rows.schema), answered, first, last, classes))

    def _late(self, late: Late, rows: Rows, request: Asking) -> Answered:
        if self.settings.late != "fallback":
            if late.attempt is not None:
                self.front.lose(rows, late.attempt)
            raise Refused(503, {"detail": f"no answer within {self.settings.deadline:g} s"}, 1.0) from late
        attempt = Attempt((rows.height,), (request.note,), request.version)
        attempt.scoring = late.attempt.scoring if late.attempt is not None else ""
        return self.front.give_up(rows, attempt)

    def _batcher(self, version: str) -> Batcher:
        said = self.settings
        return Batcher(self.front, said.batch, said.queue, said.deadline, said.inline, version)
