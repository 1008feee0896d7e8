"""Performance estimated without labels: held against simulated truth, against scikit-learn, and against bad input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit, softmax

from loudly.core.values import Decision, Evidence
from loudly.errors import ConfigError, DataError
from loudly.metrics.table import metric as metric_named
from loudly.shift.estimate.answer import harm
from loudly.shift.estimate.atc import Atc
from loudly.shift.estimate.calibrate import calibrate, ece
from loudly.shift.estimate.cbpe import Cbpe
from loudly.shift.estimate.density import columns_of, density
from loudly.shift.estimate.dle import Dle
from loudly.shift.estimate.expected import BETTER, expected
from loudly.shift.estimate.importance import Importance
from loudly.shift.estimate.pape import Pape
from loudly.shift.impact import Impact
from loudly.shift.kind import kind_of_shift

Floats = NDArray[np.float64]
RUNS = 60


def rows(seed: int, n: int, shift: float = 0.0) -> tuple[Floats, Floats, Floats]:
    """Inputs, miscalibrated scores and labels; the score ignores x1, so x1's shift changes what a score means."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (n, 2)) + np.array([0.0, shift])
    return x, expit(x[:, 0] - 0.3 + 0.1 * x[:, 1]), (rng.random(n) < expit(1.3 * x[:, 0] - 0.5 + 0.9 * x[:, 1])).astype(float)


def score_shift(seed: int, n: int, shift: float = 0.0) -> tuple[Floats, Floats]:
    """Miscalibrated scores whose meaning stays: covariate shift that CBPE may be trusted with."""
    rng = np.random.default_rng(seed)
    x = rng.normal(shift, 1, n)
    return expit(0.6 * x + 0.4), (rng.random(n) < expit(1.3 * x - 0.5)).astype(float)


def many(seed: int, n: int, q: tuple[float, ...] = (0.4, 0.3, 0.3)) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    y = rng.choice(3, n, p=q)
    return softmax(2.4 * (np.eye(3) * 1.8)[y] + 2.4 * rng.normal(0, 1, (n, 3)), axis=1), y.astype(float)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(BETTER)), st.booleans())
def test_with_certain_labels_the_expected_metric_is_scikit_learns(seed: int, name: str, several: bool) -> None:
    rng = np.random.default_rng(seed)
    if several:
        score, truth = many(seed, 200)
        assert expected(name, score, np.eye(3)[truth.astype(int)]).value == pytest.approx(metric_named(name)(truth, score))
        return
    score = np.clip(rng.random(80).round(2), 0.01, 0.99)
    truth = np.concatenate([[0.0, 1.0], (rng.random(78) < 0.4).astype(float)])
    weight = rng.random(80) + 0.1
    assert expected(name, score, truth, weight).value == pytest.approx(metric_named(name)(truth, score, weight))


@pytest.mark.parametrize("name", sorted(BETTER))
@pytest.mark.parametrize("several", [False, True])
def test_influence_and_gradient_are_the_derivatives(name: str, several: bool) -> None:
    score = many(0, 400)[0] if several else np.random.default_rng(0).random(400)
    chance = 0.8 * score + 0.1 * np.roll(score, 1, axis=-1) if several else score**2
    found, step = expected(name, score, chance), 1e-5
    for row in (3, 77):
        more, weight = chance.copy(), np.ones(400)
        more[(row, 1) if several else row] += step
        weight[row] += step
        slope = (expected(name, score, more).value - found.value) / step
        assert found.gradient[(row, 1) if several else row] == pytest.approx(slope, rel=0.02, abs=2e-5)
        pull = (expected(name, score, chance, weight).value - found.value) / step
        assert found.influence[row] == pytest.approx(pull, rel=0.02, abs=4e-5)


def test_the_better_calibration_is_chosen_by_held_out_error() -> None:
    score, truth = score_shift(0, 8000)
    found = calibrate(score, truth)
    assert found.ece[found.method] == min(found.ece.values())
    rng = np.random.default_rng(1)
    u = rng.random(8000)
    steps = calibrate(u, (rng.random(8000) < np.where(u > 0.5, 0.9, 0.1)).astype(float))
    assert steps.method == "isotonic"
    fresh, late = score_shift(2, 8000)
    assert ece(found(fresh), late) < 0.03 < ece(fresh, late)


