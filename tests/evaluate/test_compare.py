"""The gate promises that a worse model rarely passes, also where a class has few rows or two models decide alike."""

from __future__ import annotations

import numpy as np
import pytest

from loudly.core.values import Decision
from loudly.evaluate.compare import compare
from loudly.evaluate.gate import Gate
from loudly.evaluate.report import measure
from loudly.metrics.table import FEWEST_OF_A_CLASS, metric
from loudly.stats.auc import auc_difference, normal_interval

RUNS = 300


def worse_by(drop: float, positives: int, n: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """The champion finds 8 in 10 positives; the candidate misses `drop` of all positives that the champion finds, and no more."""
    truth = np.zeros(n)
    truth[:positives] = 1.0
    champion = np.where(truth > 0.5, rng.random(n) < 0.8, rng.random(n) < 0.02).astype(float)
    candidate = champion * (1 - (truth * (rng.random(n) < drop / 0.8)))
    return truth, candidate, champion


@pytest.mark.parametrize(("name", "half"), [("recall", 1.0), ("balanced_accuracy", 0.5)])
@pytest.mark.parametrize("positives", [5, 20, 100])
@pytest.mark.parametrize("margin", [0.01, 0.05])
def test_a_model_that_is_worse_by_the_margin_rarely_passes_however_few_positives_there_are(
    name: str, half: float, positives: int, margin: float
) -> None:
    """By intervals of the rows alone, which have no width where both decide alike, most such models passed (benchmarks/gate.py)."""
    rng, passed = np.random.default_rng(0), 0
    for seed in range(RUNS):
        truth, candidate, champion = worse_by(margin / half, positives, 1000, rng)
        found = compare(truth, candidate, champion, name, seed=seed)
        passed += Gate(margin=margin).judge(found, held_out=1000).passed
    assert passed / RUNS <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / RUNS)


def test_of_several_classes_a_model_that_is_worse_in_the_rare_one_rarely_passes() -> None:
    rng, passed = np.random.default_rng(1), 0
    for seed in range(100):
        truth = np.repeat([0.0, 1.0, 2.0], [500, 480, 20])
        champion = np.where(rng.random(1000) < 0.9, truth, (truth + 1) % 3)
        dropped = (truth == 2) & (champion == 2) & (rng.random(1000) < 0.06 / 0.9)  # macro recall falls by 0.02
        candidate = np.where(dropped, 0.0, champion)
        found = compare(truth, np.eye(3)[candidate.astype(int)], np.eye(3)[champion.astype(int)], "recall", seed=seed)
        assert found.effect == pytest.approx(-(dropped.sum() / 20) / 3), "the effect is that of the rows"
        passed += Gate(margin=0.02).judge(found, held_out=1000).passed
    assert passed <= 8


@pytest.mark.parametrize("name", ["recall", "precision", "f1", "balanced_accuracy", "accuracy"])
def test_models_that_decide_alike_pass_once_there_are_rows_enough_to_say_so(name: str) -> None:
    rng = np.random.default_rng(2)

    def judged(n: int) -> Decision:
        truth = (rng.random(n) < 0.1).astype(float)
        score = np.where(rng.random(n) < 0.9, truth, 1 - truth)
        found = compare(truth, score, score, name)
        assert found.effect == 0
        assert found.low is not None
        assert found.high is not None
        assert found.low < 0 < found.high
        return Gate(margin=0.01, rows=50).judge(found, held_out=n).decision

    assert judged(50) is Decision.UNDECIDED
    assert judged(20_000) is Decision.PASS


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
def test_scores_are_not_compared_by_the_order_of_a_handful_of_positives(name: str) -> None:
    rng = np.random.default_rng(3)
    for positives, told in ((FEWEST_OF_A_CLASS - 1, False), (FEWEST_OF_A_CLASS, True)):
        truth = np.zeros(1000)
        truth[:positives] = 1.0
        a, b = rng.random((2, 1000))
        found = compare(truth, a, b, name)
        assert (found.effect is not None) is told
    verdict = Gate().judge(
        compare(1 - np.append(np.ones(995), np.zeros(5)), rng.random(1000), rng.random(1000), name), held_out=1000
    )
    assert verdict.decision is Decision.UNDECIDED
    assert "20 of each" in verdict.missing


