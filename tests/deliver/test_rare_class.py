"""An AUC of a handful of positives is none: equal or worse, such a rollout waits for labels of the rarer class, and says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from loudly.core.clock import DAY
from loudly.core.seams import Feedback
from loudly.core.values import Arm, Decision, Verdict
from loudly.deliver.ab import Ab
from loudly.deliver.canary import Canary
from loudly.deliver.rollout import parse_rollout
from loudly.metrics.table import metric

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))
PER_DAY, MARGIN = 400, 0.05
JUDGES = {
    "canary": Canary(parse_rollout("canary 5% 100%", margin=MARGIN), metric("roc_auc")),
    "ab": Ab(parse_rollout("ab 50% for 30d", margin=MARGIN), metric("roc_auc")),
}


def days(judge: Any, positives: int, worse: float, seed: int, last: int = 10) -> list[Verdict]:
    """The verdict after each day with so many positives, the first that decides being the last. worse: by how much AUC."""
    rng, state, told = np.random.default_rng(seed), judge.init(ARMS, 0), list[Verdict]()
    truth = (np.arange(PER_DAY) < positives) * 1.0
    for day in range(last):
        shared = rng.normal(size=PER_DAY)
        z = {name: 0.9 * shared + 0.44 * rng.normal(size=PER_DAY) for name in ("control", "candidate")}
        gap = {"control": 2**0.5 * ndtri(0.8), "candidate": 2**0.5 * ndtri(0.8 - worse)}
        scores = {name: ndtr(z[name] + gap[name] * truth - 1) for name in z}
        arm = (rng.random(PER_DAY) < 0.5).astype(np.int64)
        units = [f"u{day}-{i}" for i in range(PER_DAY)]
        state, _ = judge.update(state, Feedback(day * DAY, units, arm, truth, scores, {}, [day]))
        state, found = judge.advance(state, (day + 1) * DAY)
        told.append(found)
        if found.decision is not Decision.UNDECIDED:
            break
    return told


@pytest.mark.parametrize("kind", JUDGES)
def test_a_worse_model_is_not_promoted_on_a_handful_of_positives(kind: str) -> None:
    """By the interval alone a third of them is, at one positive in a thousand."""
    ends = [days(JUDGES[kind], rare, MARGIN, seed)[-1] for rare in (0, 1) for seed in range(15)]
    assert all(found.decision is Decision.UNDECIDED for found in ends)
    assert all("more labels of the rarer class" in (found.missing or "") for found in ends)


def test_it_is_told_how_many_are_wanting_and_when_they_are_likely_to_be_there() -> None:
    told = days(JUDGES["canary"], 5, 0.0, 0)
    assert "10 more labels of the rarer class" in (told[3].missing or "")
    assert told[3].expected_at == pytest.approx(5.7 * DAY, abs=DAY)
    assert all("rarer class" not in found.reason for found in told[5:])


def test_a_class_that_has_not_come_at_all_is_not_foretold() -> None:
    found = days(JUDGES["canary"], 0, 0.0, 0, last=3)[-1]
    assert "30 more labels of the rarer class" in (found.missing or "")
    assert found.expected_at is None
