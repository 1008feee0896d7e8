"""Ranks and what is made of them, with scipy as the judge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import rankdata

from loudly.stats.auc import auc, midranks

# Few values, so that many are equal; and all that are peculiar to floats.
TIED = st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 5e-324, np.nextafter(1.0, 2.0)])
VALUES = st.lists(TIED | st.floats(allow_nan=False), max_size=60)


@given(VALUES)
@example([])
@example([3.0])
@example([np.inf])
def test_midranks_are_those_of_scipy(values: list[float]) -> None:
    """To the last bit: ranks are halves of whole numbers."""
    given_ = np.array(values, dtype=np.float64)
    before = given_.tobytes()
    ranks = midranks(given_)
    assert ranks.dtype == np.float64
    assert np.array_equal(ranks, rankdata(given_))
    assert ranks.sum() == len(values) * (len(values) + 1) / 2
    assert given_.tobytes() == before


@given(VALUES, st.integers(0, 60))
def test_with_a_value_that_is_no_number_no_rank_is_known(values: list[float], at: int) -> None:
    """The policy is scipy's, which propagates it: a rank among values that cannot be compared would be made up."""
    holed = np.insert(np.array(values, dtype=np.float64), min(at, len(values)), np.nan)
    ranks = midranks(holed)
    assert ranks.shape == holed.shape
    assert np.isnan(ranks).all()
    assert np.array_equal(ranks, rankdata(holed, nan_policy="propagate"), equal_nan=True)


def test_an_order_is_all_that_ranks_know() -> None:
    values = np.random.default_rng(0).integers(0, 50, 500).astype(float)
    assert np.array_equal(midranks(values), midranks(np.exp(values / 10) - 7))
    assert midranks(values) + midranks(-values) == pytest.approx(501)


def test_each_class_is_as_uncertain_as_its_own_placements() -> None:
    """Pair by pair; few positives, and placements of the two classes that differ in spread."""
    rng = np.random.default_rng(11)
    truth = np.repeat([1.0, 0.0], [40, 400])
    score = np.where(truth == 1, rng.exponential(6.0, 440), rng.exponential(1.0, 440))
    wins = (score[:40, None] > score[40:]) + (score[:40, None] == score[40:]) / 2
    expected = np.sqrt(wins.mean(axis=1).var(ddof=1) / 40 + wins.mean(axis=0).var(ddof=1) / 400)
    swapped = np.sqrt(wins.mean(axis=1).var(ddof=1) / 400 + wins.mean(axis=0).var(ddof=1) / 40)
    assert auc(truth, score).error == pytest.approx(expected)
    assert abs(swapped / expected - 1) > 0.1, "or the test is blind"
