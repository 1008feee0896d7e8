"""The watch: rows and labels fold into event-time windows; closed windows are judged, late rows judge them again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl

from loudly.core.canon import Json
from loudly.core.clock import iso
from loudly.core.values import Decision, Evidence, Kind, Role, Schema, Task, Verdict
from loudly.metrics.table import metric as metric_named
from loudly.monitor.performance import SUBJECT, Trail, calibration, judge
from loudly.monitor.settings import MonitorSettings
from loudly.shift.estimate.answer import harm
from loudly.shift.estimate.cbpe import Cbpe
from loudly.shift.estimate.expected import BETTER
from loudly.shift.event_time import FOREVER, Batch, event_times
from loudly.shift.feed import FeedJudge
from loudly.shift.panes import cuts
from loudly.shift.profile import Bins, Profile, bins_of, profile
from loudly.shift.window_shapes import Tumbling
from loudly.shift.window_state import State
from loudly.shift.windows import Windows
from loudly.stats.divergence import js, noise

if TYPE_CHECKING:
    from loudly.core.seams import Floats, Ints

FEW_VALUES = 8
REFERENCE_ROWS = 50_000


class Answering(Protocol):
    """What the watch must know of a champion."""

    @property
    def schema(self) -> Schema: ...

    @property
    def task(self) -> Task: ...


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that is wrong in a window; `cause` stays the same while it lasts.

    kind: feed | shift | estimate | performance | calibration.
    """

    kind: str
    cause: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class WindowJudged:
    """A closed window and all that was found in it. `revision` counts corrections by late rows."""

    start: int
    end: int
    revision: int
    rows: int
    causes: tuple[Cause, ...]
    shifts: Mapping[str, float]
    summary: str

    @property
    def worth_telling(self) -> bool:
        """Whether the window goes into the ledger: something is wrong, or it corrects what was said."""
        return bool(self.revision or any(c.kind != "shift" for c in self.causes))

    def plain(self) -> dict[str, Json]:
        """As the data of an event."""
        causes: Json = [{"kind": c.kind, "cause": c.cause, "reason": c.verdict.reason} for c in self.causes]
        return {
            "window": iso(self.start),
            "revision": self.revision,
            "rows": self.rows,
            "summary": self.summary,
            "causes": causes,
            "shifts": dict(self.shifts),
        }


