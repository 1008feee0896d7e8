"""E-values of every window over its past: expectation, agreement with the plain e-value, the screen changes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loudly.errors import DataError
from loudly.shift.lookback import LENGTHS, lookback_log_e
from loudly.stats.multinomial_process import log_e

FLAT = np.full(6, 1 / 6)


def test_each_has_expectation_at_most_one_and_is_the_mean_over_lengths() -> None:
    rng = np.random.default_rng(0)
    told = []
    for _ in range(300):
        reference = rng.multinomial(500, FLAT)
        windows = rng.multinomial(30, FLAT, size=40)
        told.append(lookback_log_e(reference, windows))
    assert np.exp(told).mean(axis=0).max() <= 1
    by_hand = np.mean([math.exp(float(log_e(reference, windows[-n:].sum(axis=0)))) for n in LENGTHS if n <= 40])
    assert math.exp(told[-1][-1]) == pytest.approx(by_hand)


def test_what_the_screen_leaves_out_is_surely_below_and_the_rest_is_exact() -> None:
    rng = np.random.default_rng(1)
    for _ in range(8):
        reference = rng.multinomial(int(rng.integers(0, 3000)), FLAT)
        windows = np.vstack([rng.multinomial(40, FLAT, size=200), rng.multinomial(40, rng.dirichlet(np.full(6, 5)), size=60)])
        for ordered in (False, True):
            whole = lookback_log_e(reference, windows, ordered=ordered)
            quick = lookback_log_e(reference, windows, worth=5.0, ordered=ordered)
            out = np.isneginf(quick)
            assert (whole[out] < 5).all()
            assert np.array_equal(whole[~out], quick[~out])


def test_no_windows_no_answers_and_other_bins_are_refused() -> None:
    assert lookback_log_e([5, 5], np.zeros((0, 2), dtype=int)).shape == (0,)
    assert lookback_log_e([5, 5], np.zeros((3, 2), dtype=int)).max() <= 0
    with pytest.raises(DataError, match="k bins"):
        lookback_log_e([5, 5], [[1, 2, 3]])
