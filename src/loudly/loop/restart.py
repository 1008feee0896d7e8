"""What was written while we were not looking: by ourselves before a restart, or by somebody else at the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loudly.loop import traffic
from loudly.loop.state import fold
from loudly.store.segments import read_segments

if TYPE_CHECKING:
    from loudly.loop.live import Live


def catch_up(live: Live, folder: Path) -> int:
    """After a restart: folds the logged traffic in again, without deciding anything. Returns the rows folded.

    Cost: as much as folding it the first time, less the predictions.
    """
    rows = 0
    live.alerts.reopen(live.state.alarms)
    for record in read_segments(folder) if folder.exists() else ():
        batch = traffic.from_bytes(record.payload)
        if batch.is_empty():
            continue
        at = int(batch["_at"][0])
        live.watch.close(at)
        if record.kind == "predictions":
            rows += batch.height
            live.fold_answers(batch, at)
        else:
            arrival = live.book.arrived(batch.drop("_at"), at)
            if arrival.joined.height and live.state.champion is not None:
                live.fold_labels(arrival.joined)
    return rows


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
