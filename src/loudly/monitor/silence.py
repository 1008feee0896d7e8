"""Requests or labels that stop coming say nothing themselves, so the clock asks after them.

Requests: a silence is an alarm where it is a quarter longer than any before that was none, and so many hours without a request
are rare if hours are quiet as often as they were, or, where silences are the rule (a batch a day), it is twice as long as the
longest of many. One that was an alarm teaches when it comes a second time: of nights and week-ends one learns, of one outage not.
For the first week nobody knows.

Labels: `arrive_within` says by when nearly all are there. Half as long again after that, answers given since the last label came
must have had some: how likely is it that none of them has one, if as many have one as before? Where that is as rare, at two looks,
it is an alarm; where no label ever came, 50 answers are enough.

Rows that become fewer are judged by 24 hours (`volume`), labels that come for fewer answers by the day (`labelled_share`).

Source: the rule of succession (Laplace 1814) for the share of quiet hours. Labels of rows are taken as independent.
"""

from __future__ import annotations

import math
from collections.abc import Container

from loudly.core.clock import DAY, HOUR, iso, span
from loudly.core.seams import Ints
from loudly.core.values import Decision, Evidence, Verdict
from loudly.monitor.judged import Cause
from loudly.monitor.labelled_share import LabelledShare
from loudly.monitor.volume import Volume

# Rare: once in a dozen years of hours, looked at in each. The n-th of exponential ones is twice the longest in n ** -2 of cases.
RISK = 1e-5
SLACK, TIMES, MANY = 1.25, 2, 30
LEARNING = 7 * DAY // HOUR
FEWEST = 50
PIECES = 64
REQUESTS, LABELS = "silence: requests", "silence: labels"
MOST_REQUESTS, MOST_LABELS = "silence: most requests", "silence: most labels"


class Requests:
    """Hours in which requests came, as the clock of the server says."""

    def __init__(self) -> None:
        self._first = self._last = -1
        self._heard = self._silences = 0
        # The longest silence that was no alarm, and the two longest of all.
        self._calm, self._longest = 0, [0, 0]

    def came(self, now: int) -> None:
        """Some came."""
        hour = now // HOUR
        if hour <= self._last:
            return
        if self._first < 0:
            self._first, self._last = hour, hour - 1
        quiet = hour - self._last - 1
        self._calm = self._calm if self._rare(quiet) else max(self._calm, quiet)
        self._longest = sorted((*self._longest, quiet))[-2:]
        self._last, self._heard, self._silences = hour, self._heard + 1, self._silences + (quiet > 0)

    def silence(self, now: int) -> Verdict | None:
        """FAIL where none have come for too long, None otherwise."""
        quiet = now // HOUR - self._last - 1
        if not self._rare(quiet):
            return None
        known = self._last - self._first + 1
        told = f"no request since {iso((self._last + 1) * HOUR)}, for {span(quiet * HOUR)}; the longest time without one was "
        told += f"{span(self._usual * HOUR)}, and of {known:,} hours {self._heard:,} had some"
        evidence = Evidence("hours without a request", float(quiet), n=known, about="requests", unit="hours")
        return Verdict(Decision.FAIL, "requests", told, (evidence,))

    @property
    def _usual(self) -> int:
        return max(self._calm, self._longest[0])

    def _rare(self, quiet: int) -> bool:
        known = self._last - self._first + 1
        if self._first < 0 or known < LEARNING or quiet <= SLACK * self._usual:
            return False
        share = (known - self._heard + 1) / (known + 2)
        return quiet * math.log(share) <= math.log(RISK) or (self._silences >= MANY and quiet > TIMES * self._usual)


