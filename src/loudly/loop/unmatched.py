"""Labels that met nothing: of keys nobody asked about, or that have one, or of a value that nothing can be judged by.

Counted as they come, told by the tick.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import polars as pl

from loudly.core.canon import Json
from loudly.labels.book import Arrival

EXAMPLES, SHOWN = 5, 40
OTHERS = "(others)"


class Unmatched:
    """What has come since one was begun; a sender of wrong keys costs the ledger one event a tick, not one a call."""

    def __init__(self) -> None:
        self._unknown = self._twice = self._changed = 0
        self._examples: dict[str, str] = {}  # key -> what was odd of its label
        self._strange: Counter[str] = Counter()

    def add(self, arrival: Arrival) -> None:
        """Counts what was odd of a batch of labels."""
        self._unknown += len(arrival.unknown)
        self._twice += len(arrival.duplicate)
        self._changed += len(arrival.changed)
        for kind, keys in (("unknown", arrival.unknown), ("duplicate", arrival.duplicate), ("changed", arrival.changed)):
            room = EXAMPLES - sum(of == kind for of in self._examples.values())
            self._examples |= {key: kind for key in keys[:room] if key not in self._examples}
        for value in arrival.strange:
            shown = value[:SHOWN]
            self._strange[shown if shown in self._strange or len(self._strange) < EXAMPLES else OTHERS] += 1

    def forget(self, gone: Callable[[pl.DataFrame], pl.Series], key: str) -> None:
        """Shows no key of a subject. gone: a table -> (n,) booleans.  key: the column that it looks at."""
        shown = pl.Series(key, list(self._examples), dtype=pl.String)
        self._examples = {name: self._examples[name] for name in shown.filter(~gone(shown.to_frame()))}

    def told(self) -> dict[str, Json]:
        """The data of the event that tells it; empty where there is nothing to tell."""
        counts: dict[str, Json] = {"unknown": self._unknown, "duplicate": self._twice, "changed": self._changed}
        strange: dict[str, Json] = {"strange": dict(self._strange)} if self._strange else {}
        return {**counts, **strange, "examples": dict(self._examples)} if any(counts.values()) or strange else {}
