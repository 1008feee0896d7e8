"""How often the canary is wrong, by simulation: looked at after every day of labels.

Prints, for equal models and for one worse than the margin, how often each was promoted and rolled back, with 95 % intervals,
beside the naive judge that compares means by a z-test at every look. Run: python benchmarks/verdicts.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from loudly.core.clock import DAY
from loudly.core.seams import Feedback
from loudly.core.values import Arm
from loudly.deliver.canary import Canary
from loudly.deliver.rollout import parse_rollout
from loudly.metrics.table import metric
from loudly.stats.auc import auc_difference

RUNS, DAYS, ROWS, MARGIN = 1000, 14, 400, 0.03
ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))


def day(rng: np.random.Generator, number: int, quality: float) -> Feedback:
    """Labelled rows of one day, scored by both versions."""
    truth = (rng.random(ROWS) < 0.3).astype(float)
    shared = rng.normal(0, 0.8, ROWS)
    control, candidate = (1 / (1 + np.exp(-(d * truth + shared + rng.normal(0, 0.6, ROWS)))) for d in (1.0, quality))
    return Feedback(
        number * DAY, [""] * ROWS, np.zeros(ROWS, dtype=np.int64), truth, {"control": control, "candidate": candidate}, {}, [number]
    )


def ours(rng: np.random.Generator, quality: float) -> str:
    """The canary's verdict."""
    canary = Canary(replace(parse_rollout("canary 10% 50% 100%"), margin=MARGIN), metric("roc_auc"))
    state = canary.init(ARMS, 0)
    for number in range(DAYS):
        state, _ = canary.update(state, day(rng, number, quality))
        state, verdict = canary.advance(state, (number + 1) * DAY)
        if verdict.passed or verdict.failed:
            return "promoted" if verdict.passed else "rolled back"
    return "undecided"


def naive(rng: np.random.Generator, quality: float) -> str:
    """A z-test on the AUC difference of all rows so far, at every look, at 5 %."""
    kept: list[Feedback] = []
    for number in range(DAYS):
        kept.append(day(rng, number, quality))
        columns = (
            np.concatenate([f.truth for f in kept]),
            *(np.concatenate([f.scores[a] for f in kept]) for a in ("candidate", "control")),
        )
        gap, error = auc_difference(*columns)
        if abs(gap) > 1.96 * error:
            return "promoted" if gap > 0 else "rolled back"
    return "undecided"


def rates(judge: Callable[[np.random.Generator, float], str], quality: float) -> str:
    """Shares of the three ends over all runs."""
    ends = [judge(np.random.default_rng(seed), quality) for seed in range(RUNS)]
    told = []
    for end in ("promoted", "rolled back", "undecided"):
        share = ends.count(end) / RUNS
        reach = 1.96 * (share * (1 - share) / RUNS) ** 0.5
        told.append(f"{end} {share:6.1%} ± {reach:4.1%}")
    return "   ".join(told)


if __name__ == "__main__":
    for name, quality in (("equal models", 1.0), ("worse by more than the margin", 0.7)):
        print(name)
        print(f"  canary, confidence sequence      {rates(ours, quality)}")
        print(f"  naive z-test at every look       {rates(naive, quality)}")