class Watch:
    """Watches one champion's traffic; the histories outlive a change of champion."""

    def __init__(self, settings: MonitorSettings, *, metric: str, time: str) -> None:
        self.settings, self.time = settings, time
        self.metric = metric_named(metric)
        self.feed = FeedJudge()
        self.trail = Trail(settings.window)
        self._bins: dict[str, Bins] = {}
        self._cells: tuple[str, ...] = ()
        # Its own clock says when windows close, so the rows' times move no watermark: any disorder is in order.
        shape = Tumbling(settings.window)
        self._windows: Windows[Profile] = Windows(shape, self._profile, disorder=FOREVER, lateness=settings.lateness)
        self._state: State[Profile] = self._windows.init()
        self._scores: dict[int, list[Floats]] = {}
        self._broken: list[tuple[int, int]] = []
        self._task: Task | None = None
        self._expected: float | None = None
        self._since = 0
        self._folded = 0
        self.too_late = self.timeless = 0
        self._confirmed: tuple[tuple[int, int], Verdict] | None = None

    # -- the champion ------------------------------------------------------------------------------------------------

    def crown(self, champion: Answering, reference: pl.DataFrame, expected: float | None, now: int) -> None:
        """A champion and the rows it has learned from: what windows are compared with from now on."""
        self._task, self._expected, self._since = champion.task, expected, now
        watched = [f for f in champion.schema.fields if f.role in (Role.INPUT, Role.SIDE) and f.kind not in (Kind.TEXT, Kind.TIME)]
        sample = reference.tail(REFERENCE_ROWS)
        fresh = {f.name: bins_of(sample[f.name]) for f in watched if f.name in sample.columns}
        self._cells = tuple(f.name for f in watched if f.kind is Kind.CATEGORY and 1 < len(f.values) <= FEW_VALUES)
        if not self._bins:
            self._bins = fresh
            self._learn_from(reference)
        # Windows under way keep the bins they began with; a new reference begins with the next window.
        self._bins = fresh
        self._state = self._windows.init()
        self._confirmed = None

    def _learn_from(self, reference: pl.DataFrame) -> None:
        """The training rows, cut into the same windows, teach the feed judge what is normal."""
        starts = reference[self.time].dt.epoch("us") // self.settings.window
        for (_,), rows in reference.with_columns(_w=starts).group_by("_w", maintain_order=True):
            self.feed.learn(self._profile(rows))

    def _profile(self, rows: pl.DataFrame) -> Profile:
        return profile(rows, self._bins, self._cells)

    # -- folding -----------------------------------------------------------------------------------------------------

    def rows(self, table: pl.DataFrame, scores: Floats, now: int) -> None:
        """Served rows, by the window of their event time; rows of a closed window correct it while lateness allows.

        Later ones are counted in `too_late`, rows without a time in `timeless`; the router has answered them all the same.
        """
        if table.is_empty() or not self._bins:
            return
        batch = Batch(table, event_times(table[self.time], "UTC"))
        starts = batch.at // self.settings.window * self.settings.window
        for cut in cuts(starts):
            self._scores.setdefault(int(starts[cut[0]]), []).append(scores[cut])
        self._state, step = self._windows.fold(self._state, batch, now)
        self.too_late += sum(late.rows for late in step.too_late)
        self.timeless += step.timeless

    def cell(self, now: int) -> tuple[int, int]:
        """Rows that arrive within one cell of time may be folded together: neither a window nor its lateness ends in it."""
        window = self.settings.window
        return now // window, (now - 1 - self.settings.lateness) // window

    def labels(self, truth: Floats, score: Floats, at: Ints) -> None:
        """Labelled rows, by their event time."""
        self._folded += len(truth)
        self.trail.add(truth, score, at)

    def close(self, now: int) -> tuple[WindowJudged, ...]:
        """Judges the windows that have ended by `now`, and again those that late rows have changed."""
        self._state, step = self._windows.advance(self._state, now)
        spoken = sorted(step.spoken, key=lambda s: (s.revision > 0, s.start))
        judged = [self._judge(s.start, s.value, s.revision, now) for s in spoken if s.value is not None]
        oldest = now - self.settings.window - self.settings.lateness
        self._scores = {s: kept for s, kept in self._scores.items() if s > oldest - self.settings.trailing * self.settings.window}
        self.trail.keep(now - 2 * self.settings.trailing * self.settings.window)
        return tuple(judged)

    # -- what is known -----------------------------------------------------------------------------------------------

    def signals(self, now: int) -> tuple[tuple[str, Verdict], ...]:
        """The ranked evidence of harm: confirmed performance, estimated performance, impact of shift."""
        return (
            ("performance", self.performance(now)),
            ("calibration", self.calibration(now)),
            ("estimate", self.estimate(now)),
        )

    def calibration(self, now: int) -> Verdict:
        """Whether scores are right on average, confirmed by labels."""
        if self._task is Task.MULTICLASS:
            return Verdict(Decision.UNDECIDED, "calibration", "judged for one score a row", missing="scores of two classes")
        return calibration(self.trail, self.settings, now, self._since)

    def performance(self, now: int) -> Verdict:
        """Confirmed by labels."""
        asked = (now, self._folded)
        if self._confirmed is None or self._confirmed[0] != asked:
            found = judge(self.trail, self.metric, self._expected, self.settings, now, self._since)
            self._confirmed = (asked, found)
        return self._confirmed[1]

    def estimate(self, now: int) -> Verdict:
        """Estimated without labels (CBPE); it assumes calibrated scores and no concept shift, and says so."""
        subject = "estimated performance"
        if self._task is not Task.BINARY or self.metric.name not in BETTER or self._expected is None:
            return Verdict(Decision.UNDECIDED, subject, "no estimator for this metric", missing="labels")
        first = max(self._since, now - self.settings.trailing * self.settings.window)
        recent = [s for start, batch in self._scores.items() if start >= first for s in batch]
        score = np.concatenate(recent) if recent else np.zeros(0)
        score = score[np.isfinite(score)]
        if len(score) < self.settings.enough:
            return Verdict(Decision.UNDECIDED, subject, f"{len(score):,} answers so far", missing="answers")
        if score.min() < 0 or score.max() > 1:
            return Verdict(Decision.UNDECIDED, subject, "the scores are no probabilities", missing="labels, or scores in [0, 1]")
        found = Cbpe.as_given(self.metric.name).estimate(score)
        return harm(found, self._expected, 3 * self.settings.tolerance)

    def broken_spans(self) -> tuple[tuple[int, int], ...]:
        """Event time of all windows in which the feed was broken: never data to learn from."""
        return tuple(self._broken)

    # -- judging -----------------------------------------------------------------------------------------------------

    def _judge(self, start: int, window: Profile, revision: int, now: int) -> WindowJudged:
        breaks = self.feed.judge(window)
        span = (start, start + self.settings.window)
        self._broken = [s for s in self._broken if s != span] + ([span] if breaks else [])
        causes = [Cause("feed", f"feed: {b.cause}", b.verdict) for b in breaks]
        if not breaks and revision == 0:
            self.feed.learn(window)
        shifts = self._shifted(window)
        causes += [_shift_cause(name, size, window.rows, self.settings.shift) for name, size in shifts.items()]
        confirmed = self.performance(now)
        if confirmed.failed:
            causes.append(Cause("performance", SUBJECT, confirmed))
        biased = self.calibration(now)
        if biased.failed:
            causes.append(Cause("calibration", "calibration", biased))
        told = "; ".join(c.verdict.reason for c in causes if c.kind != "shift") or "as it should be"
        moved = f"; moved: {', '.join(f'{n} {s:.2f}' for n, s in shifts.items())}" if shifts else ""
        return WindowJudged(start, span[1], revision, window.rows, tuple(causes), shifts, told + moved)

    def _shifted(self, window: Profile) -> dict[str, float]:
        """Columns whose distance to the reference exceeds the tolerance by more than sampling alone gives."""
        found = {}
        for name, column in window.columns.items():
            bins = self._bins[name]
            sound = int(column.counts.sum())
            if sound == 0 or bins.counts.sum() == 0:
                continue
            excess = js(bins.counts, column.counts) - 2 * noise(int(bins.counts.sum()), sound, bins.size)
            if excess > self.settings.shift:
                found[name] = round(excess, 4)
        return dict(sorted(found.items(), key=lambda kv: -kv[1]))


def _shift_cause(name: str, size: float, rows: int, tolerance: float) -> Cause:
    evidence = Evidence("Jensen-Shannon distance above sampling noise", size, n=rows, about=name, tolerance=tolerance)
    verdict = Verdict(Decision.FAIL, f"shift of {name}", f"{name} moved by {size:.2f}, tolerated {tolerance:g}", (evidence,))
    return Cause("shift", f"shift: {name}", verdict)
