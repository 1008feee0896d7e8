"""The policy is pure: every rule of the house about when a model may change, as a law."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from loudly.core.clock import DAY
from loudly.core.values import Decision, Evidence, Verdict
from loudly.loop.plan import Confirm, Hold, NextStage, Promote, Retrain, RollBack, explain, headline
from loudly.loop.policy import Governor, Known, RetrainPolicy, Stage, Unconfirmed, Underway, decide

HARM = Verdict(Decision.FAIL, "performance", "roc_auc fell by 0.05")
FINE = Verdict(Decision.PASS, "performance", "as expected")
OPEN = Verdict(Decision.UNDECIDED, "canary", "not sure yet", missing="300 labels")

CALM = Known(
    now=100 * DAY,
    champion="m/1",
    fitted_at=60 * DAY,
    refits=(60 * DAY,),
    trained_rows=10_000,
    new_rows=5_000,
    broken=(),
    signals=(("performance", FINE),),
    underway=None,
    killed=False,
)
HURT = replace(CALM, signals=(("performance", HARM),))


def under(verdict: Verdict, stage: int = 0, deadline: int = 200 * DAY) -> Known:
    return replace(CALM, underway=Underway("m/2", stage, 2, verdict, deadline))


def test_confirmed_harm_retrains() -> None:
    (step,) = decide(HURT, RetrainPolicy()).steps
    assert isinstance(step, Retrain)
    assert step.trigger == "performance"


def test_nothing_happens_without_evidence_and_says_why() -> None:
    plan = decide(CALM, RetrainPolicy())
    assert plan.steps == ()
    assert "no evidence of harm" in explain(plan)[0]


def test_raw_shift_is_not_a_trigger() -> None:
    shifted = replace(CALM, signals=(("shift", HARM), ("drift", HARM)))
    assert decide(shifted, RetrainPolicy()).steps == ()


def test_a_broken_feed_holds_retraining_and_names_the_column() -> None:
    (step,) = decide(replace(HURT, broken=("temp",)), RetrainPolicy()).steps
    assert isinstance(step, Hold)
    assert "temp" in step.reason


def test_evidence_is_ranked() -> None:
    known = replace(CALM, signals=(("estimate", HARM), ("performance", HARM)))
    (step,) = decide(known, RetrainPolicy(growth=0.1)).steps
    assert isinstance(step, Retrain)
    assert step.trigger == "performance"
    (step,) = decide(replace(CALM), RetrainPolicy(growth=0.1)).steps
    assert isinstance(step, Retrain)
    assert step.trigger == "data"


def test_stages_of_continual_learning() -> None:
    assert decide(HURT, RetrainPolicy(Stage.MANUAL)).steps == ()
    for stage, stateful in ((Stage.STATELESS, False), (Stage.STATEFUL, True), (Stage.CONTINUAL, True)):
        (step,) = decide(HURT, RetrainPolicy(stage)).steps
        assert isinstance(step, Retrain)
        assert step.stateful is stateful


def promoted(effect: float, decision: Decision = Decision.UNDECIDED, waiting: int = 50, until: int = 200 * DAY) -> Known:
    seen = Evidence("confidence sequence", effect, tolerance=-0.02)
    verdict = Verdict(decision, "canary", "as labels say", (seen,), missing="labels")
    return replace(CALM, unconfirmed=Unconfirmed("m/2", "m/1", verdict, waiting, until))


def test_a_promotion_is_confirmed_or_taken_back_when_its_labels_have_come() -> None:
    def step(known: Known) -> object:
        return next(iter(decide(known, RetrainPolicy()).steps), None)

    assert step(promoted(0.0)) is None
    assert step(promoted(-0.05)) is None, "labels are still to come, and nothing is sure"
    assert isinstance(step(promoted(-0.05, Decision.FAIL)), RollBack)
    assert isinstance(step(promoted(0.0, waiting=0)), Confirm)
    assert isinstance(step(promoted(-0.012, waiting=0)), RollBack)
    assert isinstance(step(promoted(-0.008, waiting=0)), Confirm)
    late = step(promoted(0.0, until=99 * DAY))
    assert isinstance(late, Confirm)
    assert "50 of its rows never got a label" in late.reason
    assert isinstance(step(promoted(-0.05, until=99 * DAY)), RollBack)
    assert isinstance(step(replace(promoted(-0.05, Decision.FAIL), killed=True)), Hold)


def test_rollout_verdicts() -> None:
    policy = RetrainPolicy()
    passed = Verdict(Decision.PASS, "shadow", "no harm seen")
    failed = Verdict(Decision.FAIL, "canary", "surely worse")
    assert isinstance(decide(under(passed), policy).steps[0], NextStage)
    assert isinstance(decide(under(passed, stage=1), policy).steps[0], Promote)
    assert isinstance(decide(under(failed), policy).steps[0], RollBack)
    assert decide(under(OPEN), policy).steps == ()
    late = decide(under(OPEN, deadline=100 * DAY), policy).steps[0]
    assert isinstance(late, RollBack)
    assert "undecided" in late.reason


def test_one_rollout_at_a_time_even_when_harm_is_confirmed() -> None:
    known = replace(under(OPEN), signals=HURT.signals)
    assert decide(known, RetrainPolicy()).steps == ()


def test_nothing_is_promoted_on_a_broken_feed() -> None:
    passed = Verdict(Decision.PASS, "canary", "better")
    (step,) = decide(replace(under(passed, stage=1), broken=("temp",)), RetrainPolicy()).steps
    assert isinstance(step, Hold)


known_states = st.builds(
    Known,
    now=st.integers(50, 400).map(lambda d: d * DAY),
    champion=st.just("m/1"),
    fitted_at=st.integers(0, 50).map(lambda d: d * DAY),
    refits=st.lists(st.integers(0, 400).map(lambda d: d * DAY), max_size=6).map(tuple),
    trained_rows=st.integers(1, 10_000),
    new_rows=st.integers(0, 10_000),
    broken=st.sampled_from([(), ("temp",)]),
    signals=st.dictionaries(st.sampled_from(["performance", "estimate", "shift"]), st.sampled_from([HARM, FINE, OPEN])).map(
        lambda d: tuple(sorted(d.items()))
    ),
    underway=st.none()
    | st.builds(
        Underway,
        st.just("m/2"),
        st.integers(0, 1),
        st.just(2),
        st.sampled_from([HARM, FINE, OPEN]),
        st.integers(0, 400).map(lambda d: d * DAY),
    ),
    killed=st.booleans(),
)
policies = st.builds(
    RetrainPolicy,
    st.sampled_from(list(Stage)),
    st.just(("performance", "estimate")),
    st.none() | st.floats(0.01, 2),
    st.none() | st.integers(1, 100).map(lambda d: d * DAY),
    st.builds(Governor, st.integers(0, 30).map(lambda d: d * DAY), st.integers(1, 5), st.just(90 * DAY), st.integers(1, 5000)),
)


@given(known_states, policies)
def test_laws(known: Known, policy: RetrainPolicy) -> None:
    plan = decide(known, policy)
    assert decide(known, policy) == plan, "pure"
    assert len(explain(plan)) == max(1, len(plan.steps)), "what is shown is what would be done"
    assert bool(plan.steps) != bool(plan.idle), "either a step or a reason for none"
    for step in plan.steps:
        assert headline(step)
        if isinstance(step, Retrain):
            governor = policy.governor
            assert known.underway is None, "one at a time"
            assert not known.killed
            assert not known.broken
            assert policy.stage is not Stage.MANUAL
            assert known.new_rows >= governor.enough_labels
            assert all(known.now - at >= governor.cooldown for at in known.refits)
            assert sum(at > known.now - governor.period for at in known.refits) < governor.at_most
        if isinstance(step, Promote):
            assert not known.broken
            assert not known.killed
            assert step.verdict is not None
            assert step.verdict.passed
