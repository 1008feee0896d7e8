"""A ramp around another strategy: who takes part, what is logged of it, and what counts."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.core.canon import unit_draw
from loudly.core.clock import DAY, HOUR
from loudly.core.seams import Feedback, Strategy
from loudly.core.values import Arm
from loudly.deliver.ab import MISMATCH
from loudly.deliver.bandit import frozen
from loudly.deliver.duel import Duel
from loudly.deliver.ramp import Ramp, within
from loudly.deliver.rollout import parse_rollout
from loudly.errors import ConfigError
from loudly.metrics.table import metric
from loudly.testing.strategy_case import StrategyCase
from ramped import ARMS, KINDS, STEPS, feedback, inner_of


class TestAroundEach(StrategyCase):
    @pytest.fixture(params=KINDS)
    def strategy(self, request: pytest.FixtureRequest) -> Strategy:
        inner = inner_of(request.param)
        if request.param == "ab":
            inner = replace(inner, metric=metric("roc_auc"))
        return Ramp(inner, (0.1, 0.5, 1.0))


# -- who takes part ------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0.001, 0.99), min_size=1, max_size=4, unique=True), st.integers(0, 2**32 - 1), st.sampled_from(KINDS))
def test_units_only_ever_enter_and_meet_the_arm_that_they_always_would_have_met(shares: list[float], seed: int, kind: str) -> None:
    arms = ARMS[: 2 if kind == "ab" else 3]
    ramp = Ramp(inner_of(kind, len(arms)), (*sorted(shares), 1.0))
    draws = np.random.default_rng(seed).random(400)
    context = np.ones((400, 1))
    state = ramp.init(arms, 0)
    everybody = ramp.assign({**state, "step": len(shares)}, draws, context)
    assert everybody.share is None
    before = np.zeros(400, dtype=bool)
    for step in range(len(shares)):
        made = ramp.assign({**state, "step": step}, draws, context)
        assert made.share is not None
        inside = made.share > 0
        assert inside[before].all()
        assert (made.arm[inside] == everybody.arm[inside]).all()
        assert not made.arm[~inside].any()
        assert set(made.share) <= {0.0, ramp.steps[step]}
        alone = [int(ramp.assign({**state, "step": step}, draws[i : i + 1], context[:1]).arm[0]) for i in range(0, 400, 57)]
        assert alone == made.arm[::57].tolist()
        before = inside


@settings(deadline=None, max_examples=60)
@given(st.floats(0.001, 1.0), st.integers(0, 2**32 - 1), st.sampled_from(KINDS))
def test_propensities_are_those_of_the_inner_strategy_and_of_the_share_together(share: float, seed: int, kind: str) -> None:
    """Over all arms they add up to 1, in each context; taken apart again they are those that the inner strategy gave."""
    arms = ARMS[: 2 if kind == "ab" else 3]
    rng, n = np.random.default_rng(seed), 300
    ramp, context = Ramp(inner_of(kind, len(arms)), (share, 1.0)), rng.normal(size=(n, 1))
    state, _ = ramp.inner.update(ramp.init(arms, 0), told(rng, 60, arms))
    inner = np.broadcast_to(ramp.inner.shares(state, context), (n, len(arms)))
    made = ramp.assign(state, rng.random(n), context)
    whole = share * inner
    whole[:, 0] += 1 - share
    assert whole.sum(axis=1) == pytest.approx(np.ones(n))
    assert made.propensity == pytest.approx(whole[np.arange(n), made.arm])
    given_ = feedback(np.zeros(n), made, 0, arms, context)
    rows, kept = within(given_), slice(None) if made.share is None else made.share > 0
    assert rows.propensity is not None
    assert rows.propensity == pytest.approx(inner[np.arange(n), made.arm][kept], rel=1e-6)
    assert len(rows.units) == len(rows.arm) == len(rows.truth)


@pytest.mark.parametrize("kind", KINDS)
def test_real_units_take_part_and_meet_the_arms_as_often_as_is_logged(kind: str) -> None:
    n, arms = 12_000, ARMS[: 2 if kind == "ab" else 3]
    draws = np.array([unit_draw(f"user-{i}", "17") for i in range(n)])
    ramp = Ramp(inner_of(kind, len(arms)), STEPS)
    for step, share in enumerate(STEPS):
        made = ramp.assign({**ramp.init(arms, 0), "step": step}, draws, np.ones((n, 1)))
        if made.share is not None:
            assert abs((made.share > 0).mean() - share) < 4 * np.sqrt(share * (1 - share) / n)
        for arm in range(len(arms)):
            p = made.propensity[made.arm == arm]
            assert np.ptp(p) < 1e-12
            assert abs(len(p) / n - p[0]) < 4 * np.sqrt(p[0] * (1 - p[0]) / n)


def test_it_travels_to_a_worker() -> None:
    for kind in KINDS:
        ramp = Ramp(inner_of(kind), STEPS)
        assert pickle.loads(pickle.dumps(ramp)) == ramp


# -- what counts ---------------------------------------------------------------------------------------------------------------


def told(rng: np.random.Generator, n: int, arms: tuple[Arm, ...]) -> Feedback:
    """Rewards of rows that were spread evenly."""
    arm, context = rng.integers(0, len(arms), n), rng.normal(size=(n, 1))
    reward = (rng.random(n) < 0.3 + 0.2 * (arm == 1)).astype(float)
    scores = {one.name: np.where(arm == i, reward, np.nan) for i, one in enumerate(arms)}
    names = [f"before-{i}" for i in range(n)]
    return Feedback(0, names, arm, np.zeros(n), scores, {}, [0], reward, np.full(n, 1 / len(arms)), context)


def test_rows_of_units_that_did_not_take_part_are_no_evidence_however_late_their_labels_come() -> None:
    """Labelled when all take part, answered when one in ten did: only that one in ten counts."""
    ramp, rng = Ramp(inner_of("ab"), (0.1, 1.0)), np.random.default_rng(0)
    state = ramp.init(ARMS[:2], 0)
    early = ramp.assign(state, rng.random(5000))
    late = feedback((rng.random(5000) < 0.3).astype(float), early, 1, ARMS[:2])
    state, _ = ramp.advance(state, DAY)
    assert state["step"] == 1
    state, _ = ramp.update(state, late)
    assert early.share is not None
    assert state["evidence"]["rows"] == (early.share > 0).sum()
    assert sum(state["ratio"]["counts"]) == (early.share > 0).sum()


def test_a_pass_counts_at_the_end_of_the_last_step_alone_and_a_failure_at_any() -> None:
    ramp, rng = (
        Ramp(replace(inner_of("ab"), spec=parse_rollout("ab for 21d", margin=0.1)), STEPS, 2 * DAY),
        np.random.default_rng(0),
    )
    for missed, decision in (((0.3, 0.1), "PASS"), ((0.3, 0.9), "FAIL")):
        state, seen = ramp.init(ARMS[:2], 0), []
        for day in range(8):
            arm = rng.integers(0, 2, 2000)
            wrong = (rng.random(2000) < np.asarray(missed)[arm]).astype(float)
            scores = {one.name: np.where(arm == i, wrong, np.nan) for i, one in enumerate(ARMS[:2])}
            rows = Feedback(day * DAY, [f"{day}-{i}" for i in range(2000)], arm, np.zeros(2000), scores, {}, [day])
            state, _ = ramp.update(state, replace(rows, share=np.full(2000, ramp.share(state))))
            state, verdict = ramp.advance(state, (day + 1) * DAY)
            seen.append((verdict.decision, state["step"]))
        if decision == "FAIL":
            assert seen[3:] == [("FAIL", 1)] * 5, "it is told when four days are labelled, and grows no more"
        else:
            assert [found for found, _ in seen] == ["UNDECIDED"] * 5 + ["PASS"] * 3
            assert [step for _, step in seen] == [0, 1, 1, 2, 2, 2, 2, 2]
            assert verdict.subject == "ab at 50%, ramped to 100%"
            _, early = ramp.advance({**state, "step": 1, "step_at": 4 * DAY}, 5 * DAY)
            assert "all units for 2d" in early.missing
            assert early.expected_at == 8 * DAY


def test_a_share_does_not_grow_where_units_split_otherwise_or_a_reward_cannot_be_told() -> None:
    ramp, rng = Ramp(inner_of("ab"), STEPS), np.random.default_rng(0)
    state = ramp.init(ARMS[:2], 0)
    arm = (rng.random(4000) < 0.2).astype(np.int64)
    scores = {one.name: np.where(arm == i, 0.0, np.nan) for i, one in enumerate(ARMS[:2])}
    skewed = Feedback(0, [f"u{i}" for i in range(4000)], arm, np.zeros(4000), scores, {}, [0], share=np.full(4000, 0.01))
    state, verdict = ramp.update(state, skewed)
    assert verdict.reason.startswith(MISMATCH)
    state, _ = ramp.advance(state, 5 * DAY)
    assert state["step"] == 0
    bandit = Ramp(inner_of("thompson"), STEPS)
    assert bandit.advance(frozen(bandit.init(ARMS[:2], 0), "the reward failed"), 5 * DAY)[0]["step"] == 0
    assert bandit.advance(bandit.init(ARMS[:2], 0), 5 * DAY)[0]["step"] == 1
    assert bandit.advance(bandit.init(ARMS[:2], 0), 23 * HOUR)[0]["step"] == 0


def test_a_duel_after_the_promotion_takes_rows_as_the_ramp_has_logged_them() -> None:
    """A linear bandit refuses propensities below its floor: those of the log are, for one in ten has taken part."""
    ramp, rng = Ramp(inner_of("linucb"), (0.1, 1.0)), np.random.default_rng(0)
    context = np.ones((2000, 1))
    rows = feedback(np.zeros(2000), ramp.assign(ramp.init(ARMS[:2], 0), rng.random(2000), context), 0, ARMS[:2], context)
    duel = Duel(ramp.inner, ARMS[:2], 1)
    state, _ = duel.update(duel.init(0, ramp.init(ARMS[:2], 0)), rows)
    assert rows.share is not None
    assert sum(state["evidence"]["pulls"]) == (rows.share > 0).sum()


# -- the text ------------------------------------------------------------------------------------------------------------------


def test_the_text_is_read() -> None:
    spec = parse_rollout("ab 40% 30% 30% for 21d ramped 1% 10% 100% every 2d")
    assert (spec.ramp, spec.hold, spec.deadline, spec.shares) == (STEPS, 2 * DAY, 21 * DAY, (0.4, 0.3, 0.3))
    spec = parse_rollout("linucb on age, income 10% among 3 for 14d ramped 5% 100% every 12h")
    assert (spec.ramp, spec.hold, spec.columns, spec.arms, spec.floor) == ((0.05, 1.0), 12 * HOUR, ("age", "income"), 3, 0.1)
    assert parse_rollout("thompson ramped 0.5% 100%").hold == DAY
    assert parse_rollout("ab for 21d").said() == {k: v for k, v in parse_rollout("ab for 21d").said().items() if k != "ramp"}


@pytest.mark.parametrize(("text", "why"), [
    ("ab for 21d ramped 10% 1% 100%", "grow to 100 %"),
    ("ab for 21d ramped 1% 10%", "grow to 100 %"),
    ("ab for 21d ramped 0% 100%", "grow to 100 %"),
    ("ab for 21d ramped 1% 1% 100%", "grow to 100 %"),
    ("thompson ramped 100%", "two steps"),
    ("thompson ramped", "shares, and how long"),
    ("thompson ramped 5% 100% for 14d", "stands before it"),
    ("ab for 2d ramped 1% 10% 100% every 1d", "deadline"),
    ("canary 5% 100% ramped 1% 100%", "a ramp itself"),
    ("shadow 1d ramped 1% 100%", "Only an A/B test or a bandit"),
    ("blue-green ramped 1% 100%", "Only an A/B test or a bandit"),
    ("interleave team draft for 14d ramped 1% 100%", "Only an A/B test or a bandit"),
])  # fmt: skip
def test_impossible_ramps_are_refused_and_what_to_say_instead_is_told(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_rollout(text)
