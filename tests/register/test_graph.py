"""Ensembles and graphs of models: what they answer, how they are stored, and what they refuse."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from loudly.app.verbs import formats
from loudly.errors import ModelError, UntrustedModel
from loudly.register.graph import Graph, Mean, Node, mean, stacked
from loudly.register.graph_format import PLAN, GraphFormat, code_graph

RNG = np.random.default_rng(1)
X = RNG.normal(size=(400, 4))
Y = (X[:, 0] + X[:, 1] + RNG.normal(size=400) > 0).astype(int)
Y3 = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)
LINE = LogisticRegression().fit(X, Y)
TREES = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(X, Y)
SAFE = GraphFormat()


class Halved:
    """An estimator that only pickle can store."""

    def predict(self, given: Any) -> Any:
        return given[:, 0] / 2


def stored(graph: Graph, form: GraphFormat = SAFE) -> Any:
    return form.load(form.dump(graph)).predict(X)


def test_means_are_the_means_of_their_members() -> None:
    one, two = LINE.predict_proba(X)[:, 1], TREES.predict_proba(X)[:, 1]
    assert np.allclose(stored(mean([LINE, TREES])), (one + two) / 2)
    assert np.allclose(stored(mean([LINE, TREES], [3, 1])), 0.75 * one + 0.25 * two)
    assert np.allclose(mean([LINE, TREES], [3, 1]).predict(X), stored(mean([LINE, TREES], [3, 1])))


@pytest.mark.newest  # skops stores these trees from 0.13 on
def test_a_mean_of_classes_is_taken_class_by_class() -> None:
    line, trees = LogisticRegression().fit(X, Y3), HistGradientBoostingClassifier(max_iter=3).fit(X, Y3)
    answers = stored(mean([line, trees], outputs=3))
    assert answers.shape == (400, 3)
    assert np.allclose(answers, (line.predict_proba(X) + trees.predict_proba(X)) / 2)
    assert np.allclose(answers.sum(axis=1), 1)


def test_a_stack_hands_its_members_answers_to_the_last() -> None:
    members = np.column_stack([LINE.predict_proba(X)[:, 1], TREES.predict_proba(X)[:, 1]])
    final = LogisticRegression().fit(members, Y)
    assert np.allclose(stored(stacked([LINE, TREES], final)), final.predict_proba(members)[:, 1])


def test_a_graph_reads_columns_and_nodes_in_the_order_it_says() -> None:
    narrow = LogisticRegression().fit(X[:, [2, 0]], Y)
    first = narrow.predict_proba(X[:, [2, 0]])[:, 1]
    last = LogisticRegression().fit(np.column_stack([X[:, 3], first]), Y)
    graph = Graph({"last": Node(last, (3, "first")), "first": Node(narrow, (2, 0))}, "last")
    assert graph.order == ("first", "last")
    assert np.allclose(stored(graph), last.predict_proba(np.column_stack([X[:, 3], first]))[:, 1])
    assert np.array_equal(stored(graph), stored(SAFE.restore(SAFE.dump(graph))))


@pytest.mark.parametrize(
    ("nodes", "output", "told"),
    [
        ({"a": Node(LINE, ("b",))}, "a", "no node"),
        ({"a": Node(LINE)}, "b", "no node"),
        ({"a": Node(LINE, ("b",)), "b": Node(LINE, ("a",))}, "a", "circle"),
        ({"a": Node(LINE, ("a",))}, "a", "circle"),
    ],
)
def test_a_graph_that_cannot_be_is_refused_when_it_is_made(nodes: Any, output: str, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        Graph(nodes, output)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0]])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(ModelError, match="weight"):
        mean([LINE, TREES], weights)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=5), st.integers(1, 3))
def test_a_mean_lies_between_its_members_and_scaling_the_weights_changes_nothing(weights: list[float], outputs: int) -> None:
    given_rows = np.random.default_rng(0).random((7, len(weights) * outputs))
    answer = Mean(tuple(weights), outputs).predict(given_rows)
    members = given_rows.reshape(7, len(weights), outputs)
    low, high = members.min(axis=1), members.max(axis=1)
    answer = answer.reshape(7, outputs)
    assert ((answer >= low - 1e-12) & (answer <= high + 1e-12)).all()
    scaled = Mean(tuple(3 * w for w in weights), outputs).predict(given_rows).reshape(7, outputs)
    assert np.allclose(answer, scaled)


def test_a_safe_graph_takes_no_part_that_runs_code_and_is_not_talked_into_it() -> None:
    graph, unsafe = mean([LINE, Halved()]), code_graph()
    assert not SAFE.accepts(graph)
    assert unsafe.accepts(graph)
    assert np.allclose(stored(graph, unsafe), (LINE.predict_proba(X)[:, 1] + X[:, 0] / 2) / 2)
    for read in (SAFE.load, SAFE.restore):
        with pytest.raises(UntrustedModel, match="member_1"):
            read(unsafe.dump(graph))


def test_a_part_in_a_format_that_is_not_at_hand_is_named() -> None:
    data = SAFE.dump(mean([LINE]))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        plan, part = json.loads(archive.read(PLAN)), archive.read("parts/0")
    plan["nodes"]["member_0"]["format"] = "tomorrow's"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(PLAN, json.dumps(plan))
        archive.writestr("parts/0", part)
    with pytest.raises(ModelError, match="tomorrow"):
        SAFE.load(buffer.getvalue())


@pytest.mark.filterwarnings("ignore")  # libraries warn about themselves when they are imported
def test_parts_are_stored_in_every_format_that_is_installed() -> None:
    lgb = pytest.importorskip("lightgbm")
    fitted = lgb.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(X, Y)
    form = next(f for f in formats() if f.name == "graph")
    assert form.accepts(mean([LINE, fitted]))
    with zipfile.ZipFile(io.BytesIO(form.dump(mean([LINE, fitted])))) as archive:
        assert archive.read("parts/1").startswith(b"tree\n")
    expected = (LINE.predict_proba(X)[:, 1] + fitted.booster_.predict(X)) / 2
    assert np.allclose(form.load(form.dump(mean([LINE, fitted]))).predict(X), expected)
