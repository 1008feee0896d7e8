"""An effect against a tolerance: no flip with n, the right answers at every look, and a named answer to every bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from loudly.core.values import Decision, Verdict
from loudly.errors import DataError
from loudly.shift.verdicts import category_verdict, decide, missing_verdict, numeric_verdict, rows_until

BINS = 1024
SIZES = np.unique(np.geomspace(100, 1_000_000, 25).astype(int))


def moved(gap: float) -> np.ndarray:
    """Shares of 1,024 bins whose largest difference from flat is `gap`, in the middle."""
    half = np.r_[np.full(BINS // 2, 1 + 2 * gap), np.full(BINS // 2, 1 - 2 * gap)]
    return half / half.sum()


def looks(rng: np.random.Generator, shares: np.ndarray) -> list[np.ndarray]:
    return list(np.cumsum([rng.multinomial(n, shares) for n in np.diff(SIZES, prepend=0)], axis=0))


def test_a_small_effect_passes_and_stays_passed_while_p_values_flip() -> None:
    rng = np.random.default_rng(0)
    reference = rng.multinomial(100_000, np.full(BINS, 1 / BINS))
    windows = looks(rng, moved(0.02))
    told = [numeric_verdict(reference, w, tolerance=0.05, about="x").decision for w in windows]
    assert Decision.FAIL not in told
    assert told[0] is Decision.UNDECIDED
    first = told.index(Decision.PASS)
    assert set(told[first:]) == {Decision.PASS}
    halves = [np.array([c[: BINS // 2].sum(), c[BINS // 2 :].sum()]) for c in (reference, *windows)]
    p = [chi2_contingency([halves[0], h]).pvalue for h in halves[1:]]
    assert p[-1] < 1e-10 < 0.05 < p[0], "a p-value says first that nothing moved, then that it did"


def test_a_large_effect_fails_with_enough_rows_and_stays_failed() -> None:
    rng = np.random.default_rng(1)
    reference = rng.multinomial(100_000, np.full(BINS, 1 / BINS))
    told = [numeric_verdict(reference, w, tolerance=0.05).decision for w in looks(rng, moved(0.1))]
    assert told[-1] is Decision.FAIL
    assert Decision.PASS not in told


@pytest.mark.parametrize("gap", [0.04, 0.06])
def test_a_wrong_answer_at_any_look_is_rarer_than_alpha(gap: float) -> None:
    rng = np.random.default_rng(2)
    wrong = Decision.FAIL if gap < 0.05 else Decision.PASS
    missed = 0
    for _ in range(60):
        reference = rng.multinomial(20_000, np.full(BINS, 1 / BINS))
        missed += any(numeric_verdict(reference, w, 0.05).decision is wrong for w in looks(rng, moved(gap)))
    assert missed / 60 <= 0.05


def test_undecided_says_about_how_many_rows_are_missing_and_they_suffice() -> None:
    flat = np.full(BINS, 100)
    said = numeric_verdict(flat, np.full(BINS, 1), tolerance=0.03, about="temp")
    assert said.decision is Decision.UNDECIDED
    assert "more rows" in said.missing
    more = int(said.missing.split()[1].replace(",", ""))
    grown = np.full(BINS, np.ceil((more + BINS) / BINS))
    assert numeric_verdict(flat, grown, tolerance=0.03).decision is Decision.PASS
    assert numeric_verdict(flat, np.full(BINS, max(1, more // (2 * BINS))), tolerance=0.03).decision is Decision.UNDECIDED


def test_a_short_reference_is_named_as_what_is_missing() -> None:
    said = category_verdict([10, 10], [50_000, 50_000], tolerance=0.02)
    assert said.decision is Decision.UNDECIDED
    assert "a reference of about" in said.missing
    never = category_verdict([9_000, 1_000], [80_000, 20_000], tolerance=0.1)
    assert "no number of rows" in never.missing


def test_categories_and_missing_shares_pass_fail_and_are_undecided() -> None:
    assert category_verdict([50_000, 30_000, 0], [5_000, 3_000, 0], 0.05).passed
    gone = category_verdict([50_000, 30_000, 0], [2_000, 1_000, 1_500], 0.05, about="carrier")
    assert gone.failed
    assert gone.evidence[0].low is not None
    assert gone.evidence[0].low > 0.05
    assert category_verdict([50_000, 30_000, 0], [5, 3, 0], 0.05).decision is Decision.UNDECIDED
    assert missing_verdict(50, 10_000, 20, 4_000, 0.02).passed
    assert missing_verdict(5_000, 10_000, 20, 4_000, 0.02).failed, "fewer missing than ever is a change too"
    assert missing_verdict(50, 10_000, 0, 1, 0.02).decision is Decision.UNDECIDED


@pytest.mark.simulation
def test_missing_shares_are_right_at_every_look() -> None:
    rng = np.random.default_rng(3)
    n = np.arange(50, 5_001, 450)
    for share, wrong in ((0.04, Decision.FAIL), (0.08, Decision.PASS)):
        missed = 0
        for _ in range(50):
            held = int(rng.binomial(2_000, 0.01))
            hits = np.cumsum(rng.binomial(np.diff(n, prepend=0), share))
            missed += any(
                missing_verdict(held, 2_000, int(h), int(k), 0.05).decision is wrong for h, k in zip(hits, n, strict=True)
            )
        assert missed / 50 <= 0.05


def undecided(verdict: Verdict, what: str) -> bool:
    return verdict.decision is Decision.UNDECIDED and what in verdict.missing and verdict.evidence[0].effect is None


def test_bad_input_has_a_named_answer() -> None:
    full, empty = np.full(8, 100), np.zeros(8)
    assert undecided(numeric_verdict(full, empty, 0.1), "window")
    assert undecided(numeric_verdict(empty, full, 0.1), "reference")
    assert undecided(numeric_verdict([100], [100], 0.1), "second bin")
    assert undecided(category_verdict(empty, empty, 0.1), "reference")
    assert undecided(missing_verdict(0, 0, 0, 10, 0.1), "reference")
    one_row = numeric_verdict(full, np.eye(8)[0], 0.1)
    assert one_row.decision is Decision.UNDECIDED
    assert "more rows" in one_row.missing
    for bad in (lambda: numeric_verdict(full, full[:4], 0.1), lambda: numeric_verdict(full, -full, 0.1)):
        with pytest.raises(DataError, match="Do:"):
            bad()
    for alpha in (0.0, 1.0, np.nan):
        with pytest.raises(DataError, match="alpha"):
            numeric_verdict([5, 5], [5, 5], 0.1, alpha=alpha)
    with pytest.raises(DataError, match="tolerance"):
        numeric_verdict(full, full, 0.0)


def test_a_decision_is_the_place_of_the_interval() -> None:
    assert decide(-0.01, 0.02, 0.05) is Decision.PASS
    assert decide(0.06, 0.2, 0.05) is decide(-0.2, -0.06, 0.05) is Decision.FAIL
    assert decide(0.04, 0.06, 0.05) is decide(-0.06, 0.0, 0.05) is Decision.UNDECIDED
    assert rows_until(lambda n: n >= 12_345, 10) in range(12_345, 13_700)
    assert rows_until(lambda n: False, 10) is None
    assert [rows_until(lambda n, k=k: n >= k, 1) for k in (1, 2, 3, 9)] == [1, 2, 3, 9], "few rows come to an end, too"  # type: ignore[misc]