class Labels:
    """Answers that are so old that their labels should be there, since the last label came."""

    def __init__(self, arrive_within: int) -> None:
        self._patience = arrive_within + arrive_within // 2
        # Answers that are younger: when the first of some was given, the time of the newest row, and how many they are.
        self._young: list[tuple[int, int, int]] = []
        self._last = self._missed = -1
        self._due = self._old = self._labels = 0

    def answered(self, rows: int, now: int, newest: int) -> None:
        """Answers were given. newest: event time of the newest row."""
        newest = max(now, newest)
        if self._young and now - self._young[-1][0] < self._patience // PIECES:
            first, before, more = self._young.pop()
            newest, rows, now = max(newest, before), rows + more, first
        self._young.append((now, newest, rows))

    def came(self, rows: int, now: int) -> None:
        """Labels of answers came."""
        self._ripen(now)
        self._last, self._missed, self._due, self._labels = now, -1, 0, self._labels + rows

    def missed(self) -> None:
        """A look has missed them already."""
        self._missed = 0

    def silence(self, now: int) -> Verdict | None:
        """FAIL where none have come though they should have, at this look and at one before it; None otherwise."""
        self._ripen(now)
        share = min(0.5, self._labels / max(1, self._old)) if self._last >= 0 else 0.5
        if self._due < FEWEST or self._due * math.log1p(-share) > math.log(RISK):
            return None
        self._missed = now if self._missed < 0 else self._missed
        if self._missed == now:
            return None
        since = "ever" if self._last < 0 else f"since {iso(self._last)}"
        told = f"no label has come {since}, though {self._due:,} answers are of rows older than {span(self._patience)}"
        evidence = Evidence("answers without a label", float(self._due), n=self._old, about="labels", unit="rows")
        return Verdict(Decision.FAIL, "labels", told, (evidence,))

    def _ripen(self, now: int) -> None:
        young = []
        for first, newest, rows in self._young:
            if newest > now - self._patience:
                young.append((first, newest, rows))
            else:
                self._old += rows
                self._due += rows if first > self._last else 0
        self._young = young


class Silence:
    """All of it, for the traffic of a server. arrive_within: µs by which nearly all labels are there.

    heard: when the last request and the last label came.  volume: rows of 24 hours.  share: of a day's answers that have a label.
    """

    def __init__(self, arrive_within: int) -> None:
        self._requests, self._labels = Requests(), Labels(arrive_within)
        self.volume, self.share = Volume(), LabelledShare(arrive_within)
        self.heard: dict[str, int] = {}
        self._none_at = -1

    def answered(self, at: Ints, now: int) -> None:
        """Requests came and were answered. at: (n,) event time of the rows; NO_TIME where a row has none."""
        self.heard["request"] = now
        self._requests.came(now)
        self.volume.came(len(at), now)
        self._labels.answered(len(at), now, int(at.max(initial=0)))
        self.share.answered(at, now)

    def refused(self, now: int) -> None:
        """Requests came, and were not answered."""
        self.heard["request"] = now
        self._requests.came(now)

    def labelled(self, at: Ints, now: int) -> None:
        """Labels of answers came. at: (n,) event time of their rows."""
        self.heard["label"] = now
        self._labels.came(len(at), now)
        self.share.labelled(at, now)

    def told_before(self, causes: Container[str]) -> None:
        """After a restart: what the ledger says is an alarm is one at the first look."""
        if LABELS in causes:
            self._labels.missed()

    def causes(self, now: int) -> tuple[Cause, ...]:
        """What has stopped, as of now. Few requests, or days without labels, while none came at all are told by that alone."""
        requests, fewer = self._requests.silence(now), self.volume.verdict(now)
        labels, few = self._labels.silence(now), self.share.verdict(now)
        self._none_at = now if labels is not None else self._none_at
        if few is not None and self.share.newest <= self._none_at:
            few = None
        found = ((REQUESTS, requests), (MOST_REQUESTS, fewer if requests is None else None), (LABELS, labels), (MOST_LABELS, few))
        return tuple(Cause("silence", cause, verdict) for cause, verdict in found if verdict is not None)
