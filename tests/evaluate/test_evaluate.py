from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from loudly.core.values import Decision, Evidence, ModelVersion, Run, Task, Verdict
from loudly.errors import ConfigError
from loudly.evaluate.behaviours import Behaviour
from loudly.evaluate.card import card
from loudly.evaluate.compare import compare, compare_slices
from loudly.evaluate.gate import Gate
from loudly.evaluate.report import evaluate, measure
from loudly.metrics.table import decided, in_traffic, metric


def scores(rng: np.random.Generator, truth: np.ndarray, d: float) -> np.ndarray:
    return 1 / (1 + np.exp(-rng.normal(d * (truth - 0.5), 1)))


def test_unknown_metrics_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'roc_auc'"):
        metric("roc_auk")
    assert in_traffic("f1", Task.BINARY).name == "accuracy"
    assert in_traffic("roc_auc", Task.MULTICLASS).name == "brier"
    assert decided(np.array([[0.1, 0.9], [0.8, 0.2]])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("weighted", [False, True])
def test_the_auc_of_several_classes_is_that_of_scikit_learn_and_asks_for_no_probabilities(weighted: bool) -> None:
    """Scores of a function need not sum to one; scikit-learn raises for them, in the middle of a training."""
    rng = np.random.default_rng(0)
    truth, raw = rng.integers(0, 3, 400).astype(float), rng.random((400, 3))
    score, weight = raw / raw.sum(axis=1, keepdims=True), rng.random(400) if weighted else None
    judge = roc_auc_score(truth, score, multi_class="ovr", sample_weight=weight)
    assert metric("roc_auc")(truth, score, weight) == pytest.approx(judge)
    assert metric("roc_auc")(truth, raw * [1, 5, 20], weight) == pytest.approx(metric("roc_auc")(truth, raw, weight))
    assert np.isnan(metric("roc_auc")(np.minimum(truth, 1), score)), "of a class that did not come nothing can be told"


@pytest.mark.parametrize("name", ["roc_auc", "log_loss", "accuracy", "f1"])
def test_intervals_cover(name: str) -> None:
    spec, rng = metric(name), np.random.default_rng(1)
    big = (rng.random(300_000) < 0.3).astype(float)
    truth_value = spec(big, scores(rng, big, 1.5))
    covered, runs = 0, 150
    for _ in range(runs):
        truth = (rng.random(600) < 0.3).astype(float)
        found = measure(spec, truth, scores(rng, truth, 1.5))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth_value <= found.high
    assert 0.85 <= covered / runs <= 1.0


@pytest.mark.parametrize("name", ["roc_auc", "log_loss", "accuracy", "f1"])
def test_paired_comparison_rarely_tells_equals_apart_and_finds_a_worse_one(name: str) -> None:
    rng = np.random.default_rng(2)
    wrong = found = 0
    runs = 60
    for seed in range(runs):
        truth = (rng.random(1500) < 0.35).astype(float)
        shared = rng.normal(1.5 * (truth - 0.5), 0.8)
        a, b = (1 / (1 + np.exp(-(shared + rng.normal(0, 0.5, 1500)))) for _ in range(2))
        equal = compare(truth, a, b, name, seed=seed)
        worse = compare(truth, scores(rng, truth, 0.5), a, name, seed=seed)
        assert equal.low is not None
        assert equal.high is not None
        assert worse.high is not None
        wrong += not equal.low <= 0 <= equal.high
        found += worse.high < 0
    assert wrong / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)
    assert found == runs


@pytest.mark.parametrize("name", ["f1", "precision", "recall", "balanced_accuracy", "roc_auc", "average_precision"])
@pytest.mark.parametrize("only", [0.0, 1.0])
def test_rows_of_one_class_cannot_tell_two_models_apart(name: str, only: float) -> None:
    rng = np.random.default_rng(0)
    found = compare(np.full(1000, only), rng.random(1000), rng.random(1000), name)
    assert (found.effect, found.low, found.high) == (None, None, None)
    assert Gate().judge(found, held_out=1000).decision is Decision.UNDECIDED


def test_a_candidate_broken_in_one_slice_passes_the_mean_and_fails_the_gate_by_that_slice() -> None:
    rng = np.random.default_rng(3)
    n = 12_000
    truth, carrier = (rng.random(n) < 0.25).astype(float), rng.integers(0, 12, n)
    shared = rng.normal(1.2 * (truth - 0.5), 0.8)
    champion = 1 / (1 + np.exp(-(shared + rng.normal(0, 0.5, n))))
    candidate = 1 / (1 + np.exp(-(shared + 0.2 * (truth - 0.5) + rng.normal(0, 0.5, n))))
    candidate[carrier == 4] = rng.random((carrier == 4).sum())
    slices = {f"carrier={c}": carrier == c for c in range(12)}
    overall = compare(truth, candidate, champion, "roc_auc")
    gate = Gate(margin=0.03)
    assert gate.judge(overall, held_out=n).passed
    verdict = gate.judge(overall, compare_slices(truth, candidate, champion, "roc_auc", slices), held_out=n)
    assert verdict.failed
    assert "carrier=4" in verdict.reason
    assert "carrier=3" not in verdict.reason


