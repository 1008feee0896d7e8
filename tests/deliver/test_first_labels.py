"""A few labels come first, and thousands at once after them: what few rows happen to be judges nobody.

A row is judged among the others by AUC and by average precision, so that where few have come the others are a matter of chance.
Equal models were told apart in 11 to 28 of 60 such rollouts, at a risk of 5 %. By F1 a row was weighted by rates of before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import average_precision_score, roc_auc_score

from loudly.core.clock import DAY
from loudly.core.seams import Feedback
from loudly.core.values import Arm, Verdict
from loudly.deliver.ab import Ab
from loudly.deliver.canary import Canary
from loudly.deliver.rollout import parse_rollout
from loudly.metrics.table import by_rows, metric

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))
FLOWS = {
    "57, then 2,470": (57, 2470),
    "150, then 3,000": (150, 3000),
    "all at once": (3000,),
    "slow, then fast": (*[30] * 6, *[1000] * 3),
}
ALPHA, RUNS = 0.05, 60
METRICS = ("roc_auc", "average_precision")


def made(name: str, paired: bool) -> Any:
    text, strategy = ("canary 50% 100%", Canary) if paired else ("ab 50% for 60d", Ab)
    return strategy(parse_rollout(text, margin=0.03, alpha=ALPHA, days=1), metric(name))


def batch(rng: np.random.Generator, at: int, rows: int, paired: bool) -> Feedback:
    """Rows of two models that are as good as each other and wrong on rows of their own."""
    truth, arm = (rng.random(rows) < 0.4).astype(float), rng.integers(0, 2, rows)
    scores = {
        one.name: np.where(paired | (arm == i), 1 / (1 + np.exp(-rng.normal(1.4 * truth, 1))), np.nan) for i, one in enumerate(ARMS)
    }
    return Feedback(at * DAY, [f"{at}-{i}" for i in range(rows)], arm, truth, scores, {}, [at])


def looks(strategy: Any, seed: int, flow: tuple[int, ...], paired: bool) -> list[Verdict]:
    rng, state, found = np.random.default_rng(seed), strategy.init(ARMS, 0), []
    for at, rows in enumerate(flow):
        state, verdict = strategy.update(state, batch(rng, at, rows, paired))
        found.append(verdict)
    return found


def apart(verdict: Verdict) -> bool:
    """Whether the interval says that one is better."""
    told = verdict.evidence[0]
    return told.low is not None and told.high is not None and (told.low > 0 or told.high < 0)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("name", METRICS)
def test_equal_models_are_told_apart_no_more_often_than_promised(name: str, paired: bool, flow: str) -> None:
    strategy = made(name, paired)
    wrong = sum(any(map(apart, looks(strategy, seed, FLOWS[flow], paired))) for seed in range(RUNS))
    assert wrong <= binom.ppf(0.999, RUNS, ALPHA) - 2  # 7 of 60, where 11 to 28 were


@pytest.mark.parametrize("flow", [(8000,), (100, 8000)])
@pytest.mark.parametrize("before", [0.5, 2.0])
def test_a_loss_is_as_large_as_it_is_where_the_class_came_otherwise_before(before: float, flow: tuple[int, ...]) -> None:
    """Rates of before weighted what came at once: where the class had come twice as often, a loss of .1 seemed to be .05."""
    share, found, wrong = 0.05, np.array([0.7, 0.55]), 0.01

    def ratio(of: float, hit: float) -> float:
        return 2 * of * hit / (of * (1 + hit) + (1 - of) * wrong)

    was = before * share
    said, margin = was * found[0] + (1 - was) * wrong, ratio(share, found[0]) - ratio(share, found[1])
    judged = by_rows("f1", ((1 - was, 1 - said, 0.9), (was, said, ratio(was, found[0]))))
    strategy = Canary(parse_rollout("canary 50% 100%", margin=margin, alpha=ALPHA, days=1), judged)
    promoted, effects = 0, []
    for seed in range(RUNS):
        rng, state = np.random.default_rng(seed), strategy.init(ARMS, 0)
        for at, rows in enumerate(flow):
            truth = (rng.random(rows) < share).astype(float)
            said_yes = rng.random((2, rows)) < np.where(truth > 0, found[:, None], wrong)
            scores = {arm.name: one.astype(float) for arm, one in zip(ARMS, said_yes, strict=True)}
            units, arm = [f"{at}-{i}" for i in range(rows)], np.arange(rows) % 2
            state, verdict = strategy.update(state, Feedback(at * DAY, units, arm, truth, scores, {}, [at]))
        promoted += verdict.passed
        effects.append(verdict.evidence[0].effect)
    assert promoted <= binom.ppf(0.999, RUNS, ALPHA) - 2
    assert float(np.mean(effects)) == pytest.approx(-margin, abs=4 * np.std(effects) / RUNS**0.5)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("name", METRICS)
def test_the_effect_is_that_of_all_rows_in_whatever_parts_they_come(name: str, paired: bool) -> None:
    rng, strategy = np.random.default_rng(1), made(name, paired)
    given = [batch(rng, at, rows, paired) for at, rows in enumerate((40, 90, 2000, 300))]
    state, truth = strategy.init(ARMS, 0), np.concatenate([f.truth for f in given])
    for one in given:
        state, verdict = strategy.update(state, one)
    of, values = (roc_auc_score if name == "roc_auc" else average_precision_score), []
    for arm in ARMS:
        score = np.concatenate([f.scores[arm.name] for f in given])
        known = np.isfinite(score)
        values.append(of(truth[known], score[known]))
    assert verdict.evidence[0].effect == pytest.approx(values[1] - values[0], abs=1e-3)  # scores of one bin are ties


@pytest.mark.parametrize("name", [*METRICS, "f1"])
def test_rows_that_the_candidate_does_not_score_are_none_of_controls_either(name: str) -> None:
    """It leaves out the rows that control gets wrong: over its own rows it would be better, over those of both it is control."""
    rng = np.random.default_rng(2)
    truth = (rng.random(3000) < 0.4).astype(float)
    score = 1 / (1 + np.exp(-rng.normal(1.4 * truth, 1)))
    hard = (score > 0.6) != (truth > 0.5)
    judged = by_rows("f1", ((0.6, 0.5, 0.8), (0.4, 0.5, 0.7))) if name == "f1" else metric(name)
    strategy = Canary(parse_rollout("canary 50% 100%", margin=0.03, alpha=ALPHA, days=1), judged)
    scores = {"control": score, "candidate": np.where(hard & (rng.random(3000) < 0.5), np.nan, score)}
    units, arm = [str(i) for i in range(3000)], np.arange(3000) % 2
    _, verdict = strategy.update(strategy.init(ARMS, 0), Feedback(0, units, arm, truth, scores, {}, [0]))
    assert verdict.evidence[0].effect == 0


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("name", METRICS)
def test_labels_that_come_all_at_once_are_judged(name: str, paired: bool) -> None:
    """They were placed among those before, of which there were none: 3,000 labels, and "no labelled rows that tell both apart"."""
    (verdict,) = looks(made(name, paired), 0, (3000,), paired)
    told = verdict.evidence[0]
    assert told.n > 1000
    assert told.low is not None
    assert told.high is not None
    assert 0.02 < told.high - told.low < 0.2
