"""What every metric owes: run these against yours, with a fixture `metric` that gives a `MetricSpec`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loudly.core.seams import Floats
from loudly.core.values import Task
from loudly.metrics.table import RATED, decided, ratio_of

N = 500


def rows_for(metric: Any) -> tuple[Floats, Floats, Floats]:
    """Truth, good and bad predictions of the metric's first task, binary or regression."""
    rng = np.random.default_rng(0)
    if Task.REGRESSION in metric.tasks:
        truth = rng.normal(size=N)
        return truth, truth + rng.normal(0, 0.3, N), truth + rng.normal(0, 3, N)
    truth = (rng.random(N) < 0.4).astype(float)
    good, bad = (1 / (1 + np.exp(-rng.normal(d * (truth - 0.5), 1))) for d in (4, 0.2))
    return truth, good, bad


class MetricCase:
    """Conformance of a metric."""

    def test_better_says_which_way(self, metric: Any) -> None:
        truth, good, bad = rows_for(metric)
        assert metric.better in (1, -1)
        assert metric.better * metric(truth, good) > metric.better * metric(truth, bad)

    def test_it_is_a_function_of_the_rows_not_of_their_order_and_leaves_them_as_they_were(self, metric: Any) -> None:
        truth, good, _ = rows_for(metric)
        before = truth.copy(), good.copy()
        order = np.random.default_rng(1).permutation(N)
        value = metric(truth, good)
        assert isinstance(value, float)
        assert metric(truth[order], good[order]) == pytest.approx(value)
        assert metric(truth, good) == value
        assert np.array_equal(truth, before[0])
        assert np.array_equal(good, before[1])

    def test_a_weight_counts_a_row_as_often(self, metric: Any) -> None:
        truth, good, _ = rows_for(metric)
        weight = np.random.default_rng(2).integers(0, 4, N).astype(float)
        repeated = np.repeat(np.arange(N), weight.astype(int))
        assert metric(truth, good, weight) == pytest.approx(metric(truth[repeated], good[repeated]))
        assert metric(truth, good, np.ones(N)) == pytest.approx(metric(truth, good))
        assert metric(truth, good, weight * 7) == pytest.approx(metric(truth, good, weight))

    def test_it_knows_nothing_of_nothing_and_nan_in_is_nan_out(self, metric: Any) -> None:
        truth, good, _ = rows_for(metric)
        assert np.isnan(metric(truth[:0], good[:0]))
        for hole in (np.nan, np.inf):
            assert np.isnan(metric(truth, np.where(np.arange(N) == 3, hole, good)))

    def test_losses_and_counts_agree_with_it(self, metric: Any) -> None:
        truth, good, _ = rows_for(metric)
        given = decided(good) if metric.reads == "class" else good
        if metric.loss is not None:
            mean = float(metric.loss(truth, given).mean())
            assert metric(truth, good) == pytest.approx(mean if metric.better < 0 else 1 - mean)
        if metric.name in RATED:
            came, told = np.eye(2)[truth.astype(int)], np.eye(2)[decided(good).astype(int)]
            counts = [part.sum(axis=0)[None, :] for part in (came, told, came * told)]
            assert metric(truth, good) == pytest.approx(float(ratio_of(metric.name, *counts, several=False)[0]))

    def test_several_classes_are_read_where_it_says_so(self, metric: Any) -> None:
        if Task.MULTICLASS not in metric.tasks:
            pytest.skip(f"{metric.name} is not for several classes")
        rng = np.random.default_rng(3)
        truth = rng.integers(0, 3, N).astype(float)
        sharp, flat = (np.eye(3)[truth.astype(int)] * d + rng.random((N, 3)) for d in (3.0, 0.1))
        good, bad = (s / s.sum(axis=1, keepdims=True) for s in (sharp, flat))
        assert metric.better * metric(truth, good) > metric.better * metric(truth, bad)
