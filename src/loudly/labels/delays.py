"""How late labels come, class by class: a reporting triangle of the days on which rows were answered, by the hours they took.

A row without a label tells nothing of its class, and of young rows only the quick labels are there yet. So delays are read
backwards: of the labels that took at most d, the share that took all of d, among rows followed for d at least. The product of
what is left is the share of labels that have come by an age, whatever the ages of the rows. Nothing is said of delays longer than
rows have been followed: no table can know them.

Source: Lagakos, Barraj & De Gruttola 1988, "Nonparametric analysis of truncated survival data, with application to AIDS",
Biometrika 75; Kalbfleisch & Lawless 1989 (JASA 84) on reporting lags; actuaries know it as the chain ladder (Mack 1993).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from loudly.core.clock import DAY, HOUR
from loudly.core.seams import Ints

MOST_CLASSES = 20


@dataclass(frozen=True, slots=True)
class Lateness:
    """What is known of delays. followed: µs since the oldest rows were answered.  rows: that have been followed so far as asked.

    complete: µs after which nearly all labels of every class are there, 0 where that is within the hour.  labels: it rests on.
    share: of rows of that age that have a label.
    """

    followed: int
    rows: int
    complete: int
    labels: int
    share: float


class Delays:
    """The triangle: rows by day, and labels by class, day and hours. Rows older than twice `keep` (µs) are let go.

    Cost: 0.1 ms a batch of labels; memory classes × 2 `keep` in days × `keep` in hours. Values of more than 20 kinds are one class.
    """

    def __init__(self, keep: int) -> None:
        self._hours, self._days = keep // HOUR + 1, 2 * keep // DAY
        self._answered: dict[int, int] = {}
        self._came: dict[object, dict[int, Ints]] = {}

    def answered(self, at: Ints) -> None:
        """Rows answered at those times. Shape: (n,), µs."""
        known = len(self._answered)
        for day, rows in zip(*np.unique(at // DAY, return_counts=True), strict=True):
            self._answered[int(day)] = self._answered.get(int(day), 0) + int(rows)
        if len(self._answered) > known:
            self._let_go(max(self._answered) - self._days)

    def came(self, made: Ints, late: Ints, labels: pl.Series) -> None:
        """Labels of rows answered at `made`, so late. Shapes: (n,), (n,) in µs, (n,)."""
        hours = np.clip(-(-late // HOUR), 0, self._hours - 1)
        for value, mine in self._by_class(labels):
            known, days = self._came.setdefault(value, {}), made[mine] // DAY
            for day in np.unique(days):
                row = known.setdefault(int(day), np.zeros(self._hours, dtype=np.int64))
                np.add.at(row, hours[mine][days == day], 1)

    def known(self, now: int, least: int, nearly_all: float) -> Lateness:
        """As of now. least: µs that rows must have been followed to be counted.  nearly_all: a share of each class's labels."""
        days = sorted(self._answered)
        followed = np.array([now - (day + 1) * DAY for day in days], dtype=np.int64)
        asked = np.array([self._answered[day] for day in days], dtype=np.int64)
        none = np.zeros(self._hours, dtype=np.int64)
        came = [np.stack([of.get(day, none) for day in days]) for of in self._came.values() if days]
        hours = max((_complete(one, followed // HOUR, nearly_all) for one in came), default=0)
        hours = hours if hours > 1 else 0
        old = followed >= hours * HOUR
        total = int(asked[old].sum())
        share = sum(int(one[old, : max(hours, 1) + 1].sum()) for one in came) / total if total else 0.0
        labels = sum(int(one.sum()) for one in came)
        return Lateness(max(0, int(followed.max(initial=0))), int(asked[followed >= least].sum()), hours * HOUR, labels, share)

    def _let_go(self, oldest: int) -> None:
        self._answered = {day: rows for day, rows in self._answered.items() if day >= oldest}
        self._came = {value: {day: row for day, row in of.items() if day >= oldest} for value, of in self._came.items()}

    def _by_class(self, labels: pl.Series) -> Iterator[tuple[object, Any]]:
        """Each class and which labels are of it; all are one where their kinds are too many, as those of a regression are."""
        values = [] if None in self._came else labels.to_list()
        kinds = {value: number for number, value in enumerate(dict.fromkeys(values))}
        if len(self._came.keys() | kinds.keys()) > MOST_CLASSES:
            self._merge()
        if None in self._came:
            yield None, slice(None)
            return
        numbers = np.array([kinds[value] for value in values])
        for value, number in kinds.items():
            yield value, numbers == number

    def _merge(self) -> None:
        """All classes become one, which has no name."""
        every: dict[int, Ints] = {}
        for known in self._came.values():
            for day, row in known.items():
                every[day] = every.get(day, np.zeros(self._hours, dtype=np.int64)) + row
        self._came = {None: every}


def _complete(came: Ints, followed: Ints, nearly_all: float) -> int:
    """Hours by which nearly all labels have come, of those seen to come at all. Shapes: (days, hours), (days,)."""
    hours = np.arange(came.shape[1])
    seen = followed[:, None] >= hours
    at, by = (came * seen).sum(axis=0), (came.cumsum(axis=1) * seen).sum(axis=0)
    left = 1 - at / np.maximum(by, 1)
    share = np.append(np.cumprod(left[:0:-1])[::-1], 1.0)
    return int(np.argmax(share >= nearly_all))
