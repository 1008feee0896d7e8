"""What the champion says becomes columns of a window: its score, or that of each class."""

from __future__ import annotations

import numpy as np
import pytest

from loudly.monitor.answers import HOURS, MOST_CLASSES, PREDICTION, Answers, apart, said
from loudly.stats.held_out import held_out_scores


def test_one_score_is_one_column_and_classes_have_one_each() -> None:
    score = np.array([0.1, 0.9])
    (one,) = Answers.of(score, ("no", "yes")).columns(score)
    assert (one.name, one.to_list()) == (PREDICTION, [0.1, 0.9])
    scores = np.array([[0.2, 0.3, 0.5], [0.1, np.nan, 0.4]])
    columns = Answers.of(scores, ("a", "b", "c")).columns(scores)
    assert [c.name for c in columns] == ["(prediction of a)", "(prediction of b)", "(prediction of c)"]
    assert columns[2].to_list() == [0.5, 0.4]
    assert all(said(c.name) and apart(c.name) for c in columns)
    assert apart(HOURS)
    assert not said(HOURS)
    assert not apart("prediction of a")


def test_of_many_classes_those_with_the_highest_scores_are_watched() -> None:
    weights = np.arange(1.0, 15.0)
    scores = np.tile(weights / weights.sum(), (5, 1))
    made = Answers.of(scores, tuple(f"k{i}" for i in range(14)))
    assert made.names == tuple(f"(prediction of k{i})" for i in range(14 - MOST_CLASSES, 14))
    assert [c[0] for c in made.columns(scores)] == pytest.approx((weights / weights.sum())[-MOST_CLASSES:])


@pytest.mark.parametrize("other", [np.full(3, 0.5), np.full((3, 4), 0.25)])
def test_what_a_champion_with_other_classes_still_answers_is_missing(other: np.ndarray) -> None:
    made = Answers.of(np.full((3, 3), 1 / 3), ("a", "b", "c"))
    assert all(np.isnan(c.to_numpy()).all() for c in made.columns(other))


def test_scores_of_each_class_are_moved_by_their_own_quantiles() -> None:
    rng = np.random.default_rng(0)
    seen, held = rng.dirichlet([0.1, 0.1, 0.1], 4000), rng.dirichlet([2, 2, 2], 1000)
    usual = held_out_scores(seen, held)
    assert len(usual) == 3
    made = Answers.of(seen, ("a", "b", "c"))
    for i, column in enumerate(made.columns(seen, usual)):  # type: ignore[arg-type]
        assert abs(column.median() - np.median(held[:, i])) < 0.02  # type: ignore[operator]
        assert (np.diff(column.to_numpy()[np.argsort(seen[:, i], kind="stable")]) >= 0).all(), "in the order of the scores"
    partly = np.stack([seen[:1000, 0], held[:, 1], held[:, 2]], axis=1)
    assert [len(pair) for pair in held_out_scores(seen, partly)] == [0, 2, 2]  # type: ignore[arg-type]
    assert held_out_scores(seen, seen[:1000]) == [], "nothing is kept where all are alike"
    (same,) = Answers.of(seen[:, 0], ("a", "b")).columns(seen[:, 0], [held_out_scores(seen[:, 0], held[:, 0])])  # type: ignore[list-item]
    assert abs(same.median() - np.median(held[:, 0])) < 0.02  # type: ignore[operator]
