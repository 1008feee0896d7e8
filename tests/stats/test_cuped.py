"""CUPED: unbiased, less spread by the squared correlation, streams as batches."""

from __future__ import annotations

import json

import numpy as np
import pytest

from loudly.stats.cuped import Cuped, adjusted_difference, cuped_of


def test_unbiased_with_the_promised_spread_and_an_honest_error() -> None:
    rng, effects, plain, inside, reductions = np.random.default_rng(3), [], [], [], []
    for _ in range(600):
        x = rng.gamma(2.0, size=400)
        y = 1.2 * x + rng.normal(size=400) * 1.2 + np.repeat([0.0, 0.3], 200)
        found = adjusted_difference(y[:200], x[:200], y[200:], x[200:])
        effects.append(found.effect)
        plain.append(found.plain)
        reductions.append(found.reduction)
        inside.append(abs(found.effect - 0.3) < 1.96 * found.error)
    assert np.mean(effects) == pytest.approx(0.3, abs=3 * np.std(effects) / np.sqrt(600))
    correlation2 = 1.44 * 2 / (1.44 * 2 + 1.44)
    assert np.mean(reductions) == pytest.approx(correlation2, abs=0.03)
    assert 1 - np.var(effects) / np.var(plain) == pytest.approx(correlation2, abs=0.06)
    assert 0.92 < np.mean(inside) < 0.98


def test_a_covariate_that_tells_nothing_costs_nothing() -> None:
    rng = np.random.default_rng(4)
    found = adjusted_difference(*(rng.normal(size=2000) for _ in range(4)))
    assert abs(found.reduction) < 0.01
    assert found.effect == pytest.approx(found.plain, abs=0.01)


def test_streams_merge_and_come_back() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=300)
    y = x + rng.normal(size=300)
    x[7] = np.nan
    whole = Cuped().add(x, y)
    cut = cuped_of(json.loads(json.dumps(Cuped().add(x[:90], y[:90]).plain()))).merge(Cuped().add(x[90:], y[90:]))
    assert cut.plain() == pytest.approx(whole.plain())
    assert whole.n == 299
    assert np.isfinite(whole.adjust(x, y)).all()
    known = np.isfinite(x)
    assert whole.theta == pytest.approx(np.polyfit(x[known], y[known], 1)[0])
