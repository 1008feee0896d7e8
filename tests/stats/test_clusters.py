"""Units as clusters: coverage of the spread, constant state, units counted once."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from loudly.stats.auc import auc
from loudly.stats.clusters import BUCKETS, Clusters, Met, block_difference, block_mean, clusters_of, hashes, met_of
from loudly.stats.gains import Gains


def bursts(rng: np.random.Generator, units: int, size: int) -> tuple[np.ndarray, list[str]]:
    """Rows in bursts that share most of their value."""
    level = np.repeat(rng.normal(size=units), size)
    return level + 0.3 * rng.normal(size=units * size), [f"u{i}" for i in range(units) for _ in range(size)]


def test_the_spread_of_a_mean_is_that_of_units() -> None:
    rng, means, variances, naive = np.random.default_rng(1), [], [], []
    for _ in range(200):
        values, units = bursts(rng, 400, 5)
        found = Clusters().add(values, hashes(units))
        means.append(values.mean())
        variances.append(found.variance())
        naive.append(values.var(ddof=1) / len(values))
    assert np.mean(variances) == pytest.approx(np.var(means, ddof=1), rel=0.25)
    assert np.mean(naive) < np.mean(variances) / 4


def test_independent_rows_keep_nearly_their_number_and_an_auc_its_delong_error() -> None:
    rng = np.random.default_rng(2)
    truth = (rng.random(6000) < 0.3).astype(float)
    found = auc(truth, truth + rng.normal(size=6000))
    placed = np.zeros(6000)
    placed[truth > 0.5], placed[truth < 0.5] = found.positives, found.negatives
    units = hashes([str(i) for i in range(6000)])
    clusters = Clusters().add(placed, units, truth > 0.5)
    assert clusters.variance() == pytest.approx(found.error**2, rel=0.25)
    gains = Gains().add(placed, truth > 0.5)
    assert clusters.stream(gains).n > 0.75 * gains.n


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 200))
def test_a_batch_cut_in_two_and_the_state_read_back_change_nothing(seed: int, cut: int) -> None:
    values, units = bursts(np.random.default_rng(seed), 40, 5)
    hashed = hashes(units)
    half = clusters_of(json.loads(json.dumps(Clusters().add(values[:cut], hashed[:cut]).plain())))
    assert half.add(values[cut:], hashed[cut:]).variance() == pytest.approx(Clusters().add(values, hashed).variance())
    arm = hashed % 2
    once, counts = Met().add(hashed, arm, 2)
    first, a = Met().add(hashed[:cut], arm[:cut], 2)
    second, b = met_of(json.loads(json.dumps(first.plain()))).add(hashed[cut:], arm[cut:], 2)
    assert second == once
    assert tuple(np.add(a, b)) == counts
    assert sum(counts) == 40


def test_met_units_are_counted_once_in_bounded_memory() -> None:
    hashed = hashes([f"u{i}" for i in range(5000)])
    arm = (np.arange(5000) % 10 == 0).astype(np.int64)
    met, counts = Met().add(hashed, arm, 2, most=500)
    again, more = met.add(hashed, arm, 2, most=500)
    assert more == (0, 0)
    assert again == met
    assert len(met.kept) < 500 < sum(counts) < 5000
    assert 0.07 < counts[1] / sum(counts) < 0.13


def days_of(rng: Any, days: int, rows: int, spread: float, between: float) -> tuple[Any, Any]:
    """Rows whose day has an error of its own; days differ in size."""
    size = rng.integers(rows // 2, rows * 3 // 2, days)
    day = np.repeat(np.arange(days), size)
    return rng.normal(0, spread, len(day)) + rng.normal(0, between, days)[day], day


@pytest.mark.parametrize("days", [6, 15, 40])
def test_a_mean_over_days_is_covered_where_rows_alone_are_far_too_sure(days: int) -> None:
    hits = []
    for seed in range(600):
        values, day = days_of(np.random.default_rng((seed, days)), days, 60, 1.0, 0.5)
        hits.append([abs(made.value) <= made.reach(0.05) for made in (block_mean(values, day), block_mean(values))])
    by_day, by_row = np.mean(hits, axis=0)
    assert by_day >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / 600)
    assert by_row < 0.6


def test_a_difference_within_days_is_covered_and_its_days_cancel() -> None:
    """Both groups have rows on every day: what the day does to both is no difference."""
    hits, widths = [], []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        values, day = days_of(rng, 12, 60, 1.0, 0.8)
        values += (rng.normal(0, 0.4, 12)[day]) * (inside := rng.random(len(day)) < 0.3)
        both = (day[inside], day[~inside])
        made = block_difference(values[inside], values[~inside], both)
        apart = block_difference(values[inside], values[~inside], (both[0], both[1] + 100))
        hits.append(abs(made.value) <= made.reach(0.05))
        widths.append(made.error / apart.error)
    assert np.mean(hits) >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / 400)
    assert np.median(widths) < 0.7


def test_without_blocks_it_is_welch_and_one_block_tells_nothing() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=30), rng.normal(0.5, 2, size=50)
    made, judge = block_difference(a, b), stats.ttest_ind(a, b, equal_var=False)
    low, high = judge.confidence_interval(0.9)
    assert (made.value - made.reach(0.1), made.value + made.reach(0.1)) == pytest.approx((low, high))
    each = block_mean(a, np.arange(30))
    assert each.error == pytest.approx(block_mean(a).error), "blocks of one row are rows"
    assert block_mean(a, np.zeros(30)).reach(0.05) == np.inf
    assert block_difference(a, b, (np.zeros(30), np.arange(50))).reach(0.05) == np.inf
    assert block_difference(np.ones(9), np.zeros(9)).reach(0.05) == 0.0


def test_rows_are_worth_as_many_as_their_clusters_tell() -> None:
    """Five rows of a unit all alike, each unit in a bucket of its own: a fifth of the rows."""
    units: dict[int, str] = {}
    for i in range(20_000):
        units.setdefault(int(hashes([f"u{i}"])[0]) % BUCKETS, f"u{i}")
    values = np.random.default_rng(9).normal(size=len(units)).repeat(5)
    stream = Clusters().add(values, hashes(list(units.values())).repeat(5)).stream(Gains().add(values))
    assert stream.n == pytest.approx(len(units), abs=1)


def test_a_difference_has_the_freedom_of_the_group_with_fewer_blocks() -> None:
    rng = np.random.default_rng(10)
    found = block_difference(rng.normal(size=80), rng.normal(size=40), (np.arange(80) % 8, np.arange(40) % 4))
    assert found.freedom == 3
