"""Days that differ by more than their rows explain: the interval is wider, and where they do not it is as it was.

A candidate is better on some days and worse on others (weather, a campaign, an outage). Rows of a day share that, so that many
rows of few days look surer than they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, chi2, norm, t

from loudly.core.clock import DAY
from loudly.core.seams import Feedback
from loudly.core.values import Arm, Verdict
from loudly.deliver.ab import Ab
from loudly.deliver.canary import Canary
from loudly.deliver.days import HETEROGENEOUS, DayGap, apart, with_day
from loudly.deliver.rollout import parse_rollout
from loudly.metrics.table import metric

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))
MARGIN, ALPHA = 0.02, 0.05
SAME = "days differ by more than their rows"


def canary() -> Canary:
    return Canary(parse_rollout("canary 10% 100%", margin=MARGIN, alpha=ALPHA), metric("accuracy"))


def labels(rng: np.random.Generator, day: int, rows: int, worse: float) -> Feedback:
    """A day on which the candidate is wrong so much more often than control, which errs in one of five."""
    control, draw = rng.random(rows) < 0.2, rng.random(rows)
    candidate = np.where(control, draw >= 0.15 + max(0.0, -worse) / 0.2, draw < 0.0375 + max(0.0, worse) / 0.8)
    scores = {arm.name: wrong.astype(float) for arm, wrong in zip(ARMS, (control, candidate), strict=True)}
    return Feedback(day * DAY, [f"{day}-{i}" for i in range(rows)], np.arange(rows) % 2, np.zeros(rows), scores, {}, [day])


def ended(made: Any, seed: int, rows: int, worse: float, spread: float, days: int = 21) -> tuple[Verdict, int]:
    rng, state = np.random.default_rng(seed), made.init(ARMS, 0)
    verdict = made.advance(state, 0)[1]
    for day in range(days):
        given = labels(rng, day, rows, rng.normal(worse, spread))
        if not made.spec.paired:
            scores = {arm.name: np.where(given.arm == i, given.scores[arm.name], np.nan) for i, arm in enumerate(ARMS)}
            given = Feedback(given.at, given.units, given.arm, given.truth, scores, {}, given.days)
        state, _ = made.update(state, given)
        state, verdict = made.advance(state, (day + 1) * DAY)
        if verdict.passed or verdict.failed:
            return verdict, day
    return verdict, days


@pytest.mark.simulation
@pytest.mark.parametrize(("rows", "spread"), [(300, 0.02), (300, 0.04), (3000, 0.02)])
def test_who_is_worse_by_the_margin_over_the_days_is_seldom_promoted(rows: int, spread: float) -> None:
    """And as seldom is one that is as good rolled back."""
    runs = 80
    most = binom.ppf(0.99, runs, ALPHA)
    assert sum(ended(canary(), seed, rows, MARGIN, spread)[0].passed for seed in range(runs)) <= most
    assert sum(ended(canary(), seed, rows, 0.0, spread)[0].failed for seed in range(runs)) <= most


@pytest.mark.simulation
def test_without_the_factor_a_fifth_of_them_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the test above is blind."""
    monkeypatch.setattr("loudly.deliver.days.HETEROGENEOUS", -1.0)
    assert np.mean([ended(canary(), seed, 3000, MARGIN, 0.02)[0].passed for seed in range(40)]) > 0.2


@pytest.mark.simulation
def test_it_costs_no_days_where_days_are_alike() -> None:
    made = [ended(canary(), seed, 300, 0.0, 0.0) for seed in range(80)]
    assert np.mean([verdict.passed for verdict, _ in made]) > 0.95
    assert np.median([day for _, day in made]) <= 5
    assert np.mean([SAME in verdict.reason for verdict, _ in made]) <= 0.05


@pytest.mark.simulation
def test_rows_of_each_arm_alone_tell_it_too() -> None:
    test = Ab(parse_rollout("ab 50% for 40d", margin=0.05, alpha=ALPHA), metric("accuracy"))
    runs = 40
    found = [ended(test, seed, 4000, 0.05, 0.08) for seed in range(runs)]
    assert sum(verdict.passed for verdict, _ in found) <= binom.ppf(0.99, runs, ALPHA)
    assert np.mean([SAME in verdict.reason for verdict, _ in found]) > 0.3


def test_the_factor_is_birges_with_the_quantile_of_so_many_days() -> None:
    rng = np.random.default_rng(0)
    gaps, errors, weights, found = rng.normal(0, 0.1, 6), np.full(6, 0.02), np.array([300.0, 100, 200, 300, 50, 400]), None
    for gap, error, weight in zip(gaps, errors, weights, strict=True):
        found = with_day(found, DayGap(float(gap), float(error / weight**0.5 * 10), float(weight), int(weight)))
    row = float(((errors * 10) ** 2 * weights).sum() / weights.sum())  # the variance of a row, over all days
    for design in (1.0, 3.0):
        q = float((weights * (gaps - np.average(gaps, weights=weights)) ** 2).sum() / row / design)
        expected = (q / 5) ** 0.5 * t.ppf(0.975, 5) / norm.ppf(0.975) if chi2.sf(q, 5) <= HETEROGENEOUS else 1.0
        assert apart(found, design, ALPHA, 1.0) == pytest.approx(expected)
    assert apart(found, 1.0, ALPHA, 1.0) > 1 == apart(found, 1000.0, ALPHA, 1.0) == apart(None, 1.0, ALPHA, 1.0)


def test_days_of_which_all_rows_say_the_same_are_not_alike_for_that() -> None:
    """Both models agree on all rows of four days, and on one the candidate is wrong in all of them: no day has a spread."""
    found, calm = None, None
    for gap in (0.0, 0.0, -1.0, 0.0, 0.0):
        found, calm = with_day(found, DayGap(gap, 0.0, 300.0, 300)), with_day(calm, DayGap(0.0, 0.0, 300.0, 300))
    assert 10 < apart(found, 1.0, ALPHA, 1.0) < 1e6
    assert apart(calm, 1.0, ALPHA, 1.0) == apart(calm, 1.0, ALPHA, 0.0) == 1


def test_alike_days_are_called_different_as_seldom_as_said() -> None:
    rng, called = np.random.default_rng(1), 0
    for _ in range(2000):
        found = None
        for gap in rng.normal(0.01, 0.02, 5):
            found = with_day(found, DayGap(float(gap), 0.02, 250.0, 250))
        called += apart(found, 1.0, ALPHA, 1.0) > 1
    assert called / 2000 == pytest.approx(HETEROGENEOUS, abs=0.008)
