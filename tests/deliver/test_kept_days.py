"""Rows belong to the day that they are of, whenever their labels come: days tell the same of labels that come at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from loudly.core.clock import DAY, HOUR
from loudly.core.seams import Feedback
from loudly.core.values import Verdict
from loudly.deliver import kept_days
from loudly.deliver.days import day_of
from loudly.deliver.evidence import add, judge, nothing_yet, settled
from loudly.deliver.rollout import parse_rollout
from loudly.errors import DataError
from loudly.metrics.table import metric

NAMES = ("control", "candidate")
MARGIN, ALPHA = 0.02, 0.05


def rows(seed: int, days: int, a_day: int, worse: float = 0.0, spread: float = 0.0) -> Feedback:
    """Decisions of so many days whose truth is 0, of both models; in slice "a" is every third."""
    rng, n = np.random.default_rng(seed), days * a_day
    more = np.repeat(rng.normal(worse, spread, days), a_day)
    control, draw = rng.random(n) < 0.2, rng.random(n)
    candidate = np.where(control, draw >= 0.15 + np.maximum(0, -more) / 0.2, draw < 0.0375 + np.maximum(0, more) / 0.8)
    scores = {name: wrong.astype(float) for name, wrong in zip(NAMES, (control, candidate), strict=True)}
    days_of, inside = np.repeat(np.arange(days), a_day), np.arange(n) % 3 == 0
    return Feedback(days * DAY, [str(i) for i in range(n)], np.arange(n) % 2, np.zeros(n), scores, {"a": inside}, days_of)


def ranked(seed: int, days: int, a_day: int) -> Feedback:
    """Scores whose level moves from day to day, for a ranking."""
    rng, n = np.random.default_rng(seed), days * a_day
    truth, level = (rng.random(n) < 0.3).astype(float), np.repeat(rng.normal(0, 2, days), a_day)
    scores = {name: 1 / (1 + np.exp(-(truth + level + rng.normal(size=n)))) for name in NAMES}
    return replace(rows(seed, days, a_day), truth=truth, scores=scores)


def came(given_: Feedback, arrivals: np.ndarray) -> list[Feedback]:
    """The rows in the order of their arrivals (µs), those of one moment together."""
    return [replace(given_.take(arrivals == at), at=int(at)) for at in np.unique(arrivals)]


def told(batches: list[Feedback], of: str, end: int) -> dict[str, Any]:
    evidence = nothing_yet()
    for one in batches:
        evidence = add(evidence, one, metric(of), True)
    return settled(evidence, metric(of), end)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["accuracy", "brier"]), st.integers(1, 30))
def test_days_say_the_same_whenever_their_labels_come(seed: int, of: str, latest: int) -> None:
    made, rng = rows(seed, 6, 40), np.random.default_rng(seed)
    at = np.asarray(made.days) * DAY + rng.integers(0, latest * 24, len(made.truth)) * HOUR
    late, at_once = told(came(made, at), of, 60 * DAY), told([made], of, 60 * DAY)
    for mine, theirs in ((late["by_day"], at_once["by_day"]), (late["slices"]["a"], at_once["slices"]["a"])):
        assert mine["rows"] == theirs["rows"]
        assert mine["batches"] == pytest.approx(theirs["batches"])
        assert mine["variance"] == pytest.approx(theirs["variance"])


def test_an_auc_of_a_day_is_of_its_own_rows_and_not_of_those_that_came_with_them() -> None:
    made = ranked(0, 5, 200)
    found = told([made.take(np.arange(1000) < 101), made.take(np.arange(1000) >= 101)], "roc_auc", 60 * DAY)["by_day"]["batches"]
    for day, gap in list(enumerate(found))[1:]:  # of the first day the first hundred rows only teach what a place is
        inside = np.asarray(made.days) == day
        control, candidate = (roc_auc_score(made.truth[inside], made.scores[name][inside]) for name in NAMES)
        assert gap == pytest.approx(candidate - control)
    assert len(found) == 5


def verdict_of(delivery: Feedback, margin: float = MARGIN) -> Verdict:
    """On labels that came as one, as they come."""
    spec = parse_rollout("canary 10% 100%", margin=margin, alpha=ALPHA)
    return judge(add(nothing_yet(), delivery, metric("accuracy"), True), spec, metric("accuracy"), "canary")


@pytest.mark.simulation
def test_labels_of_a_week_that_come_at_once_are_of_days_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without that, as whoever counts days by arrival would have it, a fifth of the candidates worse by the margin are promoted."""
    runs = 60
    dumps = [rows(seed, 7, 3000, MARGIN, 0.04) for seed in range(runs)]
    assert sum(verdict_of(one).passed for one in dumps) <= binom.ppf(0.99, runs, ALPHA)
    monkeypatch.setattr("loudly.deliver.days.HETEROGENEOUS", -1.0)
    assert sum(verdict_of(one).passed for one in dumps) > 0.2 * runs


