"""The promises of the detectors that make one, by simulation: run lengths, and the chance of ever alarming falsely."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from loudly.core.values import plain
from loudly.errors import ConfigError, StreamRefused
from loudly.shift.streams.conformal_martingale import ConformalMartingale
from loudly.shift.streams.cusum import Cusum, run_length
from loudly.shift.streams.e_detector import EDetector
from loudly.shift.streams.risk import HarmfulShift, boundary, harmful_shift, upper_bound
from loudly.shift.streams.stream import carried


def first_alarm(detector: Any, values: np.ndarray) -> int:
    """Values until the first alarm; all of them where there is none."""
    state = detector.init()
    for first in range(0, len(values), 250):
        state, alarms = detector.update(state, values[first : first + 250])
        if len(alarms):
            return first + int(alarms[0]) + 1
    return len(values)


def bernoulli(rng: np.random.Generator, n: int, mean: float) -> np.ndarray:
    return (rng.random(n) < mean).astype(float)


def beta(rng: np.random.Generator, n: int, mean: float) -> np.ndarray:
    return rng.beta(8 * mean, 8 * (1 - mean), n)


def dependent(rng: np.random.Generator, n: int, mean: float) -> np.ndarray:
    """Values whose spread depends on those before them: only their conditional mean is kept."""
    wide = (np.arange(n) // 50) % 2 == 0
    return np.where(wide, bernoulli(rng, n, mean), mean)


@pytest.mark.simulation
@pytest.mark.parametrize("world", [bernoulli, beta, dependent])
@pytest.mark.parametrize("kind", ["sr", "cusum"])
@pytest.mark.parametrize("side", ["up", "both"])
def test_the_average_run_length_of_an_e_detector_is_at_least_one_over_alpha(world: Any, kind: Any, side: Any) -> None:
    """Runs are cut at 20/alpha values, which only shortens their average. Shiryaev-Roberts comes close to its bound."""
    detector = EDetector(mean=0.2, alpha=1 / 200, kind=kind, side=side)
    lengths = [first_alarm(detector, world(np.random.default_rng(s), 4000, 0.2)) for s in range(300)]
    assert np.mean(lengths) >= 200 - 2 * np.std(lengths) / np.sqrt(300)


def test_the_bound_of_an_e_detector_is_not_idle() -> None:
    """Alarms do come: no detector that never alarms passes for one that keeps its promise."""
    detector = EDetector(mean=0.2, alpha=1 / 200, side="up")
    lengths = [first_alarm(detector, bernoulli(np.random.default_rng(s), 8000, 0.2)) for s in range(200)]
    assert np.mean(lengths) < 10 * 200


@pytest.mark.parametrize("kind", ["sr", "cusum"])
def test_the_delay_of_an_e_detector_follows_the_size_of_the_change(kind: Any) -> None:
    """Delays fall with the change and stay within twice of ln(1/alpha) over the information of a value, plus the price of bets."""
    alpha, before, delays = 1e-4, 0.2, {}
    for after in (0.3, 0.4, 0.6, 0.9):
        detector = EDetector(mean=before, alpha=alpha, kind=kind, side="up")
        runs = []
        for seed in range(60):
            rng = np.random.default_rng(seed)
            values = np.concatenate([bernoulli(rng, 500, before), bernoulli(rng, 3000, after)])
            runs.append(first_alarm(detector, values) - 500)
        early = np.mean([run <= 0 for run in runs])
        assert early <= 500 * alpha + 2 * np.sqrt(0.05 * 0.95 / 60), "P(alarm within n) ≤ n · alpha"
        delays[after] = float(np.mean([run for run in runs if run > 0]))
        information = after * np.log(after / before) + (1 - after) * np.log((1 - after) / (1 - before))
        assert delays[after] <= 2 * np.log(8 / alpha) / information
    assert list(delays.values()) == sorted(delays.values(), reverse=True)


def test_an_e_detector_is_the_recursion_of_its_paper() -> None:
    rng = np.random.default_rng(11)
    values = rng.random(300) * 0.9
    for kind in ("sr", "cusum"):
        detector = EDetector(mean=0.4, alpha=1e-12, kind=kind, side="both", bets=3)
        bets = [b for sign, room in ((1, 0.4), (-1, 0.6)) for b in sign * np.geomspace(0.02, 0.9, 3) / room]
        m = np.zeros(6)
        for x in values:
            m = (1 + np.array(bets) * (x - 0.4)) * (m + 1 if kind == "sr" else np.maximum(m, 1))
        state, _ = detector.update(detector.init(), values[:-1])
        state, _ = detector.update(state, values[-1:])
        before, _ = detector.update(detector.init(), values[:-1])
        logs = np.array(state.gains) + np.array(before.starts)
        assert np.exp(logs) == pytest.approx(m)


def test_values_out_of_bounds_void_the_promise_and_are_refused() -> None:
    for detector in (EDetector(mean=0.5), HarmfulShift(0.5)):
        with pytest.raises(StreamRefused, match="leaves the bounds"):
            detector.update(detector.init(), np.array([0.5, 1.01]))


def uncorrected(calibration: np.ndarray, scores: np.ndarray, alpha: float) -> bool:
    """The same bets without the allowance for a fixed calibration set: ever over 1/alpha?"""
    plain_martingale = ConformalMartingale(calibration, alpha=alpha, side="both")
    p = plain_martingale.p_values(scores, 0)
    n = np.arange(len(p) + 1)
    best = []
    for bet in (0.2, 0.5, 1.0, 1.8, -0.2, -0.5, -1.0, -1.8):
        gains = carried(0.0, np.log1p(bet * (p - 0.5)))
        best.append(gains[1:] + np.logaddexp.accumulate(-np.log((n + 1) * (n + 2)) - gains)[:-1])
    return bool((np.logaddexp.reduce(best, axis=0) - np.log(8) >= -np.log(alpha)).any())


@pytest.mark.simulation
def test_a_conformal_martingale_hardly_ever_alarms_falsely_and_an_uncorrected_one_does() -> None:
    alpha, runs, false, naive = 0.1, 300, 0, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        calibration, scores = rng.normal(size=200), rng.normal(size=8000)
        detector = ConformalMartingale(calibration, alpha=alpha, side="both", seed=seed)
        false += len(detector.update(detector.init(), scores)[1])
        naive += uncorrected(calibration, scores, alpha)
    assert false / runs <= alpha
    assert naive / runs > 2 * alpha, "the uncorrected martingale must fail this test, or the test is blind"


def test_its_slack_covers_the_mean_p_value_given_the_calibration_set() -> None:
    missed = 0
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        u = rng.random(100)
        detector = ConformalMartingale(u, alpha=0.2, side="both")
        mean_p = (u.sum() + 0.5) / 101
        missed += abs(mean_p - 0.5) > detector.slack
    assert missed / 2000 <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 2000)


def test_ties_are_broken_fairly_and_the_martingale_alarms_once() -> None:
    rng = np.random.default_rng(12)
    calibration, scores = rng.integers(0, 3, 20_000).astype(float), rng.integers(0, 3, 20_000).astype(float)
    detector = ConformalMartingale(calibration)
    p = detector.p_values(scores, 0)
    assert np.histogram(p, 10, (0, 1))[0] == pytest.approx(np.full(10, 2000), rel=0.1)
    state, alarms = detector.update(detector.init(), np.concatenate([scores[:3000], np.full(3000, 2.0)]))
    assert len(alarms) == 1
    assert state.alarmed
    assert len(detector.update(state, np.full(3000, 2.0))[1]) == 0


def test_a_martingale_finds_a_change_after_a_long_calm_nearly_as_soon() -> None:
    delays = []
    for calm in (200, 20_000):
        rng = np.random.default_rng(13)
        detector = ConformalMartingale(rng.normal(size=2000))
        runs = [first_alarm(detector, np.concatenate([rng.normal(0, 1, calm), rng.normal(1, 1, 1000)])) - calm for _ in range(20)]
        assert min(runs) > 0
        delays.append(np.mean(runs))
    assert delays[1] < 3 * delays[0]


@pytest.mark.parametrize("method", ["betting", "bernstein"])
def test_a_harmless_shift_hardly_ever_alarms(method: Any) -> None:
    """The target's risk is at the edge of what is tolerated, where false alarms are likeliest."""
    alpha, false = 0.1, 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        detector = harmful_shift(bernoulli(rng, 1000, 0.2), tolerance=0.03, alpha=alpha, method=method)
        false += len(detector.update(detector.init(), bernoulli(rng, 5000, 0.23))[1])
    assert false / 300 <= alpha


