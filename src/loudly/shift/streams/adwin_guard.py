"""Which checks of ADWIN need no look: how far each cut is at least from dividing the window, whatever buckets there will be.

Let m be the mean of the window when all cuts were looked at last, and R the sum of the values since, each less m. A cut of n
values into n0 and n1 divides only if the sum of the newest n1, less n1 times the mean of the window, exceeds

    n0 n1 / n · (sqrt(2 h s² L) + 2/3 h L),    h = 1/(n0 - shortest + 1) + 1/(n1 - shortest + 1) >= n / (n0 n1),

s² the variance and L the logarithm that delta is shared out over. L only grows, and so does the sum n s² of squared deviations:
what they were at the last look, over the length that the window may come to, bounds them from below. So cuts that were there at the
last look ask for an R within bounds, cuts that came since for an R near to what it was there, and cuts among the newest values for
a small sum of these. Nothing of it asks where buckets end, and nothing is approximate: no cut divides where a check is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate

import numpy as np

from loudly.core.seams import Floats

# A place (values before it), and its excess: their sum less place · mean of the window.
Cut = tuple[int, float]

# How far the window may grow until all cuts are looked at again: by a share, and by so many values.
GROWTH, MOST = 0.4, 4096
# Ages in checks from which places are held against the bound for their age, and the age from which a cut is held but once.
AGES, OLD = (1, 2, 4, 8, 16, 32), 64
# What bounds leave to rounding.
ROOM, NOISE, LOOSE = 1 - 1e-6, 1e-9, 1 + 1e-9


class Guard:
    """Says of one check after another whether it needs no look.

    cuts: all, the oldest first.  deviations: sum of squares about the mean.  room: see `room_of`.
    """

    __slots__ = (
        "_ages", "_bottom", "_bounds", "_ceiling", "_clock", "_drift", "_drifts", "_floor", "_held", "_inner", "_kept", "_lean",
        "_left", "_level", "_new", "_outer", "_own", "_reach", "_seen", "_share", "_spread", "_top", "_width", "_within", "mean",
        "wide",
    )  # fmt: skip

    def __init__(self, cuts: list[Cut], clock: int, shortest: int, width: int, mean: float, deviations: float, room: float) -> None:
        self.mean, self._level, self._clock, self._width = mean, clock * mean, clock, width
        self._left = int(min(GROWTH * width, MOST)) // clock
        longest, share = width + self._left * clock, clock / width
        a, b = 2 * ROOM * room * deviations / longest, ROOM * 2 / 3 * room
        self._bounds, self._share, self._kept = (a, b), share, width / longest
        self._new = [cut for cut in cuts if cut[0] > width - OLD * clock]
        self._outer = _within(cuts[: len(cuts) - len(self._new)], width + clock, a, b)
        self._own = (1 - share) * (math.sqrt(a) * max(1.0, 2 * math.sqrt(shortest - 1)) + b)
        # Whether a rough bound on the path will do.
        self.wide = self._own > clock * math.sqrt(deviations / width)
        self._spread, *older = [math.sqrt(a * clock * n / (1 + share * n)) + b for n in (1, *(age + 1 for age in AGES))]
        self._ages = [*zip(AGES, (*AGES[1:], None), older, strict=True)]
        # Where R stood at each check, how far its path left the interval between two, and how many of these were held by age.
        self._drifts, self._inner, self._seen = [0.0], [0.0], 1
        self._drift = self._top = self._bottom = self._reach = self._lean = 0.0
        self._hold()

    def passes(self, total: float, inner: float) -> bool:
        """Whether the next check needs no look; only then it is counted.

        total: of the values up to it.  inner: how far the path of their sums, each less `mean`, leaves that of its ends.
        """
        moved = total - self._level
        drift = self._drift + moved
        far = abs(drift)
        if abs(moved) + inner + self._share * far > self._own or len(self._drifts) > self._left:
            return False
        top = drift if drift > self._top else self._top
        bottom = drift if drift < self._bottom else self._bottom
        if top - bottom + self._reach + self._lean * far > self._spread or not self._floor < drift < self._ceiling:
            return self._aged() and self.passes(total, inner)
        self._drift, self._top, self._bottom = drift, top, bottom
        if inner > self._reach:
            self._reach = inner
        self._drifts.append(drift)
        self._inner.append(inner)
        return True

    def _hold(self) -> None:
        """Bounds of R from the cuts that were looked at; those of the newest widen as values come behind them."""
        self._held = len(self._drifts)
        low, high = _within(self._new, self._width + self._held * self._clock, *self._bounds)
        self._floor, self._ceiling = self._within = max(self._outer[0], low), min(self._outer[1], high)
        if not self._floor < 0 < self._ceiling:
            self._left = 0

    def _aged(self) -> bool:
        """Holds places against the bounds for their age: whether there are new ones.

        The excess of a cut where R was r is R · (1 - n1 / n) - r, and n1 / n at most 1 - kept.
        """
        drifts, kept = self._drifts, self._kept
        if len(drifts) == self._seen:
            return False
        if len(drifts) >= 2 * self._held:
            self._hold()
        floor, ceiling = self._within
        for age, upto, bound in self._ages:
            if age >= len(drifts):
                break
            aged = slice(-upto if upto else None, -age)
            room = bound - max(self._inner[aged])
            above, below = min(drifts[aged]) + room, max(drifts[aged]) - room
            ceiling, floor = min(ceiling, above if above > 0 else above / kept), max(floor, below if below < 0 else below / kept)
        self._floor, self._ceiling, self._top, self._bottom = floor, ceiling, self._drift, self._drift
        self._reach, self._lean, self._seen = self._inner[-1], 1 - kept, len(drifts)
        return True


def _within(cuts: Iterable[Cut], width: int, a: float, b: float) -> tuple[float, float]:
    """The bounds of R within which no cut divides a window of `width` or more."""
    low, high = -math.inf, math.inf
    for place, excess in cuts:
        reach = math.sqrt(a * place * (width - place) / width) + b
        least, most = (excess - reach) / place, (excess + reach) / place
        if least > low:
            low = least
        if most < high:
            high = most
    return low * width, high * width


def bowed(total: float, root: float, n: int) -> float:
    """How far the path of n sums can leave the line between its ends (Cauchy & Schwarz). root: of the sum of squares."""
    return 0.5 * math.sqrt(max(0.0, n * root * root * LOOSE - total * total))


def left(values: list[float], slope: float) -> float:
    """How far the path of the sums of values, each less `slope`, leaves the interval between its ends."""
    path = [*accumulate([value - slope for value in values])]
    return max(max(path) - max(path[-1], 0.0), min(path[-1], 0.0) - min(path))


def paths(blocks: Floats, slope: float) -> tuple[list[float], list[float]]:
    """The sum of each row, and how far it has `left`. Shapes: (checks, clock)."""
    path = np.add.accumulate(blocks - slope, axis=1)
    end = path[:, -1]
    inner = np.maximum(path.max(axis=1) - np.maximum(end, 0.0), np.minimum(end, 0.0) - path.min(axis=1))
    return (end + blocks.shape[1] * slope).tolist(), inner.tolist()
