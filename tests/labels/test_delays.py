"""How late labels come, told from rows of all ages: truncated delays are not taken for short ones."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.core.clock import DAY, HOUR
from loudly.labels.delays import Delays, Lateness

KEEP = 30 * DAY


def told(days: int, slow: np.ndarray, fast: np.ndarray, now: int, seed: int = 0, batch: int = 10**9) -> Lateness:
    """What is known at `now` of rows answered evenly over some days; a third of them have slow labels. Delays in days."""
    rng, n = np.random.default_rng(seed), len(slow)
    made = np.sort(rng.random(n) * days * DAY).astype(np.int64)
    positive = rng.random(n) < 1 / 3
    late = (np.where(positive, slow, fast) * DAY).astype(np.int64)
    come = np.flatnonzero(made + late <= now)
    delays = Delays(KEEP)
    delays.answered(made)
    for first in range(0, len(come), batch):
        rows = come[first : first + batch]
        delays.came(made[rows], late[rows], pl.Series(positive[rows]))
    return delays.known(now, DAY, 0.9)


def test_young_rows_do_not_make_labels_look_quick() -> None:
    """Exponential delays of mean 3 days seen from rows of 0 to 20 days: nine in ten take 6.9 days at most."""
    rng = np.random.default_rng(1)
    found = [told(20, rng.exponential(3, 6000), rng.exponential(1, 6000), 20 * DAY, seed).complete / DAY for seed in range(20)]
    assert np.mean(found) == pytest.approx(3 * np.log(10), rel=0.07)
    made, late = rng.random(6000) * 20, rng.exponential(3, 6000)
    assert np.quantile(late[made + late <= 20], 0.9) < 6.3, "taken as they came they look quicker"


def test_the_slowest_class_decides_and_labels_within_the_hour_are_at_once() -> None:
    n = 3000
    assert told(30, np.full(n, 8.0), np.zeros(n), 30 * DAY).complete == 8 * DAY
    assert told(30, np.full(n, 0.01), np.zeros(n), 30 * DAY).complete == 0
    known = told(30, np.full(n, 2.0), np.zeros(n), 30 * DAY)
    assert (known.complete, known.followed) == (2 * DAY, 29 * DAY)
    assert known.share == 1.0


def test_labels_that_never_come_are_a_share_not_a_delay() -> None:
    n = 6000
    gone = np.where(np.random.default_rng(2).random(n) < 0.3, 100.0, 0.0)
    known = told(30, gone, gone, 30 * DAY)
    assert known.complete == 0
    assert known.share == pytest.approx(0.7, abs=0.03)


def test_no_delay_longer_than_rows_were_followed_is_known() -> None:
    """All that five days can tell of labels that take eight: nobody has seen any, and a third of the rows have none."""
    n = 3000
    known = told(5, np.full(n, 8.0), np.zeros(n), 5 * DAY)
    assert (known.complete, known.followed) == (0, 4 * DAY)
    assert known.share == pytest.approx(2 / 3, abs=0.04)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 400), st.integers(0, 10**6))
def test_how_labels_were_bundled_does_not_matter(batch: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    slow, fast = rng.exponential(4, 300), rng.exponential(1, 300)
    assert told(12, slow, fast, 12 * DAY, seed, batch) == told(12, slow, fast, 12 * DAY, seed)


def test_values_of_many_kinds_are_one_class_and_old_days_are_let_go() -> None:
    delays = Delays(KEEP)
    for day in range(100):
        made = np.full(10, day * DAY, dtype=np.int64)
        delays.answered(made)
        delays.came(made, np.full(10, 3 * HOUR), pl.Series(np.random.default_rng(day).normal(size=10)))
    known = delays.known(100 * DAY, DAY, 0.9)
    assert known.complete == 3 * HOUR
    assert known.labels == 610
    assert known.followed == 60 * DAY
