"""The watch: rows and labels fold into event-time windows; closed windows are judged, late rows judge them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from loudly.core.canon import Json
from loudly.core.clock import DAY, span
from loudly.core.seams import Floats, Ints
from loudly.core.values import Decision, Event, Kind, Role, Task, Verdict, plain
from loudly.metrics.table import metric as metric_named
from loudly.monitor.answers import HOURS, PREDICTION, Answering, Answers, apart
from loudly.monitor.blame import Blame, Case
from loudly.monitor.checked import Checked
from loudly.monitor.eras import Eras
from loudly.monitor.examples import Examples
from loudly.monitor.failing import Failing
from loudly.monitor.judged import Cause, Weight, WindowJudged
from loudly.monitor.performance import SUBJECT, Trail, calibration, judge, unjudged
from loudly.monitor.sampled import MOST_PERMUTATIONS, Joint, reference_sample, table_of
from loudly.monitor.settings import MonitorSettings
from loudly.monitor.shifts import JOINT, Moves, Seen, Shifts, joint_budget, stretch
from loudly.monitor.silence import Silence
from loudly.monitor.strata import strata_of
from loudly.monitor.streams import OF_LABELS, SCORE, Streams
from loudly.shift.estimate.answer import harm
from loudly.shift.estimate.cbpe import Cbpe
from loudly.shift.estimate.expected import BETTER
from loudly.shift.event_time import event_times
from loudly.shift.feed import FEWEST_ROWS, FeedJudge
from loudly.shift.panes import cuts
from loudly.shift.plan import Plan
from loudly.shift.profile import MOST_DISTINCT, Profile, bins_of, profile
from loudly.stats.held_out import Quantiles
from loudly.stats.threads import OneThread

FEW_VALUES = 8
# Rows of a window that ends so late are never judged, and a client whose clock is wrong could open any number of them.
AHEAD = 31 * DAY
REFERENCE_ROWS, MOST_DUE = 50_000, 4_096
CONFIRMED = ("performance", "calibration", "estimate")


class Watch:
    """Watches one champion's traffic; the histories outlive a change of champion."""

    def __init__(self, settings: MonitorSettings, arrive_within: int = DAY, *, metric: str, time: str, key: str = "") -> None:
        self.settings, self.time, self.silence, self.failing = settings, time, Silence(arrive_within), Failing()
        self.metric = metric_named(metric)
        self.feed = FeedJudge(apart)
        self.trail = Trail(settings.window)
        self.eras, self.shifts = Eras(settings), Shifts(settings)
        self.checked = Checked(settings.enough)
        self.examples = Examples(settings, key)
        self.streams = Streams(settings.streams)
        self._key, self._plan, self._reference = key, Plan({}), pl.DataFrame()
        self._joint = Joint(settings.alpha, settings.joint, joint_budget(settings).level)
        self._threads = OneThread(later=True)
        self._scores: dict[int, list[Floats]] = {}
        self._due: list[tuple[pl.DataFrame, Floats, int]] = []
        self._broken: list[tuple[int, int]] = []
        self._news: list[Event] = []
        self._task: Task | None = None
        self._answers = Answers()
        self._expected: float | None = None
        self._since = self._folded = 0
        self._unseen, self._unjudged, self._kind = False, False, ""
        self._aside: Counter[str] = Counter()
        self._confirmed: tuple[tuple[int, int], Verdict] | None = None
        self._calibrated: tuple[tuple[int, int], Verdict] | None = None

    # -- the champion ------------------------------------------------------------------------------------------------

    def crown(
        self, champion: Answering, reference: pl.DataFrame, expected: float | None, now: int, usual: Sequence[Quantiles] = ()
    ) -> None:
        """A champion, the rows it has learned from, and its usual scores: what windows are compared with from the next one on."""
        self._fold()
        self._task, self._expected, self._since = champion.task, expected, now
        watched = [f for f in champion.schema.fields if f.role in (Role.INPUT, Role.SIDE) and f.kind not in (Kind.TEXT, Kind.TIME)]
        sample = reference.tail(REFERENCE_ROWS)
        fresh = {f.name: bins_of(sample[f.name]) for f in watched if f.name in sample.columns}
        cells = tuple(f.name for f in watched if f.kind is Kind.CATEGORY and 1 < len(f.values) <= FEW_VALUES)
        self.feed.look_back()
        thin = Plan({name: bins for name, bins in fresh.items() if name not in self.feed.history}, cells, MOST_DISTINCT)
        self._answers = Answers()
        if fresh:
            score = champion.predict(sample)
            self._answers = Answers.of(score, champion.classes)
            sample = sample.with_columns(self._answers.columns(score, usual))
            fresh |= {name: bins_of(sample[name]) for name in self._answers.names}
        fresh[HOURS] = bins_of(pl.Series(HOURS, [0]))
        if thin.bins:
            self.feed.begin(self._training_windows(reference, thin))
        spread = tuple(n for n in fresh if not apart(n))
        plan = Plan(fresh, cells, MOST_DISTINCT, keep=self.settings.sample, key=self._key, spread=spread[:8])
        strata = strata_of(sample, self.settings.context, self.time, plan) if self.settings.context else None
        self._plan, self._reference = plan, table_of(kept := reference_sample(sample, plan), plan)
        self.eras.begin(plan, strata, now)
        self.shifts.begin(plan, strata)
        self.examples.begin(spread)
        self.checked.begin(self._folded, self.settings.tolerated(expected))
        self.failing.begin()
        self.streams.begin(champion.task, champion.schema, now)
        if self.settings.joint and strata is None:
            self._joint.begin(kept, plan)
            if not self._joint.reaches and self.settings.rule == "count":
                why = f"{MOST_PERMUTATIONS:,} permutations cannot reach the p-value that so small a budget asks for"
                self._news.append(Event("guarantee_weakened", now, {"what": JOINT, "reason": why}))
        self._confirmed, self._calibrated, self._unseen, self._unjudged, self._kind = None, None, False, False, ""

    def _training_windows(self, reference: pl.DataFrame, plan: Plan) -> Iterator[Profile]:
        """The training rows, cut into the same windows: they teach the feed judge of columns that are new to it."""
        starts = reference[self.time].dt.epoch("us") // self.settings.window
        for (_,), rows in reference.with_columns(_w=starts).group_by("_w", maintain_order=True):
            yield profile(rows, plan)

    # -- folding -----------------------------------------------------------------------------------------------------

    def rows(self, table: pl.DataFrame, scores: Floats, now: int) -> None:
        """Served rows, by the window of their event time; rows of a closed window correct it while lateness allows.

        Later ones, those far ahead of the clock and those without a time are told as set aside when windows close; the router has
        answered them all the same. In `_arm`, where it is there, 0 says that the champion was to answer.
        """
        if table.is_empty() or not self.eras.begun:
            return
        self.failing.answered(table, scores, now)
        at = event_times(table[self.time], "UTC")
        self.silence.answered(at[at <= now + AHEAD], now)
        if self._due and not self._alike(self._due[-1], (table, scores, now)):
            self._fold()
        self._due.append((table, scores, now))
        if sum(rows.height for rows, _, _ in self._due) >= MOST_DUE:
            self._fold()

    def _alike(self, *due: tuple[pl.DataFrame, Floats, int]) -> bool:
        """Whether rows may be folded together: of one cell of time, with the same columns and as many scores."""
        return len({(self.cell(now), tuple(table.schema.items()), scores.shape[1:]) for table, scores, now in due}) == 1

    def refused(self, rows: int, why: str, now: int) -> None:
        """Rows came that do not fit the schema. why: of most."""
        self.silence.refused(now)
        self.failing.refused(rows, why, now)

    def _fold(self) -> None:
        """Folds the rows that are due, all of one cell of time: few at a time would cost a hundred times as much a row."""
        if not self._due:
            return
        due, self._due = self._due, []
        table, now = pl.concat([rows for rows, _, _ in due]), due[-1][2]
        scores = np.concatenate([score for _, score, _ in due])
        at = event_times(table[self.time], "UTC")
        if (ahead := at > now + AHEAD).any():
            self._aside[f"more than {span(AHEAD)} ahead of the clock"] += int(ahead.sum())
            table, scores, at = table.filter(~ahead), scores[~ahead], at[~ahead]
        if not len(at):
            return
        starts = at // self.settings.window * self.settings.window
        for cut in cuts(starts):
            self._scores.setdefault(int(starts[cut[0]]), []).append(scores[cut])
        self.streams.rows(table, scores, at)
        late, timeless = self.eras.fold(table.with_columns(self._answers.columns(scores)), at, now)
        self._aside["too late for its window"] += late
        self._aside["no event time"] += timeless

    def cell(self, now: int) -> tuple[int, int]:
        """Rows that arrive within one cell of time may be folded together: neither a window nor its lateness ends in it."""
        window = self.settings.window
        return now // window, (now - 1 - self.settings.lateness) // window

    def labels(self, truth: Floats, score: Floats, at: Ints, now: int, rows: pl.DataFrame | None = None) -> None:
        """Labelled rows, by event time, but for those that were set aside. rows: what was answered, for the rules of errors."""
        if not (near := at <= now + AHEAD).all():
            truth, score, at, rows = truth[near], score[near], at[near], rows.filter(near) if rows is not None else None
        self.silence.labelled(at, now)
        self._folded += len(truth)
        self.trail.add(truth, score, at)
        own = at >= self._since
        self.streams.labels(truth[own], score[own], at[own])
        if rows is not None:
            self.examples.add(rows, truth, score, at)

    def close(self, now: int) -> tuple[WindowJudged, ...]:
        """Judges the windows that have ended by `now`, and again those that late rows have changed."""
        self._fold()
        with self._threads.held():
            self._check(now)
            judged = [
                self._judge(s.start, s.value, s.revision, now, own=era.plan is self._plan)
                for era, s in self.eras.close(now)
                if s.value is not None
            ]
        if aside := {why: rows for why, rows in self._aside.items() if rows}:
            self._news.append(Event("rows_set_aside", now, {"where": "monitor", "rows": sum(aside.values()), "reasons": aside}))
            self._aside.clear()
        oldest = now - self.settings.window - self.settings.lateness
        self._scores = {s: kept for s, kept in self._scores.items() if s > oldest - self.settings.trailing * self.settings.window}
        self.trail.keep(now - 2 * self.settings.trailing * self.settings.window)
        return tuple(judged)

    def by_clock(self, now: int) -> tuple[Cause, ...]:
        """What is wrong as of now and belongs to no window."""
        return (*self.silence.causes(now), *self.failing.causes())

    def told(self) -> tuple[Event, ...]:
        """What has become known since the last time, beside the windows: an estimate disproved, new contexts, a stream refused."""
        self._fold()
        news, self._news = (*self._news, *self.streams.news()), []
        return news

    # -- what is known -----------------------------------------------------------------------------------------------

    def signals(self, now: int) -> tuple[tuple[str, Verdict], ...]:
        """The ranked evidence of harm: confirmed performance, estimated performance."""
        self._fold()
        return tuple(zip(CONFIRMED, (self.performance(now), self.calibration(now), self.estimate(now)), strict=True))

    def calibration(self, now: int) -> Verdict:
        """Whether scores are right on average, confirmed by labels."""
        if self._task is Task.MULTICLASS:
            return Verdict(Decision.UNDECIDED, "calibration", "judged for one score a row", missing="scores of two classes")
        asked = (now, self._folded)
        if self._calibrated is None or self._calibrated[0] != asked:
            numbers = self._task is Task.REGRESSION
            self._calibrated = (asked, calibration(self.trail, self.settings, now, self._since, numbers=numbers))
        return self._calibrated[1]

    def performance(self, now: int) -> Verdict:
        """Confirmed by labels."""
        asked = (now, self._folded)
        if self._confirmed is None or self._confirmed[0] != asked:
            found = judge(self.trail, self.metric, self._expected, self.settings, now, self._since)
            self._confirmed = (asked, found)
        return self._confirmed[1]

    @property
    def confirmed(self) -> Verdict | None:
        """Confirmed performance as somebody has judged it last; None before."""
        return self._confirmed[1] if self._confirmed is not None else None

    def estimate(self, now: int) -> Verdict:
        """Estimated without labels (CBPE); it assumes calibrated scores and no concept shift, and says so.

        Once labels have disproved it, it says nothing until the next champion.
        """
        subject = "estimated performance"
        if not self._estimable():
            return Verdict(Decision.UNDECIDED, subject, "no estimator for this metric", missing="labels")
        if self.checked.disproved:
            return Verdict(Decision.UNDECIDED, subject, "labels have disproved it", missing="labels, or the next champion")
        first = max(self._since, now - self.settings.trailing * self.settings.window)
        recent = [s for start, batch in self._scores.items() if start >= first for s in batch]
        score = np.concatenate(recent) if recent else np.zeros(0)
        score = score[np.isfinite(score)]
        if len(score) < self.settings.enough:
            return Verdict(Decision.UNDECIDED, subject, f"{len(score):,} answers so far", missing="answers")
        if score.min() < 0 or score.max() > 1:
            return Verdict(Decision.UNDECIDED, subject, "the scores are no probabilities", missing="labels, or scores in [0, 1]")
        found = Cbpe.as_given(self.metric.name).estimate(score)
        return harm(found, self._expected or 0.0, 3 * self.settings.tolerated(self._expected))

    def _estimable(self) -> bool:
        return self._task is Task.BINARY and self.metric.name in BETTER and self._expected is not None

    def weight(self, now: int) -> Weight:
        """Whether a shift matters as of now, by the best evidence there is: labels, then the estimate, unless it was disproved."""
        confirmed = self.performance(now)
        if confirmed.failed:
            return Weight(False, "part", "the alarm about performance is open and blames it")
        if self.calibration(now).failed:
            return Weight(False, "part", "the alarm about calibration is open and blames it")
        if confirmed.passed:
            return Weight(False, "harmless", f"no harm, as labels say: {confirmed.reason}")
        estimated = self.estimate(now)
        if estimated.passed:
            return Weight(False, "harmless", f"no harm, as estimated: {estimated.reason}")
        if estimated.failed:
            return Weight(True, "harm", f"harm is estimated: {estimated.reason}")
        if estimated.missing == "answers":
            return Weight(False, "waiting", f"whether it does harm cannot be told yet: {estimated.reason}")
        return Weight(True, "unknown", f"whether it does harm cannot be told: {confirmed.reason}; {estimated.reason}")

    def broken_spans(self) -> tuple[tuple[int, int], ...]:
        """Event time of all windows in which the feed was broken: never data to learn from."""
        return tuple(self._broken)

    # -- blame -------------------------------------------------------------------------------------------------------

    def explain(self, cause: Cause, window: WindowJudged) -> tuple[Verdict, Mapping[str, Json]]:
        """The verdict of a cause with what is to blame, as text and as data. Cost: some tenths of a second."""
        with self._threads.held():
            blame = self._blame(cause, window)
        told = f"{cause.verdict.reason}; {blame.told}" if blame.told else cause.verdict.reason
        return replace(cause.verdict, reason=told), blame.plain()

    def _blame(self, cause: Cause, window: WindowJudged) -> Blame:
        case = self._case()
        match cause.kind:
            case "feed":
                return case.feed(cause.verdict.evidence[0].about, window.start)
            case "shift":
                moved = [c.cause.removeprefix("shift: ") for c in window.causes if c.kind == "shift"]
                return case.shift([m for m in moved if m != JOINT], self._kind_of(case))
            case "stream" if (on := cause.verdict.evidence[0].about) not in OF_LABELS:
                return case.shift([PREDICTION if on == SCORE else on], self._kind_of(case))
            case _:
                return case.loss(self.shifts.columns, self._kind_of(case))

    def _case(self) -> Case:
        return Case(self.settings, self._plan, self._reference, self.shifts.windows, self.examples)

    def _kind_of(self, case: Case) -> str:
        """Told once a champion, when an alarm first asks and there are rows to tell it from."""
        self._kind = self._kind or case.kind()
        return self._kind

    def blamed(self, trigger: str, reason: str) -> str:
        """The reason of a retraining with what is to blame, where evidence of harm asks for it."""
        told = self._case().loss(self.shifts.columns, self._kind).told if trigger in CONFIRMED and self.eras.begun else ""
        return f"{reason}; {told}" if told else reason

    # -- judging -----------------------------------------------------------------------------------------------------

    def _check(self, now: int) -> None:
        """The estimate against the labels that have come; one that they disprove is told, and used no more."""
        if not self._estimable() or not self.checked.due(self._folded):
            return
        first = max(self._since, now - self.settings.trailing * self.settings.window)
        truth, score, windows = self.trail.since(first)
        sound = np.isfinite(score)  # as `estimate` leaves them out
        truth, score, windows = truth[sound], score[sound], windows[sound]
        if len(truth) < self.settings.enough or score.min() < 0 or score.max() > 1:
            return
        if self.checked.look(Cbpe.as_given(self.metric.name), score, truth, windows // self.settings.block, self._folded):
            assert self.checked.verdict is not None
            self._news.append(Event("estimate_disproved", now, {"verdict": plain(self.checked.verdict)}))

    def _judge(self, start: int, window: Seen, revision: int, now: int, *, own: bool) -> WindowJudged:
        breaks = self.feed.judge(window.profile)
        span = (start, start + self.settings.window)
        self._broken = [s for s in self._broken if s != span] + ([span] if breaks else [])
        causes = [Cause("feed", f"feed: {b.cause}", b.verdict) for b in breaks]
        if not breaks and revision == 0:
            self.feed.learn(window.profile)
        moves = self._moves(start, window, revision, now) if own else Moves({})
        shifts = {name: round(verdict.evidence[0].effect or 0.0, 4) for name, verdict in moves.verdicts.items()}
        causes += [Cause("shift", f"shift: {name}", verdict) for name, verdict in moves.verdicts.items()]
        causes += self.streams.causes() if revision == 0 else ()
        confirmed = self.performance(now)
        if confirmed.failed:
            causes.append(Cause("performance", SUBJECT, confirmed))
        if not self._unjudged and (reason := unjudged(confirmed, self.settings, self._since, now)):
            self._unjudged = True
            self._news.append(Event("guarantee_weakened", now, {"what": "performance", "reason": reason}))
        biased = self.calibration(now)
        if biased.failed:
            causes.append(Cause("calibration", "calibration", biased))
        few = window.profile.rows < FEWEST_ROWS
        fine = f"{window.profile.rows} rows are too few to tell" if few else "as it should be"
        told = "; ".join(c.verdict.reason for c in causes if c.kind != "shift") or fine
        unclear = {
            "feed": few,
            "performance": confirmed.decision is Decision.UNDECIDED,
            "calibration": biased.decision is Decision.UNDECIDED,
        }
        far = f"; moved: {', '.join(f'{n} {s:.2f}' for n, s in shifts.items())}" if shifts else ""
        raised, cleared = (tuple(f"shift: {n}" for n in names) for names in (moves.raised, moves.cleared))
        untold = tuple(kind for kind, yes in unclear.items() if yes)
        return WindowJudged(
            start, span[1], revision, window.profile.rows, tuple(causes), shifts, told + far, raised, cleared, untold
        )

    def _together(self, start: int, window: Seen) -> Verdict | None:
        """All columns at once, where a day of windows (or a longer window) ends."""
        size = stretch(self.settings)
        end = start + self.settings.window
        if end // size == start // size:
            return None
        before = [w.profile.sample for s, w in sorted(self.shifts.windows.items()) if end - size <= s < start]
        return self._joint.check([s for s in (*before, window.profile.sample) if s is not None])

    def _moves(self, start: int, window: Seen, revision: int, now: int) -> Moves:
        joint = None
        if self.settings.joint and not self.settings.context and not revision:
            joint = self._together(start, window)
        moves = self.shifts.judge(start, window, joint, again=revision > 0)
        if moves.unseen and not self._unseen:
            self._unseen = True
            within = ", ".join(self.settings.context)
            told = (
                f"{moves.unseen:.0%} of a window's rows are in contexts ({within}) that the reference never saw: nothing is judged"
            )
            self._news.append(Event("guarantee_weakened", now, {"what": "shift within context", "reason": told}))
        return moves
