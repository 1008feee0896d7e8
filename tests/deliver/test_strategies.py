"""Every strategy on the table under the same judgments; the canary's error rates by simulation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from loudly.core.clock import DAY
from loudly.core.seams import Calls, Feedback, Strategy
from loudly.core.values import Arm, Verdict
from loudly.deliver.blue_green import blue_green
from loudly.deliver.canary import Canary
from loudly.deliver.rollout import RolloutSpec, parse_rollout
from loudly.deliver.shadow import shadow
from loudly.errors import ConfigError
from loudly.metrics.table import metric
from naive import naive

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))
AUC = metric("roc_auc")


def make(kind: str, **settings: Any) -> Strategy:
    text = {"canary": "canary 10% 50% 100%", "shadow": "shadow 1d", "blue-green": "blue-green"}[kind]
    spec = replace(parse_rollout(text), **settings)
    return {"canary": Canary, "shadow": shadow, "blue-green": blue_green}[kind](spec, AUC)  # type: ignore[abstract]


def feedback(rng: np.random.Generator, day: int, n: int, quality: float, slices: dict[str, float] | None = None) -> Feedback:
    """Labelled rows of a day: control at d' = 1, the candidate at `quality` (in a slice as told)."""
    truth = (rng.random(n) < 0.3).astype(float)
    shared = rng.normal(0, 0.8, n)
    d = np.full(n, quality)
    masks = {}
    which = rng.random(n)
    for i, (name, other) in enumerate((slices or {}).items()):
        masks[name] = (which >= i * 0.2) & (which < (i + 1) * 0.2)
        d[masks[name]] = other
    control = 1 / (1 + np.exp(-(truth + shared + rng.normal(0, 0.6, n))))
    candidate = 1 / (1 + np.exp(-(d * truth + shared + rng.normal(0, 0.6, n))))
    arm = (rng.random(n) < 0.1).astype(np.int64)
    return Feedback(day * DAY, [str(i) for i in range(n)], arm, truth, {"control": control, "candidate": candidate}, masks, [day])


def looks(strategy: Strategy, seed: int, quality: float, slices: dict[str, float] | None = None, often: int = 1) -> list[Verdict]:
    """The verdicts of twelve days, so many a day, the last one at its end; up to the one that ends it."""
    rng, state, told = np.random.default_rng(seed), strategy.init(ARMS, 0), list[Verdict]()
    for day in range(12):
        labelled = feedback(rng, day, 400, quality, slices)
        for look in range(often):
            state, verdict = strategy.update(state, labelled.take(np.arange(400) % often == look))
            if look == often - 1:
                state, verdict = strategy.advance(state, (day + 1) * DAY)
            told.append(verdict)
            if verdict.passed or verdict.failed:
                return told
    return told


def run(strategy: Strategy, seed: int, quality: float, slices: dict[str, float] | None = None) -> Verdict:
    return looks(strategy, seed, quality, slices)[-1]


def less_by(gap: float) -> float:
    """The quality at which an AUC is that much below control's."""
    return float(np.sqrt(2) * norm.ppf(norm.cdf(1 / np.sqrt(2)) - gap))


def test_growing_keeps_a_unit_on_the_candidate() -> None:
    canary = make("canary")
    draws = np.random.default_rng(0).random(1000)
    state = canary.init(ARMS, 0)
    met: set[int] = set()
    for day in range(1, 4):
        now = set(np.flatnonzero(canary.assign(state, draws).arm))
        assert met <= now
        met = now
        state, _ = canary.advance(state, day * DAY)
    assert len(met) == 1000


@pytest.mark.simulation
def test_error_rates_looked_at_every_day() -> None:
    """Equal models are rarely rolled back; a model worse by the margin is rarely promoted, one far worse never."""
    margin, runs = 0.03, 150
    canary = make("canary", margin=margin)
    equal = [run(canary, seed, 1.0) for seed in range(100)]
    worse = [looks(canary, seed, less_by(margin), often=6) for seed in range(runs)]
    limit = 0.025 + 2 * np.sqrt(0.025 * 0.975 / runs)
    assert np.mean([v.failed for v in equal]) <= limit
    assert np.mean([v.passed for v in equal]) > 0.8
    assert np.mean([told[-1].passed for told in worse]) <= limit
    looked_once = [any(naive(v.evidence[0])[0] > -margin for v in told) for told in worse]
    assert np.mean(looked_once) > limit, "the interval of one look must fail this test, or the test is blind"
    far = [run(canary, seed, 0.6) for seed in range(40)]
    assert not any(v.passed for v in far)
    assert np.mean([v.failed for v in far]) > 0.9


