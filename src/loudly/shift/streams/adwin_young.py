"""ADWIN's window while it is young: all sums are kept, and which buckets they would be in is known from their number."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import accumulate

import numpy as np

from loudly.shift.streams.adwin_cut import Settings, cut, room_of
from loudly.shift.streams.adwin_guard import NOISE, ROOM

# Up to so many values a window is young.
YOUNG = 512


class Young:
    """The first values of a window that began empty."""

    __slots__ = ("_ends", "_settings", "_square", "_values")

    def __init__(self, settings: Settings) -> None:
        self._settings, self._ends, self._square = settings, [0.0], 0.0
        self._values: list[float] = []

    @property
    def width(self) -> int:
        """Values in the window."""
        return len(self._values)

    def divides(self, values: list[float]) -> bool:
        """Takes the values up to the next check: whether some cut now divides the window."""
        ends, settings, root = self._ends, self._settings, math.hypot(*values)
        self._values += values
        ends += accumulate(values, initial=ends.pop())
        self._square += root * root
        width, total = len(ends) - 1, ends[-1]
        if width <= settings.grace:
            return False
        mean, room = total / width, room_of(width, settings.delta)
        scale = math.sqrt(max(0.0, (1 - NOISE) * self._square - total * mean) * ROOM / width)
        near = [
            (place, excess)
            for place, by_scale, least in cuts_of(width, settings.buckets, settings.shortest, room)
            if abs(excess := ends[place] - place * mean) >= by_scale * scale + least
        ]
        if not near:
            return False
        square = float(np.add.accumulate(np.square(self._values))[-1])
        spread = max(0.0, (square - total * total / width) / width)
        return any(cut(settings, place, excess, width, spread, room) for place, excess in near)


@lru_cache(maxsize=1024)
def cuts_of(width: int, buckets: int, shortest: int, room: float) -> tuple[tuple[int, float, float], ...]:
    """Every cut of a window that began empty, and what its excess is held against: so much a deviation, and so much."""
    counts: list[int] = []
    came = width
    while came:
        pairs = max(0, (came - buckets + 1) >> 1)
        counts.append(came - 2 * pairs)
        came = pairs
    found = []
    for n0 in accumulate(1 << size for size in range(len(counts) - 1, -1, -1) for _ in range(counts[size])):
        n1 = width - n0
        if n0 >= shortest and n1 >= shortest:
            harmonic, weight = 1 / (n0 - shortest + 1) + 1 / (n1 - shortest + 1), n0 * n1 / width
            found.append((n0, weight * math.sqrt(2 * harmonic * room), ROOM * weight * 2 / 3 * harmonic * room))
    return tuple(found)