@cache
def calibrated(draw: Callable[[int, int], tuple[Floats, Floats]], run: int) -> Cbpe:
    """Fitted to 3,000 rows; one calibration serves every metric."""
    return Cbpe.fit(*draw(2 * run, 3000))


@pytest.mark.simulation
@pytest.mark.parametrize("name", sorted(BETTER))
def test_cbpe_covers_the_truth_under_a_shift_of_the_scores(name: str) -> None:
    """60 runs: at a true coverage of .95, fewer than 51 within happens once in 500."""
    big, labels = score_shift(999, 300_000, 0.5)
    truth = expected(name, big, labels).value
    within = wrong = 0
    for run in range(RUNS):
        estimator = replace(calibrated(score_shift, run), metric=name, expected=None)
        s, y = score_shift(2 * run + 1, 1500, 0.5)
        found = estimator.estimate(s)
        assert found.low is not None
        assert found.high is not None
        within += found.low <= truth <= found.high
        wrong += estimator.check_against(s, y).failed
    assert within >= 51
    assert wrong <= 10


@pytest.mark.parametrize("name", ["roc_auc", "accuracy", "f1", "log_loss", "brier"])
def test_cbpe_covers_the_truth_for_three_classes(name: str) -> None:
    big, labels = many(999, 200_000)
    truth = expected(name, big, np.eye(3)[labels.astype(int)]).value
    within = wrong = 0
    for run in range(20):
        estimator = replace(calibrated(many, run), metric=name, expected=None)
        s, y = many(2 * run + 1, 1500)
        found = estimator.estimate(s)
        assert found.low is not None
        assert found.high is not None
        within += found.low <= truth <= found.high
        wrong += estimator.check_against(s, y).failed
    assert within >= 16
    assert wrong <= 4


@pytest.mark.slow
def test_pape_and_importance_hold_where_cbpe_does_not() -> None:
    """The window's x1 moved: a score means something else now. Bias of CBPE's accuracy is .016, stated bound for ours .01."""
    big = rows(999, 300_000, 0.7)
    truth = expected("accuracy", big[1], big[2]).value
    off: dict[str, list[float]] = {"CBPE": [], "PAPE": [], "importance weighting": []}
    for run in range(8):
        (x, s, y), (xw, sw, _) = rows(2 * run, 4000), rows(2 * run + 1, 2000, 0.7)
        for found in (
            Cbpe.fit(s, y, metric="accuracy").estimate(sw),
            Pape.fit(s, y, x, metric="accuracy").estimate(sw, xw),
            Importance.fit(s, y, x, metric="accuracy").estimate(sw, xw),
        ):
            assert found.effect is not None
            assert "P(y | inputs)" in str(found.detail["assumes"]) or found.method == "CBPE"
            off[found.method].append(found.effect - truth)
    assert abs(np.mean(off["PAPE"])) < 0.01 < np.mean(off["CBPE"])
    assert abs(np.mean(off["importance weighting"])) < 0.01


def test_few_reference_rows_that_speak_for_the_window_are_said_loudly_and_nothing_is_judged() -> None:
    x, s, y = rows(0, 3000)
    found = Importance.fit(s, y, x).estimate(*rows(1, 1000, 5.0)[1::-1])
    assert str(found.detail["loud"]).startswith("LOUD")
    judged = harm(found, 0.9, 0.01)
    assert judged.decision is Decision.UNDECIDED
    assert "LOUD" in judged.reason
    assert "like the window" in judged.missing


