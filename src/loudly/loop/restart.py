"""What was written while we were not looking: by ourselves before a restart, or by somebody else at the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loudly.loop import traffic
from loudly.loop.state import fold
from loudly.store.segments import read_segments

MOST_ROWS = 4096

if TYPE_CHECKING:
    import polars as pl

    from loudly.loop.live import Live


def catch_up(live: Live, folder: Path) -> int:
    """After a restart: folds the logged traffic in again, without deciding anything. Returns the rows folded.

    Cost: as much as folding it the first time, less the predictions of all but a shadow; records of single rows are folded by
    the thousand.
    """
    _watch_again(live)
    rows = 0
    waiting: list[traffic.Entry] = []
    for record in read_segments(folder) if folder.exists() else ():
        one = traffic.entry(record.payload) if record.kind == "predictions" else None
        if waiting and (one is None or not _together(live, waiting, one)):
            rows += _fold(live, "predictions", traffic.table_of(waiting))
            waiting = []
        if one is not None:
            waiting.append(one)
        else:
            rows += _fold(live, record.kind, traffic.from_bytes(record.payload))
    rows += _fold(live, "predictions", traffic.table_of(waiting)) if waiting else 0
    live.watch.told()  # it was told before the restart
    return rows


def _watch_again(live: Live) -> None:
    """The champion is watched from when it became one; alarms that are open stay open."""
    champion = live.state.champion
    if champion is not None and live.retraining.reference().height:
        live.watch.crown(
            live.ready[champion], live.retraining.reference(), live.state.expected.get(champion), live.state.champion_since
        )
    live.alerts.reopen(live.state.alarms, live.state.held)


def _together(live: Live, waiting: list[traffic.Entry], one: traffic.Entry) -> bool:
    """Whether an entry is folded like those that wait, whenever that is."""
    first = waiting[0]
    return (
        one.kind == first.kind
        and len(waiting) * max(1, first.rows) < MOST_ROWS
        and live.watch.cell(one.at) == live.watch.cell(first.at)
    )


def _fold(live: Live, kind: str, batch: pl.DataFrame) -> int:
    """Folds a logged batch; returns how many predictions it held."""
    if batch.is_empty():
        return 0
    at = int(batch["_at"][-1])
    live.watch.close(int(batch["_at"][0]))
    if kind == "predictions":
        live.fold_answers(_with_shadows(live, batch), at)
        return batch.height
    arrival = live.book.arrived(batch.drop("_at"), at)
    if arrival.joined.height and live.state.champion is not None:
        live.fold_labels(arrival.joined, at)
    return 0


def _with_shadows(live: Live, batch: pl.DataFrame) -> pl.DataFrame:
    """What shadows of the running rollout say of logged rows: they score behind the log, so they are asked again."""
    routing = live.router.routing if live.router is not None else None
    rollout = live.state.rollout
    if routing is None or routing.strategy is None or rollout is None or routing.context is not None:
        return batch
    shadows = routing.strategy.assign(routing.state, np.zeros(1)).shadows
    for name, served in zip(routing.names[1:], routing.candidates, strict=True):
        if name in shadows and int(batch["_rollout"][0]) == rollout.started:
            batch = traffic.rescored(batch, name, served.predict)
    return batch


def refresh(live: Live) -> bool:
    """Folds what somebody else has appended (a rollback, a ship, the kill switch) and follows it. Whether there was any."""
    before = live.state
    for recorded in live.stores.ledger.read(before.position):
        live.state = fold(live.state, recorded)
    if live.state.position == before.position:
        return False
    champion = live.state.champion
    if champion is not None and champion != before.champion:
        live.adopt(champion)
        live.resume_rollout()
        live.crown(champion)
    elif live.state.rollout != before.rollout:
        live.resume_rollout()
    return True
