"""Faults on purpose: stores whose n-th operation fails, before or after it took effect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loudly.core.seams import Ledger
from loudly.core.values import Event, Recorded


class Killed(BaseException):
    """The process died here; like a kill, it is no Exception and nothing catches it."""


class FailingLedger:
    """A ledger that dies at its n-th append: `when` is "before" it was written, or "after"."""

    def __init__(self, ledger: Ledger, n: int, when: str) -> None:
        self._ledger, self._n, self._when = ledger, n, when
        self.appends = 0

    def append(self, events: Sequence[Event], after: int) -> int:
        self.appends += 1
        if self.appends == self._n and self._when == "before":
            raise Killed
        position = self._ledger.append(events, after)
        if self.appends == self._n:
            raise Killed
        return position

    def read(self, after: int = 0) -> Iterator[Recorded]:
        return self._ledger.read(after)