def test_atc_follows_a_shift_of_the_scores_and_says_what_it_assumes() -> None:
    big, labels = score_shift(999, 200_000, 0.7)
    truth, within = expected("accuracy", big, labels).value, 0
    for by in ("maximum", "entropy"):
        for run in range(15):
            rng = np.random.default_rng(run)
            p, q = rng.random(3000), rng.beta(3, 1, 2000)
            made = Atc.fit(p, (rng.random(3000) < p).astype(float), by=by)
            found = made.estimate(q)
            assert found.low is not None
            assert found.high is not None
            within += found.low - 0.03 <= np.maximum(q, 1 - q).mean() <= found.high + 0.03
            assert "concept shift" in str(found.detail["assumes"])
    assert within >= 27
    assert truth > 0.5
    same, seen = score_shift(1, 4000)
    assert Atc.fit(same, seen).check_against(*score_shift(2, 3000)).passed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mae", "rmse"])
def test_dle_covers_the_truth_where_errors_depend_on_inputs(name: str) -> None:
    def draw(seed: int, n: int, low: float) -> tuple[Floats, Floats, Floats]:
        rng = np.random.default_rng(seed)
        x = low + (1 - low) * rng.random((n, 1))
        return x[:, 0], x[:, 0] + x[:, 0] * rng.normal(0, 1, n), x

    f, y, _ = draw(999, 300_000, 0.5)
    truth = float(np.abs(f - y).mean() if name == "mae" else np.sqrt(((f - y) ** 2).mean()))
    within = wrong = 0
    references = [Dle.fit(*draw(2 * run, 3000, 0.0), metric=name) for run in range(3)]
    for run in range(9):
        made, (fw, yw, xw) = references[run % 3], draw(2 * run + 1, 1500, 0.5)
        found = made.estimate(fw, xw)
        assert found.low is not None
        assert found.high is not None
        assert found.low > made.expected
        within += found.low <= truth <= found.high
        wrong += made.check_against(fw, xw, yw).failed
    assert within >= 7
    assert wrong <= 2
    assert made.check_against(fw, xw, yw + 1.0).failed


def test_concept_shift_fails_the_estimate_loudly_once_labels_come() -> None:
    x, s, y = rows(0, 4000)
    xw, sw, yw = rows(1, 1500)
    turned = np.where(np.random.default_rng(2).random(1500) < 0.3, 1 - yw, yw)
    for verdict in (
        Cbpe.fit(s, y).check_against(sw, turned),
        Pape.fit(s, y, x).check_against(sw, xw, turned),
        Importance.fit(s, y, x).check_against(sw, xw, turned),
        Atc.fit(s, y).check_against(sw, turned),
    ):
        assert verdict.failed, verdict.reason
        assert verdict.reason.startswith("LOUD")
        assert "concept shift suspected" in verdict.reason
    seldom = Cbpe.fit(s, y)
    assert seldom.check_against(sw, yw, looks=100).passed
    waiting = seldom.check_against(sw, np.full(1500, np.nan))
    assert waiting.decision is Decision.UNDECIDED
    assert "labelled rows" in waiting.missing


def test_bad_references_are_refused_with_what_to_do() -> None:
    _, s, y = rows(0, 400)
    with pytest.raises(DataError, match="no row of one class"):
        Cbpe.fit(s, np.ones(400))
    with pytest.raises(DataError, match="all the same"):
        Cbpe.fit(np.full(400, 0.3), y)
    with pytest.raises(DataError, match="at least 50"):
        Atc.fit(s[:20], y[:20])
    with pytest.raises(DataError, match="at least 50"):
        Cbpe.fit(np.full(400, np.nan), y)
    with pytest.raises(DataError, match="probabilities"):
        Cbpe.fit(s * 9, y)
    with pytest.raises(DataError, match="length"):
        Cbpe.fit(s, y[:-1])
    with pytest.raises(DataError, match="codes"):
        Cbpe.fit(s, y + 1)
    with pytest.raises(ConfigError, match="did you mean 'roc_auc'"):
        Cbpe.fit(s, y, metric="roc_auk")
    with pytest.raises(DataError, match="no error at all"):
        Dle.fit(s, s, s)
    with pytest.raises(DataError, match="rows with prediction"):
        Dle.fit(s[:9], y[:9], s[:9])
    with pytest.raises(ConfigError, match="maximum"):
        Atc.fit(s, y, by="maximal")


