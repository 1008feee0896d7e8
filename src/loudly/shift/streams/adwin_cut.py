"""The cuts of ADWIN's window, and when one divides it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

from loudly.shift.streams.adwin_guard import ROOM, Cut

# The cumulative sum and square at the end of each bucket: by size, 1, 2, 4, …, and in order of age.
Buckets = list[list[tuple[float, float]]]


class Settings(Protocol):
    """What the window must know of the detector."""

    @property
    def delta(self) -> float: ...

    @property
    def clock(self) -> int: ...

    @property
    def buckets(self) -> int: ...

    @property
    def shortest(self) -> int: ...

    @property
    def grace(self) -> int: ...

    @property
    def restart(self) -> bool: ...


def room_of(width: int, delta: float) -> float:
    """ln of the checks that delta is shared out over, as the paper says."""
    return math.log(2 * math.log(max(width, 2)) / delta)


def divided(settings: Settings, buckets: Buckets, width: int, total: float, square: float, start: float) -> bool:
    """Whether a cut divides the window of so many values. total, square: of the window.  start: the sum before it.

    1/n0 + 1/n1 is at least width / (n0 · n1), so few come near enough to be worth the exact test.
    """
    spread, mean, room = max(0.0, (square - total * total / width) / width), total / width, room_of(width, settings.delta)
    least, place = 2 * spread * room / width * ROOM, 0
    for size in range(len(buckets) - 1, -1, -1):
        step = 1 << size
        for end, _ in buckets[size]:
            place += step
            excess = end - place * mean - start
            if excess * excess >= place * (width - place) * least and cut(settings, place, excess, width, spread, room):
                return True
    return False


def cuts(buckets: Buckets, mean: float, start: float) -> Iterator[Cut]:
    """Every cut, the oldest first."""
    place = 0
    for size in range(len(buckets) - 1, -1, -1):
        for end, _ in buckets[size]:
            place += 1 << size
            yield place, end - start - place * mean


def cut(settings: Settings, n0: int, excess: float, width: int, spread: float, room: float) -> bool:
    """Whether |mean0 - mean1| > epsilon. Cuts that leave too little on a side never divide."""
    n1, least = width - n0, settings.shortest
    if n0 < least or n1 < least:
        return False
    harmonic = 1 / (n0 - least + 1) + 1 / (n1 - least + 1)
    epsilon = math.sqrt(2 * harmonic * spread * room) + 2 / 3 * harmonic * room
    return abs(excess) * (width / (n0 * n1)) > epsilon
