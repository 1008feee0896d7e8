"""Average precision row by row: what a row changes, to first order, given the scores seen before; and verdicts that rest on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from loudly.core.clock import DAY
from loudly.core.seams import Feedback, Floats
from loudly.core.values import Arm, Decision, Task, Verdict
from loudly.deliver.ab import Ab
from loudly.deliver.canary import Canary
from loudly.deliver.rollout import parse_rollout
from loudly.metrics.table import in_traffic, metric
from loudly.stats.placement import BINS, FEWEST, count, precision_values

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))
AP = metric("average_precision")
STEP = 0.01  # of a row: the derivative, and more than rounding


def drawn(rng: np.random.Generator, n: int, share: float, apart: float) -> tuple[Floats, Floats]:
    truth = (rng.random(n) < share).astype(float)
    return truth, 1 / (1 + np.exp(3 - rng.normal(apart * truth, 1)))


def test_a_rollout_asked_for_it_is_judged_by_it() -> None:
    assert in_traffic("average_precision", Task.BINARY) is AP


@pytest.mark.parametrize(("share", "apart"), [(0.3, 1.0), (0.05, 2.5), (0.01, 3.0)])
def test_the_mean_of_the_values_is_the_average_precision_and_their_spread_is_its_error(share: float, apart: float) -> None:
    rng = np.random.default_rng(0)
    seen = count(*drawn(rng, 200_000, share, apart))
    truth, score = drawn(rng, 200_000, share, apart)
    values = precision_values(truth, score, *seen)
    assert values.mean() == pytest.approx(average_precision_score(truth, score), abs=3e-3)
    n = 10_000
    samples = [average_precision_score(*drawn(rng, n, share, apart)) for _ in range(150)]
    assert values.std() / np.sqrt(n) == pytest.approx(np.std(samples), rel=0.15)


@pytest.mark.parametrize("share", [0.3, 0.05])
def test_of_few_rows_seen_the_error_is_small_beside_what_they_themselves_are_off(share: float) -> None:
    """First order: what is left is of the square of what the rows seen are off, and of no sign that two arms do not share."""
    rng = np.random.default_rng(1)
    truth, score = drawn(rng, 20_000, share, 2.0)
    true = average_precision_score(truth, score)
    off, own = [], []
    for _ in range(100):
        before = drawn(rng, int(100 / share), share, 2.0)
        off.append(precision_values(truth, score, *count(*before)).mean() - true)
        own.append(average_precision_score(*before) - true)
    assert abs(np.mean(off)) < 0.012
    assert np.std(off) < 0.4 * np.std(own)


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.6), st.floats(0.0, 3.0))
@settings(max_examples=30, deadline=None)
def test_a_row_more_changes_the_average_precision_as_its_value_says(seed: int, share: float, apart: float) -> None:
    """The derivative: of n rows on the grid, one more moves AP by (value - AP) / n."""
    rng = np.random.default_rng(seed)
    truth, score = drawn(rng, 20_000, share, apart)
    score = np.round(score, 2)
    negatives, positives = count(truth, score)
    own = average_precision_score(truth, score)
    for kind in (0.0, 1.0):
        of = np.flatnonzero(truth == kind)[:3]
        values = precision_values(truth[of], score[of], negatives, positives)
        for place, value in zip(of, values, strict=True):
            weight = np.ones(len(truth))
            weight[place] += STEP
            moved = average_precision_score(truth, score, sample_weight=weight) - own
            assert moved == pytest.approx(STEP * (value - own) / len(truth), rel=0.01, abs=1e-9)


def test_too_few_of_a_class_and_scores_beyond_all_that_were_seen() -> None:
    rng = np.random.default_rng(2)
    truth, score = drawn(rng, 2000, 0.2, 2.0)
    nothing = np.zeros(BINS, dtype=np.int64)
    few = nothing.copy()
    few[100] = FEWEST - 1
    negatives, positives = count(truth, score)
    assert np.isnan(precision_values(truth, score, nothing, positives)).all()
    assert np.isnan(precision_values(truth, score, negatives, few)).all()
    beyond = precision_values(np.array([1.0, 0.0]), np.array([50.0, 50.0]), negatives, positives)
    assert np.isfinite(beyond).all()
    assert beyond[0] >= precision_values(np.array([1.0]), np.array([score.max()]), negatives, positives)[0] - 1e-9
    assert beyond[1] <= precision_values(np.array([0.0]), np.array([0.1]), negatives, positives)[0]
    assert beyond[0] > beyond[1]


def verdict(seed: int, apart: float, margin: float, days: int, *, arms_apart: bool = False, judged: str = AP.name) -> Verdict:
    """The first verdict that decides; control's scores lie 2.5 apart, of one row in ten."""
    rng = np.random.default_rng(seed)
    text = "ab 50% for 60d" if arms_apart else "canary 10% 100%"
    strategy: Any = (Ab if arms_apart else Canary)(parse_rollout(text, margin=margin), metric(judged))
    state, found = strategy.init(ARMS, 0), Verdict(Decision.UNDECIDED, "", "")
    for day in range(days):
        truth, score = drawn(rng, 2000, 0.1, 2.5)
        scores = {"control": score, "candidate": 1 / (1 + np.exp(3 - rng.normal(apart * truth, 1)))}
        arm = rng.integers(0, 2, 2000) if arms_apart else np.zeros(2000, dtype=np.int64)
        if arms_apart:
            scores = {name: np.where(arm == i, s, np.nan) for i, (name, s) in enumerate(scores.items())}
        units = [f"{day}-{i}" for i in range(2000)]
        state, _ = strategy.update(state, Feedback(day * DAY, units, arm, truth, scores, {}, [day]))
        state, found = strategy.advance(state, (day + 1) * DAY)
        if found.decision is not Decision.UNDECIDED:
            break
    return found


def test_who_is_worse_by_the_margin_is_seldom_promoted_and_by_the_auc_he_always_was() -> None:
    """2.1 apart for 2.5: .10 of average precision, and .03 of AUC."""
    rng = np.random.default_rng(3)
    lost = [average_precision_score(*drawn(rng, 400_000, 0.1, apart)) for apart in (2.5, 2.1)]
    margin = lost[0] - lost[1]
    assert margin == pytest.approx(0.11, abs=0.02)
    worse = [verdict(seed, 2.1, margin, 15) for seed in range(40)]
    assert sum(v.passed for v in worse) <= 4, "5 % are allowed: 2 of 40"
    assert sum(v.failed for v in worse) >= 35
    assert worse[0].evidence[0].unit == "average_precision"
    equal = [verdict(seed, 2.5, margin, 15) for seed in range(40)]
    assert sum(v.failed for v in equal) <= 4
    assert sum(v.passed for v in equal) >= 35
    assert all(verdict(seed, 2.1, margin, 15, judged="roc_auc").passed for seed in range(5))


def test_of_two_arms_that_answer_rows_of_their_own_too() -> None:
    worse = [verdict(seed, 1.5, 0.1, 20, arms_apart=True) for seed in range(12)]
    assert not any(v.passed for v in worse)
    assert sum(v.failed for v in worse) >= 10
    assert not any(verdict(seed, 2.5, 0.1, 20, arms_apart=True).failed for seed in range(12))
