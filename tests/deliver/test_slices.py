"""A slice is judged by its days: its interval against one computed here, and where it stops or delays a candidate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from sklearn.metrics import roc_auc_score

from loudly.core.clock import DAY
from loudly.core.seams import Feedback
from loudly.core.values import Arm, Verdict
from loudly.deliver.canary import Canary
from loudly.deliver.evidence import SUSPECT
from loudly.deliver.rollout import parse_rollout
from loudly.metrics.table import metric

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))
ALPHA = 0.05
# Rows of a slice in a day: how many, in how many more the candidate is wrong, and in how many besides each of both is.
Rows = tuple[int, int, int]


def gains(rows: Rows) -> np.ndarray:
    n, worse, noise = rows
    return np.repeat([-1.0, 1.0, 0.0], [worse + noise, noise, n - worse - 2 * noise])


def labelled(day: int, slices: dict[str, Rows]) -> Feedback:
    """A day of decisions whose truth is 0."""
    each = {name: gains(rows) for name, rows in slices.items()}
    whose = np.repeat(list(each), [len(found) for found in each.values()])
    gain = np.concatenate(list(each.values()))
    scores = {"control": (gain > 0) * 1.0, "candidate": (gain < 0) * 1.0}
    names = [f"{day}-{i}" for i in range(len(gain))]
    masks = {name: whose == name for name in each}
    return Feedback(day * DAY, names, np.zeros(len(gain), dtype=np.int64), np.zeros(len(gain)), scores, masks, [day])


def judged(days: list[dict[str, Rows]], slice_margin: float = 0.05) -> Verdict:
    canary = Canary(parse_rollout("canary 10% 100%", margin=0.2, slice_margin=slice_margin, alpha=ALPHA), metric("accuracy"))
    state = canary.init(ARMS, 0)
    for day, slices in enumerate(days):
        state, _ = canary.update(state, labelled(day, slices))
    return canary.advance(state, 20 * DAY)[1]


def reach(n: int, error: float, alpha: float) -> float:
    """Half-width that holds at every look, tightest at 600 rows."""
    told = -2 * math.log(alpha)
    rho2 = (told + math.log(told) + 1) / 600
    return error * math.sqrt(2 * (n * rho2 + 1) / (n * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha))


FAIR = (400, 0, 20)


def test_the_interval_of_a_slice_pools_its_days_by_their_rows_at_its_part_of_the_risk() -> None:
    bad: list[Rows] = [(400, 120, 20), (100, 40, 10), (300, 80, 5), (250, 70, 0)]
    verdict = judged([{"a": rows, "b": FAIR, "c": FAIR} for rows in bad])
    assert verdict.failed
    (found,) = verdict.evidence[1:]
    sizes, means = np.array([rows[0] for rows in bad]), np.array([gains(rows).mean() for rows in bad])
    errors = np.array([gains(rows).std(ddof=1) / math.sqrt(rows[0]) for rows in bad])
    effect, error = (sizes * means).sum() / sizes.sum(), math.sqrt(((sizes * errors) ** 2).sum()) / sizes.sum()
    half = reach(int(sizes.sum()), error, ALPHA / 3)
    assert (found.about, found.n, found.confidence) == ("a", sizes.sum(), pytest.approx(1 - ALPHA / 3))
    assert (found.effect, found.low, found.high) == pytest.approx((effect, effect - half, effect + half))
    assert found.p_value == pytest.approx(ttest_1samp(means, 0.0, alternative="less").pvalue)


@pytest.mark.parametrize(("last", "stopped"), [(8, False), (24, True)])
def test_a_slice_stops_a_candidate_where_its_days_agree_at_its_part_of_the_risk(last: int, stopped: bool) -> None:
    """Its rows are sure in both: three days at 30 % and a fourth at 2 or 6. Of three slices each has a third of alpha."""
    days: list[Rows] = [(400, 120, 5)] * 3 + [(400, last, 5)]
    p = ttest_1samp([-0.3] * 3 + [-last / 400], 0.0, alternative="less").pvalue
    assert ALPHA / 3 < p < ALPHA or (stopped and p < ALPHA / 3)
    verdict = judged([{"a": rows, "b": FAIR, "c": FAIR} for rows in days])
    assert verdict.failed is stopped
    assert verdict.reason.startswith("surely worse in a slice: a" if stopped else SUSPECT)


@pytest.mark.parametrize(("rows", "suspect"), [
    ((400, 28, 30), True),   # 7 % worse, 4 standard errors
    ((400, 18, 30), False),  # 4.5 %: within the margin of the slice
    ((60, 4, 22), False),    # 6.7 %, of which the rows cannot tell: 1.2 standard errors
    ((10, 2, 2), False),     # 20 %, 1.7 standard errors, but these are more than the rows of a slice must tell
])  # fmt: skip
def test_a_slice_delays_a_promotion_where_it_looks_worse_by_more_than_its_margin_and_its_rows_can_tell(
    rows: Rows, suspect: bool
) -> None:
    """On most days it is none at all, so that none of these is sure enough to stop it."""
    n, worse, noise = rows
    verdict = judged([{"a": (n, times * worse, noise), "b": FAIR} for times in (3, 0, 0, 1)])
    assert not verdict.failed
    assert verdict.reason.startswith(SUSPECT) is suspect
    assert verdict.passed is not suspect


def test_days_of_an_auc_are_pooled_by_their_pairs_a_row() -> None:
    """The candidate knows nothing in the slice; a day with few positives tells little, however many rows it has."""
    rng, canary = np.random.default_rng(0), Canary(parse_rollout("canary 10% 100%", margin=0.5), metric("roc_auc"))
    state, gaps, weights = canary.init(ARMS, 0), [], []
    for day, (positives, n) in enumerate([(150, 300), (20, 400), (60, 120), (10, 500)]):
        truth = np.repeat([1.0, 0.0], [positives, n - positives])
        good, blind = 1 / (1 + np.exp(-2 * truth - rng.normal(size=n))), rng.random(n)
        rows = np.zeros(n, dtype=np.int64)
        scores = {"control": good, "candidate": blind}
        given = Feedback(day * DAY, [f"{day}-{i}" for i in range(n)], rows, truth, scores, {"a": np.ones(n, dtype=bool)}, [day])
        state, _ = canary.update(state, given)
        gaps.append(roc_auc_score(truth, blind) - roc_auc_score(truth, good))
        weights.append(positives * (n - positives) / n)
    _, verdict = canary.advance(state, 20 * DAY)
    (found,) = [one for one in verdict.evidence if one.about == "a"]
    expected = np.average(gaps, weights=weights)
    assert found.effect == pytest.approx(expected)
    assert abs(expected - np.average(gaps, weights=[300, 400, 120, 500])) > 0.005, "by rows it would be another"
