"""Rows that become fewer: a part of the traffic that is gone looks like nothing at all to every rate and share.

Each hour the last 24 are held against each 24 hours before, of four weeks. It is an alarm where they have brought less than half of
the fewest of these, and so have all 24 that ended up to six hours ago (a batch a day may be late), and less by more than chance: by
three standard deviations of the logarithm, as 24 hours differ from those of the same day of the week. So a quiet day of the week is
usual, and a holiday like one is none; for the first fourteen days nobody knows. As many of the fewest as there were days of alarm
are no measure, three at most: what lasts longer has been told.

Source: the deviation is the median of the absolute ones, times 1.4826 (Hampel 1974).
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from loudly.core.clock import DAY, HOUR
from loudly.core.seams import Ints
from loudly.core.values import Decision, Evidence, Verdict

OF_DAY = DAY // HOUR
LEARNING, MOST, WEEK = 14, 28, 7
# Fewer rows in 24 hours say nothing.
FEWEST, PART, DEVIATIONS = 50, 0.5, 3.0
LATE = 6
TOLD = 3


class Volume:
    """Rows by the hour in which they came, of the last 29 days."""

    def __init__(self) -> None:
        self._rows: Counter[int] = Counter()
        self._first = self._judged = -1
        self._few: set[int] = set()
        self._verdict: Verdict | None = None

    def came(self, rows: int, now: int) -> None:
        """Rows were answered."""
        hour = now // HOUR
        self._first = hour if self._first < 0 else self._first
        self._rows[hour] += rows

    def verdict(self, now: int) -> Verdict | None:
        """FAIL where the last 24 whole hours have brought too few rows, None otherwise. Cost: 0.1 ms for an hour, each once.

        Hours that nobody has asked after are judged first, so it is the same whether or not the server was there for them.
        """
        hour = now // HOUR
        for one in range(max(self._judged + 1, self._first, hour - MOST * OF_DAY), hour + 1):
            self._judged, self._verdict = one, self._look(one)
            if self._verdict is not None:
                self._few.add(one)
        oldest = hour - (MOST + 1) * OF_DAY
        self._few = {h for h in self._few if h >= oldest}
        for old in [h for h in self._rows if h < oldest]:
            del self._rows[old]
        return self._verdict

    def _look(self, hour: int) -> Verdict | None:
        """Of the 24 hours that end where `hour` begins."""
        known = min(MOST, (hour - self._first) // OF_DAY - 1) if self._first >= 0 else 0
        if known < LEARNING:
            return None
        hours = np.array([self._rows[h] for h in range(hour - (known + 1) * OF_DAY, hour)])
        before = hours[:-OF_DAY].reshape(-1, OF_DAY).sum(axis=1)[::-1].tolist()
        newest = max(int(hours[len(hours) - late - OF_DAY : len(hours) - late].sum()) for late in range(LATE + 1))
        told = len({ago for few in self._few if few < hour and (ago := (hour - few - 1) // OF_DAY) < known})
        fewest = sorted(before)[min(told, TOLD)]
        if fewest < FEWEST or newest >= PART * fewest:
            return None
        far = math.log(fewest / max(newest, 0.5))
        if far < DEVIATIONS * _deviation(np.log(np.maximum(before, 0.5))):
            return None
        said = f"{newest:,} rows came in 24 hours at most; in each 24 hours of the {known} days before mostly {fewest:,} and more"
        evidence = Evidence(
            "rows of 24 hours", float(newest), n=sum(before), about="requests", unit="rows", tolerance=PART * fewest
        )
        return Verdict(Decision.FAIL, "requests", said, (evidence,))


def _deviation(logs: Ints) -> float:
    """How much days differ from those of the same day of the week. Shapes: logs (days,), the newest first."""
    apart = [x - np.median(np.delete(logs[i % WEEK :: WEEK], i // WEEK)) for i, x in enumerate(logs)]
    return 1.4826 * float(np.median(np.abs(apart)))
