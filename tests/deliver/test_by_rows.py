"""F1, precision, recall and balanced accuracy as means over rows: to first order what the ratios do, and safe to judge by."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from loudly.core.clock import DAY
from loudly.core.seams import Feedback, Floats
from loudly.core.values import Arm, Decision, Task, Verdict
from loudly.deliver.canary import Canary
from loudly.deliver.ratios import FEWEST_OF_CLASS, counted, nothing_counted, rated
from loudly.deliver.rollout import parse_rollout
from loudly.metrics.table import RATED, MetricSpec, by_rows, in_traffic, metric, rates_of

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))


def value(spec: MetricSpec, truth: Floats, answers: Floats) -> float:
    assert spec.loss is not None
    return -float(spec.loss(truth, answers).mean())


def onehot(kinds: Any, classes: int) -> Floats:
    return np.eye(classes)[kinds]


def answered(rng: np.random.Generator, truth: Floats, classes: int, wrong: float) -> Floats:
    """Answers of which some are of another class: one score a row for two classes, one for each class of several."""
    drawn = np.where(rng.random(len(truth)) < wrong, rng.integers(0, classes, len(truth)), truth).astype(int)
    return drawn.astype(float) if classes == 2 else onehot(drawn, classes)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", RATED)
def test_a_small_change_of_the_ratio_is_the_change_of_the_mean(name: str, classes: int) -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(classes, 40_000, p=[0.9, 0.1] if classes == 2 else [0.6, 0.25, 0.1, 0.05]).astype(float)
    control = answered(rng, truth, classes, 0.2)
    expected = metric(name)(truth, control)
    spec = by_rows(name, rates_of(name, truth, control, expected))
    for wrong in (0.001, 0.01, 0.03):
        other = np.where(rng.random(len(truth)) < wrong, rng.integers(0, classes, len(truth)), -1)
        keep = other < 0
        changed = np.where(keep, control, other) if classes == 2 else np.where(keep[:, None], control, onehot(other, classes))
        true = metric(name)(truth, changed) - expected
        told = value(spec, truth, changed) - value(spec, truth, control)
        assert told == pytest.approx(true, rel=0.1, abs=2e-4), (wrong, true)
        assert true < 0


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["f1", "precision"]),
    st.floats(0.02, 0.5),
    st.floats(0.05, 0.9),
    st.floats(0.0, 0.5),
)
@settings(max_examples=60, deadline=None)
def test_who_is_worse_by_the_ratio_is_worse_by_the_mean(seed: int, name: str, share: float, hit: float, false: float) -> None:
    """Where control is as expected the mean over rows has the sign of the change of the ratio itself, however large that is."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(5000) < share).astype(float)
    control, other = ((rng.random(5000) < np.where(truth > 0, h, f)).astype(float) for h, f in ((0.6, 0.05), (hit, false)))
    was, now = metric(name)(truth, control), metric(name)(truth, other)
    spec = by_rows(name, rates_of(name, truth, control, was))
    assert np.sign(value(spec, truth, other) - value(spec, truth, control)) == np.sign(round(now - was, 12))


@pytest.mark.parametrize("name", RATED)
@pytest.mark.parametrize("classes", [2, 3])
def test_no_row_lies_further_than_it_says_and_it_travels(name: str, classes: int) -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, classes, 3000).astype(float)
    answers = answered(rng, truth, classes, 0.4)
    spec = by_rows(name, rates_of(name, truth, answers, 0.5))
    assert spec.loss is not None
    assert spec.reach == pytest.approx(np.ptp(spec.loss(truth, answers)))
    back = pickle.loads(pickle.dumps(spec))
    assert (back.name, back.rates, back.better) == (name, spec.rates, 1)
    np.testing.assert_array_equal(back.loss(truth, answers), spec.loss(truth, answers))


def test_values_of_classes_are_in_proportion_to_what_is_expected_of_them_all() -> None:
    """Rows that were learned from flatter: what the gate has found counts."""
    truth = np.repeat([0.0, 1.0, 2.0], [60, 30, 10])
    rates = rates_of("f1", truth, onehot(truth.astype(int), 3), 0.6)
    assert rates == tuple((share, share, pytest.approx(0.6)) for share in (0.6, 0.3, 0.1))
    (_, two) = rates_of("f1", np.array([0.0, 1.0, 1.0, np.nan]), np.array([0.0, 1.0, 1.0, 1.0]), 0.7)
    assert two == (pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(0.7))


