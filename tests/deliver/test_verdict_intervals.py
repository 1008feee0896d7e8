"""The interval of a verdict against one computed here, and the verdict as its place: PASS above minus the margin, FAIL below zero.

Simulations of error rates cannot do this: an interval that holds at every look errs so seldom at a few that twice the risk, or a
variance without its second arm, would go unseen.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from sklearn.metrics import roc_auc_score

from loudly.core.clock import DAY
from loudly.core.seams import Feedback, Floats
from loudly.core.values import Arm, Decision, Evidence, Verdict
from loudly.deliver.ab import Ab
from loudly.deliver.ab_n import AbN
from loudly.deliver.canary import Canary
from loudly.deliver.evidence import batches_p
from loudly.deliver.ramp import Ramp
from loudly.deliver.rollout import parse_rollout
from loudly.metrics.table import metric
from loudly.stats.clusters import BUCKETS, hashes

NAMES = ("control", "candidate", "candidate2")
ARMS = tuple(Arm(name, f"m/{i}") for i, name in enumerate(NAMES))
FIRST, ROWS = 100, 240


@cache
def units(n: int) -> list[str]:
    """Units that no two of share a bucket: each row is a cluster of its own."""
    found: dict[int, str] = {}
    for i in range(100_000):
        found.setdefault(int(hashes([f"u{i}"])[0]) % BUCKETS, f"u{i}")
        if len(found) == n:
            return list(found.values())
    raise AssertionError(n)


def reach(n: int, error: float, alpha: float) -> float:
    """Half-width that holds at every look, of a mean of n values with this standard error; tightest at 3,000 (eq. 3 and 58)."""
    told = -2 * math.log(alpha)
    rho2 = (told + math.log(told) + 1) / 3000
    return error * math.sqrt(2 * (n * rho2 + 1) / (n * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha))


def mean_error(values: Floats, range_: float) -> float:
    """Of a mean, with two values more than were seen, at both ends of the range."""
    return math.sqrt((((values - values.mean()) ** 2).sum() + 2 * range_**2) / (len(values) - 1) / len(values))


def day(at: int, arm: Any, truth: Floats, scores: dict[str, Floats], names: list[str]) -> Feedback:
    return Feedback(at * DAY, names, np.asarray(arm), truth, scores, {}, [at])


def of(strategy: Any, given: list[Feedback], arms: int = 2) -> Verdict:
    """The verdict on all of it."""
    state = strategy.init(ARMS[:arms], 0)
    for one in given:
        state, _ = strategy.update(state, one)
    return strategy.advance(state, 30 * DAY)[1]  # type: ignore[no-any-return]


def width(found: Evidence) -> tuple[float, float, float]:
    """The effect, and how far it is to each end."""
    effect, low, high = ends(found)
    return effect, effect - low, high - effect


def ends(found: Evidence) -> tuple[float, float, float]:
    assert found.effect is not None
    assert found.low is not None
    assert found.high is not None
    return found.effect, found.low, found.high


def losses(rng: np.random.Generator, n: int = ROWS) -> tuple[Floats, dict[str, Floats]]:
    """Losses of the arms, of different size and spread, as regressions have them: truth and answers."""
    truth = rng.normal(size=n)
    return truth, {name: truth + spread * rng.normal(size=n) for name, spread in zip(NAMES, (0.4, 0.9, 0.1), strict=True)}


@pytest.mark.parametrize("judged", ["mae", "mse", "accuracy", "brier"])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_of_paired_losses_it_is_the_mean_gain_with_its_error(judged: str, alpha: float) -> None:
    rng = np.random.default_rng(1)
    truth, scores = losses(rng)
    if judged in ("accuracy", "brier"):
        truth, scores = (
            (truth > 0).astype(float),
            {k: ((v > 0) * 1.0 if judged == "accuracy" else v.clip(0, 1)) for k, v in scores.items()},
        )
    loss = metric(judged).loss
    assert loss is not None
    gains = loss(truth, scores["control"]) - loss(truth, scores["candidate"])
    range_ = 1.0 if judged in ("accuracy", "brier") else float(np.abs(gains - gains.mean()).max())
    canary = Canary(parse_rollout("canary 10% 100%", alpha=alpha), metric(judged))
    found = of(canary, [day(0, np.zeros(ROWS, dtype=np.int64), truth, scores, units(ROWS))]).evidence[0]
    half = reach(ROWS, mean_error(gains, range_), alpha)
    assert width(found) == pytest.approx((gains.mean(), half, half), rel=0.01)


@pytest.mark.parametrize("judged", ["mae", "accuracy"])
@pytest.mark.parametrize(("text", "part"), [("ab 25% for 30d", 1.0), ("ab 50% 25% 25% for 30d", 0.5)])
@pytest.mark.parametrize("ramped", [False, True])
def test_of_two_arms_it_is_the_difference_of_their_means_each_with_its_own_rows(
    judged: str, text: str, part: float, ramped: bool
) -> None:
    """Of several candidates each has its part of alpha. Through a ramp only rows of units that took part count."""
    rng, alpha = np.random.default_rng(2), 0.1
    truth, scores = losses(rng)
    if judged == "accuracy":
        truth, scores = (truth > 0).astype(float), {name: (score > 0) * 1.0 for name, score in scores.items()}
    loss = metric(judged).loss
    assert loss is not None
    spec = parse_rollout(text, alpha=alpha)
    arm = rng.choice(spec.arms, ROWS, p=spec.shares or (0.75, 0.25))
    given = {name: np.where(arm == i, scores[name], np.nan) for i, name in enumerate(NAMES[: spec.arms])}
    rows, inside = day(0, arm, truth, given, units(ROWS)), np.ones(ROWS, dtype=bool)
    strategy: Any = (AbN if spec.arms > 2 else Ab)(spec, metric(judged))
    if ramped:
        inside = rng.random(ROWS) < 0.8
        strategy, rows = Ramp(strategy, (0.8, 1.0)), replace(rows, share=np.where(inside, 0.8, 0.0))
    each = [-loss(truth, scores[name])[(arm == i) & inside] for i, name in enumerate(NAMES)][:2]
    gap = each[1].mean() - each[0].mean()
    far = 1.0 if judged == "accuracy" else max(float(np.abs(values - values.mean()).max()) for values in each)
    error = math.hypot(*(mean_error(values, far) for values in each))
    half = reach(len(each[0]) + len(each[1]), error, alpha * part)
    found = of(strategy, [rows], spec.arms).evidence[0]
    assert found.confidence == pytest.approx(1 - alpha * part)
    assert width(found) == pytest.approx((gap, half, half), rel=0.03)


def placed(truth: Floats, score: Floats, among: Floats, of_among: Floats) -> Floats:
    """Each row's place among the rows of the other class before it, pair by pair (ties count half)."""
    out = np.empty(len(truth))
    for i, (positive, mine) in enumerate(zip(truth > 0.5, score, strict=True)):
        others = of_among[(among > 0.5) != positive]
        above = (others < mine).mean() + (others == mine).mean() / 2
        out[i] = above if positive else 1 - above
    return out