def test_slices_of_equal_models_rarely_fail_the_gate() -> None:
    rng = np.random.default_rng(4)
    failed = 0
    for _ in range(60):
        truth, carrier = (rng.random(4000) < 0.3).astype(float), rng.integers(0, 10, 4000)
        shared = rng.normal(1.2 * (truth - 0.5), 0.8)
        a, b = (1 / (1 + np.exp(-(shared + rng.normal(0, 0.5, 4000)))) for _ in range(2))
        slices = {str(c): carrier == c for c in range(10)}
        found = Gate(margin=0.05, slice_margin=0.0).judge(
            compare(truth, a, b, "roc_auc"), compare_slices(truth, a, b, "roc_auc", slices), held_out=4000
        )
        failed += found.failed
    assert failed / 60 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)


def test_undecided_says_how_many_more_rows() -> None:
    narrow = Evidence("paired DeLong", 0.0, -0.03, 0.03, 2000, "roc_auc", "roc_auc")
    verdict = Gate(margin=0.01).judge(narrow, held_out=2000)
    assert verdict.decision is Decision.UNDECIDED
    assert "more held-out rows" in verdict.missing
    assert Gate(rows=500).judge(None, held_out=100).missing == "400 more held-out rows"
    blind = Evidence("paired DeLong", None, n=50)
    assert Gate().judge(blind, held_out=1000).decision is Decision.UNDECIDED


def test_behaviours() -> None:
    rows = pl.DataFrame({"x": np.linspace(-1, 1, 200)})

    def predict(table: pl.DataFrame) -> np.ndarray:
        return 1 / (1 + np.exp(-table["x"].to_numpy()))

    def raise_x(table: pl.DataFrame) -> pl.DataFrame:
        return table.with_columns(pl.col("x") + 1)

    assert Behaviour("more x", raise_x, "up").judge(predict, rows).passed
    assert Behaviour("more x", raise_x, "down").judge(predict, rows).failed
    assert Behaviour("more x", raise_x, "same").judge(predict, rows).failed
    assert Behaviour("more x", raise_x, "same", 0.3).judge(predict, rows).passed
    assert Behaviour("floor", lambda t: t, "minimum", 0.4).judge(predict, rows).passed
    assert Behaviour("floor", lambda t: t, "minimum", 0.6).judge(predict, rows).failed
    assert Behaviour("none", raise_x, "up").judge(predict, rows.clear()).decision is Decision.UNDECIDED
    assert Behaviour("cut", lambda t: t[:3], "same").judge(predict, rows).failed


@pytest.mark.parametrize("expect", ["same", "up", "down", "minimum"])
def test_a_model_without_a_number_for_changed_rows_breaks_each_behaviour(expect: str) -> None:
    rows = pl.DataFrame({"x": [0.1, 0.5, 0.9]})
    lost = Behaviour("x is lost", lambda given: given.with_columns(x=pl.lit(None, pl.Float64)), expect, 0.2)
    assert lost.judge(lambda given: given["x"].fill_null(float("nan")).to_numpy(), rows).failed

    def strict(given: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        if given["x"].null_count():
            raise ValueError("Input X contains NaN.")
        return given["x"].to_numpy()

    found = lost.judge(strict, rows)
    assert found.failed
    assert "Input X contains NaN" in found.reason


def test_report_and_card_are_plain_and_legible() -> None:
    rng = np.random.default_rng(5)
    truth = (rng.random(3000) < 0.3).astype(float)
    report = evaluate(
        truth,
        scores(rng, truth, 2),
        task=Task.BINARY,
        main="roc_auc",
        classes=("no", "yes"),
        slices={"a": truth > -1, "one": truth > 0.5},
    )
    assert report.value == pytest.approx(metric("roc_auc")(truth, scores(np.random.default_rng(9), truth, 2)), abs=0.05)
    assert sum(map(sum, report.confusion)) == 3000
    assert sum(b.n for b in report.calibration) == 3000
    assert [s.effect for s in report.slices][1] is None, "one class alone cannot tell"
    run = Run("k" * 64, "d" * 64, {"lr": 0.1}, 0, None, {}, "m" * 64, "skops", 3000)
    version = ModelVersion("m", 1, "m" * 64, "skops", Task.BINARY, "d" * 64, "s", "k" * 64, 0)
    text = card(version, run, report, Verdict(Decision.PASS, "gate", "fine"))
    assert "# m/1" in text
    assert "lr=0.1" in text
    widths = {len(line) for line in text.splitlines() if line.startswith("| ") and "roc_auc" in line}
    assert len(widths) == 1


def test_slices_that_could_not_be_judged_are_named_and_no_judgment_that_passed() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random(2000) < 0.5).astype(float)
    score = np.clip(0.3 * truth + rng.random(2000) * 0.7, 0, 1)
    where = {"a": np.arange(2000) < 1000, **{f"s{i}": np.arange(2000) == i for i in range(4)}}
    slices = compare_slices(truth, score, score, "roc_auc", where)
    found = Gate().judge(compare(truth, score, score, "roc_auc"), slices, held_out=2000)
    assert found.passed
    assert found.reason.endswith("; 2 judgments passed; too few rows to judge s0, s1, s2 and 1 more")
    few = Gate().judge(compare(truth, score, score, "roc_auc"), slices[:2], held_out=2000)
    assert few.reason.endswith("; 2 judgments passed; too few rows to judge s0")


def test_a_candidate_that_is_not_held_against_the_champion_says_why() -> None:
    assert "no champion to compare with; 1 judgment passed" in Gate().judge(None, held_out=1000).reason
    told = Gate().judge(None, held_out=1000, alone="not held against the champion: no new rows").reason
    assert told == "not held against the champion: no new rows; 1 judgment passed"
