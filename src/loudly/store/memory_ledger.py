"""A ledger in memory: for replays, notebooks and tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loudly.core.values import Event, Recorded
from loudly.store.chain import expect, link


class MemoryLedger:
    """Keeps events in a list; same contract as every ledger."""

    def __init__(self) -> None:
        self._entries: list[Recorded] = []

    @property
    def position(self) -> int:
        """The position of the last event; 0 when empty."""
        return len(self._entries)

    def append(self, events: Sequence[Event], after: int) -> int:
        expect(len(self._entries), after)
        chain = self._entries[-1].chain if self._entries else ""
        fresh = []
        for position, event in enumerate(events, start=after + 1):
            chain = link(chain, event)
            fresh.append(Recorded(position, event, chain))
        self._entries.extend(fresh)
        return len(self._entries)

    def read(self, after: int = 0) -> Iterator[Recorded]:
        yield from tuple(self._entries[after:])

    def close(self) -> None:
        """Nothing is held but memory."""
