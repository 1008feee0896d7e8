"""The hash chain of the ledger: each event's digest covers all events before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from loudly.core.canon import canonical, digest
from loudly.core.values import Event, Recorded
from loudly.errors import LedgerCorrupt, StaleWriter


def link(previous: str, event: Event) -> str:
    """The chain digest of an event after `previous` ("" for the first)."""
    return digest(previous.encode() + canonical({"kind": event.kind, "at": event.at, "data": event.data}))


def verify(recorded: Iterable[Recorded]) -> Iterator[Recorded]:
    """Passes the events through while the chain holds.

    Raises: LedgerCorrupt at the first event that is missing, out of order or altered.
    """
    previous, expected = "", 1
    for entry in recorded:
        if entry.position != expected:
            raise LedgerCorrupt(
                "The ledger has a gap.",
                seen=f"position {entry.position} where {expected} belongs",
                do="Restore a backup.",
            )
        if link(previous, entry.event) != entry.chain:
            raise LedgerCorrupt(
                f"Event {entry.position} of the ledger is not what was written.",
                seen=f"{entry.event.kind} whose digest does not continue the chain",
                do="Restore a backup; everything before this position is intact.",
            )
        yield entry
        previous, expected = entry.chain, expected + 1


def expect(position: int, after: int) -> None:
    """Raises: StaleWriter where the ledger has moved on since this writer looked."""
    if position != after:
        raise StaleWriter(
            "Somebody else appended first.",
            seen=f"the ledger is at {position}, this writer at {after}",
            do="Read the new events and decide again.",
        )
