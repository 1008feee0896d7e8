"""Records of rows that nobody answered because they do not fit the schema, as they stand in the traffic log.

One ("asides") a tick, or a look of a worker's, says how many and why. No value of a row stands in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock

import msgspec

ASIDES = "asides"
MOST_REASONS, OTHERWISE = 20, "for other reasons"


@dataclass(frozen=True, slots=True)
class Aside:
    """A record of the log. at: when it was made, µs.  reasons: why, with how many rows."""

    at: int
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """All of them."""
        return sum(self.reasons.values())

    def to_bytes(self) -> bytes:
        """As it is logged.

        >>> aside_of(Aside(7, {"temp is no number": 3}).to_bytes())
        Aside(at=7, reasons={'temp is no number': 3})
        """
        return msgspec.msgpack.encode((self.at, self.reasons))


def aside_of(data: bytes) -> Aside:
    """The inverse of `Aside.to_bytes`."""
    return Aside(*msgspec.msgpack.decode(data))


class Count:
    """Rows and reasons since somebody last took them; many threads may add."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._reasons: Counter[str] = Counter()

    def add(self, rows: int, why: str) -> None:
        """Rows that are refused for one reason."""
        with self._lock:
            known = why in self._reasons or len(self._reasons) < MOST_REASONS
            self._reasons[why if known else OTHERWISE] += rows

    def take(self, at: int) -> Aside | None:
        """All of it, as of now; None where there is nothing."""
        with self._lock:
            reasons, self._reasons = self._reasons, Counter()
        return Aside(at, dict(reasons)) if reasons else None