def test_a_slice_that_is_worse_on_each_day_of_one_delivery_stops_the_candidate() -> None:
    made = rows(3, 7, 600)
    worse = {**made.scores, "candidate": np.where(made.slices["a"], 1.0, made.scores["candidate"])}
    worse["control"] = np.where(made.slices["a"], (np.arange(len(made.truth)) % 5 == 0) * 1.0, made.scores["control"])
    verdict = verdict_of(replace(made, scores=worse), margin=1.0)
    assert verdict.failed
    assert verdict.reason.startswith("surely worse in a slice: a")


def test_the_day_under_way_is_judged_when_it_is_over() -> None:
    made = replace(rows(0, 4, 50), at=3 * DAY)
    found = told([made], "accuracy", 3 * DAY + HOUR)
    assert [len(found["by_day"]["batches"]), found["by_day"]["rows"]] == [3, 150]
    assert settled(found, metric("accuracy"), 4 * DAY)["by_day"]["rows"] == 200


def test_rows_of_days_to_come_are_of_the_day_on_which_their_labels_came() -> None:
    """Or nobody would judge them before, and they would be kept until then."""
    made = replace(rows(0, 30, 20), at=2 * DAY)
    found = told([made], "accuracy", 3 * DAY)
    assert (len(found["by_day"]["batches"]), found["by_day"]["rows"]) == (3, 600)


def test_of_a_day_of_many_rows_the_gap_alone_is_kept_and_later_labels_are_pooled_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made, late = rows(1, 3, 400), np.arange(1200) % 4 == 0
    batches = [made.take(~late), replace(made.take(late), at=6 * DAY)]
    whole = told(batches, "accuracy", 9 * DAY)
    assert {len(day["truth"]) for day in whole["kept"]["open"].values()} == {400}
    monkeypatch.setattr(kept_days, "ENOUGH", 300)
    parts = told(batches, "accuracy", 9 * DAY)
    assert {len(day["truth"]) for day in parts["kept"]["open"].values()} == {100}
    for name in ("rows", "weight", "sum"):
        assert parts["by_day"][name] == pytest.approx(whole["by_day"][name])
    assert parts["by_day"]["batches"] == pytest.approx(whole["by_day"]["batches"])
    assert parts["by_day"]["variance"] == pytest.approx(whole["by_day"]["variance"], rel=0.02)


def test_of_many_rows_of_one_class_some_wait_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frauds are told weeks after what was none."""
    monkeypatch.setattr(kept_days, "ENOUGH", 200)
    made = ranked(2, 2, 3000)
    first, fraud = np.arange(6000) % 60 == 0, made.truth > 0.5
    batches = [made.take(first), made.take(~first & ~fraud), replace(made.take(~first & fraud), at=20 * DAY)]
    before = told(batches[:2], "roc_auc", 9 * DAY)
    assert before["by_day"] is None
    assert [len(day["truth"]) < 400 for day in before["kept"]["open"].values()] == [True, True]
    after = told(batches, "roc_auc", 30 * DAY)
    assert after["by_day"]["rows"] > fraud[~first].sum()
    assert after["kept"]["open"] == {}


def test_days_are_one_for_all_or_one_a_row() -> None:
    made = rows(0, 2, 3)
    assert day_of(made).tolist() == [0, 0, 0, 1, 1, 1]
    assert day_of(replace(made, days=())).tolist() == [2] * 6
    assert day_of(replace(made, days=[7]).take(made.truth > 1)).tolist() == []
    with pytest.raises(DataError, match="2 days of 6 rows"):
        day_of(replace(made, days=[1, 2]))
