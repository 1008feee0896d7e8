"""What every delivery strategy owes: run these against yours, with a fixture `strategy` (arms: control, candidate; ROC AUC)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from loudly.core.canon import canonical
from loudly.core.clock import DAY, HOUR
from loudly.core.seams import Calls, Feedback, Floats
from loudly.core.values import Arm, Decision, Verdict

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))
NAMES = tuple(arm.name for arm in ARMS)
ANSWERED, FAILED, SECONDS = {"control": 90, "candidate": 10}, {"control": 1, "candidate": 0}, {"control": 0.01, "candidate": 0.02}


def assign(strategy: Any, state: Any, draws: Floats) -> Any:
    """Who answers; a contextual strategy sees the same context for every unit."""
    return strategy.assign(state, draws, context_of(strategy, len(draws)))


def context_of(strategy: Any, n: int) -> Floats | None:
    """What a contextual strategy, or the one that a ramp is around, must see of n units; or None."""
    inner = getattr(strategy, "inner", strategy)
    return np.ones((n, inner.features)) if hasattr(inner, "features") else None


def feedback_of(strategy: Any, state: Any, day: int, n: int = 200) -> Feedback:
    """Labelled rows of a day, answered by whom the strategy says; the arms are equally good; who did not score has NaN."""
    rng = np.random.default_rng(day)
    truth = (rng.random(n) < 0.3).astype(float)
    made = assign(strategy, state, rng.random(n))
    scores: dict[str, Floats] = {}
    for index, name in enumerate(NAMES):
        score = 1 / (1 + np.exp(-(truth + rng.normal(size=n))))
        scores[name] = score if name in made.shadows else np.where(made.arm == index, score, np.nan)
    slices = {"young": rng.random(n) < 0.4}
    units, context = [f"u{day}-{i}" for i in range(n)], context_of(strategy, n)
    learned = {"reward": truth, "propensity": made.propensity, "context": context, "share": made.share}
    return Feedback(day * DAY, units, made.arm, truth, scores, slices, [day], **learned)


def steps(strategy: Any, state: Any, day: int) -> list[tuple[Any, Verdict]]:
    """One day: labels, answers, and the passing of time, each from the same state."""
    return [
        strategy.update(state, feedback_of(strategy, state, day)),
        strategy.observe(state, Calls(ANSWERED, FAILED, SECONDS)),
        strategy.observe(state, Calls(ANSWERED, FAILED)),
        strategy.advance(state, (day + 1) * DAY),
    ]


class StrategyCase:
    """Conformance of a delivery strategy."""

    def test_the_state_is_plain_json_resumable_and_never_changed_in_place(self, strategy: Any) -> None:
        state = strategy.init(ARMS, 0)
        for day in range(5):
            before = canonical(state)
            once, again = steps(strategy, state, day), steps(strategy, json.loads(before), day)
            assert canonical(state) == before
            assert [(canonical(s), v) for s, v in once] == [(canonical(s), v) for s, v in again]
            for made, _ in once:
                assert json.loads(canonical(made)) == json.loads(json.dumps(made))
            state, _ = strategy.update(state, feedback_of(strategy, state, day))
            state, _ = strategy.advance(state, (day + 1) * DAY)

    def test_propensities_are_the_frequencies(self, strategy: Any) -> None:
        state, draws = strategy.init(ARMS, 0), (np.arange(20_000) + 0.5) / 20_000
        for day in range(4):
            made = assign(strategy, state, draws)
            assert made.arm.shape == made.propensity.shape == draws.shape
            assert np.isin(made.arm, (0, 1)).all()
            assert ((made.propensity > 0) & (made.propensity <= 1)).all()
            assert set(made.shadows) <= set(NAMES)
            for arm in (0, 1):
                mine = made.arm == arm
                if mine.any():
                    assert np.allclose(made.propensity[mine], mine.mean(), atol=1e-3)
            state, _ = strategy.advance(state, (day + 1) * DAY)

    def test_the_shares_are_the_propensities(self, strategy: Any) -> None:
        state, draws = strategy.init(ARMS, 0), (np.arange(2_000) + 0.5) / 2_000
        for day in range(4):
            shares = strategy.shares(state, context_of(strategy, len(draws)))
            if shares.size:
                made = assign(strategy, state, draws)
                each = np.broadcast_to(shares, (len(draws), len(ARMS)))
                assert np.allclose(each.sum(axis=1), 1.0)
                assert np.allclose(each[np.arange(len(draws)), made.arm], made.propensity)
            state, _ = strategy.update(state, feedback_of(strategy, state, day))
            state, _ = strategy.advance(state, (day + 1) * DAY)

    def test_a_unit_meets_the_same_arm_alone_and_in_a_batch(self, strategy: Any) -> None:
        state, draws = strategy.init(ARMS, 0), np.random.default_rng(0).random(200)
        made = assign(strategy, state, draws)
        for i in range(0, 200, 7):
            alone = assign(strategy, state, draws[i : i + 1])
            assert (alone.arm[0], alone.propensity[0]) == (made.arm[i], made.propensity[i])
        assert len(assign(strategy, state, draws[:0]).arm) == 0

    def test_rankings_are_merged_fairly_and_the_same_by_whoever_merges_them(self, strategy: Any) -> None:
        if not hasattr(strategy, "merge"):
            return
        state, scores, firsts = strategy.init(ARMS, 0), [np.arange(5.0), -np.arange(5.0)], []
        for unit in range(600):
            made, again = (strategy.merge(state, scores, f"unit {unit}", "rollout 1") for _ in range(2))
            assert sorted(made.place.tolist()) == list(range(5))
            assert np.isin(made.arm, (0, 1)).all()
            assert ((made.propensity > 0) & (made.propensity <= 1)).all()
            assert all((getattr(made, what) == getattr(again, what)).all() for what in ("place", "arm", "propensity"))
            firsts.append(int(made.arm[made.place == 0][0]))
        assert abs(np.mean(firsts) - 0.5) < 0.1, "neither ranking comes first more often"

    def test_an_undecided_verdict_says_what_is_missing(self, strategy: Any) -> None:
        state = strategy.init(ARMS, 0)
        for _, verdict in (*steps(strategy, state, 0)[:-1], strategy.advance(state, HOUR)):
            assert verdict.decision is not Decision.PASS, "nothing is promoted in its first hours"
            assert verdict.decision is Decision.FAIL or verdict.missing
            assert verdict.reason

    def test_no_label_is_no_evidence(self, strategy: Any) -> None:
        state = strategy.init(ARMS, 0)
        nothing = feedback_of(strategy, state, 0, n=0)
        _, verdict = strategy.update(state, nothing)
        assert verdict.decision is Decision.UNDECIDED

    def test_the_evidence_of_the_stage_before_is_taken_on(self, strategy: Any) -> None:
        state, _ = strategy.update(strategy.init(ARMS, 0), feedback_of(strategy, strategy.init(ARMS, 0), 0))
        carried = strategy.init(ARMS, DAY, json.loads(canonical(state["evidence"])))
        _, verdict = strategy.advance(carried, DAY + 1)
        assert canonical(carried["evidence"]) == canonical(state["evidence"])
        assert verdict.reason

    def test_errors_of_the_candidate_are_a_failure_before_any_label(self, strategy: Any) -> None:
        _, verdict = strategy.observe(strategy.init(ARMS, 0), Calls({"control": 1000, "candidate": 1000}, {"candidate": 400}))
        assert verdict.failed
