"""Exact confidence sequences: coverage at every look, width beside the asymptotic one, laws of a resumable state."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.errors import DataError
from loudly.stats.betting import POINTS, Bernstein, Betting, bernstein_of, betting_of, difference, grid
from loudly.stats.confidence_sequence import Running, interval

Draw = Callable[[np.random.Generator, int], np.ndarray]
STREAMS: dict[str, tuple[Draw, float]] = {
    "coin": (lambda rng, n: (rng.random(n) < 0.5).astype(float), 0.5),
    "rare": (lambda rng, n: (rng.random(n) < 0.02).astype(float), 0.02),
    "narrow": (lambda rng, n: rng.beta(10, 30, n), 0.25),
    "two ends": (lambda rng, n: rng.beta(0.2, 0.3, n), 0.4),
    "skewed": (lambda rng, n: np.where(rng.random(n) < 0.01, 1.0, 0.2), 0.208),
}
RUNS = 80


def wrong(alpha: float, runs: int) -> float:
    """Above this many misses a formula is wrong, not unlucky."""
    return alpha + 2.5 * math.sqrt(alpha * (1 - alpha) / runs)


@pytest.mark.simulation
@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("kind", [Betting, Bernstein])
def test_the_mean_is_covered_at_every_look(name: str, kind: type[Betting] | type[Bernstein]) -> None:
    """The interval is a running intersection, so one look at the end is a look after every value."""
    draw, mean = STREAMS[name]
    rng = np.random.default_rng(11)
    ends = [kind().add(draw(rng, 1000)) for _ in range(RUNS)]
    missed = float(np.mean([not end.low <= mean <= end.high for end in ends]))
    assert missed <= wrong(0.05, RUNS)


def test_the_usual_interval_would_fail_that_test() -> None:
    draw, mean = STREAMS["coin"]
    rng, n = np.random.default_rng(12), np.arange(1, 1001)
    missed = 0
    for _ in range(RUNS):
        means = np.cumsum(draw(rng, 1000)) / n
        missed += bool((np.abs(means - mean) > 1.96 * np.sqrt(means * (1 - means) / n))[20:].any())
    assert missed / RUNS > 0.25


@pytest.mark.simulation
def test_betting_uses_up_most_of_its_risk_in_the_long_run() -> None:
    """A process that never errs would be too wide: on a coin, Ville's bound is nearly met at alpha 20 %."""
    rng = np.random.default_rng(13)
    missed = [not s.low <= 0.5 <= s.high for s in (Betting(0.2).add(STREAMS["coin"][0](rng, 3000)) for _ in range(60))]
    assert 0.03 <= np.mean(missed) <= wrong(0.2, 60)


@pytest.mark.parametrize(("name", "n", "least", "most"), [
    ("coin", 100, 0.4, 0.7), ("coin", 1000, 0.9, 1.2), ("coin", 10_000, 1.1, 1.5),
    ("rare", 1000, 0.8, 1.2), ("rare", 10_000, 1.0, 1.4), ("narrow", 10_000, 0.9, 1.3),
])  # fmt: skip
def test_its_width_beside_the_asymptotic_one(name: str, n: int, least: float, most: float) -> None:
    rng = np.random.default_rng(14)
    ours = peer = plain = 0.0
    for _ in range(10):
        values = STREAMS[name][0](rng, n)
        one, two = Betting().add(values), Bernstein().add(values)
        low, high = interval(Running().add(values), 0.05)
        ours, plain, peer = ours + one.high - one.low, plain + two.high - two.low, peer + high - low
    assert least < ours / peer < most
    assert ours < plain * 1.02, "betting is the tighter of the two"
    assert plain < 2.0 * ours


def test_bernstein_is_the_published_formula() -> None:
    """Theorem 2, written out value by value."""
    values = np.random.default_rng(15).random(200)
    alpha, total, squares, low, high = 0.05, 0.5, 0.25, 0.0, 1.0
    stakes = staked = price = 0.0
    for t, x in enumerate(values, start=1):
        before, variance = total / t, squares / t
        stake = min(math.sqrt(2 * math.log(2 / alpha) / (variance * t * math.log(1 + t))), 0.5)
        stakes, staked = stakes + stake, staked + stake * x
        price += 4 * (x - before) ** 2 * (-math.log(1 - stake) - stake) / 4
        total += x
        squares += (x - total / (t + 1)) ** 2
        reach = (math.log(2 / alpha) + price) / stakes
        low, high = max(low, staked / stakes - reach), min(high, staked / stakes + reach)
    found = Bernstein(alpha).add(values)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_betting_is_the_capital_of_the_bets_and_nothing_between_grid_points_is_lost() -> None:
    values = np.random.default_rng(16).beta(2, 5, 300)
    found = Betting().add(values)
    m = np.linspace(0, 1, 20_001)
    total, squares = 0.5, 0.25
    up, down, low, high = np.zeros(len(m)), np.zeros(len(m)), 0.0, 1.0
    for t, x in enumerate(values, start=1):
        stake = min(math.sqrt(2 * math.log(40) / (squares / t * t * math.log(1 + t))), 0.5)
        up, down = up + np.log1p(stake * (x - m)), down + np.log1p(-stake * (x - m))
        total += x
        squares += (x - total / (t + 1)) ** 2
        low = max(low, m[up >= math.log(40)].max(initial=0.0))
        high = min(high, m[down >= math.log(40)].min(initial=1.0))
    assert found.low <= low + 5e-5, "out by the chord is out for sure, to the step of this grid"
    assert found.high >= high - 5e-5
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-3)
    assert found.log_e(values.mean()) < 1 < math.log(20) < found.log_e(0.9)
    assert np.allclose(found.up, np.interp(grid(POINTS), m, up), atol=1e-3)
    hedged = np.maximum(up, down) - math.log(2)  # half of the stake is on either side
    told = np.array([found.log_e(mean) for mean in m])
    assert (told <= hedged + 1e-9).all(), "between grid points never more than it is"
    at = [found.log_e(mean) for mean in grid(POINTS)]
    assert at == pytest.approx(np.maximum(found.up, found.down) - math.log(2))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), max_size=30), max_size=6), st.sampled_from([Betting, Bernstein]))
def test_any_split_and_any_restart_gives_the_same_stream(parts: list[list[float]], kind: type[Betting] | type[Bernstein]) -> None:
    whole = kind().add(np.array([v for part in parts for v in part]))
    stream = kind()
    back: Callable[[dict[str, object]], Betting | Bernstein] = betting_of if kind is Betting else bernstein_of  # type: ignore[assignment]
    for part in parts:
        stream = back(json.loads(json.dumps(stream.add(np.array(part)).plain())))  # type: ignore[assignment]
    assert (stream.low, stream.high) == pytest.approx((whole.low, whole.high), abs=1e-9)
    assert stream.n == whole.n
    assert 0 <= stream.low <= 1
    assert 0 <= stream.high <= 1


@pytest.mark.simulation
def test_a_difference_covers_and_finds() -> None:
    rng, missed, found = np.random.default_rng(17), 0, 0
    for _ in range(100):
        one, two = (Betting(0.025).add((rng.random(1500) < rate).astype(float)) for rate in (0.10, 0.18))
        low, high = difference(one, two)
        missed, found = missed + (not low <= 0.08 <= high), found + (low > 0)
    assert missed / 100 <= wrong(0.05, 100)
    assert found / 100 > 0.8


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_values_outside_are_refused(bad: float) -> None:
    for kind in (Betting, Bernstein):
        with pytest.raises(DataError, match="Scale the values"):
            kind().add(np.array([0.5, bad]))
