"""What is judged many times shares one risk, and an interval is the one that it says: to the digit, beside their simulations."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist

import numpy as np
import polars as pl
import pytest
from scipy.stats import binomtest, ttest_ind

from loudly import shift
from loudly.core.seams import Contributions
from loudly.core.values import Evidence, Verdict
from loudly.shift.blame import blame_columns, blame_slices
from loudly.shift.context import context_test
from loudly.shift.error_rules import error_rules
from loudly.shift.impact import Impact
from loudly.shift.label_shift import LabelShift
from loudly.shift.loss_contributions import Explained, blame_losses
from loudly.shift.verdicts import category_verdict, missing_verdict, numeric_verdict
from loudly.stats.count_intervals import total_variation_interval
from loudly.stats.divergence import ks, total_variation
from loudly.stats.dkw import ks_interval
from loudly.stats.multinomial_process import share_interval

HELD, SEEN = [4000, 3000, 2000, 1000], [150, 200, 250, 300]
M, N = sum(HELD), sum(SEEN)


def told(verdict: Verdict) -> Evidence:
    return verdict.evidence[0]


def ends(verdict: Verdict) -> tuple[float | None, float | None]:
    return told(verdict).low, told(verdict).high


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_a_verdict_has_the_interval_of_its_distance_at_its_risk(alpha: float) -> None:
    said = numeric_verdict(HELD, SEEN, 0.1, alpha=alpha)
    assert ends(said) == pytest.approx(ks_interval(ks(HELD, SEEN), M, N, alpha, 1 / 4 + 1 / M))
    assert ends(numeric_verdict(HELD, SEEN, 0.1, alpha=alpha, bin_error=0.0)) == pytest.approx(
        ks_interval(ks(HELD, SEEN), M, N, alpha)
    )
    said = category_verdict(HELD, SEEN, 0.1, alpha=alpha)
    assert ends(said) == pytest.approx(total_variation_interval(HELD, SEEN, alpha))
    assert told(said).effect == pytest.approx(total_variation(HELD, SEEN))
    said = missing_verdict(400, M, 90, N, 0.1, alpha=alpha)
    before, now = binomtest(400, M).proportion_ci(1 - alpha / 2, "exact"), [float(end) for end in share_interval(90, N, alpha / 2)]
    assert ends(said) == pytest.approx((now[0] - before.high, now[1] - before.low)), "half of the risk on each side"


def test_columns_and_beginnings_share_one_risk() -> None:
    """Of 3 columns and 20 windows each has a sixtieth."""
    references = {name: np.array(HELD) for name in "abc"}
    windows = {name: np.tile([40, 30, 20, 10], (20, 1)) for name in "abc"}
    windows["b"][10:] = [5, 10, 30, 55]
    (found,) = blame_columns(references, windows, 0.1, numeric=["b"])
    assert found.since.window == 10
    assert told(found.verdict).confidence == pytest.approx(1 - 0.05 / 60)
    assert ends(found.verdict) == ends(numeric_verdict(HELD, windows["b"][10:].sum(axis=0), 0.1, alpha=0.05 / 60))


def test_slices_and_what_is_outside_of_them_share_one_risk() -> None:
    """Five values of two columns, each inside and outside: a tenth."""
    rng = np.random.default_rng(0)

    def table(n: int, gap: float) -> pl.DataFrame:
        place, kind = rng.choice(["x", "y", "z"], n), rng.choice(["p", "q"], n)
        return pl.DataFrame({"v": rng.normal(size=n) + gap * (place == "x"), "place": place, "kind": kind})

    found = blame_slices(table(9000, 0.0), table(4000, 3.0), "v", ["place", "kind"])
    assert found[0].name == "place = x"
    for one in (found[0].inside, found[0].outside):
        assert told(one).confidence == pytest.approx(1 - 0.05 / 10)


def test_effects_of_a_check_are_simultaneous_on_both_sides() -> None:
    """Of one column: novel rows, where it lies, how wide it is and how many cells are missing. Of four none is beyond by chance.

    None is missing here: what is left of the interval are the four rows more of Agresti and Coull, in window and reference.
    """
    rng, alpha = np.random.default_rng(1), 0.1
    found = shift.fit(rng.normal(size=(4000, 1))).check(rng.normal(size=(500, 1)), alpha=alpha, permutations=49).evidence[1:]
    assert len(found) == 4
    (missing,) = (one for one in found if one.method == "missing share")
    z, spread = NormalDist().inv_cdf(1 - alpha / 8), 1 / 504
    half = z * math.sqrt(spread * (1 / 500 + 1 / 2000))  # half of the reference's rows are for ranks
    assert (missing.effect, missing.low, missing.high) == pytest.approx((0.0, -half, half))
    assert missing.confidence == pytest.approx(1 - alpha)


def test_rules_share_one_risk() -> None:
    """A tree of one cut has two leaves, each with half of it; rows that grew the tree are not those that are told."""
    rng, n, alpha = np.random.default_rng(2), 4000, 0.1
    flag = rng.random(n) < 0.3
    loss = (rng.random(n) < np.where(flag, 0.5, 0.1)).astype(float)
    (rule,) = error_rules(pl.DataFrame({"flag": flag.astype(float)}), loss, ["flag"], depth=1, alpha=alpha, seed=7)
    told = np.random.default_rng(7).random(n) >= 0.5
    test = ttest_ind(loss[told & flag], loss[told & ~flag], equal_var=False)
    assert (rule.low, rule.high) == pytest.approx(tuple(test.confidence_interval(1 - alpha / 2)))
    assert rule.rows == (told & flag).sum()


def test_shares_of_classes_have_two_sides() -> None:
    rng, confidence = np.random.default_rng(3), 0.8
    truth = (rng.random(3000) < 0.4).astype(float)
    score = 1 / (1 + np.exp(-2 * truth + 1 - rng.normal(size=3000)))
    for one in LabelShift.fit(score, truth, confidence=confidence).estimate(score[:800]):
        assert one.effect is not None
        assert one.high is not None
        assert (one.high - one.effect) / float(str(one.detail["error"])) == pytest.approx(NormalDist().inv_cdf(0.9))


def widths(found: Iterable[Evidence]) -> dict[tuple[str, str], float]:
    return {(one.method, one.about): float(one.high or 0.0) - float(one.low or 0.0) for one in found}


def test_an_impact_has_two_sides() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(2000, 2))
    truth = (rng.random(2000) < 1 / (1 + np.exp(-x[:, 0]))).astype(float)
    score, window = 1 / (1 + np.exp(-x[:, 0])), rng.normal(size=(600, 2)) + 0.3
    wide, narrow = (widths(Impact.fit(score, truth, x, metric="brier", confidence=c).rank(window)) for c in (0.9, 0.5))
    ratio = NormalDist().inv_cdf(0.95) / NormalDist().inv_cdf(0.75)
    assert {name: wide[name] / narrow[name] for name in wide} == pytest.approx(dict.fromkeys(wide, ratio))


def test_losses_blamed_on_columns_share_one_risk() -> None:
    """Two effects of each of three columns; rows are thousands, so that Student's t is a normal."""
    rng = np.random.default_rng(5)

    def side(gap: float) -> Explained:
        x = rng.normal(size=(4000, 3)) + np.array([gap, 0.0, 0.0])
        parts = (x * [1.0, 0.5, 0.2])[:, :, None]
        truth = (rng.random(4000) < 1 / (1 + np.exp(-x[:, 0]))).astype(float)
        return Explained(Contributions("linear", "output", np.zeros((4000, 1)), parts), truth)

    before, now = side(0.0), side(0.5)
    wide, narrow = (widths(blame_losses(before, now, "abc", alpha=alpha, permutations=99)) for alpha in (0.05, 0.4))
    ratio = NormalDist().inv_cdf(1 - 0.05 / 12) / NormalDist().inv_cdf(1 - 0.4 / 12)
    assert {name: wide[name] / narrow[name] for name in wide} == pytest.approx(dict.fromkeys(wide, ratio), rel=1e-3)


def test_a_change_within_its_context_that_no_permutation_reaches_has_the_least_p_value() -> None:
    rng = np.random.default_rng(6)
    one, other = (pl.DataFrame({"v": rng.normal(size=600) + gap, "c": rng.choice(["x", "y"], 600)}) for gap in (0.0, 4.0))
    (verdict,) = context_test(one, other, ["v"], ["c"], permutations=59)
    assert told(verdict).p_value == pytest.approx(1 / 60), "the observed split is one of all of them"
