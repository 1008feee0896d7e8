"""Labels that come for fewer answers than before: of each day's answers, the share that had a label in its time.

A day is looked at once, when `arrive_within` and half of it again have gone by since it ended, with the labels that it had by
then. It is an alarm where its share is surely less than half of what is usual: the second lowest of the 14 days before it, the
third lowest of 28. So a day of the week on which nobody labels is usual after two weeks, one lost day teaches nothing, and what
is so for a fourth day is the new habit, and has been told. Days of fewer than 50 answers say nothing; for the first fourteen
nobody knows.

Source: the interval of Clopper & Pearson (1934), at a risk that allows for a look a day in a dozen years.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from loudly.core.clock import DAY, iso
from loudly.core.seams import Ints
from loudly.core.values import Decision, Evidence, Verdict
from loudly.stats.multinomial_process import fixed_share_interval

RISK = 1e-5
LEARNING, MOST = 14, 28
FEWEST, PART = 50, 0.5


@dataclass(slots=True)
class OfDay:
    """The answers of a day of event time, and how many of them have a label."""

    start: int
    rows: int = 0
    labels: int = 0

    @property
    def share(self) -> float:
        """Of the answers."""
        return self.labels / self.rows


class LabelledShare:
    """Folds answers and labels by the day that they are of. arrive_within: µs by which nearly all labels are there."""

    def __init__(self, arrive_within: int) -> None:
        self._patience = arrive_within + arrive_within // 2
        self._young: dict[int, OfDay] = {}
        self._ripe: deque[OfDay] = deque(maxlen=MOST + 1)

    def answered(self, at: Ints, now: int) -> None:
        """Rows were answered. at: (n,) event time."""
        for day, rows in self._days(at, now):
            day.rows += rows

    def labelled(self, at: Ints, now: int) -> None:
        """Labels came. at: (n,) event time of their rows."""
        for day, rows in self._days(at, now):
            day.labels += rows

    @property
    def newest(self) -> int:
        """When the newest day began that has had its time (µs); -1 where none has."""
        return self._ripe[-1].start if self._ripe else -1

    def verdict(self, now: int) -> Verdict | None:
        """FAIL where the newest day that has had its time has too few labels, None otherwise."""
        self._ripen(now)
        if len(self._ripe) <= LEARNING:
            return None
        *before, newest = self._ripe
        usual = sorted(day.share for day in before)[len(before) // LEARNING]
        high = float(fixed_share_interval(newest.labels, newest.rows, RISK)[1])
        if high >= PART * usual:
            return None
        told = f"labels came in time for {newest.labels:,} of the {newest.rows:,} answers of {iso(newest.start)[:10]}, "
        told += f"{newest.share:.1%}; on the {len(before)} days before mostly for {usual:.1%} and more"
        evidence = Evidence(
            "share of a day's answers", newest.share, None, high, newest.rows, "labels", confidence=1 - RISK, tolerance=PART * usual
        )
        return Verdict(Decision.FAIL, "labels", told, (evidence,))

    def _days(self, at: Ints, now: int) -> Iterator[tuple[OfDay, int]]:
        """The days that have not had their time, with the rows that are of them."""
        self._ripen(now)
        starts, counts = np.unique(at // DAY * DAY, return_counts=True)
        for start, rows in zip(starts.tolist(), counts.tolist(), strict=True):
            if start + DAY + self._patience > now:
                yield self._young.setdefault(start, OfDay(start)), rows

    def _ripen(self, now: int) -> None:
        """Days that have had their time are closed, with the labels that they have."""
        for start in sorted(start for start in self._young if start + DAY + self._patience <= now):
            day = self._young.pop(start)
            if day.rows >= FEWEST:
                self._ripe.append(day)