@pytest.mark.parametrize("paired", [True, False])
def test_of_an_auc_it_is_the_gap_over_all_rows_with_the_error_of_delong(paired: bool) -> None:
    """S10 / m + S01 / n over the placements of positives and of negatives, in each arm by itself where each has its own rows."""
    rng, alpha, n = np.random.default_rng(3), 0.05, FIRST + ROWS
    truth = (rng.random(n) < 0.3).astype(float)
    scores = {
        name: np.round(1 / (1 + np.exp(-d * truth - rng.normal(size=n))) * 64) / 64
        for name, d in zip(NAMES, (1.5, 0.5), strict=False)
    }
    arm = (rng.random(n) < 0.4).astype(np.int64)
    met = scores if paired else {name: np.where(arm == i, score, np.nan) for i, (name, score) in enumerate(scores.items())}
    before, after = slice(0, FIRST), slice(FIRST, n)
    days = [day(0, arm[before], truth[before], {k: v[before] for k, v in met.items()}, [f"first{i}" for i in range(FIRST)])]
    days.append(day(1, arm[after], truth[after], {k: v[after] for k, v in met.items()}, units(ROWS)))
    places, areas, positive = [], [], truth[after] > 0.5
    for i, score in enumerate(scores.values()):
        seen = np.ones(n, dtype=bool) if paired else arm == i
        places.append(placed(truth[after], score[after], truth[seen], score[seen]))
        areas.append(roc_auc_score(truth[seen], score[seen]))
    streams = [(places[1] - places[0], positive)]
    if not paired:
        streams = [(place[arm[after] == i], positive[arm[after] == i]) for i, place in enumerate(places)]
    error2 = sum(x[p].var(ddof=1) / p.sum() + x[~p].var(ddof=1) / (~p).sum() + 2 / len(x) ** 2 for x, p in streams)
    half = reach(ROWS, math.sqrt(error2), alpha)
    spec = parse_rollout("canary 10% 100%", alpha=alpha, paired=True) if paired else parse_rollout("ab 40% for 30d", alpha=alpha)
    strategy: Any = (Canary if paired else Ab)(spec, metric("roc_auc"))
    found = of(strategy, days).evidence[0]
    assert found.effect == pytest.approx(areas[1] - areas[0], abs=1e-12)
    assert width(found)[1:] == pytest.approx((half, half), rel=0.03)


