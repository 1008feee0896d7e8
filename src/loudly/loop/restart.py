"""What was written while we were not looking: by ourselves before a restart, or by somebody else at the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loudly.loop import traffic
from loudly.loop.state import fold
from loudly.store.segments import read_segments

MOST_ROWS = 4096

if TYPE_CHECKING:
    import polars as pl

    from loudly.loop.live import Live


def catch_up(live: Live, folder: Path) -> int:
    """After a restart: folds the logged traffic in again, without deciding anything. Returns the rows folded.

    Cost: as much as folding it the first time, less the predictions; records of single rows are folded by the thousand.
    """
    live.alerts.reopen(live.state.alarms)
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
    return rows + (_fold(live, "predictions", traffic.table_of(waiting)) if waiting else 0)


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
        live.fold_answers(batch, at)
        return batch.height
    if kind == "pinned":
        live.pins.predicted(batch)
        return batch.height
    arrival = live.pins.arrived(batch.drop("_at"), at)
    if arrival.joined.height and live.state.champion is not None:
        live.fold_labels(arrival.joined)
    return 0


def refresh(live: Live) -> bool:
    """Folds what somebody else has appended (a rollback, a ship, the kill switch) and follows it. Whether there was any."""
    before = live.state
    for recorded in live.stores.ledger.read(before.position):
        live.state = fold(live.state, recorded)
    if live.state.position == before.position:
        return False
    if live.state.loaded != before.loaded:
        live.pins.tidy()
    champion = live.state.champion
    if champion is not None and champion != before.champion:
        live.adopt(champion)
        live.resume_rollout()
        live.crown(champion)
    elif live.state.rollout != before.rollout:
        live.resume_rollout()
    return True
