"""river as the judge: the same alarms at the same indices with the same settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp

from loudly.shift.streams.adwin import Adwin
from loudly.shift.streams.ddm import Ddm
from loudly.shift.streams.eddm import Eddm
from loudly.shift.streams.kswin import Kswin, least_gap
from loudly.shift.streams.page_hinkley import PageHinkley

drift: Any = pytest.importorskip("river.drift", reason="LOUD: river is not installed; nobody judges the stream detectors")

SEEDS = range(25)


def theirs(detector: Any, values: np.ndarray) -> list[int]:
    found = []
    for i, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            found.append(i)
    return found


def ours(detector: Any, values: np.ndarray) -> tuple[list[int], Any]:
    state, alarms = detector.update(detector.init(), values)
    return alarms.tolist(), state


def numbers(seed: int, changes: bool) -> np.ndarray:
    """Up to four stretches with means and deviations of their own, in an arbitrary unit."""
    rng = np.random.default_rng(seed)
    parts = [rng.normal(0, 1, 4000)]
    if changes:
        parts += [rng.normal(rng.uniform(-2, 2), rng.uniform(0.5, 2), rng.integers(10, 3000)) for _ in range(3)]
    whole: np.ndarray = np.concatenate(parts) * rng.uniform(0.1, 3) + rng.uniform(-50, 50)
    return whole


def errors(seed: int, changes: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.02, 0.7, 4) if changes else np.full(4, rng.uniform(0.02, 0.5))
    return (rng.random(6000) < np.repeat(rates, 1500)).astype(float)


ADWIN = [
    {},
    {"delta": 0.3, "clock": 1, "shortest": 1},
    {"delta": 0.05, "clock": 5, "buckets": 2},
    {"delta": 0.01, "clock": 10, "buckets": 7, "shortest": 10, "grace": 200},
]
NAMES = {"buckets": "max_buckets", "shortest": "min_window_length", "grace": "grace_period"}


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("settings", ADWIN, ids=str)
def test_adwin(settings: dict[str, Any], changes: bool) -> None:
    told = {NAMES.get(k, k): v for k, v in settings.items()}
    alarmed = 0
    for seed in SEEDS:
        values = numbers(seed, changes)
        found, _ = ours(Adwin(**settings, restart=True), values)
        assert found == theirs(drift.ADWIN(**told), values), seed
        alarmed += len(found)
    assert alarmed or not changes


@pytest.mark.parametrize("settings", ADWIN, ids=str)
def test_adwin_as_in_the_paper_is_the_inner_window_of_river(settings: dict[str, Any]) -> None:
    inner: Any = pytest.importorskip("river._river_rust").drift.AdaptiveWindowing
    defaults = {"delta": 0.002, "clock": 32, "max_buckets": 5, "min_window_length": 5, "grace_period": 10}
    for seed in SEEDS:
        values = numbers(seed, True)
        judge = inner(**{**defaults, **{NAMES.get(k, k): v for k, v in settings.items()}})
        expected = [i for i, value in enumerate(values.tolist()) if judge.update(value)]
        found, state = ours(Adwin(**settings), values)
        assert found == expected, seed
        assert state.width == judge.get_width()


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("mode", ["up", "down", "both"])
@pytest.mark.parametrize("forget", [1.0, 0.9999, 0.99])
def test_page_hinkley(forget: float, mode: Any, changes: bool) -> None:
    alarmed = 0
    for seed in SEEDS:
        values = numbers(seed, changes)
        threshold = float(np.random.default_rng(seed).uniform(5, 80))
        found, _ = ours(PageHinkley(threshold=threshold, forget=forget, mode=mode), values)
        assert found == theirs(drift.PageHinkley(threshold=threshold, alpha=forget, mode=mode), values), seed
        alarmed += len(found)
    assert alarmed


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("settings", [(30, 2.0, 3.0), (100, 1.5, 2.5), (1, 2.0, 4.0)], ids=str)
def test_ddm(settings: tuple[int, float, float], changes: bool) -> None:
    alarmed = 0
    for seed in SEEDS:
        values, judge = errors(seed, changes), drift.binary.DDM(*settings)
        found, state = ours(Ddm(*settings), values)
        assert found == theirs(judge, values), seed
        assert state.warning == judge.warning_detected
        alarmed += len(found)
    assert alarmed or not changes


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("settings", [(30, 0.95, 0.9), (100, 0.9, 0.8), (5, 0.95, 0.7)], ids=str)
def test_eddm(settings: tuple[int, float, float], changes: bool) -> None:
    alarmed = 0
    for seed in SEEDS:
        values = errors(seed, changes)
        found, _ = ours(Eddm(*settings), values)
        assert found == theirs(drift.binary.EDDM(*settings), values), seed
        alarmed += len(found)
    assert alarmed or not changes


def test_streams_without_any_error_and_with_nothing_else() -> None:
    for values in (np.zeros(500), np.ones(500), np.repeat([0.0, 1.0], 250), np.repeat([1.0, 0.0], 250)):
        assert ours(Ddm(), values)[0] == theirs(drift.binary.DDM(), values)
        assert ours(Eddm(), values)[0] == theirs(drift.binary.EDDM(), values)
        assert ours(Adwin(restart=True), values)[0] == theirs(drift.ADWIN(), values)
        assert ours(PageHinkley(), values)[0] == theirs(drift.PageHinkley(), values)


def first_alarms(kind: str, seed: int) -> tuple[int, int]:
    """Alarms in 500 quiet values, and the delay to a change of one deviation after them."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(0, 1, 500), rng.normal(1, 1, 200)]).round(1)
    found = ours(Kswin(seed=seed, restart=True), values)[0] if kind == "ours" else theirs(drift.KSWIN(seed=seed), values)
    return sum(a < 500 for a in found), min((a - 500 for a in found if a >= 500), default=200)


@pytest.mark.slow
def test_kswin_alarms_as_often_and_as_soon() -> None:
    """Both draw at random, so rates and delays are compared: within three standard errors of their paired difference."""
    gaps = np.array([np.subtract(first_alarms("ours", s), first_alarms("theirs", s)) for s in range(30)])
    errors = gaps.std(axis=0, ddof=1) / np.sqrt(len(gaps))
    assert (np.abs(gaps.mean(axis=0)) <= 3 * errors).all()


@pytest.mark.parametrize("alpha", [0.05, 0.005, 1e-4])
@pytest.mark.parametrize("n", [5, 30, 60])
def test_the_gap_of_kswin_is_where_scipy_puts_the_p_value(n: int, alpha: float) -> None:
    def p(gap: int) -> float:
        """Of two samples of n whose distribution functions differ by gap/n."""
        x = np.arange(n, dtype=float)
        y = x + gap - 0.5
        assert ks_2samp(x, y).statistic == pytest.approx(gap / n)
        return float(ks_2samp(x, y, method="exact").pvalue)

    gap = least_gap(n, alpha)
    assert gap > n or p(gap) <= alpha
    assert p(min(gap - 1, n)) > alpha
