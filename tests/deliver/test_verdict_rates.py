"""Error rates of verdicts where rows are not independent, where losses are rare, and the quick form of the simulation."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loudly.core.clock import DAY
from loudly.core.seams import Feedback
from loudly.core.values import Arm, Verdict
from loudly.deliver.canary import Canary
from loudly.deliver.rollout import parse_rollout
from loudly.metrics.table import metric

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))
ROOT = Path(__file__).parents[2]
MARGIN, BURST, LOOKS = 0.02, 5, 2


def canary(margin: float = MARGIN) -> Canary:
    return Canary(parse_rollout("canary 10% 50% 100%", margin=margin), metric("accuracy"))


def labels(rng: np.random.Generator, day: int, units: int, worse: float, *, by_unit: bool) -> Feedback:
    """Decisions of both models, five rows of each unit all alike; the candidate is wrong `worse` more often."""
    control = rng.random(units) < 0.2
    candidate = control ^ (rng.random(units) < np.where(control, 0.25, 0.0625 + worse / 0.8))
    rows = np.repeat(np.arange(units), BURST)
    names = [f"{day}-{u}" if by_unit else f"{day}-{u}-{i}" for i, u in enumerate(rows)]
    scores = {arm.name: wrong[rows].astype(float) for arm, wrong in zip(ARMS, (control, candidate), strict=True)}
    return Feedback(day * DAY, names, np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows)), scores, {}, [day])


def play(made: Canary, seed: int, worse: float, *, by_unit: bool = True) -> Verdict:
    rng, state = np.random.default_rng(seed), made.init(ARMS, 0)
    _, verdict = made.advance(state, 0)
    for day in range(14):
        for look in range(LOOKS):
            given = labels(rng, day, 60 // LOOKS, worse, by_unit=by_unit)
            state, verdict = made.update(state, replace(given, units=[f"{look}/{u}" for u in given.units]))
            if verdict.passed or verdict.failed:
                return verdict
        state, verdict = made.advance(state, (day + 1) * DAY)
        if not by_unit:
            state["evidence"]["by_day"] = None  # days would tell, too
    return verdict


@pytest.mark.simulation
def test_paired_rows_in_bursts_of_one_user_deceive_no_canary() -> None:
    """Both models score all rows, and five rows of a user are one: taken for five they would promote a worse model."""
    worse = [play(canary(), seed, MARGIN) for seed in range(150)]
    equal = [play(canary(), seed, 0.0) for seed in range(150)]
    limit = 0.05 + 2 * np.sqrt(0.05 * 0.95 / 150)
    assert np.mean([v.passed for v in worse]) <= limit
    assert np.mean([v.failed for v in equal]) <= limit
    naive = [play(canary(), seed, MARGIN, by_unit=False).passed for seed in range(80)]
    assert np.mean(naive) > 0.1, "rows taken for units must fail this test, or the test is blind"


def test_rows_without_a_single_loss_are_no_proof_of_a_small_margin() -> None:
    """With 600 rows alike a candidate may still be wrong in one row of two hundred: 5 % of such candidates show none."""
    for margin, passes in ((0.005, False), (0.05, True)):
        made = canary(margin)
        state = made.init(ARMS, 0)
        for day in range(5):
            nothing = {arm.name: np.zeros(120) for arm in ARMS}
            units = [f"{day}-{i}" for i in range(120)]
            given = Feedback(day * DAY, units, np.zeros(120, dtype=np.int64), np.zeros(120), nothing, {}, [day])
            state, _ = made.update(state, given)
            state, verdict = made.advance(state, (day + 1) * DAY)
        assert verdict.passed is passes


@pytest.mark.simulation
def test_a_candidate_with_rare_losses_at_the_margin_is_rarely_promoted() -> None:
    margin, promoted = 0.005, []
    for seed in range(200):
        rng, made = np.random.default_rng(seed), canary(margin)
        state, verdict = made.init(ARMS, 0), None
        for day in range(14):
            units = [f"{day}-{i}" for i in range(130)]
            wrong = {"control": np.zeros(130), "candidate": (rng.random(130) < margin).astype(float)}
            given = Feedback(day * DAY, units, np.zeros(130, dtype=np.int64), np.zeros(130), wrong, {}, [day])
            state, _ = made.update(state, given)
            state, verdict = made.advance(state, (day + 1) * DAY)
            if not verdict.missing:
                break
        promoted.append(verdict is not None and verdict.passed)
    assert np.mean(promoted) <= 0.05


@pytest.mark.simulation
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quick_form_of_the_simulation_keeps_its_promises() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "verdicts.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("holds  ") > 15