def test_a_window_that_is_nowhere_like_the_reference_is_loud_however_alike_the_weights_are() -> None:
    """Before, all weights were equally small, so all rows of the reference spoke for inputs that were missing altogether."""
    x, s, y = rows(0, 2000)
    nothing = np.full_like(x, np.nan)
    for estimator in (Pape.fit(s, y, x), Importance.fit(s, y, x)):
        found = estimator.estimate(s, nothing)
        assert "LOUD: 1 effective reference rows" in str(found.detail["loud"])
        assert harm(found, 0.8, 0.01).decision is Decision.UNDECIDED
        assert "loud" not in estimator.estimate(s, x).detail


def test_scores_that_are_decisions_promise_nothing() -> None:
    """Before, labels given as scores were estimated to be right with certainty, which held shifts back as harmless."""
    hard = (np.arange(100) % 3 == 0).astype(float)
    found = Cbpe.as_given("roc_auc").estimate(hard)
    assert found.effect is None
    assert harm(found, 0.8, 0.01).missing.startswith("probabilities")
    assert Cbpe.as_given("roc_auc").estimate(np.append(hard, 0.5)).effect is not None


@pytest.mark.parametrize("hole", ["effect", "low", "high"])
def test_nothing_that_is_no_number_is_no_harm(hole: str) -> None:
    found = Evidence("CBPE", 0.7, 0.68, 0.72, 900, unit="roc_auc")
    assert harm(found, float("nan"), 0.02).missing == "what the reference led to expect"
    assert harm(replace(found, **{hole: float("nan")}), 0.8, 0.02).decision is Decision.UNDECIDED
    with pytest.raises(DataError, match="tolerance"):
        harm(found, 0.8, float("nan"))
    with pytest.raises(ConfigError, match="Which way 'r2' is better"):
        harm(replace(found, unit="r2"), 0.8, 0.02)
    assert harm(replace(found, unit="r2"), 0.8, 0.02, better=1).failed
    assert harm(replace(found, unit="mae"), 0.5, 0.02).failed


def test_bad_windows_have_named_answers() -> None:
    x, s, y = rows(0, 400)
    holes = np.where(np.arange(400) < 100, np.nan, s)
    cbpe = Cbpe.fit(s, y)
    for found in (
        cbpe.estimate([]), cbpe.estimate(np.full(9, np.nan)), Atc.fit(s, y).estimate([]), Dle.fit(s, y, x).estimate([], x[:0]),
        Pape.fit(s, y, x).estimate([], x[:0]), Importance.fit(s, y, x).estimate([], x[:0]),
    ):  # fmt: skip
        assert found.effect is None
        assert "rows" in str(found.detail["missing"])
        assert harm(found, 0.8, 0.01).decision is Decision.UNDECIDED
        assert harm(found, 0.8, 0.01).missing
    atc = Atc.fit(s, y)
    for few in (cbpe.estimate(s[:1]), atc.estimate(s[:19]), Dle.fit(s, y, x).estimate(s[:2], x[:2])):
        assert few.effect is None, "an interval from a row or two would have no width"
        assert "at least 20 rows" in harm(few, 0.8, 0.01).missing
    assert atc.estimate(np.full(25, 0.999)).low < 0.92, "25 rows that are all sure are no certain accuracy of 1"
    for half in (
        cbpe.estimate(holes), atc.estimate(holes), Dle.fit(s, y, x).estimate(holes, x), Pape.fit(s, y, x).estimate(holes, x),
        Importance.fit(s, y, x).estimate(holes, x),
    ):  # fmt: skip
        assert half.detail["unusable"] == 100
        assert half.effect is not None
        said = harm(half, half.effect, 0.01)
        assert said.decision is Decision.UNDECIDED, "a quarter of the rows is not spoken for"
        assert "LOUD: 100 of 400 rows have no score" in said.reason
        assert "scores of all rows" in said.missing
    assert harm(cbpe.estimate(np.where(np.arange(400) < 20, np.nan, s)), 0.5, 0.01).passed
    flat = cbpe.estimate(np.full(50, 0.4))
    assert flat.effect == pytest.approx(0.5)
    assert "rank nothing" in str(flat.detail["note"])
    assert Cbpe.as_given("precision").estimate(np.full(50, 0.4)).effect is None
    with pytest.raises(DataError, match="number of classes"):
        cbpe.estimate(many(0, 60)[0])
    with pytest.raises(DataError, match="number of classes"):
        kind_of_shift(s, y, many(0, 60)[0])
    with pytest.raises(DataError, match="another width"):
        Pape.fit(s, y, x).estimate(s, x[:, :1])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda y: 2 * y - 1, "codes 0..k-1"),
        (lambda y: y + 5, "codes 0..k-1"),
        (lambda y: y[1:], "differ in length"),
        (lambda y: np.where(y == 1, "yes", "no"), "must be numbers"),
    ],
)
def test_labels_that_are_no_codes_are_refused_wherever_labels_come(wrong: Any, told: str) -> None:
    """Labels of -1 and 1 had an accuracy above 1, and an estimate that was right was 'disproved'."""
    x, s, y = rows(0, 400)
    checks = [
        lambda bad: Cbpe.fit(s, bad),
        lambda bad: Cbpe.fit(s, y, metric="accuracy").check_against(s, bad),
        lambda bad: Atc.fit(s, y).check_against(s, bad),
        lambda bad: Pape.fit(s, y, x).check_against(s, x, bad),
        lambda bad: Importance.fit(s, y, x).check_against(s, x, bad),
        lambda bad: kind_of_shift(s, y, s, window_truth=bad),
    ]
    for check in checks:
        with pytest.raises(DataError, match=told):
            check(wrong(y))