def test_where_a_class_cannot_be_told_there_are_no_rates_and_accuracy_judges() -> None:
    assert rates_of("recall", np.zeros(9), np.zeros(9), 0.5) == ()
    assert rates_of("precision", np.array([0.0, 1.0]), np.zeros(2), 0.5) == ()
    assert rates_of("f1", np.array([0.0, 1.0]), np.zeros(2), 0.0) != (), "who finds nothing can be beaten"
    assert in_traffic("f1", Task.BINARY).name == "accuracy"
    assert in_traffic("f1", Task.BINARY, ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))).name == "f1"


# -- as a rollout judges ---------------------------------------------------------------------------------------------

SHARE, ROWS = 0.05, 2000
GOOD, WORSE, DEAF = (0.7, 0.01), (0.55, 0.01), (0.0, 0.0)


def f1_of(hit: float, false: float) -> float:
    found, said = SHARE * hit, SHARE * hit + (1 - SHARE) * false
    return 2 * found / (SHARE + said)


def spec_of(share: float = SHARE) -> MetricSpec:
    hit, false = GOOD
    said = share * hit + (1 - share) * false
    return by_rows("f1", ((1 - share, 1 - said, 0.9), (share, said, 2 * share * hit / (share + said))))


def judged(
    seed: int, candidate: tuple[float, float], margin: float, days: int, share: float = SHARE, before: float = SHARE
) -> Verdict:
    """The first verdict that decides, looked at every day; models agree as far as their rates allow."""
    rng = np.random.default_rng(seed)
    canary = Canary(parse_rollout("canary 10% 100%", margin=margin), spec_of(before))
    state = canary.init(ARMS, 0)
    found = Verdict(Decision.UNDECIDED, "canary", "nothing yet")
    for day in range(days):
        truth, draw = (rng.random(ROWS) < share).astype(float), rng.random(ROWS)
        scores = {
            arm.name: (draw < np.where(truth > 0, hit, false)).astype(float)
            for arm, (hit, false) in zip(ARMS, (GOOD, candidate), strict=True)
        }
        units = [f"{day}-{i}" for i in range(ROWS)]
        state, _ = canary.update(state, Feedback(day * DAY, units, np.zeros(ROWS, dtype=np.int64), truth, scores, {}, [day]))
        state, found = canary.advance(state, (day + 1) * DAY)
        if found.decision is not Decision.UNDECIDED:
            break
    return found


def test_who_finds_nothing_any_more_is_rolled_back_though_accuracy_hardly_moves() -> None:
    """Of one row in twenty F1 falls from .74 to 0, and accuracy by .025: within a margin of .03 that was a promotion."""
    verdicts = [judged(seed, DEAF, 0.03, 20) for seed in range(10)]
    assert all(v.failed for v in verdicts), [v.reason for v in verdicts]
    assert verdicts[0].evidence[0].unit == "f1"


def test_who_is_worse_by_the_margin_is_seldom_promoted_and_who_is_as_good_is_seldom_rolled_back() -> None:
    margin = f1_of(*GOOD) - f1_of(*WORSE)
    promoted = sum(judged(seed, WORSE, margin, 15).passed for seed in range(60))
    assert promoted <= 6, "5 % are allowed: 3 of 60"
    as_good = [judged(seed, (0.71, 0.0105), margin, 15) for seed in range(60)]
    assert sum(v.failed for v in as_good) <= 6
    assert sum(v.passed for v in as_good) >= 50, "and it can tell"


@pytest.mark.parametrize("before", [0.01, 0.02, 0.1, 0.2])
def test_the_rates_are_those_of_the_rollout_where_the_class_came_otherwise_before(before: float) -> None:
    """By weights of a time when it came four times as often the deaf one had lost .05 of its .74, within the margin."""
    found = [judged(seed, DEAF, 0.1, 20, before=before) for seed in range(10)]
    assert all(v.failed for v in found)
    effects = [v.evidence[0].effect for v in found]
    assert all(e is not None and e < -0.2 for e in effects), effects
    good = [judged(seed, (0.71, 0.0105), 0.1, 25, before=before) for seed in range(20)]
    assert sum(v.passed for v in good) >= 18


