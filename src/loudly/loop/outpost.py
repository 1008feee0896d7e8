"""A wheel in many places: outposts answer by the routing they are told, one wheel logs, folds and decides.

An outpost holds no ledger and writes nothing. It follows what the wheel tells (`routing_of`), answers rows as the wheel would,
and hands a record of each answered batch over before its client gets the answer; the wheel folds it in (`loop.taking`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from loudly.core.clock import moment
from loudly.core.seams import Clock, Merging, Strategy
from loudly.core.values import ModelVersion, Schema
from loudly.errors import RolloutError
from loudly.loop import traffic
from loudly.loop.answering import Fit, notes_of, still_wanted
from loudly.loop.live import Live
from loudly.loop.misfits import ASIDES, Count
from loudly.loop.pins import missing, router_of
from loudly.loop.sampling import Notes
from loudly.loop.serving import Ready, open_version
from loudly.loop.sides import Sides
from loudly.loop.stores import Stores
from loudly.loop.system import System
from loudly.serve.attempt import Attempt
from loudly.serve.context import Context
from loudly.serve.raised import Raised
from loudly.serve.replies import Replies, Served
from loudly.serve.router import Router, Routing, Timer
from loudly.serve.rows import Rows

HandOver = Callable[[str, bytes], None]


@dataclass(frozen=True, slots=True)
class Told:
    """The routing as the wheel tells it: who answers, by which strategy in which state. rollout: its id, 0 where none runs.

    loaded: versions that answer whoever names them, beside the routing.
    """

    control: ModelVersion
    candidates: tuple[ModelVersion, ...]
    strategy: Strategy | None
    state: Mapping[str, Any]
    rollout: int
    context: Context | None
    merging: Merging | None
    loaded: tuple[ModelVersion, ...] = ()


def routing_of(live: Live) -> Told | None:
    """What an outpost must know; None while there is no champion."""
    with live.lock:
        state, router = live.state, live.router
        if state.champion is None or router is None:
            return None
        routing = router.routing
        candidates = tuple(state.versions[candidate.version] for candidate in routing.candidates)
        rollout = state.rollout.started if state.rollout is not None and candidates else 0
        loaded = tuple(state.versions[v] for v in live.pins.loaded())
        control = state.versions[routing.control.version]
        return Told(control, candidates, routing.strategy, dict(routing.state), rollout, routing.context, routing.merging, loaded)


@dataclass(frozen=True, slots=True)
class Standing:
    """Who answers now, in one piece that is swapped whole. named: the versions that can be asked by name."""

    router: Router
    named: Mapping[str, Router]


class Outpost:
    """Answers rows by what it was told last; many threads may ask. `lost`: rows that could not be handed over."""

    def __init__(
        self, system: System, stores: Stores, key: bytes, clock: Clock, hand_over: HandOver, timer: Timer | None = None
    ) -> None:
        self._system, self._stores, self._clock, self._hand_over, self._timer = system, stores, clock, hand_over, timer
        self.sides = Sides(system, key)
        self._fit = Fit(system, key, self.sides)
        self._ready: dict[str, Ready] = {}
        self._standing: Standing | None = None
        self.lost = 0
        self.raised = Raised()
        self.refused = Count()

    @property
    def version(self) -> str | None:
        """The champion; None before anything was told."""
        return self._standing.router.routing.control.version if self._standing is not None else None

    def schema(self, version: str = "") -> Schema | None:
        """Of a version that can be asked by name, of the champion for ""; None where it does not answer."""
        standing = self._standing
        if standing is None or (version and version not in standing.named):
            return None
        return (standing.named[version] if version else standing.router).routing.schema

    def classes(self, version: str = "") -> tuple[str, ...]:
        """Of a version that answers, of the champion for "": the classes that its scores are of."""
        ready = self._ready.get(version or self.version or "")
        return ready.classes if ready is not None else ()

    def loaded(self) -> tuple[str, ...]:
        """All that can be asked by name."""
        return tuple(self._standing.named) if self._standing is not None else ()

    def follow(self, told: Told | None) -> None:
        """From the next batch on answers go by this; models are loaded before, so nobody waits for one.

        Raises: LoudlyError where a model cannot be loaded; answers go on as before then.
        """
        if told is None:
            return
        candidates = tuple(map(self._served, told.candidates))
        control = self._served(told.control)
        routing = Routing(
            control,
            candidates,
            told.strategy,
            told.state,
            salt=str(told.rollout),
            context=told.context,
            merging=told.merging,
            schema=self._open(told.control).schema,
            rollout=told.rollout,
        )
        named = {v.ref: router_of(v.ref, self._open(v)) for v in told.loaded}
        self._standing = Standing(Router(routing, self._timer), named)
        wanted = {told.control.ref, *(v.ref for v in told.candidates), *named}
        for gone in [ref for ref in self._ready if ref not in wanted]:
            del self._ready[gone]

    def answer(self, rows: Rows, attempt: Attempt) -> Replies:
        """Answers rows and hands them over. Where nobody can take them they are answered all the same, and counted as lost.

        Raises: RolloutError before anything was told, NotFound where a version is named that is not loaded.
        """
        router = self._asked(attempt.version)
        rows = self._fit.rows(rows, router.routing)
        replies = router.answer(rows, list(rows.columns[self._system.key]), attempt)
        self.raised.note(replies.errors)
        kept = still_wanted(rows, replies, attempt)
        if kept is not None:
            self._give(*kept, router.routing.rollout, attempt.version)
        return replies

    def give_up(self, rows: Rows, attempt: Attempt) -> Replies:
        """Answers by the constant fallback, at once, and hands that over. Raises: as `answer`."""
        router = self._asked(attempt.version)
        rows = self._fit.rows(rows, router.routing)
        replies = router.give_up(rows, list(rows.columns[self._system.key]), attempt.scoring)
        self._give(rows, replies, notes_of(attempt), router.routing.rollout, attempt.version)
        return replies

    def lose(self, rows: Rows, attempt: Attempt) -> None:
        """Tells of rows whose client was told that no answer came in time: the arm that was at work has failed them."""
        units = self._stores.sample.followed(rows.column(self._system.key))
        if units and not attempt.version and self._standing is not None:
            told = (self._standing.router.routing.rollout, attempt.scoring, id(attempt), units)
            self._send("given_up", msgspec.msgpack.encode(told), 0)

    def tell_refused(self) -> None:
        """Hands over how many rows were refused since the last time, where there were any."""
        if (told := self.refused.take(moment(self._clock))) is not None:
            self._send(ASIDES, told.to_bytes(), 0)

    def _asked(self, version: str) -> Router:
        standing = self._standing
        if standing is None:
            raise RolloutError("Nothing answers yet: there is no champion.", do="Run `loudly train`, then `loudly ship`.")
        if not version:
            return standing.router
        if version not in standing.named:
            raise missing(version, self.loaded())
        return standing.named[version]

    def _give(self, rows: Rows, replies: Replies, notes: Notes, rollout: int, version: str) -> None:
        part = self._stores.sample.part(rows, replies, notes, self._system.key)
        if part is None:
            return
        rows, replies, notes = part
        payload = traffic.compact(rows, replies, rollout, moment(self._clock), notes, version, calls=not version)
        self._send("pinned" if version else "predictions", payload, rows.height)

    def _send(self, kind: str, payload: bytes, rows: int) -> None:
        try:
            self._hand_over(kind, payload)
        except Exception:  # noqa: BLE001 - the wheel may be away for any reason; the client still gets an answer
            self.lost += rows

    def _served(self, version: ModelVersion) -> Served:
        ready = self._open(version)
        return Served(version.ref, ready.predict, ready.quick)

    def _open(self, version: ModelVersion) -> Ready:
        if version.ref not in self._ready:
            parts = self._stores
            self._ready[version.ref] = open_version(version, self._system.features, parts.blobs, parts.formats, True, parts.fast)
        return self._ready[version.ref]