def ordered_worse(share: float, truth: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Candidate and champion (n,): the candidate scores a share of the positives as if they were negatives."""
    champion = rng.normal(truth * 1.2)
    lost = (truth > 0) & (rng.random(len(truth)) < share)
    return np.where(lost, rng.normal(size=len(truth)), champion), champion


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
@pytest.mark.parametrize(("positives", "share"), [(20, 0.03), (20, 0.17), (100, 0.17)])
def test_a_model_that_orders_worse_by_the_margin_rarely_passes_however_few_positives_there_are(
    name: str, positives: int, share: float
) -> None:
    """By the rows alone more than half passed where most of the few positives are ordered alike (benchmarks/gate.py)."""
    rng, passed, runs, n = np.random.default_rng(6), 0, 150 if name == "roc_auc" else 60, 1000
    many = np.repeat(np.arange(n) < positives, 400).astype(float)
    worse, better = (metric(name)(many, score) for score in ordered_worse(share, many, rng))
    truth = (np.arange(n) < positives).astype(float)
    for seed in range(runs):
        found = compare(truth, *ordered_worse(share, truth, rng), name, seed=seed)
        passed += Gate(margin=better - worse).judge(found, held_out=n).passed
    assert passed / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize(("name", "classes"), [("roc_auc", 2), ("roc_auc", 3), ("average_precision", 2)])
def test_models_that_order_alike_pass_once_there_are_rows_enough_to_say_so(name: str, classes: int) -> None:
    rng = np.random.default_rng(7)

    def judged(n: int) -> Decision:
        truth = rng.integers(0, classes, n).astype(float)
        truth[: n // 2] = 0
        score = rng.normal(size=(n, classes)) + 2 * np.eye(classes)[truth.astype(int)]
        score = score if classes > 2 else score[:, 1]
        found = compare(truth, score, score, name)
        assert found.effect == 0
        assert found.low is not None
        assert found.high is not None
        assert found.low < 0 < found.high
        return Gate(margin=0.01, rows=60).judge(found, held_out=n).decision

    assert judged(100) is Decision.UNDECIDED
    assert judged(8000) is Decision.PASS


def test_an_order_of_few_rows_without_a_fault_has_an_interval_with_width() -> None:
    truth = np.append(np.ones(20), np.zeros(480))
    for name in ("roc_auc", "average_precision"):
        found = measure(metric(name), truth, truth + np.linspace(0, 0.1, 500))
        assert found.effect == 1.0
        assert found.low is not None
        assert 0.7 < found.low < 0.97


def test_the_error_of_twenty_positives_is_a_guess_and_its_quantile_says_so() -> None:
    rng, covered, naive, runs = np.random.default_rng(4), 0, 0, 1500
    truth = np.zeros(400)
    truth[:20] = 1.0
    for _ in range(runs):
        shared = rng.normal(2 * truth, 1)
        a, b = shared + rng.normal(0, 0.5, 400), shared + rng.normal(0, 0.5, 400)
        gap, error, freedom = auc_difference(truth, a, b)
        assert 15 < freedom < 400
        low, high = normal_interval(gap, error, 0.95, freedom)
        covered += low <= 0 <= high
        low, high = normal_interval(gap, error, 0.95)
        naive += low <= 0 <= high
    assert covered > naive
    assert covered / runs > 0.93


def test_a_value_of_few_rows_has_an_interval_with_width() -> None:
    truth = np.append(np.ones(10), np.zeros(190))
    recall = measure(metric("recall"), truth, truth)
    assert recall.effect == 1.0
    assert recall.low is not None
    assert 0.6 < recall.low < 0.9, "ten of ten found: 0.72 by Wilson's interval"


@pytest.mark.parametrize("name", ["recall", "precision", "f1", "balanced_accuracy"])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_interval_by_counts_is_that_of_resampled_rows_where_rows_are_many(name: str, classes: int) -> None:
    """Against a bootstrap of the rows, with scikit-learn's own metric: the few rows that stand for doubt are nothing there."""
    rng, n, spec = np.random.default_rng(5), 20_000, metric(name)
    truth = rng.choice(classes, n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()).astype(float)
    a, b = (np.where(rng.random(n) < share, truth, rng.integers(0, classes, n)) for share in (0.8, 0.75))
    a, b = (np.eye(classes)[told.astype(int)] if classes > 2 else told for told in (a, b))
    found = compare(truth, a, b, name)
    drawn = []
    for _ in range(60):
        rows = rng.integers(0, n, n)
        drawn.append(spec(truth[rows], a[rows]) - spec(truth[rows], b[rows]))
    assert found.low is not None
    assert found.high is not None
    assert (found.low + found.high) / 2 == pytest.approx(spec(truth, a) - spec(truth, b), abs=2e-4)
    assert (found.high - found.low) / 3.92 == pytest.approx(np.std(drawn, ddof=1), rel=0.35)
    one = measure(spec, truth, a)
    assert one.low is not None
    assert one.high is not None
    assert one.low < spec(truth, a) < one.high
    assert one.high - one.low < 0.06
