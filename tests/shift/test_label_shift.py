"""Label shift against simulated truth and the published formulas; kinds of shift on planted cases; impact ranks harm, not size."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy.special import expit, softmax

from loudly.errors import ConfigError, DataError
from loudly.shift.estimate.expected import expected
from loudly.shift.impact import Impact
from loudly.shift.kind import ShiftKind, kind_of_shift
from loudly.shift.label_shift import LabelShift, bcts, calibrated, mlls

Floats = NDArray[np.float64]
BEFORE, AFTER = (0.4, 0.3, 0.3), (0.15, 0.25, 0.6)


def classes(seed: int, n: int, q: tuple[float, ...]) -> tuple[Floats, Floats]:
    """Over-confident, biased scores of three classes mixed as q."""
    rng = np.random.default_rng(seed)
    y = rng.choice(3, n, p=q)
    return softmax(2.4 * ((np.eye(3) * 1.8)[y] + rng.normal(0, 1, (n, 3))) + np.array([0.5, 0.0, -0.3]), axis=1), y.astype(float)


@pytest.mark.parametrize("method", ["mlls", "bbse", "bbse-soft"])
def test_intervals_of_the_new_priors_cover_them(method: str) -> None:
    """120 intervals at .95: fewer than 104 within would be .87."""
    within = 0
    for run in range(40):
        fitted = LabelShift.fit(*classes(2 * run, 1500, BEFORE))
        for found, true in zip(fitted.estimate(classes(2 * run + 1, 800, AFTER)[0], method=method), AFTER, strict=True):
            assert found.low is not None
            assert found.high is not None
            within += found.low <= true <= found.high
            assert "label shift alone" in str(found.detail["assumes"])
    assert within >= 104


@pytest.mark.parametrize("method", ["bbse", "bbse-soft"])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_intervals_from_few_rows_cover_the_priors_too(method: str, n: int) -> None:
    """Few rows are often all called alike and then have no spread of their own."""
    fitted, within = LabelShift.fit(*classes(0, 3000, BEFORE)), 0
    for run in range(60):
        found = fitted.estimate(classes(run + 1, n, (0.4, 0.3, 0.3))[0], method=method)
        within += sum((e.low or 0.0) <= q <= (e.high or 0.0) for e, q in zip(found, (0.4, 0.3, 0.3), strict=True))
    assert within >= 0.88 * 180


def published_em(chance: Floats, prior: Floats) -> Floats:
    """Saerens' loop as kundajelab/abstention runs it, to 1e-6 or 100 rounds."""
    q = prior
    for _ in range(100):
        raw = chance * q[None, :] / prior[None, :]
        fresh = (raw / raw.sum(axis=1)[:, None]).mean(axis=0)
        if np.abs(fresh - q).sum() < 1e-6:
            break
        q = fresh
    return fresh


def test_mlls_and_bbse_agree_with_the_published_formulas() -> None:
    (p, y), (w, _) = classes(0, 4000, BEFORE), classes(1, 4000, AFTER)
    onehot = np.eye(3)[y.astype(int)]
    scaled = calibrated(p, bcts(p, onehot))
    assert scaled.mean(axis=0) == pytest.approx(onehot.mean(axis=0), abs=1e-4)
    prior, chance = scaled.mean(axis=0), calibrated(w, bcts(p, onehot))
    assert mlls(chance, prior) == pytest.approx(published_em(chance, prior), abs=1e-4)
    fitted = LabelShift.fit(p, y)
    hard, hard_w = np.eye(3)[p.argmax(axis=1)], np.eye(3)[w.argmax(axis=1)]
    for method, mine, theirs in (("bbse", hard, hard_w), ("bbse-soft", p, w)):
        joint = (mine[:, :, None] * onehot[:, None, :]).mean(axis=0)
        weights = np.linalg.inv(joint) @ theirs.mean(axis=0)
        assert fitted.shares(w, method=method) == pytest.approx(weights * onehot.mean(axis=0), abs=1e-9)
        told = [float(str(e.detail["weight"])) for e in fitted.estimate(w, method=method)]
        assert told == pytest.approx(weights.tolist(), abs=1e-9)


def test_no_shift_gives_the_reference_back() -> None:
    p, y = classes(0, 4000, BEFORE)
    assert LabelShift.fit(p, y).shares(p) == pytest.approx(np.bincount(y.astype(int)) / 4000, abs=1e-3)


def test_a_confusion_that_cannot_be_inverted_is_named() -> None:
    p, y = classes(0, 3000, BEFORE)
    blurred = p.copy()
    blurred[:, 1:] = p[:, 1:].sum(axis=1, keepdims=True) / 2
    found = LabelShift.fit(blurred, y).estimate(blurred, method="bbse-soft")
    assert all(e.effect is None for e in found)
    assert "[1, 2] apart: the confusion matrix is ill-conditioned" in str(found[0].detail["missing"])


def test_bad_input_of_label_shift_has_named_answers() -> None:
    fitted = LabelShift.fit(*classes(0, 600, BEFORE))
    for empty in (np.zeros((0, 3)), np.full((5, 3), np.nan)):
        found = fitted.estimate(empty)
        assert all(e.effect is None for e in found)
        assert found[0].detail["missing"] == "rows with scores"
    with pytest.raises(ConfigError, match="did you mean 'mlls'"):
        fitted.estimate(np.ones((5, 3)) / 3, method="mls")
    with pytest.raises(DataError, match="number of classes"):
        fitted.estimate(np.ones(5) / 2)
    with pytest.raises(DataError, match="no row of one class"):
        LabelShift.fit(classes(0, 600, BEFORE)[0], np.zeros(600))


