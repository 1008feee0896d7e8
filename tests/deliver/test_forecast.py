"""What an undecided verdict says of the labels that are missing: how many, and when; for a canary as for an A/B test."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loudly.core.clock import DAY
from loudly.core.seams import Calls, Feedback
from loudly.core.values import Arm
from loudly.deliver.ab import Ab
from loudly.deliver.canary import Canary
from loudly.deliver.rollout import parse_rollout
from loudly.metrics.table import metric

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))
A_DAY, LATE = 250, 3


def strategy(kind: str) -> Any:
    spec = parse_rollout({"canary": "canary 10% 100%", "ab": "ab 50%"}[kind], margin={"canary": 0.03, "ab": 0.07}[kind])
    return {"canary": Canary, "ab": Ab}[kind](replace(spec, days=2, deadline=60 * DAY), metric("accuracy"))


def labels(rng: np.random.Generator, day: int, paired: bool) -> Feedback:
    """A day's rows, labelled three days later; both models are wrong in a fifth of the rows."""
    control = rng.random(A_DAY) < 0.2
    wrong = control, control ^ (rng.random(A_DAY) < np.where(control, 0.25, 0.0625))
    arm = (rng.random(A_DAY) < 0.5).astype(np.int64)
    scores = {a.name: np.where(paired | (arm == k), w, np.nan) for k, (a, w) in enumerate(zip(ARMS, wrong, strict=True))}
    units = [f"{day}-{i}" for i in range(A_DAY)]
    return Feedback((day + LATE) * DAY, units, arm, np.zeros(A_DAY), scores, {}, [day])


@pytest.mark.parametrize("kind", ["canary", "ab"])
def test_the_forecast_is_right_within_a_factor_of_two(kind: str) -> None:
    made, told = strategy(kind), []
    for seed in range(60):
        rng, state, asked = np.random.default_rng(seed), made.init(ARMS, 0), []
        for day in range(57):
            state, verdict = made.update(state, labels(rng, day, made.spec.paired))
            if verdict.passed or verdict.failed:
                told += [
                    (rows / (A_DAY * (day - then)), (at - (then + LATE) * DAY) / (day - then) / DAY) for then, rows, at in asked
                ]
                break
            found = re.search(r"about ([\d,]+) more labelled rows", verdict.missing)
            if found and day == 2:
                assert verdict.expected_at is not None
                asked.append((day, int(found[1].replace(",", "")), verdict.expected_at))
            state, _ = made.advance(state, (day + LATE + 1) * DAY)
    rows, when = np.array(told).T
    assert len(rows) > 30
    assert 0.5 < np.median(rows) < 2
    assert 0.5 < np.median(when) < 2
    assert np.mean((rows > 0.25) & (rows < 4)) > 0.8


def test_missing_days_are_dated_and_what_comes_after_the_deadline_is_said() -> None:
    made, rng = strategy("canary"), np.random.default_rng(0)
    state, verdict = made.update(made.init(ARMS, 0), labels(rng, 0, True))
    assert verdict.missing == "1 more labelled days and 250 more labelled rows"
    assert verdict.expected_at == (LATE + 1) * DAY
    hasty = Canary(replace(made.spec, deadline=4 * DAY), made.metric)
    for day in range(1, 3):
        state, verdict = hasty.update(state, labels(rng, day, True))
    assert verdict.missing.endswith("(after the deadline)")


def test_rows_without_a_label_are_named_and_what_would_overturn_the_verdict() -> None:
    made, rng = strategy("canary"), np.random.default_rng(1)
    state, _ = made.observe(made.init(ARMS, 0), Calls({"control": 40 * A_DAY, "candidate": 40 * A_DAY}))
    for day in range(30):
        state, verdict = made.update(state, labels(rng, day, True))
        state, _ = made.advance(state, (day + LATE + 1) * DAY)
    assert verdict.passed
    rest = verdict.evidence[1]
    assert (rest.about, rest.n) == ("rows without a label", 10 * A_DAY)
    effect = verdict.evidence[0].effect
    assert effect is not None
    assert rest.tolerance == pytest.approx(-0.03 - 3 * (effect + 0.03))
    assert "rows without a label taken to be alike" in verdict.reason