@pytest.mark.parametrize("method", ["betting", "bernstein"])
def test_at_the_limit_itself_alarms_stay_within_alpha(method: Any) -> None:
    detector = HarmfulShift(0.2, alpha=0.1, method=method)
    for world in (bernoulli, beta, dependent):
        ever = [len(detector.update(detector.init(), world(np.random.default_rng(s), 4000, 0.2))[1]) for s in range(300)]
        assert np.mean(ever) <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 300)


def test_a_harmful_shift_is_found_and_betting_finds_a_late_one_sooner() -> None:
    delays: dict[str, list[int]] = {"betting": [], "bernstein": []}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        source = bernoulli(rng, 2000, 0.1)
        values = np.concatenate([bernoulli(rng, 2000, 0.1), bernoulli(rng, 8000, 0.3)])
        for method, found in delays.items():
            found.append(first_alarm(harmful_shift(source, 0.05, method=method), values) - 2000)  # type: ignore[arg-type]
    assert min(min(d) for d in delays.values()) > 0
    assert np.mean(delays["betting"]) < 500, "ln(6 bets · 2000 · 2001 / 0.025) over the information of 0.3 against 0.17: 400"
    assert np.mean(delays["betting"]) < np.mean(delays["bernstein"]) / 2
    assert max(delays["bernstein"]) < 8000