@pytest.mark.parametrize("paired", [True, False])
def test_what_control_shows_is_counted_once(paired: bool) -> None:
    rng = np.random.default_rng(0)
    seen: Any = nothing_counted()
    truth, arm = rng.integers(0, 3, 600).astype(float), rng.integers(0, 2, 600)
    scores = {name: answered(rng, truth, 3, 0.3) for name in ("control", "candidate")}
    scores["candidate"][:50] = np.nan
    for cut in (slice(0, 200), slice(200, 600)):
        rows = {name: score[cut] for name, score in scores.items()}
        seen = counted(seen, Feedback(0, [""] * len(truth[cut]), arm[cut], truth[cut], rows, {}, [0]), 3, paired)
    for index, name in enumerate(("control", "candidate")):
        known = {n: np.isfinite(s).all(axis=1) for n, s in scores.items()}
        mine = known["control"] & known["candidate"] if paired else known[name] & (arm == index)
        matrix = confusion_matrix(truth[mine], scores[name][mine].argmax(axis=1))
        assert seen[name] == np.stack((matrix.sum(axis=1), matrix.sum(axis=0), np.diag(matrix)), axis=1).tolist()


@pytest.mark.parametrize("name", RATED)
def test_rates_that_agree_with_what_is_seen_stay_and_many_rows_outweigh_those_of_before(name: str) -> None:
    rng = np.random.default_rng(1)
    truth = rng.choice(3, 100_000, p=[0.6, 0.3, 0.1]).astype(float)
    answers = answered(rng, truth, 3, 0.3)
    true = rates_of(name, truth, answers, metric(name)(truth, answers))
    rows = Feedback(0, [""] * len(truth), np.zeros(len(truth), dtype=np.int64), truth, {n.name: answers for n in ARMS}, {}, [0])
    for before in (true, ((0.2, 0.3, 0.9), (0.3, 0.3, 0.2), (0.5, 0.4, 0.9))):
        now = rated(by_rows(name, before), counted(nothing_counted(), rows, 3, True)).rates
        np.testing.assert_allclose(np.array(now)[:, :2], np.array(true)[:, :2], rtol=0.02)
        if name in ("f1", "precision"):
            np.testing.assert_allclose(np.array(now)[:, 2], np.array(true)[:, 2], rtol=0.02)
    plain = metric("accuracy")
    assert rated(plain, nothing_counted()) is plain


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", RATED)
def test_control_that_never_says_a_class_is_followed_all_the_same(name: str, classes: int) -> None:
    """Its precision divides by what it says; 1,000 rows of the class have come, and none was said to be of it."""
    rng, canary = (
        np.random.default_rng(0),
        Canary(
            parse_rollout("canary 10% 100%", margin=0.1),
            by_rows(name, tuple((1 / classes, 1 / classes, 0.5) for _ in range(classes))),
        ),
    )
    state, truth = canary.init(ARMS, 0), rng.integers(0, classes, 3000).astype(float)
    silent = np.minimum(truth, classes - 2)
    scores = {"control": silent, "candidate": truth}
    if classes > 2:
        scores = {arm: onehot(said.astype(int), classes) for arm, said in scores.items()}
    arms = np.zeros(3000, dtype=np.int64)
    for day in range(5):
        given = Feedback(day * DAY, [f"{day}-{i}" for i in range(3000)], arms, truth, scores, {}, [day])
        state, found = canary.update(state, given)
    told = found.evidence[0]
    expected = metric(name)(truth, scores["candidate"]) - metric(name)(truth, scores["control"])
    assert told.effect == pytest.approx(expected)
    assert told.low is not None
    assert told.low > 0 or name == "precision", "a weight that grows with each row that is not said makes days differ: undecided"


def test_labels_of_a_class_that_has_hardly_come_decide_nothing() -> None:
    """Without a positive no model has missed one: all rows agree, and the interval is as narrow as it gets."""
    found = judged(0, DEAF, 0.5, 10, share=0.0)
    assert found.decision is Decision.UNDECIDED
    assert f"{FEWEST_OF_CLASS} more labels of the rarer class" in found.missing