def planted(seed: int, n: int, how: str) -> tuple[Floats, Floats, Floats]:
    """Inputs, scores of a good model of the reference, labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (8 * n, 3))
    score = expit(2.5 * x[:, 0] + x[:, 1] - 0.3)
    y = rng.random(8 * n) < score
    if how == "label":
        kept = np.flatnonzero(rng.random(8 * n) < np.where(y, 0.3, 1.0))[:n]
        return x[kept], score[kept], y[kept].astype(float)
    x = x[:n]
    if how == "covariate":
        x = x * np.array([1.0, 0.6, 1.0]) + np.array([0.0, 0.8, 0.8])
    turned = -1.0 if how == "concept" else 1.0
    score = expit(2.5 * x[:, 0] + x[:, 1] - 0.3)
    return x, score, (rng.random(n) < expit(2.5 * x[:, 0] + turned * x[:, 1] - 0.3)).astype(float)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "with_labels", "without"),
    [
        ("none", ShiftKind.NONE, ShiftKind.UNKNOWN),
        ("covariate", ShiftKind.COVARIATE, ShiftKind.UNKNOWN),
        ("label", ShiftKind.LABEL, ShiftKind.LABEL),
        ("concept", ShiftKind.CONCEPT, ShiftKind.UNKNOWN),
    ],
)
def test_planted_shifts_are_told_apart(how: str, with_labels: ShiftKind, without: ShiftKind) -> None:
    x, s, y = planted(0, 3000, "none")
    xw, sw, yw = planted(1, 2000, how)
    found = kind_of_shift(s, y, sw, reference_inputs=x, window_inputs=xw, window_truth=yw)
    assert found.kind is with_labels, found.reason
    assert found.evidence
    blind = kind_of_shift(s, y, sw, reference_inputs=x, window_inputs=xw)
    assert blind.kind is without, blind.reason
    assert "labels of the window" in blind.missing


def test_too_little_to_tell_a_kind_says_what_is_missing() -> None:
    _, s, y = planted(0, 500, "none")
    assert "at least 50 rows" in kind_of_shift(s, y, s[:10]).missing
    few = np.where(np.arange(500) < 20, y, np.nan)
    found = kind_of_shift(s, y, s, window_truth=few)
    assert found.kind is ShiftKind.UNKNOWN
    assert "scores alone" in found.reason
    assert "its 20 labelled rows are not used: 50 are the least" in found.reason
    one = np.where(y == 0, y, np.nan)
    told = kind_of_shift(s, y, s, window_truth=one).reason
    assert f"its {int((y == 0).sum())} labelled rows are not used: none is of class 1" in told


def hard_rows(seed: int, n: int, harmless: float, harmful: float) -> tuple[Floats, Floats, Floats]:
    """x0 and x3 say nothing; the higher x1, the less the scores know."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (n, 4)) + np.array([harmless, harmful, 0.0, 0.0])
    p = expit(2 * x[:, 2] * (1 - expit(3 * x[:, 1])))
    return x, p, (rng.random(n) < p).astype(float)


@pytest.mark.parametrize("name", ["roc_auc", "log_loss"])
def test_a_large_harmless_shift_ranks_below_a_small_harmful_one(name: str) -> None:
    calm, moved = hard_rows(998, 300_000, 0.0, 0.0), hard_rows(999, 300_000, 0.0, 0.3)
    truth = expected(name, *moved[1:]).value - expected(name, *calm[1:]).value
    first = within = 0
    for run in range(20):
        x, s, y = hard_rows(2 * run, 4000, 0.0, 0.0)
        found = Impact.fit(s, y, x, metric=name).rank(hard_rows(2 * run + 1, 2000, 2.0, 0.3)[0])
        by = {e.about: e for e in found}
        assert float(str(by["x0"].detail["shift"])) > 4 * float(str(by["x1"].detail["shift"]))
        assert by["x1"].low is not None
        assert by["x1"].high is not None
        first += found[0].about == "x1"
        within += by["x1"].low <= truth <= by["x1"].high
    assert first >= 19
    assert within >= 16


def test_impact_of_words_missing_values_and_nothing_at_all() -> None:
    rng = np.random.default_rng(0)
    plane = np.array(["jet", "prop"])[rng.integers(0, 2, 3000)]
    truth = np.where(plane == "prop", 5.0, 1.0) * rng.normal(0, 1, 3000)
    table = pl.DataFrame({"plane": plane, "calm": [None, 1.0] * 1500})
    fitted = Impact.fit(np.zeros(3000), truth, table, metric="mae")
    window = pl.DataFrame({"plane": ["prop"] * 90 + ["new"] * 10, "calm": [None] * 100}, schema_overrides={"calm": pl.Float64})
    first, second = fitted.rank(window)
    assert (first.about, second.about) == ("plane", "calm")
    assert first.effect == pytest.approx(np.abs(truth[plane == "prop"]).mean() - np.abs(truth).mean())
    assert "10% of the window" in str(first.detail["loud"])
    for nothing in fitted.rank(window[:0]):
        assert nothing.effect is None
        assert nothing.detail["missing"] == "rows in the window"
    with pytest.raises(ConfigError, match="valid"):
        Impact.fit(truth, truth, table, metric="r2")