def test_the_bounds_on_risk_cover() -> None:
    above = below = 0
    for seed in range(500):
        rng = np.random.default_rng(seed)
        values = beta(rng, 400, 0.3)
        above += upper_bound(values, 0.1) >= 0.3
        detector = HarmfulShift(0.9, alpha=0.1)
        state, _ = detector.update(detector.init(), values)
        below += state.low <= 0.3
    assert min(above, below) / 500 >= 0.9
    with pytest.raises(ConfigError, match="without losses"):
        upper_bound(np.zeros(0), 0.1)


def test_the_lower_bound_holds_at_every_look_and_resumes() -> None:
    missed = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        means = np.repeat(rng.random(8), 250)
        x = bernoulli(rng, 2000, 0.5) if seed % 2 else rng.beta(2 * means + 0.01, 2 * (1 - means) + 0.01)
        mean = np.full(2000, 0.5) if seed % 2 else (2 * means + 0.01) / 2.02
        running = np.cumsum(mean) / np.arange(1, 2001)
        squares = carried(0.0, (x - (0.5 + np.concatenate(([0], np.cumsum(x)[:-1]))) / np.arange(1, 2001)) ** 2)[1:]
        missed += bool(((np.cumsum(x) - boundary(squares, 0.1)) / np.arange(1, 2001) > running).any())
    assert missed / 300 <= 0.1
    x = np.random.default_rng(14).random(2000)
    for method in ("betting", "bernstein"):
        detector = HarmfulShift(0.9, 0.1, method)  # type: ignore[arg-type]
        state, _ = detector.update(detector.init(), x[:77])
        state, _ = detector.update(detector.restore(json.loads(json.dumps(plain(state)))), x[77:])
        assert state == detector.update(detector.init(), x)[0]
        assert 0.4 < state.low < 0.5


@pytest.mark.parametrize(("threshold", "shift"), [(4.0, 0.0), (5.0, 0.0), (4.0, 1.0)])
def test_the_run_length_of_cusum_is_siegmund_s(threshold: float, shift: float) -> None:
    detector = Cusum(target=0.0, deviation=1.0, threshold=threshold, side="up")
    lengths = [first_alarm(detector, np.random.default_rng(s).normal(shift, 1, 200 if shift else 12_000)) for s in range(300)]
    assert np.mean(lengths) == pytest.approx(run_length(threshold, 0.5, shift), rel=0.2)
    assert run_length(4.0, 0.0) == pytest.approx(5.166**2)


def test_cusum_is_the_tabular_recursion() -> None:
    rng = np.random.default_rng(15)
    values = np.concatenate([rng.normal(3, 2, 600), rng.normal(5, 2, 300), rng.normal(0, 2, 300)])
    expected, learned, up, down = [], [], 0.0, 0.0
    for i, value in enumerate(values.tolist()):
        if len(learned) < 100:
            learned.append(value)
            continue
        z = (value - np.mean(learned)) / np.std(learned, ddof=1)
        up, down = max(0.0, up + z - 0.5), max(0.0, down - z - 0.5)
        if max(up, down) > 5:
            expected.append(i)
            learned, up, down = [], 0.0, 0.0
    detector = Cusum(threshold=5.0)
    assert detector.update(detector.init(), values)[1].tolist() == expected
    assert expected


def test_cusum_learns_on_while_all_values_are_the_same() -> None:
    detector = Cusum(learn=50)
    state, alarms = detector.update(detector.init(), np.full(1000, 7.0))
    assert state.deviation is None
    assert len(alarms) == 0
    state, _ = detector.update(state, np.random.default_rng(0).normal(7, 1, 50))
    assert state.deviation is not None
    assert 0.1 < state.deviation < 0.4, "the deviation of 1,000 constants and 50 others"
