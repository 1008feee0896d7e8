"""The watch: rows and labels fold into event-time windows; closed windows are judged, late rows judge them again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl

from loudly.core.canon import Json
from loudly.core.clock import iso
from loudly.core.values import Decision, Kind, Role, Schema, Task, Verdict
from loudly.metrics.table import metric as metric_named
from loudly.monitor.performance import SUBJECT, Trail, calibration, judge
from loudly.monitor.settings import MonitorSettings
from loudly.shift.estimate.answer import harm
from loudly.shift.estimate.cbpe import Cbpe
from loudly.shift.estimate.expected import BETTER
from loudly.shift.event_time import FOREVER, Batch, event_times
from loudly.shift.feed import FeedJudge
from loudly.shift.panes import cuts
from loudly.shift.plan import Plan
from loudly.shift.profile import MOST_DISTINCT, Profile, bins_of, profile
from loudly.shift.verdicts import category_verdict, numeric_verdict
from loudly.shift.window_shapes import Tumbling
from loudly.shift.window_state import State
from loudly.shift.windows import Windows

if TYPE_CHECKING:
    from loudly.core.seams import Floats, Ints

FEW_VALUES = 8
PREDICTION = "(prediction)"
REFERENCE_ROWS = 50_000


class Answering(Protocol):
    """What the watch must know of a champion."""

    @property
    def schema(self) -> Schema: ...

    @property
    def task(self) -> Task: ...

    def predict(self, table: pl.DataFrame) -> Floats: ...


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
        self.feed = FeedJudge(apart=(PREDICTION,))
        self.trail = Trail(settings.window)
        self._plan = Plan({})
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
        cells = tuple(f.name for f in watched if f.kind is Kind.CATEGORY and 1 < len(f.values) <= FEW_VALUES)
        if champion.task is not Task.MULTICLASS and fresh:
            fresh[PREDICTION] = bins_of(pl.Series(PREDICTION, champion.predict(sample)))
        first = not self._plan.bins
        # Windows under way keep the bins they began with; a new reference begins with the next window.
        self._plan = Plan(fresh, cells, MOST_DISTINCT)
        if first:
            self._learn_from(reference)
        self._state = self._windows.init()
        self._confirmed = None

    def _learn_from(self, reference: pl.DataFrame) -> None:
        """The training rows, cut into the same windows, teach the feed judge what is normal."""
        starts = reference[self.time].dt.epoch("us") // self.settings.window
        for (_,), rows in reference.with_columns(_w=starts).group_by("_w", maintain_order=True):
            self.feed.learn(self._profile(rows))

    def _profile(self, rows: pl.DataFrame) -> Profile:
        return profile(rows, self._plan)

    # -- folding -----------------------------------------------------------------------------------------------------

    def rows(self, table: pl.DataFrame, scores: Floats, now: int) -> None:
        """Served rows, by the window of their event time; rows of a closed window correct it while lateness allows.

        Later ones are counted in `too_late`, rows without a time in `timeless`; the router has answered them all the same.
        """
        if table.is_empty() or not self._plan.bins:
            return
        batch = Batch(self._told(table, scores), event_times(table[self.time], "UTC"))
        starts = batch.at // self.settings.window * self.settings.window
        for cut in cuts(starts):
            self._scores.setdefault(int(starts[cut[0]]), []).append(scores[cut])
        self._state, step = self._windows.fold(self._state, batch, now)
        self.too_late += sum(late.rows for late in step.too_late)
        self.timeless += step.timeless

    def _told(self, table: pl.DataFrame, scores: Floats) -> pl.DataFrame:
        """The rows with what the champion said of them, where that is one number a row."""
        return table.with_columns(pl.Series(PREDICTION, scores)) if PREDICTION in self._plan.bins else table

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
        moved = self._moved(window)
        shifts = {name: round(verdict.evidence[0].effect or 0.0, 4) for name, verdict in moved.items()}
        causes += [Cause("shift", f"shift: {name}", verdict) for name, verdict in moved.items()]
        confirmed = self.performance(now)
        if confirmed.failed:
            causes.append(Cause("performance", SUBJECT, confirmed))
        biased = self.calibration(now)
        if biased.failed:
            causes.append(Cause("calibration", "calibration", biased))
        told = "; ".join(c.verdict.reason for c in causes if c.kind != "shift") or "as it should be"
        far = f"; moved: {', '.join(f'{n} {s:.2f}' for n, s in shifts.items())}" if shifts else ""
        return WindowJudged(start, span[1], revision, window.rows, tuple(causes), shifts, told + far)

    def _moved(self, window: Profile) -> dict[str, Verdict]:
        """Columns, and the predictions, that surely moved by more than is tolerated; the farthest first.

        Numbers by KS distance, categories by total variation, from counts, with intervals that hold at every look; the risk is
        shared among the columns.
        """
        found = {}
        for name, column in window.columns.items():
            bins = self._plan.bins[name]
            if column.sound == 0 or bins.counts.sum() == 0 or bins.size < 2:
                continue
            judge_it = category_verdict if bins.edges is None else numeric_verdict
            alpha = self.settings.alpha / len(window.columns)
            verdict = judge_it(bins.counts, column.counts, self.settings.shift, name, alpha)
            if verdict.failed:
                found[name] = verdict
        return dict(sorted(found.items(), key=lambda kv: -(kv[1].evidence[0].effect or 0.0)))
