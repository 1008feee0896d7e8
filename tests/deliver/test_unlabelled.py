"""A promotion rests on rows whose labels have had their time; a rollback on whatever has come."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loudly.core.clock import DAY
from loudly.core.seams import Feedback
from loudly.core.values import Arm, Decision, Verdict
from loudly.deliver.ab import Ab
from loudly.deliver.canary import Canary
from loudly.deliver.rollout import parse_rollout
from loudly.deliver.unlabelled import fewer
from loudly.metrics.table import metric

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))
A_DAY, SLOW, MARGIN = 400, 8, 0.03
BECAUSE = "95 % of the labels came within 8d"


def canary(wait: int | None, share: float = 0.0) -> Canary:
    spec = parse_rollout("canary 10% 100%", margin=MARGIN, deadline=60 * DAY, days=2)
    return Canary(replace(spec, wait=wait, share=share, because=BECAUSE), metric("accuracy"))


def rows(rng: np.random.Generator, day: int, worse: float) -> tuple[Feedback, Feedback]:
    """A day's rows, those with quick labels and the third with slow ones, in which alone the candidate is worse."""
    slow = rng.random(A_DAY) < 1 / 3
    control = rng.random(A_DAY) < 0.2
    candidate = control ^ (rng.random(A_DAY) < np.where(control, 0.2, np.where(slow, 0.05 + worse * 3 / 0.8, 0.05)))

    def of(mine: Any, at: int) -> Feedback:
        n, units = int(mine.sum()), [f"{day}-{i}" for i in np.flatnonzero(mine)]
        scores = {"control": control[mine].astype(float), "candidate": candidate[mine].astype(float)}
        return Feedback(at * DAY, units, np.arange(n) % 2, np.zeros(n), scores, {}, [day])

    return of(~slow, day), of(slow, day + SLOW)


def life(strategy: Any, seed: int, worse: float, days: int = 18) -> Verdict:
    """Quick labels at once, slow ones after eight days, and ripe rows with these."""
    rng, state = np.random.default_rng(seed), strategy.init(ARMS, 0)
    made = [rows(rng, day, worse) for day in range(days)]
    for day in range(days):
        state, verdict = strategy.update(state, made[day][0])
        if day >= SLOW:
            quick, slow = made[day - SLOW]
            state, verdict = strategy.update(state, slow)
            if strategy.spec.wait:
                for late in (quick, slow):
                    state, verdict = strategy.update(state, replace(late, at=day * DAY, ripe=True))
        if not (verdict.passed or verdict.failed):
            state, verdict = strategy.advance(state, (day + 1) * DAY)
        if verdict.passed or verdict.failed:
            return verdict
    return verdict


def test_harm_in_the_class_with_slow_labels_is_not_promoted_by_the_others() -> None:
    early = [life(canary(0), seed, MARGIN).passed for seed in range(25)]
    patient = [life(canary(SLOW * DAY), seed, MARGIN).passed for seed in range(60)]
    assert np.mean(early) > 0.5, "every label as it comes must fail this test, or the test is blind"
    assert np.mean(patient) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)


def test_an_equal_candidate_is_promoted_by_ripe_rows_and_the_reason_says_so() -> None:
    found = [life(canary(SLOW * DAY), seed, 0.0) for seed in range(10)]
    assert np.mean([v.passed for v in found]) > 0.7
    told = next(v for v in found if v.passed).reason
    assert told.endswith(f"only rows older than 8d count for a promotion: {BECAUSE}")
    waits = life(canary(SLOW * DAY), 0, 0.0, days=5)
    assert waits.missing == "2 more labelled days and 500 more labelled rows, of rows older than 8d"


def test_early_labels_roll_back_at_once() -> None:
    made, rng = canary(SLOW * DAY), np.random.default_rng(0)
    state = made.init(ARMS, 0)
    for day in range(4):
        bad = replace(rows(rng, day, 0.0)[0])
        bad.scores["candidate"][::2] = 1.0
        state, verdict = made.update(state, bad)
        state, verdict = made.advance(state, (day + 1) * DAY)
    assert verdict.failed


def passing(made: Canary, awaited: tuple[int, int] | None) -> Verdict:
    """The word on four days of an equal candidate, all labels there."""
    rng, state = np.random.default_rng(4), made.init(ARMS, 0)
    for day in range(6):
        for given in rows(rng, day, 0.0):
            given = replace(given, at=day * DAY, awaited=awaited)
            state, _ = made.update(state, given)
            if made.spec.wait:
                state, _ = made.update(state, replace(given, ripe=True))
        state, verdict = made.advance(state, (day + 1) * DAY)
    return verdict


def test_a_pass_names_the_rows_without_a_label_by_age_and_what_would_overturn_it() -> None:
    verdict = passing(canary(SLOW * DAY), (500, 40))
    assert verdict.passed
    assert "540 rows without a label (younger than 8d: 500, older: 40) taken to be alike" in verdict.reason
    rest, effect = verdict.evidence[1], verdict.evidence[0].effect
    assert effect is not None
    assert rest.tolerance == pytest.approx(-MARGIN - 6 * A_DAY / 540 * (effect + MARGIN))


@pytest.mark.parametrize("wait", [0, SLOW * DAY])
def test_fewer_labels_than_before_hold_a_promotion(wait: int) -> None:
    """All rows of that age had a label; now a third have none: a kind of label may have become slow."""
    assert passing(canary(wait, share=1.0), (0, 30)).passed
    held = passing(canary(wait, share=1.0), (0, 3 * A_DAY))
    assert held.decision is Decision.UNDECIDED
    assert held.reason.startswith("67% of 3,600 rows old enough have a label, 100% had before")
    assert passing(canary(wait, share=0.66), (0, 3 * A_DAY)).passed


def test_chance_may_leave_some_rows_more_without_a_label() -> None:
    """Of 60 % and 2,400 rows a twentieth and two standard errors (another fiftieth) may be missing."""
    spec, found = canary(0, share=0.6).spec, Verdict(Decision.PASS, "m/2", "surely not worse")
    for labelled, decision in ((1280, Decision.PASS), (1260, Decision.UNDECIDED)):
        evidence = {"rows": labelled, "awaited": (0, 2400 - labelled)}
        assert fewer(found, evidence, spec).decision is decision, "the edge is at 53 %: 1,272 rows"


def test_what_nobody_knows_is_undecided_where_the_user_says_so() -> None:
    held = passing(canary(None), None)
    assert held.decision is Decision.UNDECIDED
    assert held.reason.startswith(BECAUSE)
    assert "followed" in held.missing


def test_units_of_ripe_rows_are_no_new_units_of_an_ab_test() -> None:
    spec = replace(parse_rollout("ab 50% for 30d", margin=0.3, days=2), wait=SLOW * DAY, because=BECAUSE)
    verdict = passing(Ab(spec, metric("accuracy")), None)  # type: ignore[arg-type]
    assert verdict.passed
    assert verdict.evidence[0].n <= 6 * A_DAY


def test_labels_slower_than_the_deadline_are_foretold_to_come_after_it() -> None:
    spec = parse_rollout("canary 10% 100%", margin=MARGIN, deadline=14 * DAY, days=2)
    strategy = Canary(replace(spec, wait=30 * DAY, because="labels are taken to come within 30d"), metric("accuracy"))
    verdict = life(strategy, 0, 0.0, days=6)
    assert verdict.decision is Decision.UNDECIDED
    assert verdict.expected_at == 30 * DAY
    assert (verdict.missing or "").endswith("(after the deadline)")
