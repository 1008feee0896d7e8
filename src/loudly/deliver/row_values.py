"""What a labelled row is worth, oriented so that + is better: the mean is the metric, or the spread is that of the metric.

Minus the loss where the metric is a mean of losses; by AUC a row's placement among those seen, by average precision its first-order
change with the row: these tell the spread, and the value is that over all rows seen (`gap_seen`). NaN without a score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loudly.core.seams import Feedback, Floats
from loudly.deliver.latency import CANDIDATE, CONTROL
from loudly.metrics.table import RANKED, MetricSpec
from loudly.shift.estimate.labelled import sound
from loudly.stats.placement import FEWEST, area_of, average_precision_of, count, placements, precision_values

# A loss whose square is no number any more counts as this one: it is a loss, not a row that nobody has scored.
WORST = 1e145


def ranks(metric: MetricSpec) -> bool:
    """Whether its rows are placed, positives among negatives and these among them."""
    return metric.name == "roc_auc"


def by_scores_seen(metric: MetricSpec) -> bool:
    """Whether a row is judged among the scores seen."""
    return metric.name in RANKED


def values_of(feedback: Feedback, arm: str, metric: MetricSpec, before: Mapping[str, Any], now: Mapping[str, Any]) -> Floats:
    """(n,) of an arm, of which these scores had been seen before the batch, and are with it. Raises: ValueError for a metric that
    is no mean over rows.

    A decision is no number that could be missing: half of no score is class 0 to who compares, so it is asked of the scores.
    """
    score = feedback.scores[arm]
    known = sound(score)
    if by_scores_seen(metric):
        safe = np.where(known, score, 0.0)
        place, few = (placements, True) if ranks(metric) else (precision_values, min(map(sum, before.values())) < FEWEST)
        seen = now if few else before
        placed = place(feedback.truth, safe, np.asarray(seen["negatives"]), np.asarray(seen["positives"]))
        return np.where(known, placed, np.nan)
    if metric.loss is None:
        raise ValueError(metric.name)
    with np.errstate(over="ignore"):
        losses = metric.loss(feedback.truth, score)
    return np.where(known, -np.minimum(losses, WORST), np.nan)


def judged(feedback: Feedback, paired: bool) -> NDArray[np.bool_]:
    """(n,) which rows can be judged: both versions have scored them, or the one that answered."""
    control, candidate = (sound(feedback.scores[arm]) for arm in (CONTROL, CANDIDATE))
    return control & candidate if paired else np.where(feedback.arm == 1, candidate, control)


def with_seen(seen: Mapping[str, Any], feedback: Feedback, paired: bool) -> dict[str, Any]:
    """The scores of each class that each arm has given, with a batch more: of the rows that both are judged on, or of its own."""
    known, out = judged(feedback, paired), {}
    for index, arm in enumerate((CONTROL, CANDIDATE)):
        rows = known if paired else known & (feedback.arm == index)
        negatives, positives = count(feedback.truth[rows], feedback.scores[arm][rows])
        out[arm] = {
            "negatives": (np.asarray(seen[arm]["negatives"]) + negatives).tolist(),
            "positives": (np.asarray(seen[arm]["positives"]) + positives).tolist(),
        }
    return out


def gap_seen(metric: MetricSpec, seen: Mapping[str, Any]) -> float:
    """How much better the candidate is than control over all rows seen, by a metric that judges a row by the others.

    Not the mean of what rows are worth: the first ones are held against few others, and what these few happen to be is no part of
    the spread over rows. A few labels that come first would judge the thousands that come later, at once.
    """
    value = area_of if ranks(metric) else average_precision_of
    control, candidate = (value(*(np.asarray(seen[arm][of]) for of in ("negatives", "positives"))) for arm in (CONTROL, CANDIDATE))
    return candidate - control