def test_inputs_may_be_a_table_with_words_and_holes() -> None:
    table = pl.DataFrame({"x": [1.0, None, float("inf")], "c": ["a", None, "b"], "gone": [None, None, None]})
    columns = columns_of(table)
    made = columns.array(table.with_columns(c=pl.Series(["b", "new", None])))
    assert np.isnan(made[2, 1])
    assert made[:2, 1].tolist() == [1.0, 2.0]
    with pytest.raises(DataError, match="gone"):
        columns.array(table.drop("c"))
    with pytest.raises(DataError, match="at least 20"):
        density(np.zeros((5, 1)), np.zeros((50, 1)))
    still = density(np.zeros((60, 1)), np.zeros((60, 1)))
    assert still.ess == pytest.approx(60)


def test_columns_of_a_table_of_any_maker_are_known_by_name_and_not_by_place() -> None:
    pd = pytest.importorskip("pandas")
    x, s, y = rows(0, 600)
    table = pl.DataFrame({"a": x[:, 0], "b": 5 * x[:, 1], "c": ["u", "v"] * 300})
    right = Pape.fit(s, y, table).estimate(s[:200], table[:200])
    for made in (table.to_pandas(), table.to_arrow(), table.to_dict()):
        assert Pape.fit(s, y, made).estimate(s[:200], table[:200]) == right
    other = table.select("c", "b", "a")[:200]
    assert Pape.fit(s, y, pd.DataFrame(table.to_dict(as_series=False))).estimate(s[:200], other.to_pandas()) == right
    assert {e.about for e in Impact.fit(s, y, table.to_pandas()).rank(other.to_pandas())} == {"a", "b", "c"}
    with pytest.raises(DataError, match="differ in length"):
        Pape.fit(s, y, table).estimate(s[:200], table[:100])


def test_the_same_rows_give_the_same_answer() -> None:
    x, s, y = rows(0, 800)
    assert Pape.fit(s, y, x).estimate(s, x) == Pape.fit(s, y, x).estimate(s, x)
    assert Dle.fit(s, y, x).estimate(s, x) == Dle.fit(s, y, x).estimate(s, x)
    assert Cbpe.fit(s, y).estimate(s) == Cbpe.fit(s, y).estimate(s)
