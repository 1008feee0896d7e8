"""What was written while we were not looking: by ourselves before a restart, or by somebody else at the ledger."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

from loudly.core.canon import Json
from loudly.core.values import Dataset, Event
from loudly.data.snapshot import load
from loudly.errors import StaleWriter
from loudly.loop import traffic
from loudly.loop.arms import decided
from loudly.loop.calls import CALLS, Told, told_of
from loudly.loop.host import Host
from loudly.loop.misfits import ASIDES, Aside, aside_of
from loudly.loop.records import KINDS, LABELS, batches
from loudly.loop.state import State, fold
from loudly.store.segments import FRAME_BYTES, Record, bytes_in, read_segments
from loudly.store.spools import taken_of

LOOK_EVERY = 64
Counted = Told | Aside
Found = pl.DataFrame | Counted
A = TypeVar("A")


def catch_up(
    live: Host, folder: Path, taken: dict[str, int] | None = None, progress: Callable[[int, int], None] = lambda done, of: None
) -> int:
    """After a restart: folds the logged traffic in again, without deciding anything. Returns the rows folded.

    taken, progress: as of `Folding`.
    Cost: less than folding it the first time; records of single rows and labels are folded by the thousand.
    """
    watch_again(live)
    folding = Folding(live, folder, {} if taken is None else taken, progress)
    for kind, found in folding.read():
        folding.fold(kind, found, again=True)
    folding.told_before()
    return live.past.rows


class Folding:
    """Folds the log of a Live in again, in its order, without deciding anything. last: the newest record that was read.

    taken: is told how far the spools of workers were taken over.  progress: is told the bytes read, and of how many.
    """

    def __init__(self, live: Host, folder: Path, taken: dict[str, int], progress: Callable[[int, int], None]) -> None:
        self._live, self._folder, self._taken, self._progress = live, folder, taken, progress
        self._cell: tuple[int, int] | None = None
        self._counted: deque[tuple[str, Counted]] = deque()
        self._labelled = False
        self.last = 0
        live.past.size = bytes_in(folder) if folder.exists() else 0

    def read(self, upto: float = math.inf) -> Iterator[tuple[str, Found]]:
        """What the log has further, up to that record, with its kind. Whoever takes one folds it before the next.

        Answers come as tables of many, and so do labels; what a rollout was told has no part in them, and comes before the next
        table, but for the time at which it learns from labels: all of before comes before.
        """
        if not self._folder.exists():
            return
        records = takewhile(lambda record: record.sequence <= upto, read_segments(self._folder, self.last))
        for kind, _, table in batches(self._live, self._noted(records)):
            yield from self._told()
            if not table.is_empty():
                yield kind, table
        yield from self._told()

    def _told(self) -> Iterator[tuple[str, Found]]:
        while self._counted:
            yield self._counted.popleft()

    def passes(self, found: Found) -> bool:
        """Whether time goes by from the table before to this one, so that windows may close."""
        return isinstance(found, pl.DataFrame) and self._cell not in (None, self._live.watch.cell(int(found["_at"][0])))

    def told_before(self) -> None:
        """All of before the restart is folded: it was told then, and of the rollout the ledger knows how far it had come."""
        self._live.watch.told()
        self._live.watch.silence.told_before(self._live.state.alarms)
        self._live.retraining.told_before()
        self._live.rollout_state = decided(self._live, self._live.rollout_state)

    def fold(self, kind: str, found: Found, *, again: bool) -> None:
        """Folds a table, or what a rollout was told. again: it was folded before the restart, so what comes of it was told then.

        Else windows are left to the next tick, which judges them and tells. The caller holds the lock.
        """
        if isinstance(found, Told):
            self._live.counting.fold(found)
            return
        if isinstance(found, Aside):
            self._live.asides.folded(found, again=again)
            return
        at = int(found["_at"][0])
        before, self._cell = self._cell, self._live.watch.cell(at)
        if again and before != self._cell:
            self._live.watch.close(at)
        self._live.past.rows += _fold(self._live, kind, found, again)

    def _noted(self, records: Iterable[Record]) -> Iterator[Record]:
        past = self._live.past
        for number, record in enumerate(records):
            past.read += len(record.payload) + len(record.kind) + FRAME_BYTES
            if number % LOOK_EVERY == 0:
                self._progress(past.read, past.size)
            taken_of(record, self._taken)
            self.last = record.sequence
            if record.kind == CALLS:
                if teaches := self._teaches(told := told_of(record.payload)):
                    yield record  # all of before is told first
                self._counted.append((CALLS, told))
                if teaches:
                    yield record  # and this before all that comes
            elif record.kind == ASIDES:
                self._counted.append((ASIDES, aside_of(record.payload)))
            elif record.kind in KINDS:
                self._labelled |= record.kind == LABELS
                yield record
            else:
                unknown = f"traffic log: {record.kind!r}: this version does not know records of that kind, and left them out"
                self._live.answering.raised_by_fold.note([unknown])

    def _teaches(self, told: Told) -> bool:
        """Whether a rollout learns at the time that it was told: then all of before comes before."""
        labelled = self._labelled
        self._labelled &= not told.tells_time
        return told.tells_time and (labelled or self._live.unripe.due(told.at))


def asked(state: State) -> tuple[str, ...]:
    """The versions that answer: the champion, and the candidates of a rollout."""
    candidates = (state.rollout.version, *state.rollout.others) if state.rollout is not None else ()
    return (state.champion, *candidates) if state.champion is not None else candidates


def watch_again(live: Host) -> None:
    """The champion is watched from when it became one; alarms that are open stay open."""
    champion = live.state.champion
    if champion is not None and live.retraining.reference().height:
        expected = live.state.expects(champion, live.system.metric)
        ready = live.ready[champion]
        live.watch.crown(ready, live.retraining.reference(), expected, live.state.champion_since, ready.usual)
    live.alerts.reopen(live.state.alarms, live.state.held)


def _fold(live: Host, kind: str, batch: pl.DataFrame, again: bool) -> int:
    """Folds a logged batch; returns how many predictions it held."""
    at = int(batch["_at"][-1])
    if kind == "predictions":
        live.fold_answers(_with_shadows(live, batch), at)
        return batch.height
    if kind == "pinned":
        live.pins.predicted(batch)
        return batch.height
    if not again:
        live.labelled(batch, at)
        return 0
    arrival = live.pins.arrived(batch, at)
    if arrival.joined.height and live.state.champion is not None:
        live.fold_labels(arrival.joined, arrival.last)
    return 0


def _with_shadows(live: Host, batch: pl.DataFrame) -> pl.DataFrame:
    """What shadows of the running rollout say of logged rows: they score behind the log, so they are asked again."""
    routing = live.router.routing if live.router is not None else None
    rollout = live.state.rollout
    if routing is None or routing.strategy is None or rollout is None or routing.context is not None or routing.merging is not None:
        return batch
    shadows = routing.strategy.assign(routing.state, np.zeros(1)).shadows
    for name, served in zip(routing.names[1:], routing.candidates, strict=True):
        if name in shadows and int(batch["_rollout"][0]) == rollout.started:
            batch = traffic.rescored(batch, name, served, live.answering.raised.note)
    return batch


def insist(live: Host, kind: str, **data: Json) -> None:
    """One event, now, whoever else writes at once."""
    insist_all(live, Event(kind, live.clock.now(), data))


def insist_all(live: Host, *events: Event, sound: Callable[[], None] = lambda: None) -> None:
    """Events that are true whoever else writes at once. sound: raises where what was written meanwhile forbids them.

    Raises: as `persist`.
    """

    def record() -> None:
        sound()
        live.record(*events)

    with live.lock:
        persist(live, record)


def in_time(rows: pl.DataFrame, time: str) -> pl.DataFrame:
    """Rows in the order of their time, as each fit that follows has them: what is told of the newest is told of the last."""
    return rows.sort(time, maintain_order=True)


def rows_of(live: Host, dataset: Dataset) -> pl.DataFrame:
    """The labelled rows of a version of the dataset. Raises: as `data.snapshot.load`."""
    return in_time(load(dataset, live.stores.blobs).drop_nulls(live.system.label), live.system.time)


def learn_from(live: Host) -> None:
    """What there is to learn from, and to compare with, is the dataset that the ledger names, whoever has made it.

    One of another label, time or key is for a server that reads another file of the user's: this one keeps its own.
    """
    dataset, system = live.state.dataset, live.system
    if dataset is None or dataset == live.retraining.dataset or live.retraining.fitting:  # after the fit then
        return
    if all(dataset.schema.field(name) is not None for name in (system.label, system.time, system.key)):
        live.retraining.follow(dataset, rows_of(live, dataset))


def persist(live: Host, decide: Callable[[], A]) -> A:
    """What is decided on what the ledger says now; once more where somebody else has appended meanwhile, on that.

    Raises: StaleWriter where nobody has: the ledger cannot be written for another reason, and does not change by waiting.
    """
    refresh(live)
    while True:
        try:
            return decide()
        except StaleWriter:
            if not refresh(live):
                raise


def refresh(live: Host) -> bool:
    """Folds what somebody else has appended (a rollback, a ship, the kill switch) and follows it. Whether there was any.

    Who answers next is loaded before it is he: others answer meanwhile, by the state that there is.
    Raises: LoudlyError where a version cannot be loaded; then nothing has changed.
    """
    before = state = live.state
    for recorded in live.stores.ledger.read(before.position):
        state = fold(state, recorded)
    if state.position == before.position:
        return False
    for version in asked(state) if (state.champion, state.rollout) != (before.champion, before.rollout) else ():
        live.adopt(version, state)
    live.state = state
    if state.dataset != before.dataset:
        learn_from(live)
    if live.state.loaded != before.loaded:
        live.pins.tidy()
    champion = live.state.champion
    if champion is not None and champion != before.champion:
        live.adopt(champion)
        live.resume_rollout()
        live.crown(champion)
    elif live.state.rollout != before.rollout:
        live.resume_rollout()
    if live.state.rollout != before.rollout:
        live.counting.begun()
    return True
