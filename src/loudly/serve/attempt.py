"""One try at answering a batch: who is at work, and which requests have gone without an answer meanwhile.

A request is either answered or given up, never both: what is logged of it is what its client got.
"""

from __future__ import annotations

from threading import Lock


class Attempt:
    """Shared by the loop that waits and the thread that works. `scoring`: the arm at work."""

    __slots__ = ("_closed", "_late", "_lock", "notes", "scoring", "sizes", "version")

    def __init__(self, sizes: tuple[int, ...], notes: tuple[tuple[str, str], ...] = (), version: str = "") -> None:
        """sizes: rows of each request of the batch, in order.  notes: request id and traceparent of each.

        version: who was asked by name; "" leaves it to the routing.
        """
        self.sizes, self.notes, self.scoring, self.version = sizes, notes, "control", version
        self._late: set[int] = set()
        self._closed = False
        self._lock = Lock()

    def leave(self, index: int) -> bool:
        """Gives up waiting for a request; False where its answer is already made and about to come."""
        with self._lock:
            if not self._closed:
                self._late.add(index)
            return not self._closed

    def close(self) -> tuple[int, ...]:
        """The answers are made: nobody can give up any more. Returns who has."""
        with self._lock:
            self._closed = True
            return tuple(sorted(self._late))