def test_a_candidate_bad_in_one_slice_is_stopped_there_and_equal_slices_are_not() -> None:
    canary = make("canary", margin=0.05, slice_margin=0.05)
    bad = [run(canary, seed, 1.15, slices={"a": -1.0, "b": 1.15}) for seed in range(40)]
    fair = [run(canary, seed, 1.0, slices={"a": 1.0, "b": 1.0, "c": 1.0}) for seed in range(60)]
    assert np.mean([v.failed and "a " in v.reason for v in bad]) > 0.8
    assert not any(v.passed for v in bad)
    assert np.mean([v.failed for v in fair]) <= 0.07


def test_errors_stop_a_candidate_before_any_label() -> None:
    canary = make("canary", paired=False)
    state = canary.init(ARMS, 0)
    state, verdict = canary.observe(state, Calls({"control": 900, "candidate": 100}, {"control": 3, "candidate": 12}))
    assert verdict.failed
    assert "12 of 15" in verdict.reason
    fresh, verdict = canary.observe(canary.init(ARMS, 0), Calls({"control": 900, "candidate": 100}, {"control": 9, "candidate": 1}))
    assert not verdict.failed
    assert fresh["evidence"]["answered"] == {"control": 900, "candidate": 100}


def test_undecided_says_what_is_missing() -> None:
    canary = make("canary")
    _, verdict = canary.update(canary.init(ARMS, 0), feedback(np.random.default_rng(0), 0, 100, 1.0))
    assert "more labelled days" in verdict.missing
    assert "more labelled rows" in verdict.missing


def test_unpaired_judges_only_what_each_arm_answered() -> None:
    canary = make("canary", paired=False)
    assert canary.assign(canary.init(ARMS, 0), np.array([0.5])).shadows == ()
    state, _ = canary.update(canary.init(ARMS, 0), feedback(np.random.default_rng(0), 0, 1000, 1.0))
    state, _ = canary.update(state, feedback(np.random.default_rng(1), 1, 1000, 1.0))
    counts = {arm: sum(found[c]["n"] for c in ("positives", "negatives")) for arm, found in state["evidence"]["each"].items()}
    assert counts["control"] > 5 * counts["candidate"] > 0


@pytest.mark.parametrize(
    "text",
    [
        "canry 5% 100%",
        "canary 50% 5% 100%",
        "canary 5%",
        "canary 5% 5% 100%",
        "canary 0% 100%",
        "shadow 1x",
        "canary 5% 100% every 20d",
        "canary 5%,25%,100%",
        "canary x% 100%",
        "ab 50 % for 14d",
        "shadow 5% 1d",
        "blue-green 10%",
        "thompson among 2.5 for 14d",
        "thompson among 0 for 14d",
        "ab among 0",
    ],
)
def test_impossible_rollouts_are_refused_with_a_hint(text: str) -> None:
    with pytest.raises(ConfigError, match=r"Do:|Seen:"):
        parse_rollout(text)


def test_settings_are_checked() -> None:
    assert parse_rollout("canary 5% 25% 100% every 2d").hold == 2 * DAY
    with pytest.raises(ConfigError):
        parse_rollout("shadow 1d", alpha=0.9)
    assert isinstance(parse_rollout("blue-green"), RolloutSpec)


def calls(canary: Any, seed: int, slower: float, n: int = 1500, share: float = 0.5, paired: bool = True) -> Verdict:
    """Calls with log-normal latency and a machine that is slow for all of them now and then; looked at after each."""
    rng = np.random.default_rng(seed)
    state = {**canary.init(ARMS, 0), "step": 1}
    verdict = canary.advance(state, 1)[1]
    for i in range(n):
        outage = 20.0 if 700 < i < 750 else 1.0
        base = {"control": 1.0, "candidate": slower}
        met = list(base) if paired else ["candidate" if rng.random() < share else "control"]
        seconds = {arm: 0.01 * base[arm] * outage * float(np.exp(0.3 * rng.standard_normal())) for arm in met}
        state, verdict = canary.observe(state, Calls(dict.fromkeys(met, 3), {}, seconds))
        if verdict.failed:
            return verdict
    return verdict


@pytest.mark.simulation
@pytest.mark.parametrize("paired", [True, False])
def test_latency_stops_a_slow_candidate_and_not_a_slow_machine(paired: bool) -> None:
    canary = make("canary", paired=paired)
    equal = [calls(canary, seed, 1.0, paired=paired).failed for seed in range(40)]
    slow = [calls(canary, seed, 2.0, paired=paired) for seed in range(20)]
    assert np.mean(equal) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 40)
    assert np.mean([v.failed for v in slow]) > 0.9
    assert "slow calls are the candidate's" in next(v for v in slow if v.failed).reason
