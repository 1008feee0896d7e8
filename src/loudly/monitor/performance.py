"""Confirmed performance: what the champion's answers were worth, once labels have come, against what was expected.

The look-back moves and one looks every window, so the bound is that of a confidence sequence, not of a single look.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from loudly.core.canon import finite
from loudly.core.clock import span
from loudly.core.seams import Floats, Ints
from loudly.core.values import Decision, Evidence, Task, Verdict
from loudly.metrics.table import FEWEST_OF_A_CLASS, OF_SEVERAL, MetricSpec
from loudly.monitor.settings import MonitorSettings
from loudly.shift.estimate.labelled import sound
from loudly.stats.auc import auc
from loudly.stats.confidence_sequence import radius

SUBJECT = "performance"
SO_FAR = "labelled rows so far, of windows that began under this champion"
BIAS_ERRORS = 2.0
FEWEST_WINDOWS = 3


@dataclass(slots=True)
class Trail:
    """Labelled rows by window of event time: what was answered and what was true."""

    window: int
    rows: dict[int, list[tuple[Floats, Floats]]] = field(default_factory=dict)

    def add(self, truth: Floats, score: Floats, at: Ints) -> None:
        """Labelled rows. Shapes: (n,), (n,) or (n, k), (n,) event time."""
        starts = at // self.window * self.window
        for start in np.unique(starts).tolist():
            inside = starts == start
            self.rows.setdefault(int(start), []).append((truth[inside], score[inside]))

    def keep(self, since: int) -> None:
        """Forgets windows before `since`."""
        self.rows = {start: batch for start, batch in self.rows.items() if start >= since}

    def since(self, start: int) -> tuple[Floats, Floats, Ints]:
        """Truth, score and window of all rows from `start` on."""
        found = [(t, s, np.full(len(t), w)) for w, batches in self.rows.items() if w >= start for t, s in batches]
        if not found:
            return np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)
        truth, score, windows = zip(*found, strict=True)
        return np.concatenate(truth), np.concatenate(score), np.concatenate(windows)


def calibration(trail: Trail, settings: MonitorSettings, now: int, since: int, *, numbers: bool = False) -> Verdict:
    """Whether scores are right on average over the trailing windows: |mean label - mean score| against `bias`.

    numbers: of a regression, whose gap is told in standard deviations of the label.
    """
    truth, score, windows = _trailing(trail, settings, now, since)
    if len(truth) < settings.enough or score.ndim != 1:
        missing = f"{settings.enough - len(truth):,} more labelled rows" if score.ndim == 1 else "scores of two classes"
        return Verdict(Decision.UNDECIDED, "calibration", f"{len(truth):,} {SO_FAR}", missing=missing)
    told, days = f"{len(truth):,} labelled rows", len(np.unique(windows))
    if days < FEWEST_WINDOWS:
        missing = f"labelled rows of at least {FEWEST_WINDOWS} windows"
        return Verdict(Decision.UNDECIDED, "calibration", f"{told} of {days} windows", missing=missing)
    if numbers and np.ptp(truth) == 0:
        return Verdict(Decision.UNDECIDED, "calibration", f"{told}, all of one value", missing="labels that differ")
    unit = float(truth.std()) if numbers else 1.0
    found = _bias(truth / unit, score / unit, windows, settings.bias)
    told = f"labels average {truth.mean():.3f}, scores {score.mean():.3f} over {len(truth):,} rows"
    gap, low = found.effect, found.low
    if gap is None or low is None or low <= settings.bias < gap:
        reason = f"{told}: further apart than is tolerated, and the windows differ too much to be sure"
        return Verdict(Decision.UNDECIDED, "calibration", reason, (found,), missing="labelled rows of more windows")
    return Verdict(Decision.FAIL if low > settings.bias else Decision.PASS, "calibration", told, (found,))


def _trailing(trail: Trail, settings: MonitorSettings, now: int, since: int) -> tuple[Floats, Floats, Ints]:
    first = max(since, now - settings.trailing * settings.window)
    truth, score, windows = trail.since(first)
    told = sound(score)
    return truth[told], score[told], windows[told]


def judge(trail: Trail, metric: MetricSpec, expected: float | None, settings: MonitorSettings, now: int, since: int) -> Verdict:
    """The trailing windows (from `since` on, when the champion came) against what the gate led to expect.

    PASS says that no harm is seen: further below than is tolerated, and not surely, is neither that nor harm.
    """
    truth, score, _windows = _trailing(trail, settings, now, since)
    if len(truth) < settings.enough or expected is None:
        lacking = f"{settings.enough - len(truth):,} more labelled rows" if expected is not None else "an expectation"
        return Verdict(Decision.UNDECIDED, SUBJECT, f"{len(truth):,} {SO_FAR}", missing=lacking)
    if lacking := _lacking(metric, truth, score):
        return Verdict(Decision.UNDECIDED, SUBJECT, f"{len(truth):,} labelled rows cannot tell", missing=lacking)
    found = measured(metric, truth, score, settings.alpha)
    value = found.effect
    if value is None or found.low is None or found.high is None:
        missing = "rows of every class, whose errors can be summed"
        return Verdict(Decision.UNDECIDED, SUBJECT, "the labelled rows cannot tell", (found,), missing=missing)
    best = found.high if metric.better > 0 else found.low
    told = f"{metric.name} {value:.4f} [{found.low:.4f}, {found.high:.4f}] over {len(truth):,} rows, expected {expected:.4f}"
    tolerance = settings.tolerated(expected)
    if metric.better * (best - expected) < -tolerance:
        return Verdict(Decision.FAIL, SUBJECT, f"surely below what was expected: {told}", (found,))
    if metric.better * (value - expected) < -tolerance:
        reason = f"further below what was expected than is tolerated, and not surely: {told}"
        return Verdict(Decision.UNDECIDED, SUBJECT, reason, (found,), missing="more labelled rows")
    return Verdict(Decision.PASS, SUBJECT, told, (found,))


def unjudged(found: Verdict, settings: MonitorSettings, since: int, now: int) -> str:
    """What is said LOUD where the labelled rows are too few twice the trailing windows after the champion came; else nothing."""
    patience = 2 * settings.trailing * settings.window
    if not found.reason.endswith(SO_FAR) or now - since < patience:
        return ""
    told = f"it is not judged by its labels, and has not been for {span(now - since)}: in the trailing {settings.trailing} windows"
    return f"{told} there are {found.reason}, and enough={settings.enough:,} are asked for; ask for fewer, or for more windows"


def _lacking(metric: MetricSpec, truth: Floats, score: Floats) -> str:
    """What labelled rows have too little of for this metric: all of some few positives missed leave no doubt in an interval."""
    if metric.name not in OF_SEVERAL or score.ndim != 1:
        return ""
    if Task.REGRESSION in metric.tasks:
        return "" if np.ptp(truth) > 0 else "labels that differ"
    few = min(np.count_nonzero(truth > 0.5), np.count_nonzero(truth <= 0.5))
    return "" if few >= FEWEST_OF_A_CLASS else f"at least {FEWEST_OF_A_CLASS} labelled rows of each class; of one there are {few}"


def measured(metric: MetricSpec, truth: Floats, score: Floats, alpha: float) -> Evidence:
    """The metric with an interval that may be looked at every window."""
    n = len(truth)
    if metric.name == "roc_auc" and score.ndim == 1:
        found = auc(truth, score)
        value, error = found.value, found.error
    elif metric.loss is not None:
        value, error = metric(truth, score), float(metric.loss(truth, score).std(ddof=1) / np.sqrt(n))
    else:
        value, error = metric(truth, score), _bootstrap_error(metric, truth, score)
    reach = radius(n, error * float(np.sqrt(n)), alpha, best_at=n)
    return Evidence(
        "trailing windows, confidence sequence", finite(value), finite(value - reach), finite(value + reach), n, SUBJECT,
        metric.name, 1 - alpha,
    )  # fmt: skip


def _bias(truth: Floats, score: Floats, windows: Ints, tolerance: float) -> Evidence:
    """|mean label - mean score|, with windows as clusters: rows of one day go wrong together."""
    gaps = np.array([float((truth[windows == w] - score[windows == w]).mean()) for w in np.unique(windows)])
    gap = float((truth - score).mean())
    error = float(gaps.std(ddof=1) / np.sqrt(len(gaps)))
    low = max(0.0, abs(gap) - BIAS_ERRORS * error)
    return Evidence(
        "bias, clustered by window", finite(abs(gap)), finite(low), finite(abs(gap) + BIAS_ERRORS * error), len(truth), "bias",
        tolerance=tolerance,
    )  # fmt: skip


def _bootstrap_error(metric: MetricSpec, truth: Floats, score: Floats) -> float:
    rng, n = np.random.default_rng(0), len(truth)
    drawn = [metric(truth[rows], score[rows]) for rows in (rng.integers(0, n, n) for _ in range(50))]
    return float(np.nanstd(drawn, ddof=1))
