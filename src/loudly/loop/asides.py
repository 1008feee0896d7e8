"""Rows of traffic that nobody answers because they do not fit the schema: counted where they are refused, logged, and told.

A restart counts them once more, from the log. The monitor judges their share of all rows; the ledger gets the reasons.
"""

from __future__ import annotations

from collections import Counter

import polars as pl

from loudly.core.canon import Json
from loudly.core.clock import moment
from loudly.loop.host import Host
from loudly.loop.misfits import ASIDES, Aside, Count


class Asides:
    """Those of a Live. Whoever folds holds its lock."""

    def __init__(self, live: Host) -> None:
        self._live, self.count = live, Count()
        self._owed = 0.0
        self._news: Counter[str] = Counter()

    def table(self, aside: pl.DataFrame) -> None:
        """Rows that `conform` has set aside, with a `reason` each."""
        for why, rows in Counter(aside["reason"].to_list() if aside.height else ()).items():
            self.count.add(rows, why)

    def fold(self) -> None:
        """Logs and folds what was refused since the last time; while the past is folded it is logged alone."""
        if (told := self.count.take(moment(self._live.clock))) is not None:
            _, behind = self._live.answering.log(ASIDES, told.to_bytes)
            if not behind:
                self.folded(told)

    def folded(self, told: Aside, *, again: bool = False) -> None:
        """A record. Where a share of the units is followed, so is that share of these rows. again: the ledger knows of it."""
        self._owed += told.rows * self._live.stores.sample.share
        rows, self._owed = int(self._owed), self._owed % 1
        if rows:
            self._live.watch.refused(rows, max(told.reasons, key=told.reasons.__getitem__), told.at)
        if not again:
            self._news.update(told.reasons)

    def told(self) -> dict[str, Json]:
        """What the ledger is to be told, once; empty where there is nothing."""
        news, self._news = self._news, Counter()
        reasons: dict[str, Json] = dict(sorted(news.items()))
        return {"where": "traffic", "rows": news.total(), "reasons": reasons} if news else {}
