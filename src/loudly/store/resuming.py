"""Resuming: a killed replay or server folds the same inputs again, and the ledger confirms what it already holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loudly.core.seams import Ledger
from loudly.core.values import Event, Recorded
from loudly.errors import LedgerDiverged, StaleWriter
from loudly.store.chain import link


class Resuming:
    """A ledger that may already hold a prefix of what is about to happen.

    Appends that equal what stands at their position are confirmed, not written; from the end on they are written.

    Raises: LedgerDiverged where an event differs from the one that stands there.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._stored = list(ledger.read())
        self._confirmed = 0

    @property
    def position(self) -> int:
        """How far this run has come: confirmed and written events."""
        return self._confirmed

    @property
    def confirming(self) -> bool:
        """Whether the stored prefix is still being confirmed."""
        return self._confirmed < len(self._stored)

    def stored(self) -> tuple[Recorded, ...]:
        """Everything the ledger held when this run began."""
        return tuple(self._stored)

    def append(self, events: Sequence[Event], after: int) -> int:
        if after != self._confirmed:
            raise StaleWriter("This run is not where it thinks it is.", seen=f"{after}, not {self._confirmed}")
        known = self._stored[after : after + len(events)]
        chain = self._stored[after - 1].chain if after and after <= len(self._stored) else ""
        for event, old in zip(events, known, strict=False):
            chain = link(chain, event)
            if chain != old.chain:
                raise LedgerDiverged(
                    f"The resumed run decided otherwise at position {old.position}.",
                    seen=f"{event.kind} {dict(event.data)}, stored is {old.event.kind} {dict(old.event.data)}",
                    do="The data, the code or the settings have changed since; start a new ledger or restore them.",
                )
        fresh = list(events[len(known) :])
        if fresh:
            end = self._ledger.append(fresh, after + len(known))
            self._stored.extend(self._ledger.read(end - len(fresh)))
        self._confirmed = after + len(events)
        return self._confirmed

    def read(self, after: int = 0) -> Iterator[Recorded]:
        yield from self._stored[after : self._confirmed]

    def close(self) -> None:
        """Closes the ledger beneath."""
        self._ledger.close()
