"""The A/B test: false stops at every look with bursts, power at the planned size, sample ratio, CUPED."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loudly.core.clock import DAY
from loudly.core.seams import Calls, Feedback
from loudly.core.values import Arm, Decision, Verdict
from loudly.deliver.ab import MISMATCH, Ab
from loudly.deliver.canary import Canary
from loudly.deliver.rollout import parse_rollout
from loudly.errors import ConfigError
from loudly.metrics.table import metric
from loudly.stats.plan import proportion_deviation, sequential

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))


def make(text: str = "ab 50% for 14d", judged: str = "brier", **settings: Any) -> Ab:
    return Ab(parse_rollout(text, **settings), metric(judged))


def labelled(
    rng: np.random.Generator, day: int, units: int, wrong: tuple[float, float], burst: int = 1, share: float = 0.5
) -> Feedback:
    """Answers that are right or wrong (Brier loss 0 or 1), a burst of rows of one unit all alike."""
    arm = (rng.random(units) < share).astype(np.int64)
    missed = (rng.random(units) < np.asarray(wrong)[arm]).astype(float)
    names = [f"{day}-{i}" for i in range(units)]
    arm, missed, names = arm.repeat(burst), missed.repeat(burst), [n for n in names for _ in range(burst)]
    scores = {arm_.name: np.where(arm == i, missed, np.nan) for i, arm_ in enumerate(ARMS)}
    return Feedback(day * DAY, names, arm, np.zeros(len(arm)), scores, {}, [day])


def play(
    test: Ab, seed: int, wrong: tuple[float, float], days: int = 14, units: int = 150, burst: int = 1, looks: int = 2
) -> Verdict:
    rng, state = np.random.default_rng(seed), test.init(ARMS, 0)
    _, verdict = test.advance(state, 1)
    for day in range(days):
        for look in range(looks):
            given = labelled(rng, day, units // looks, wrong, burst)
            given = replace(given, units=[f"{look}/{u}" for u in given.units])
            state, verdict = test.update(state, given)
            if not verdict.missing:
                return verdict
        state, verdict = test.advance(state, (day + 1) * DAY)
        if not verdict.missing:
            return verdict
    return verdict


@pytest.mark.simulation
@pytest.mark.parametrize(("burst", "units"), [(5, 80), (10, 40)])
def test_equal_models_with_rows_in_bursts_are_rarely_stopped(burst: int, units: int) -> None:
    test = make(margin=0.02)
    found = [play(test, seed, (0.3, 0.3), units=units, burst=burst) for seed in range(100)]
    assert np.mean([v.failed for v in found]) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 100)
    assert not any(v.reason.startswith(MISMATCH) for v in found)


@pytest.mark.simulation
@pytest.mark.parametrize("by_unit", [True, False])
def test_rows_taken_for_units_would_stop_equal_models(by_unit: bool) -> None:
    """The interval on the difference leaves out 0 at some look; so it does often where each row is called a unit."""
    canary, wrong = Canary(parse_rollout("canary 50% 100%", paired=False), metric("brier")), []
    for seed in range(80):
        rng, state, out = np.random.default_rng(seed), canary.init(ARMS, 0), False
        for day in range(14):
            given = labelled(rng, day, 40, (0.3, 0.3), 20)
            names = given.units if by_unit else [f"{day}-{i}" for i in range(len(given.units))]
            state, verdict = canary.update(state, replace(given, units=names, at=0))  # days would tell, too
            seen = verdict.evidence[0]
            out |= day >= 3 and (seen.low > 0 or seen.high < 0)
        wrong.append(out)
    assert np.mean(wrong) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 80) if by_unit else np.mean(wrong) > 0.3


@pytest.mark.simulation
def test_a_model_worse_by_the_margin_is_rarely_promoted() -> None:
    test = make(margin=0.06)
    found = [play(test, seed, (0.3, 0.36), units=160, burst=3) for seed in range(100)]
    assert np.mean([v.passed for v in found]) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 100)


@pytest.mark.simulation
def test_an_auc_of_equal_models_with_bursts_is_rarely_called_worse() -> None:
    test, failed = make("ab 30% for 14d", "roc_auc", margin=0.03), []
    for seed in range(60):
        rng, state, verdict = np.random.default_rng(seed), test.init(ARMS, 0), None
        for day in range(8):
            truth = (rng.random(60) < 0.3).astype(float)
            score = (1 / (1 + np.exp(-truth - rng.normal(size=60)))).repeat(8)
            arm, truth = (rng.random(60) < 0.3).astype(np.int64).repeat(8), truth.repeat(8)
            scores = {name: np.where(arm == i, score, np.nan) for i, name in enumerate(("control", "candidate"))}
            given = Feedback(day * DAY, [f"{day}-{i // 8}" for i in range(480)], arm, truth, scores, {}, [day])
            state, verdict = test.update(state, given)
            if verdict.failed:
                break
        failed.append(verdict is not None and verdict.failed)
    assert np.mean(failed) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)


@pytest.mark.simulation
def test_power_at_the_planned_size() -> None:
    margin, days = 0.08, 10
    size = sequential(margin, proportion_deviation(0.3))
    test = make(margin=margin)
    found = [play(test, seed, (0.3, 0.3), days, size.rows // days, looks=1).passed for seed in range(200)]
    assert np.mean(found) >= 0.8 - 0.03
    assert np.mean([play(test, seed, (0.2, 0.45), days, 200, looks=1).failed for seed in range(40)]) > 0.9


def test_the_plan_is_told_from_the_start_and_from_the_spread_seen_later() -> None:
    test = make(margin=0.05)
    state = test.init(ARMS, 0)
    _, verdict = test.advance(state, 1)
    assert "assumed deviation of 0.5" in verdict.missing
    rng = np.random.default_rng(0)
    for day in range(3):
        state, verdict = test.update(state, labelled(rng, day, 300, (0.1, 0.1)))
    assert "labelled days" in verdict.missing
    assert "assumed" not in verdict.missing
    assert verdict.expected_at is not None


def test_a_mismatch_of_units_stops_the_analysis_for_good_and_errors_still_roll_back() -> None:
    test = make(margin=0.05)
    rng, state = np.random.default_rng(1), test.init(ARMS, 0)
    for day in range(6):
        state, verdict = test.update(state, labelled(rng, day, 600, (0.3, 0.1), share=0.4 if day < 4 else 0.9))
    for day in range(6, 20):
        state, verdict = test.update(state, labelled(rng, day, 600, (0.3, 0.1), share=0.5))
        assert verdict.decision is Decision.UNDECIDED
        assert verdict.reason.startswith(f"{MISMATCH}: ")
    _, verdict = test.observe(state, Calls({"control": 1000, "candidate": 1000}, {"candidate": 400}))
    assert verdict.failed


def test_many_rows_of_one_unit_are_no_mismatch() -> None:
    test, rng = make(), np.random.default_rng(2)
    one = labelled(rng, 0, 200, (0.3, 0.3))
    rows = np.concatenate([np.arange(200), np.full(5000, int(np.flatnonzero(one.arm)[0]))])
    scores = {name: score[rows] for name, score in one.scores.items()}
    _, verdict = test.update(
        test.init(ARMS, 0),
        replace(one, units=[one.units[i] for i in rows], arm=one.arm[rows], truth=one.truth[rows], scores=scores),
    )
    assert not verdict.reason.startswith(MISMATCH)


def test_a_covariate_from_before_narrows_the_interval_and_moves_nothing() -> None:
    test, gaps, widths = make(margin=0.01, judged="mae"), {0: [], 1: []}, {0: [], 1: []}
    for seed in range(60):
        rng, states = np.random.default_rng(seed), {0: test.init(ARMS, 0), 1: test.init(ARMS, 0)}
        for day in range(6):
            x = rng.gamma(2.0, size=200)
            arm = (rng.random(200) < 0.5).astype(np.int64)
            loss = x + 0.5 * rng.random(200) + 0.2 * arm
            scores = {name: np.where(arm == i, loss, np.nan) for i, name in enumerate(("control", "candidate"))}
            given = Feedback(day * DAY, [f"{day}-{i}" for i in range(200)], arm, np.zeros(200), scores, {}, [day])
            for used in states:
                context = x[:, None] if used else None
                states[used], verdict = test.update(states[used], replace(given, context=context))
                if day == 5:
                    seen = verdict.evidence[0]
                    gaps[used].append(seen.effect)
                    widths[used].append(seen.high - seen.low)
    assert np.mean(gaps[1]) == pytest.approx(-0.2, abs=3 * np.std(gaps[1]) / np.sqrt(60) + 1e-9)
    assert np.std(gaps[1]) < 0.6 * np.std(gaps[0])
    assert np.mean(widths[1]) < 0.7 * np.mean(widths[0])


@pytest.mark.parametrize("text", ["ab 100%", "ab 5% 50%", "ab 0%", "ab 50% for 12h"])
def test_impossible_tests_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_rollout(text)


def test_the_text_is_read() -> None:
    spec = parse_rollout("ab 20% for 21d", paired=True)
    assert (spec.steps, spec.deadline, spec.paired) == ((0.2,), 21 * DAY, False)
    assert parse_rollout("ab").steps == (0.5,)
    draws = np.random.default_rng(0).random(1000)
    test = make("ab 20%")
    made = test.assign(test.init(ARMS, 0), draws)
    assert made.shadows == ()
    assert abs(made.arm.mean() - 0.2) < 0.04
