"""Errors in bursts: equal models are rarely rolled back by them, whether users retry or a bad row fails its whole batch."""

from __future__ import annotations

import numpy as np
import pytest

from loudly.core.seams import Calls
from loudly.core.values import Arm
from loudly.deliver.ab import Ab
from loudly.deliver.canary import Canary
from loudly.deliver.failing import Failing, telling
from loudly.deliver.rollout import parse_rollout
from loudly.metrics.table import metric

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))
SHARE, BURST, RUNS = 0.1, 5, 150
CANARY = Canary(parse_rollout("canary 10% 50% 100%", paired=False), metric("brier"))
AB = Ab(parse_rollout("ab 10%"), metric("brier"))


def requests(rng: np.random.Generator, users: int, rates: tuple[float, float]) -> list[tuple[str, int]]:
    """Failed requests in order: a user who fails does so five times, always on the same arm."""
    arm = (rng.random(users) < SHARE).astype(np.int64)
    failing = np.flatnonzero(rng.random(users) < np.asarray(rates)[arm])
    return [(f"u{u}", int(arm[u])) for u in failing for _ in range(BURST)]


def stopped(strategy: Canary | Ab, seed: int, rates: tuple[float, float], *, by_unit: bool) -> bool:
    state, failing = strategy.init(ARMS, 0), Failing()
    for unit, arm in requests(np.random.default_rng(seed), 5_000, rates):
        failing, first = failing.add(unit)
        told = {ARMS[arm].name: 1} if first or not by_unit else {}
        state, verdict = strategy.observe(state, Calls({"control": 90, "candidate": 10}, told))
        if verdict.failed:
            return True
    return False


@pytest.mark.simulation
@pytest.mark.parametrize("strategy", [CANARY, AB])
def test_equal_models_with_errors_in_bursts_are_rarely_rolled_back(strategy: Canary | Ab) -> None:
    alpha = strategy.spec.alpha / 2
    found = np.mean([stopped(strategy, seed, (0.01, 0.01), by_unit=True) for seed in range(RUNS)])
    assert found <= alpha + 2 * np.sqrt(alpha * (1 - alpha) / RUNS)
    assert np.mean([stopped(strategy, seed, (0.01, 0.01), by_unit=False) for seed in range(40)]) > 0.25, "or the test is blind"


def test_a_candidate_that_errs_five_times_as_often_is_found_all_the_same() -> None:
    assert np.mean([stopped(CANARY, seed, (0.01, 0.05), by_unit=True) for seed in range(30)]) > 0.9


def batches(rng: np.random.Generator, paired: bool, bad: float = 0.02) -> list[dict[str, np.ndarray]]:
    """Calls of 20 rows, where a bad row fails all rows of the arm that meets it (where both score all: of one or the other)."""
    calls = []
    for _ in range(400):
        arm = (rng.random(20) < SHARE).astype(np.int64)
        hit = np.unique(rng.integers(0, 2, 1) if paired else arm[rng.random(20) < bad / 20 * 10])
        if paired and rng.random() > 0.05:
            continue
        calls.append({a.name: np.full(20, k in hit) if paired else (arm == k) & (k in hit) for k, a in enumerate(ARMS)})
    return calls


@pytest.mark.simulation
@pytest.mark.parametrize("paired", [True, False])
def test_a_bad_row_that_fails_its_batch_is_one_accident(paired: bool) -> None:
    strategy = Canary(parse_rollout("canary 10% 50% 100%", paired=paired), metric("brier"))
    wrong = []
    for seed in range(100):
        state, failing, failed = strategy.init(ARMS, 0), Failing(), False
        for i, call in enumerate(batches(np.random.default_rng(seed), paired)):
            found = telling(call)
            if found is None:
                continue
            row, arm = found
            failing, first = failing.add(f"{i}-{row}")
            counts = {arm: int(first)}
            state, verdict = strategy.observe(state, Calls({"control": 18, "candidate": 2}, counts))
            failed |= verdict.failed
        wrong.append(failed)
    assert np.mean(wrong) <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / 100)


def test_a_row_that_both_arms_failed_tells_nothing_and_the_next_one_does() -> None:
    both = {"control": np.array([True, False, False]), "candidate": np.array([True, False, True])}
    assert telling(both) == (2, "candidate")
    assert telling({arm: np.array([True]) for arm in both}) is None
