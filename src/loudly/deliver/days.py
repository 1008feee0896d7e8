"""Days of labelled rows: within a day candidate and control are compared, on the same rows or on each one's own.

Rows of one day are not independent (weather, an outage, a campaign), so days are the units of the final word on a slice, and where
days differ by more than their rows explain the interval on all rows is wider (`apart`). An AUC of a slice is that of its own
positives among its own negatives: a level that shifts for the whole slice is no harm.

Source: Cochran 1954 (Q); Birge 1932; Knapp & Hartung 2003, modified as in Röver, Knapp & Friede
2015 (never narrower; t with as many degrees of freedom as there are days, less one).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from loudly.core.clock import DAY
from loudly.core.seams import Feedback, Floats, Ints
from loudly.deliver.latency import CANDIDATE, CONTROL
from loudly.errors import DataError
from loudly.stats.auc import auc, auc_difference
from loudly.stats.confidence_sequence import radius

FEWEST = 10
BEST_AT = 600
# Days are taken to differ where chance would so seldom make them as different as they are: no test loses power where they do not.
HETEROGENEOUS = 0.02


@dataclass(frozen=True, slots=True)
class DayGap:
    """Candidate minus control on one day's rows: gap, its standard error, weight (pairs or rows) and rows."""

    gap: float
    error: float
    weight: float
    rows: int


def day_of(feedback: Feedback) -> Ints:
    """(n,) the event-time day of each row. Raises: DataError for days that are neither one for all nor one a row."""
    given, n = np.asarray(feedback.days if len(feedback.days) else [feedback.at // DAY], dtype=np.int64), len(feedback.truth)
    if len(given) not in (1, n):
        raise DataError("Days of labelled rows are neither one for all nor one a row.", seen=f"{len(given)} days of {n} rows")
    return np.broadcast_to(given, (n,))


def day_gap(rows: Mapping[str, Any], inside: Any, ranks: bool) -> DayGap | None:
    """The gap on some of a day's rows; None where they are too few or of one class."""
    truth = np.asarray(rows["truth"])[inside]
    control, candidate = (np.asarray(rows[arm], dtype=np.float64)[inside] for arm in (CONTROL, CANDIDATE))
    if np.isnan(control).any() or np.isnan(candidate).any():
        return _own_rows(truth, (control, candidate), ranks)
    if len(truth) < FEWEST:
        return None
    if not ranks:
        gains = candidate - control
        return DayGap(float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains))), float(len(gains)), len(gains))
    m = int((truth > 0.5).sum())
    if m < 2 or len(truth) - m < 2:
        return None
    gap, error, _ = auc_difference(truth, candidate, control)
    return DayGap(gap, error, m * (len(truth) - m) / len(truth), len(truth))


def _own_rows(truth: Floats, arms: tuple[Floats, Floats], ranks: bool) -> DayGap | None:
    """The gap where each arm has rows of its own; None where one has too few."""
    told: list[tuple[float, float, float, int]] = []
    for value in arms:
        mine = np.isfinite(value)
        n, m = int(mine.sum()), int((truth[mine] > 0.5).sum())
        if n < FEWEST or (ranks and min(m, n - m) < 2):
            return None
        area = auc(truth[mine], value[mine]) if ranks else None
        mean, error = (area.value, area.error) if area else (float(value[mine].mean()), float(value[mine].std(ddof=1) / np.sqrt(n)))
        told.append((mean, error, m * (n - m) / n if ranks else float(n), n))
    (before, error, weight, n), (after, other, more, k) = told
    return DayGap(after - before, float(np.hypot(error, other)), weight * more / (weight + more), n + k)


def one_day(groups: Sequence[DayGap]) -> DayGap:
    """A day of which labels came in several groups, pooled by their weights.

    >>> one_day([DayGap(0.1, 0.03, 100.0, 100), DayGap(0.2, 0.04, 300.0, 300)])
    DayGap(gap=0.175, error=0.0309..., weight=400.0, rows=400)
    """
    if len(groups) == 1:
        return groups[0]
    weight = sum(group.weight for group in groups)
    gap = sum(group.weight * group.gap for group in groups) / weight
    error = float(np.sqrt(sum((group.weight * group.error) ** 2 for group in groups))) / weight
    return DayGap(gap, error, weight, sum(group.rows for group in groups))


def with_day(found: Mapping[str, Any] | None, day: DayGap) -> dict[str, Any]:
    """A slice's pooled gap with a day more."""
    old = found or {"rows": 0, "weight": 0.0, "sum": 0.0, "squares": 0.0, "variance": 0.0, "batches": []}
    return {
        "rows": old["rows"] + day.rows,
        "weight": old["weight"] + day.weight,
        "sum": old["sum"] + day.weight * day.gap,
        "squares": old["squares"] + day.weight * day.gap**2,
        "variance": old["variance"] + (day.weight * day.error) ** 2,
        "batches": [*old["batches"], day.gap],
    }


def standard_error(found: Mapping[str, Any]) -> float:
    """Of the pooled gap, at one look."""
    return float(np.sqrt(found["variance"])) / float(found["weight"])


def apart(found: Mapping[str, Any] | None, design: float, alpha: float, reach: float) -> float:
    """By what factor an interval over rows is too narrow where days differ by more than their rows explain; 1 where they do not.

    design: how many rows are worth one, since rows of one unit are not independent either.  reach: as of `cochran`.

    >>> days = [DayGap(gap, 0.01, 300.0, 300) for gap in (0.05, -0.04, 0.06, -0.02)]
    >>> found = None
    >>> for day in days:
    ...     found = with_day(found, day)
    >>> round(apart(found, 1.0, 0.05, 1.0), 1)
    8.1
    """
    days, q = cochran(found, reach)
    q /= design
    if days < 2 or scipy.special.chdtrc(days - 1, q) > HETEROGENEOUS:
        return 1.0
    return float(np.sqrt(q / (days - 1)) * scipy.special.stdtrit(days - 1, 1 - alpha / 2) / scipy.special.ndtri(1 - alpha / 2))


def cochran(found: Mapping[str, Any] | None, reach: float) -> tuple[int, float]:
    """Days, and Q: how far they lie from their mean, as rows explain it; about days - 1 where nothing else does.

    reach: how far a row may lie from the mean. Where all rows of each day say the same, two such rows more are their spread, or
    days without any would be alike whatever they say.
    """
    variance = (found["variance"] or 2 * reach**2) if found is not None else 0.0
    if found is None or not variance:
        return 0, 0.0
    far = max(0.0, found["squares"] - found["sum"] ** 2 / found["weight"])
    return len(found["batches"]), far * found["weight"] / variance


def pooled(found: Mapping[str, Any], alpha: float) -> tuple[float, float, float]:
    """Days pooled by weight: gap and its bounds, valid at every look."""
    effect, error = found["sum"] / found["weight"], standard_error(found)
    reach = radius(found["rows"], error * float(np.sqrt(found["rows"])), alpha, BEST_AT)
    return effect, effect - reach, effect + reach
