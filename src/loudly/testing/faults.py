"""Faults on purpose: stores whose n-th operation fails, before or after it took effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from loudly.core.seams import Ledger
from loudly.core.values import Event, Recorded
from loudly.store.erasing import FileDisk


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

    def close(self) -> None:
        self._ledger.close()


class FailingDisk:
    """A disk that dies at its n-th operation: "before" it, "after" it, or "torn": a write that came half through."""

    def __init__(self, n: int, when: str) -> None:
        self._disk, self._n, self._when = FileDisk(), n, when
        self.operations = 0

    def write(self, path: Path, data: bytes) -> None:
        torn = data[: len(data) // 2] if self._when == "torn" else data
        self._do(lambda: self._disk.write(path, data if self.operations != self._n else torn))

    def replace(self, draft: Path, path: Path) -> None:
        self._do(lambda: self._disk.replace(draft, path))

    def unlink(self, path: Path) -> None:
        self._do(lambda: self._disk.unlink(path))

    def _do(self, work: Callable[[], None]) -> None:
        self.operations += 1
        if self.operations == self._n and self._when == "before":
            raise Killed
        work()
        if self.operations == self._n:
            raise Killed
