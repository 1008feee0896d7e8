"""Labelled rows by day of arrival: within a day candidate and control are compared on the same rows, within each slice.

Rows of one day are not independent (weather, an outage, a campaign), so days are the units of the final word on a slice. An
AUC of a slice is that of its own positives among its own negatives: a level that shifts for the whole slice is no harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from loudly.core.clock import DAY
from loudly.core.seams import Feedback, Floats
from loudly.stats.auc import auc_difference
from loudly.stats.confidence_sequence import radius

CONTROL, CANDIDATE = "control", "candidate"
FEWEST = 10
BEST_AT = 600


@dataclass(frozen=True, slots=True)
class DayGap:
    """Candidate minus control on one day's rows: gap, its standard error, weight (pairs or rows) and rows."""

    gap: float
    error: float
    weight: float
    rows: int


def today_with(today: Mapping[str, Any], feedback: Feedback, scores: Mapping[str, Floats], known: Any) -> dict[str, Any]:
    """The day under way with a batch more. `scores`: what is compared, by arm; `known`: (n,) rows both have scored."""
    before = len(today["truth"])
    slices = {name: [*inside] for name, inside in today["slices"].items()}
    for name, inside in feedback.slices.items():
        slices[name] = [*slices.get(name, [False] * before), *inside[known].tolist()]
    rows = before + int(known.sum())
    return {
        "day": feedback.at // DAY if today["day"] is None else today["day"],
        "truth": [*today["truth"], *feedback.truth[known].tolist()],
        CONTROL: [*today[CONTROL], *scores[CONTROL][known].tolist()],
        CANDIDATE: [*today[CANDIDATE], *scores[CANDIDATE][known].tolist()],
        "slices": {name: inside + [False] * (rows - len(inside)) for name, inside in slices.items()},
    }


def day_gap(today: Mapping[str, Any], inside: Any, ranks: bool) -> DayGap | None:
    """The gap on some of a day's rows; None where they are too few or of one class."""
    truth = np.asarray(today["truth"])[inside]
    control, candidate = np.asarray(today[CONTROL])[inside], np.asarray(today[CANDIDATE])[inside]
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


def with_day(found: Mapping[str, Any] | None, day: DayGap) -> dict[str, Any]:
    """A slice's pooled gap with a day more."""
    old = found or {"rows": 0, "weight": 0.0, "sum": 0.0, "variance": 0.0, "batches": []}
    return {
        "rows": old["rows"] + day.rows,
        "weight": old["weight"] + day.weight,
        "sum": old["sum"] + day.weight * day.gap,
        "variance": old["variance"] + (day.weight * day.error) ** 2,
        "batches": [*old["batches"], day.gap],
    }


def standard_error(found: Mapping[str, Any]) -> float:
    """Of the pooled gap, at one look."""
    return float(np.sqrt(found["variance"])) / float(found["weight"])


def pooled(found: Mapping[str, Any], alpha: float) -> tuple[float, float, float]:
    """Days pooled by weight: gap and its bounds, valid at every look."""
    effect, error = found["sum"] / found["weight"], standard_error(found)
    reach = radius(found["rows"], error * float(np.sqrt(found["rows"])), alpha, BEST_AT)
    return effect, effect - reach, effect + reach
