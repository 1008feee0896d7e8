"""Which rates a ratio is followed by row by row: those of before the rollout, and what control shows in it.

The effect is the difference of the two ratios over all rows; what each row is worth tells the spread alone. A class may come more
or less often than in the training, and weights of then would make the spread small. So rows are weighted by what control shows in
the rollout, with their batch; until it shows 30 rows of each class (for precision: says so of 30), those of before count, too, as
if they were 30 more of the rarest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from loudly.core.seams import Feedback
from loudly.deliver.latency import CANDIDATE, CONTROL
from loudly.metrics.table import MetricSpec, Rate, by_rows, decided, ratio_of, value_of
from loudly.shift.estimate.labelled import sound

# Rows of the rarest class that the rates of before count as; and those without which nothing is judged.
FEWEST_OF_CLASS = 30
Counts = Sequence[Sequence[int]]


def nothing_counted() -> dict[str, list[list[int]]]:
    """Of each arm, for each class: how many came, were said to be of it, and both."""
    return {CONTROL: [], CANDIDATE: []}


def counted(seen: Mapping[str, Counts], feedback: Feedback, classes: int, paired: bool) -> dict[str, list[list[int]]]:
    """With a batch more: all rows that both arms have scored, or, unpaired, of each those that it has answered and scored."""
    known, out = {arm: sound(score) for arm, score in feedback.scores.items()}, {}
    for index, arm in enumerate((CONTROL, CANDIDATE)):
        rows = known[CONTROL] & known[CANDIDATE] if paired else known[arm] & (feedback.arm == index)
        truth, said = feedback.truth[rows].astype(np.int64), decided(feedback.scores[arm][rows]).astype(np.int64)
        found = (np.bincount(of, minlength=classes) for of in (truth, said, truth[truth == said]))
        fresh = np.stack(tuple(found), axis=1)
        out[arm] = (fresh + np.asarray(seen[arm] or np.zeros_like(fresh))).tolist()
    return out


def rated(metric: MetricSpec, seen: Mapping[str, Counts]) -> MetricSpec:
    """The metric by the rates of now; itself where it has none."""
    if not metric.rates or not seen[CONTROL]:
        return metric
    few = min(said if metric.name == "precision" else came for came, said, _ in seen[CONTROL]) < FEWEST_OF_CLASS
    before = FEWEST_OF_CLASS / min(share for share, _, _ in metric.rates) if few else 0.0
    rows = before + sum(came for came, _, _ in seen[CONTROL])
    now = (_mixed(metric.name, rate, before, of, rows) for rate, of in zip(metric.rates, seen[CONTROL], strict=True))
    return by_rows(metric.name, tuple(now))


def gap_counted(metric: MetricSpec, seen: Mapping[str, Counts]) -> float:
    """How much better the candidate is than control over all rows counted."""
    counts = ([np.array([of], dtype=np.float64) for of in zip(*seen[arm], strict=True)] for arm in (CONTROL, CANDIDATE))
    control, candidate = (float(ratio_of(metric.name, *each, several=len(metric.rates) > 2)[0]) for each in counts)
    return candidate - control


def rarest(seen: Mapping[str, Counts]) -> int:
    """Labels of the class of which there are least, in the arm that has least of it."""
    return min((came for of in seen.values() for came, _, _ in of), default=0)


def _mixed(name: str, rate: Rate, before: float, of: Sequence[int], rows: float) -> Rate:
    share, said, value = rate
    both = value * {"f1": (share + said) / 2, "precision": said}.get(name, share)
    came, told, found = (before * old + new for old, new in zip((share, said, both), of, strict=True))
    return came / rows, told / rows, float(value_of(name, came, told, found))
