"""A model that knows its rows by heart is said LOUD, and refused only where somebody wants that: held-out rows judge it."""

from __future__ import annotations

import re
from typing import Any

import polars as pl
import pytest

from conftest import SINCE, make_world
from loudly import App
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY
from loudly.evaluate.gate import Gate
from loudly.loop.replay import Replayed, replay

sklearn = pytest.importorskip("sklearn.ensemble")


def lived(table: pl.DataFrame, gate: Gate | None) -> Replayed:
    """A day with a forest."""
    app = App("world", label="y", time="at", key="id", metric="roc_auc")
    app.data(lambda: table)
    app.labels(arrive_within="1d")
    if gate is not None:
        app.gate(gate)

    @app.train
    def fit(X: Any, y: Any) -> Any:
        return sklearn.ExtraTreesClassifier(8, random_state=0).fit(X, y)

    return replay(app.system, table, memory_stores("world"), since=SINCE, until=SINCE + DAY)


def told(made: Replayed) -> list[str]:
    return [str(r.event.data["reason"]) for r in made.events if r.event.data.get("what") == "overfit"]


def test_a_forest_answers_and_is_said_to_know_its_rows_by_heart() -> None:
    made = lived(make_world(days=70, per_day=240), None)
    assert made.state.champion == "world/1"
    (reason,) = told(made)
    assert re.fullmatch(r"roc_auc (1\.0|0\.9)\d+ on seen rows, 0\.7\d+ on held-out ones, more than 0\.25 better", reason)


@pytest.mark.parametrize(("most", "champion"), [(0.2, None), (0.5, "world/1")])
def test_who_does_not_want_that_says_so(most: float, champion: str | None) -> None:
    made = lived(make_world(days=70, per_day=240), Gate(overfit=most))
    assert made.state.champion == champion
    assert told(made) == []
    gates = [str(r.event.data["verdict"]) for r in made.events if r.event.kind == "gate_judged"]
    assert gates
    assert all(f"more than {most:g} better" in gate for gate in gates) is (champion is None)
