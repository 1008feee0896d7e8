"""The planned size has the planned power, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import rankdata

from loudly.errors import ConfigError
from loudly.stats.confidence_sequence import radius
from loudly.stats.plan import Size, auc_deviation, fixed, proportion_deviation, sequential


@pytest.mark.parametrize(("share", "power"), [(0.5, 0.8), (0.2, 0.9)])
def test_power_of_a_proportion_at_one_look_and_at_the_last_of_a_sequence(share: float, power: float) -> None:
    rng, runs, margin, rate = np.random.default_rng(6), 8000, 0.05, 0.3
    deviation = proportion_deviation(rate)
    for size, sure in (
        (fixed(margin, deviation, power, 0.05, share), False),
        (sequential(margin, deviation, power, 0.05, share), True),
    ):
        one, two = (rng.binomial(n, rate, runs) / n for n in (size.control, size.candidate))
        spread = [np.sqrt(p * (1 - p)) for p in (one, two)]
        error = np.sqrt(spread[0] ** 2 / size.control + spread[1] ** 2 / size.candidate)
        reach = (radius(size.rows, 1.0, 0.05) * np.sqrt(size.rows) if sure else 1.959964) * error
        assert np.mean(two - one - reach > -margin) == pytest.approx(power, abs=0.03)


def test_power_of_an_auc() -> None:
    rng, area, positives, margin = np.random.default_rng(7), 0.75, 0.3, 0.05
    deviation = auc_deviation(area, positives)
    size = fixed(margin, deviation)

    def seen(n: int) -> float:
        m = round(n * positives)
        score = np.concatenate([rng.exponential(area / (1 - area), m), rng.exponential(1.0, n - m)])
        return float((rankdata(score)[:m].sum() - m * (m + 1) / 2) / (m * (n - m)))

    gaps = np.array([seen(size.candidate) - seen(size.control) for _ in range(2500)])
    error = deviation * math.sqrt(1 / size.candidate + 1 / size.control)
    assert np.mean(gaps - 1.959964 * error > -margin) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("positives", [0.1, 0.2, 0.7])
def test_the_deviation_of_an_auc_is_that_of_placements_of_exponential_scores(positives: float) -> None:
    """Of which Hanley & McNeil's formula is the variance: each class's share of the rows goes with its own placements."""
    area, rng = 0.75, np.linspace(0, 1, 200_001)[:-1] + 2.5e-6
    draw = -np.log1p(-rng)  # of an exponential, evenly by probability
    times = area / (1 - area)
    above, below = 1 - np.exp(-times * draw), np.exp(-draw / times)
    assert above.mean() == pytest.approx(area, abs=1e-4)
    assert below.mean() == pytest.approx(area, abs=1e-4)
    expected = np.sqrt(above.var() / positives + below.var() / (1 - positives))
    assert auc_deviation(area, positives) == pytest.approx(expected, rel=1e-3)


def test_size_and_duration() -> None:
    assert Size(10, 10).days(0) is None
    assert sequential(0.05, 0.5).control < sequential(0.02, 0.5).control
    assert sequential(0.05, 0.5, share=0.1).rows > sequential(0.05, 0.5).rows
    with pytest.raises(ConfigError, match="margin"):
        sequential(0.0, 0.5)
