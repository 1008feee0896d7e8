"""Replays of the wheel in tests: with a rollout that every candidate comes to, and what has happened in them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from conftest import SINCE, make_app
from loudly.app.verbs import memory_stores
from loudly.core.values import Event, Recorded
from loudly.deliver.rollout import parse_rollout
from loudly.loop.live import Live
from loudly.loop.replay import Replayed, replay
from loudly.loop.stores import Stores
from loudly.loop.system import System
from loudly.store.memory_ledger import MemoryLedger


def ungated(table: pl.DataFrame, text: str, **settings: Any) -> System:
    """A system without a policy, whose gate no candidate fails, and whose rollout is as the text says."""
    made = make_app(table, stage="manual").system
    gate = replace(made.gate, margin=1.0, slice_margin=1.0)
    return replace(made, gate=gate, rollout=(parse_rollout(text, **settings),))


def plain_stores() -> Stores:
    """Stores in memory that make no fast forms of models: what these cost in a test is theirs alone."""
    return replace(memory_stores("world"), fast={})


def run(system: System, table: pl.DataFrame, turn: Callable[[Live, int], None], stores: Any = None) -> Replayed:
    """A replay in memory and without fast forms, where no stores are given. turn: what happens beside it, at each of its steps."""
    return replay(system, table, stores or plain_stores(), since=SINCE, turn=turn)


def chains(made: Replayed) -> list[str]:
    """The digests of its ledger."""
    return [r.chain for r in made.events]


def of_kind(made: Replayed, kind: str) -> list[Any]:
    """Its events of a kind."""
    return [r.event for r in made.events if r.event.kind == kind]


class CopyingLedger:
    """A ledger in memory that keeps a copy of itself and of the blobs before its first append, and after each."""

    def __init__(self, blobs: Any) -> None:
        self._ledger, self._blobs = MemoryLedger(), blobs
        self.copies: list[tuple[Any, Any]] = []

    def append(self, events: Sequence[Event], after: int) -> int:
        if not self.copies:
            self._copy()
        position = self._ledger.append(events, after)
        self._copy()
        return position

    def read(self, after: int = 0) -> Iterator[Recorded]:
        return self._ledger.read(after)

    def close(self) -> None:
        self._ledger.close()

    def _copy(self) -> None:
        self.copies.append((copy.deepcopy(self._ledger), copy.deepcopy(self._blobs)))


def survivors(replayed: Callable[[Stores], Replayed], stores: Stores) -> tuple[Replayed, list[Stores]]:
    """A whole replay, and the stores that a death would have left: before its first append, and after each."""
    ledger = CopyingLedger(stores.blobs)
    whole = replayed(replace(stores, ledger=ledger))
    return whole, [replace(stores, ledger=left, blobs=blobs) for left, blobs in ledger.copies]
