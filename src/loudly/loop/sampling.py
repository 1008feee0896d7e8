"""Which units are followed: whose traffic is logged, meets its labels and is judged. All of them, or a stated share.

A unit is followed or not by a hash of its own, which is not that of any rollout. So a share is the same units on every worker,
after every restart and in every arm, and what holds for them holds for all. The others are answered, and counted in /metrics alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loudly.core.canon import unit_draw
from loudly.serve.replies import Replies
from loudly.serve.rows import Rows

SALT = "followed"
Notes = list[tuple[str, str, int]]


@dataclass(frozen=True, slots=True)
class Sample:
    """share: of the units, in (0, 1]. Whoever is followed at a share is followed at every larger one.

    >>> len(Sample(0.5).followed([f"user-{i}" for i in range(1000)]))
    486
    """

    share: float = 1.0

    @property
    def whole(self) -> bool:
        """Whether everybody is followed."""
        return self.share >= 1.0

    def mask(self, units: Sequence[Any]) -> NDArray[np.bool_]:
        """(n,) who is followed. Cost: a µs a unit."""
        if self.whole:
            return np.ones(len(units), dtype=np.bool_)
        return np.fromiter((unit_draw(unit, SALT) < self.share for unit in units), dtype=np.bool_, count=len(units))

    def followed(self, units: Sequence[Any]) -> list[Any]:
        """Those of the units."""
        return [unit for unit, mine in zip(units, self.mask(units), strict=True) if mine]

    def part(self, rows: Rows, replies: Replies, notes: Notes, key: str) -> tuple[Rows, Replies, Notes] | None:
        """The answered rows whose `key` is followed, with what is counted of these; None where there are none.

        notes: id, traceparent and rows of each request, in the order of the rows; of a request without such a row nothing stays.
        """
        if self.whole or (mask := self.mask(rows.column(key))).all():
            return rows, replies, notes
        kept = np.flatnonzero(mask)
        if not len(kept):
            return None
        ends = np.cumsum([size for *_, size in notes])
        sizes = np.bincount(np.searchsorted(ends, kept, side="right"), minlength=len(notes)).tolist() if notes else []
        told = [(name, trace, size) for (name, trace, _), size in zip(notes, sizes, strict=True) if size]
        return rows.filter(mask), replies.part(kept), told


EVERYBODY = Sample()
