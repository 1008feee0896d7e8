"""What a labelled row is worth: values whose mean is the metric, oriented so that + is better.

Minus the loss where the metric is a mean of losses; placements for an AUC; for average precision its first-order change with a row,
against the scores seen before. NaN without a score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loudly.core.seams import Feedback, Floats
from loudly.deliver.latency import CANDIDATE, CONTROL
from loudly.metrics.table import MetricSpec
from loudly.shift.estimate.labelled import sound
from loudly.stats.placement import count, placements, precision_values

# A loss whose square is no number any more counts as this one: it is a loss, not a row that nobody has scored.
WORST = 1e145


def ranks(metric: MetricSpec) -> bool:
    """Whether its rows are placed, positives among negatives and these among them."""
    return metric.name == "roc_auc"


def by_scores_seen(metric: MetricSpec) -> bool:
    """Whether a row is judged against the scores seen before it."""
    return metric.name in ("roc_auc", "average_precision")


def values_of(evidence: Mapping[str, Any], feedback: Feedback, arm: str, metric: MetricSpec) -> Floats:
    """(n,) of an arm. Raises: ValueError for a metric that is no mean over rows.

    A decision is no number that could be missing: half of no score is class 0 to who compares, so it is asked of the scores.
    """
    score = feedback.scores[arm]
    known = sound(score)
    if by_scores_seen(metric):
        seen, safe = evidence["seen"][arm], np.where(known, score, 0.0)
        place = placements if ranks(metric) else precision_values
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


def with_seen(seen: Mapping[str, Any], feedback: Feedback, arm: str) -> dict[str, list[int]]:
    """The scores of each class that an arm has given, with a batch more."""
    score = feedback.scores[arm]
    known = np.isfinite(score)
    negatives, positives = count(feedback.truth[known], score[known])
    return {
        "negatives": (np.asarray(seen["negatives"]) + negatives).tolist(),
        "positives": (np.asarray(seen["positives"]) + positives).tolist(),
    }
