"""Rows without a score, losses past what a float can square, and scores that are all alike small or large: never no harm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loudly.core.clock import DAY
from loudly.core.seams import Feedback
from loudly.core.values import Arm, Decision, Verdict
from loudly.deliver.ab import Ab
from loudly.deliver.canary import Canary
from loudly.deliver.rollout import parse_rollout
from loudly.metrics.table import metric

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))
PER_DAY = 200


def judged(judge: Any, make: Any, days: int = 6) -> Verdict:
    """The verdict on days of rows. make: (rng, arm) -> truth, the scores of control and of the candidate."""
    rng, state = np.random.default_rng(0), judge.init(ARMS, 0)
    for day in range(days):
        arm = (rng.random(PER_DAY) < 0.5).astype(np.int64)
        truth, control, candidate = make(rng)
        units = [f"u{day}-{i}" for i in range(PER_DAY)]
        scores = {"control": control, "candidate": candidate}
        state, _ = judge.update(state, Feedback(day * DAY, units, arm, truth, scores, {}, [day]))
        state, found = judge.advance(state, (day + 1) * DAY)
    return found  # type: ignore[no-any-return]


def stages(name: str, margin: float) -> tuple[Any, Any]:
    return (
        Canary(parse_rollout("canary 50% 100%", margin=margin), metric(name)),
        Ab(parse_rollout("ab 50% for 14d", margin=margin), metric(name)),
    )


def rare(rng: Any) -> tuple[Any, Any]:
    """A rare class, of which control finds most."""
    truth = (rng.random(PER_DAY) < 0.05) * 1.0
    return truth, np.where((truth == 1) & (rng.random(PER_DAY) < 0.7), 0.9, 0.1)


@pytest.mark.parametrize("of", [0, 1])
def test_no_score_is_not_the_class_that_is_right_most_often(of: int) -> None:
    def make(rng: Any) -> Any:
        truth, control = rare(rng)
        return truth, control, np.full(PER_DAY, np.nan)

    found = judged(stages("accuracy", 0.06)[of], make)
    assert found.decision is Decision.UNDECIDED
    assert "with a score" in (found.missing or "") or "scored rows" in (found.missing or "")


def test_no_score_is_no_class_among_several() -> None:
    def make(rng: Any) -> Any:
        truth = rng.choice(3, PER_DAY, p=[0.8, 0.1, 0.1]) * 1.0
        control = np.full((PER_DAY, 3), 0.1)
        control[np.arange(PER_DAY), truth.astype(int)] = 0.8
        part = control.copy()
        part[np.arange(PER_DAY), ((truth + 1) % 3).astype(int)] = np.nan
        return truth, control, part

    for name in ("accuracy", "log_loss", "brier"):
        for stage in stages(name, 0.5):
            assert judged(stage, make).decision is Decision.UNDECIDED, name


def test_a_verdict_says_how_many_rows_had_no_score() -> None:
    def make(rng: Any) -> Any:
        truth, control = rare(rng)
        return truth, control, np.where(np.arange(PER_DAY) % 4 == 0, np.nan, control)

    found = judged(stages("accuracy", 0.06)[0], make)
    assert found.passed
    assert "300 labelled rows without a score are left out" in found.reason


@pytest.mark.parametrize("name", ["mse", "mae"])
@pytest.mark.parametrize("of", [0, 1])
def test_a_loss_that_no_float_can_square_is_a_loss(name: str, of: int) -> None:
    def make(rng: Any) -> Any:
        truth = rng.normal(size=PER_DAY)
        control = truth + 0.3 * rng.normal(size=PER_DAY)
        return truth, control, np.where(rng.random(PER_DAY) < 0.1, 1e200, control)

    found = judged(stages(name, 0.2)[of], make)
    assert found.failed
    assert "surely worse" in found.reason
    assert len(found.reason) < 200


@pytest.mark.parametrize("scaled", [lambda z: 1e-4 / (1 + np.exp(-z)), lambda z: 10 + z])
@pytest.mark.parametrize("of", [0, 1])
def test_a_ranking_turned_round_is_worse_wherever_its_scores_lie(scaled: Any, of: int) -> None:
    def make(rng: Any) -> Any:
        truth = (rng.random(PER_DAY) < 0.2) * 1.0
        z = rng.normal(2 * truth, 1)
        return truth, scaled(z), scaled(-z)

    found = judged(stages("roc_auc", 0.1)[of], make)
    assert found.failed, found.reason