# -- the verdict is the place of the interval -----------------------------------------------------------------------------------


def wrong(worse: float, kind: str, days: int = 8, rows: int = 200) -> tuple[Any, list[Feedback]]:
    """Answers of two arms, of which the candidate errs so much more often."""
    rng, given = np.random.default_rng(4), []
    for at in range(days):
        arm = np.arange(rows) % 2
        missed = (rng.random((2, rows)) < np.array([[0.3], [0.3 + worse]])).astype(float)
        scores = dict(zip(NAMES, missed, strict=False))
        if kind == "ab":
            scores = {name: np.where(arm == i, missed[i], np.nan) for i, name in enumerate(NAMES[:2])}
        given.append(day(at, arm, np.zeros(rows), scores, [f"{at}-{i}" for i in range(rows)]))
    text = {"ab": "ab 50% for 30d", "canary": "canary 10% 100%"}[kind]
    return parse_rollout(text, deadline=60 * DAY), given


@pytest.mark.parametrize("kind", ["ab", "canary"])
def test_pass_is_a_lower_end_above_minus_the_margin_and_fail_an_upper_end_below_zero(kind: str) -> None:
    made: Any = {"ab": Ab, "canary": Canary}[kind]
    spec, given = wrong(0.0, kind)
    _, low, _ = ends(of(made(replace(spec, margin=1.0), metric("accuracy")), given).evidence[0])
    assert low < 0
    for margin, decision in ((-low * 1.001, Decision.PASS), (-low * 0.999, Decision.UNDECIDED)):
        assert of(made(replace(spec, margin=margin), metric("accuracy")), given).decision is decision
    looked = set()
    for worse in np.linspace(0.02, 0.25, 24):
        _, given = wrong(float(worse), kind)
        verdict = of(made(replace(spec, margin=0.0), metric("accuracy")), given)
        _, low, high = ends(verdict.evidence[0])
        by_days = kind == "ab" or (verdict.evidence[0].p_value or 0.0) < spec.alpha
        assert verdict.failed is (high < 0 and by_days)
        looked.add((high < 0, by_days))
    assert {(True, True), (False, False)} <= looked or kind == "ab"


def test_days_are_the_units_of_a_rollback_of_paired_rows() -> None:
    """Four good days and one outage of the candidate: rows are sure, days are not, and the interval says so."""
    spec, given = wrong(0.0, "canary", days=5, rows=600)
    given[2] = replace(given[2], scores={**given[2].scores, "candidate": np.ones(600)})
    verdict = of(Canary(spec, metric("accuracy")), given)
    found = verdict.evidence[0]
    effect, _, high = ends(found)
    assert effect < -0.1
    assert high > 0
    assert "days differ by more than their rows" in verdict.reason
    assert found.p_value is not None
    assert found.p_value > spec.alpha
    assert verdict.decision is Decision.UNDECIDED


def test_rows_that_are_sure_roll_nothing_back_where_days_do_not_agree() -> None:
    """Days too few and too short to be told apart, of which the mean is not surely below zero."""
    spec, given = wrong(0.2, "canary", days=5, rows=600)
    canary = Canary(spec, metric("accuracy"))
    assert of(canary, given).failed
    state = canary.init(ARMS[:2], 0)
    for one in given:
        state, _ = canary.update(state, one)
    state, _ = canary.advance(state, 30 * DAY)
    state["evidence"]["by_day"] |= {"batches": [-0.5, 0.3, -0.4, 0.3, -0.3], "squares": 0.0}
    verdict = canary.advance(state, 31 * DAY)[1]
    _, _, high = ends(verdict.evidence[0])
    assert high < 0
    assert verdict.decision is Decision.UNDECIDED


def test_the_p_value_of_days_is_that_of_a_one_sided_t_test() -> None:
    from_days = [-0.03, 0.01, -0.05, -0.02, 0.0, -0.04]
    assert batches_p(from_days) == pytest.approx(ttest_1samp(from_days, 0.0, alternative="less").pvalue)
    assert batches_p([-0.1, -0.2]) is None
    assert (batches_p([-0.25] * 3), batches_p([0.0] * 3)) == (0.0, 1.0)
