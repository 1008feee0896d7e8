"""Replays of the wheel in tests: with a rollout that every candidate comes to, and what has happened in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl

from conftest import SINCE, make_app
from loudly.app.verbs import memory_stores
from loudly.deliver.rollout import parse_rollout
from loudly.loop.live import Live
from loudly.loop.replay import Replayed, replay
from loudly.loop.system import System


def ungated(table: pl.DataFrame, text: str, **settings: Any) -> System:
    """A system without a policy, whose gate no candidate fails, and whose rollout is as the text says."""
    made = make_app(table, stage="manual").system
    gate = replace(made.gate, margin=1.0, slice_margin=1.0)
    return replace(made, gate=gate, rollout=(parse_rollout(text, **settings),))


def run(system: System, table: pl.DataFrame, turn: Callable[[Live, int], None], stores: Any = None) -> Replayed:
    """A replay in memory, where no stores are given. turn: what happens beside it, at each of its steps."""
    return replay(system, table, stores or memory_stores("world"), since=SINCE, turn=turn)


def chains(made: Replayed) -> list[str]:
    """The digests of its ledger."""
    return [r.chain for r in made.events]


def of_kind(made: Replayed, kind: str) -> list[Any]:
    """Its events of a kind."""
    return [r.event for r in made.events if r.event.kind == kind]
