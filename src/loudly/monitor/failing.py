"""Rows that are refused, rows that the champion has no score for, labels of no known value: no window tells, so they are counted.

A row that does not fit the schema is refused; a model that raises, is late or answers NaN is replaced by the constant of last
resort; a label of no known value is set aside. Each is well for a row; beyond one in a hundred somebody is told, at the next tick,
not when the window closes.

Counted are the hour of now and the last one before it that had rows, each of 20 rows or more. Cost: some µs a call.

Source: the interval of Clopper & Pearson (1934), at a risk small enough for a look at every tick of years.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from loudly.core.clock import HOUR
from loudly.core.seams import Floats
from loudly.core.values import Decision, Evidence, Verdict
from loudly.monitor.judged import Cause
from loudly.shift.estimate.labelled import sound
from loudly.stats.multinomial_process import fixed_share_interval

SHARE = 0.01
RISK = 1e-6
FEWEST = 20
SHOWN = 40
ANSWERS, ROWS, VALUES = "failure: answers", "feed: rows", "feed: labels"
Told = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """Rows, how many of them have failed, and what their share surely exceeds."""

    rows: int
    failed: int
    low: float

    def verdict(self, subject: str, told: str) -> Verdict:
        """That it is too many."""
        share = self.failed / self.rows
        risk: dict[str, Any] = {"confidence": 1 - RISK, "tolerance": SHARE}
        evidence = Evidence("share of rows that fail", share, self.low, None, self.rows, subject, **risk)
        return Verdict(Decision.FAIL, subject, told, (evidence,))


class Share:
    """How many of the newest rows have failed."""

    def __init__(self) -> None:
        self._hour = -1
        self._now: Told = (0, 0)
        self._before: Told = (0, 0)

    def add(self, rows: int, failed: int, now: int) -> None:
        """Rows that came now."""
        hour = now // HOUR
        if hour > self._hour and self._now[0] >= FEWEST:
            self._before, self._now = self._now, (0, 0)
        self._hour, self._now = max(hour, self._hour), (self._now[0] + rows, self._now[1] + failed)

    def found(self) -> Found:
        """As of now."""
        rows, failed = (now + before for now, before in zip(self._now, self._before, strict=True))
        return Found(rows, failed, float(fixed_share_interval(failed, rows, RISK)[0]))


class Failing:
    """All of it, of one champion. Another one begins anew with its answers; rows and labels are of whoever sends them."""

    def __init__(self) -> None:
        self._answers, self._rows, self._labels = Share(), Share(), Share()
        self._shown = self._why = ""

    def begin(self) -> None:
        """Another champion."""
        self._answers = Share()

    def answered(self, table: pl.DataFrame, scores: Floats, now: int) -> None:
        """Rows were answered: those of arm 0, where `_arm` is told, by the champion. scores: its own, (n,) or (n, k)."""
        self._rows.add(table.height, 0, now)
        asked = table["_arm"].to_numpy() == 0 if "_arm" in table.columns else np.ones(table.height, dtype=bool)
        self._answers.add(int(np.count_nonzero(asked)), int(np.count_nonzero(asked & ~sound(scores))), now)

    def refused(self, rows: int, why: str, now: int) -> None:
        """Rows were refused, most of them for one reason."""
        self._why = why
        self._rows.add(rows, rows, now)

    def labelled(self, labels: int, strange: Sequence[str], now: int) -> None:
        """Labels came. strange: the values that were set aside."""
        self._shown = strange[0][:SHOWN] if strange else self._shown
        self._labels.add(labels, len(strange), now)

    def causes(self) -> tuple[Cause, ...]:
        """What fails more often than it may, as of now."""
        answers, rows, labels = self._answers.found(), self._rows.found(), self._labels.found()
        silent = f"the champion has no score for {answers.failed:,} of the newest {answers.rows:,} rows that it was to answer: "
        silent += "it raised, was late or gave no number, and a constant answered"
        unfit = (
            f"{rows.failed:,} of the newest {rows.rows:,} rows do not fit the schema, e.g. {self._why!r}: nobody has answered them"
        )
        strange = f"{labels.failed:,} of the newest {labels.rows:,} labels are of no value that the champion knows, "
        strange += (
            f"e.g. {self._shown!r}: they are set aside, and count when they are sent again rightly; a class that is new, or a "
        )
        strange += "number 100 times further than any before, is learned from a table that has it"
        found = (
            ("failure", ANSWERS, "answers", silent, answers),
            ("feed", ROWS, "rows", unfit, rows),
            ("feed", VALUES, "labels", strange, labels),
        )
        return tuple(
            Cause(kind, cause, share.verdict(subject, told)) for kind, cause, subject, told, share in found if share.low > SHARE
        )
