"""A wheel in many places: outposts answer by the routing they are told, one wheel logs, folds and decides.

An outpost holds no ledger and writes nothing. It follows what the wheel tells (`routing_of`), answers rows as the wheel would,
and hands each answered batch back (`take`) before its client gets the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from loudly.core.seams import Strategy
from loudly.core.values import ModelVersion, Schema
from loudly.data.pseudonym import pseudonymise
from loudly.errors import RolloutError
from loudly.loop import traffic
from loudly.loop.answering import count
from loudly.loop.live import Live
from loudly.loop.serving import Ready, open_version
from loudly.loop.sides import Sides
from loudly.loop.stores import Stores
from loudly.loop.system import System
from loudly.serve.context import Context
from loudly.serve.router import Replies, Router, Routing, Served
from loudly.validate.conform import Conformed, conform

Take = Callable[[pl.DataFrame, Replies, int], None]
Kept = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Told:
    """The routing as the wheel tells it: who answers, by which strategy in which state. rollout: its id, 0 where none runs."""

    control: ModelVersion
    candidates: tuple[ModelVersion, ...]
    strategy: Strategy | None
    state: Mapping[str, Any]
    rollout: int
    context: Context | None


def routing_of(live: Live) -> Told | None:
    """What an outpost must know; None while there is no champion."""
    with live.lock:
        state, router = live.state, live.router
        if state.champion is None or router is None:
            return None
        routing = router.routing
        candidates = tuple(state.versions[candidate.version] for candidate in routing.candidates)
        rollout = state.rollout.started if state.rollout is not None and candidates else 0
        control = state.versions[routing.control.version]
        return Told(control, candidates, routing.strategy, dict(routing.state), rollout, routing.context)


def take(live: Live, rows: pl.DataFrame, replies: Replies, rollout: int) -> None:
    """The wheel's half of an answer that an outpost gave: logged, then folded. Answers of a rollout that is over count no more."""
    now = live.clock.now()
    logged = traffic.logged(rows, replies, rollout, now)
    if live.stores.traffic is not None:
        live.stores.traffic.append("predictions", traffic.to_bytes(logged))
    with live.lock:
        live.fold_answers(logged, now)
        if live.state.rollout is not None and live.state.rollout.started == rollout:
            count(live, rows, replies)


class Outpost:
    """Answers rows by what it was told last. `answer` may be called from many threads."""

    def __init__(self, system: System, stores: Stores, key: bytes, hand_over: Take) -> None:
        self._system, self._stores, self._key, self._hand_over = system, stores, key, hand_over
        self._sides = Sides(system, key)
        self._ready: dict[str, Ready] = {}
        self._router: Router | None = None
        self._schema: Schema | None = None
        self._rollout = 0
        self.lost = 0

    @property
    def version(self) -> str | None:
        """The champion; None before anything was told."""
        return self._router.routing.control.version if self._router is not None else None

    @property
    def schema(self) -> Schema | None:
        """The champion's schema; None before anything was told."""
        return self._schema

    def follow(self, told: Told | None) -> None:
        """From the next batch on answers go by this."""
        if told is None:
            return
        control = self._open(told.control)
        candidates = tuple(Served(version.ref, self._open(version).predict) for version in told.candidates)
        ours = Served(told.control.ref, control.predict)
        made = Routing(ours, candidates, told.strategy, told.state, str(told.rollout), context=told.context)
        self._schema, self._rollout = control.schema, told.rollout
        if self._router is None:
            self._router = Router(made)
        else:
            self._router.swap(made)

    def answer(self, rows: pl.DataFrame, kept: Kept = lambda: None) -> tuple[Replies, Conformed]:
        """Answers rows and hands them over. Where the wheel cannot take them they are answered all the same, and counted as lost.

        kept: asked when the answers are made: the numbers of the rows whose clients still wait for them, None for all.
        Raises: RolloutError before anything was told.
        """
        router, schema, rollout = self._router, self._schema, self._rollout
        if router is None or schema is None:
            raise RolloutError("Nothing answers yet: there is no champion.", do="Run `loudly train`, then `loudly ship`.")
        fitted = conform(pseudonymise(rows, self._system.private, self._key), schema)
        fitted = self._sides.live(fitted, schema)
        replies = router.answer(fitted.good, fitted.good[self._system.key].to_list())
        waiting = kept()
        if waiting is None:
            self._give(fitted.good, replies, rollout)
        elif len(waiting):
            self._give(fitted.good[waiting], replies.take(waiting), rollout)
        return replies, fitted

    def give_up(self, rows: pl.DataFrame, scoring: str) -> Replies:
        """Answers by the constant fallback, at once, and hands that over. Raises: RolloutError as `answer`."""
        router, schema, rollout = self._router, self._schema, self._rollout
        if router is None or schema is None:
            raise RolloutError("Nothing answers yet: there is no champion.", do="Run `loudly train`, then `loudly ship`.")
        good = self._sides.live(conform(pseudonymise(rows, self._system.private, self._key), schema), schema).good
        replies = router.give_up(good, good[self._system.key].to_list(), scoring)
        self._give(good, replies, rollout)
        return replies

    def _give(self, rows: pl.DataFrame, replies: Replies, rollout: int) -> None:
        try:
            self._hand_over(rows, replies, rollout)
        except Exception:  # noqa: BLE001 - the wheel may be away for any reason; the client still gets an answer
            self.lost += rows.height

    def _open(self, version: ModelVersion) -> Ready:
        if version.ref not in self._ready:
            stores = self._stores
            self._ready[version.ref] = open_version(version, self._system.features, stores.blobs, stores.formats, vouched=True)
        return self._ready[version.ref]
