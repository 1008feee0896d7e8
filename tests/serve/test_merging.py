"""Ranking requests through the router: the order of the answers is the merged list, for each query of each request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SINCE, make_app, make_world
from live_server import Server
from live_server import rows_of as rows_of_table
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock
from loudly.core.values import Arm, Field, Kind, Role, Schema
from loudly.deliver.interleave import Interleave, probabilistic, team_draft
from loudly.deliver.rollout import parse_rollout
from loudly.evaluate.gate import Gate
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.serve.attempt import Attempt
from loudly.serve.replies import Served
from loudly.serve.router import Router, Routing
from loudly.serve.rows import Rows
from loudly.testing.damage import labels_shuffled

SCHEMA = Schema((Field("id", Kind.TEXT, Role.KEY), Field("at", Kind.TIME, Role.TIME), Field("q", Kind.TEXT, Role.GROUP),
                 Field("x", Kind.NUMBER)))  # fmt: skip
ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))


def up(rows: pl.DataFrame) -> Any:
    return rows["x"].to_numpy()


def down(rows: pl.DataFrame) -> Any:
    return 1 - rows["x"].to_numpy()


def router_of(strategy: Interleave, candidate: Any = down, salt: str = "9") -> Router:
    new = Served("m/2", candidate)
    return Router(Routing(Served("m/1", up), (new,), strategy, strategy.init(ARMS, 0), salt, merging=strategy))


def rows_of(queries: list[str | None], seed: int = 0) -> Rows:
    n, x = len(queries), np.random.default_rng(seed).permutation(len(queries)) / len(queries)
    return Rows(SCHEMA, {"id": [f"r{i}" for i in range(n)], "at": [0] * n, "q": queries, "x": x.tolist()}, n)


def order(answer: Any) -> list[int]:
    return np.argsort(-answer, kind="stable").tolist()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=16), st.sampled_from([team_draft, probabilistic]))
def test_the_order_of_the_answers_is_the_merged_list_of_each_query(queries: list[int], make: Any) -> None:
    strategy, rows = make(group="q"), rows_of([f"q{q}" for q in queries])
    router = router_of(strategy)
    made = router.answer(rows, rows.columns["id"], Attempt((rows.height,)), behind=True)
    assert not made.fallback.any()
    assert made.answered == {"control": rows.height, "candidate": rows.height}
    for query in set(queries):
        mine = [i for i, q in enumerate(queries) if q == query]
        each = [made.scores[arm.name][mine] for arm in ARMS]
        told = strategy.merge(strategy.init(ARMS, 0), each, f"q{query}", "9")
        assert told is not None
        assert order(made.answer[mine]) == np.argsort(told.place).tolist()
        assert (made.arm[mine] == told.arm).all()
        assert (made.propensity[mine] == told.propensity).all()
        assert sorted(made.answer[mine]) == pytest.approx(sorted(made.scores["control"][mine]))
    table = router.answer(rows.table(), rows.columns["id"])
    assert (table.answer == made.answer).all()


def test_the_same_query_in_two_requests_of_a_batch_is_two_lists_of_the_same_draws() -> None:
    queries = ["a", "a", "a", "b"] * 2
    rows = rows_of(list(queries))
    twice = Rows(SCHEMA, {**rows.columns, "x": rows.columns["x"][:4] * 2}, 8)
    made = router_of(team_draft(group="q")).answer(twice, twice.columns["id"], Attempt((4, 4)))
    assert (made.arm[:4] == made.arm[4:]).all()
    assert (made.answer[:4] == made.answer[4:]).all()
    alone = router_of(team_draft(group="q")).answer(Rows(SCHEMA, {k: v[:4] for k, v in twice.columns.items()}, 4), ["r"] * 4)
    assert (alone.answer == made.answer[:4]).all()
    other = router_of(team_draft(group="q"), salt="10").answer(twice, twice.columns["id"], Attempt((8,)))
    assert len(set(other.answer.tolist())) == 8, "one request, one list: equal scores are told apart"


def test_a_list_that_the_candidate_fails_is_controls_alone_and_no_evidence() -> None:
    def broken(rows: pl.DataFrame) -> Any:
        return np.where(rows["x"].to_numpy() > 0.85, np.nan, 0.5)

    rows = rows_of(["a"] * 5 + ["b"] * 5)
    made = router_of(team_draft(group="q"), broken).answer(rows, rows.columns["id"])
    worst = "ab"[int(np.argmax(rows.columns["x"]) >= 5)]
    mine = np.array(rows.columns["q"]) == worst
    assert (made.arm[mine] == 0).all()
    assert (made.answer[mine] == np.array(rows.columns["x"])[mine]).all()
    assert made.fallback[mine].all()
    assert not made.fallback[~mine].any()
    assert np.isnan(made.scores["candidate"][mine]).all()
    assert made.failed == {"control": 0, "candidate": 1}


def test_rows_without_a_query_are_answered_by_control_and_a_lost_control_by_the_constant() -> None:
    rows = rows_of([None, None, "a", "a"])
    made = router_of(team_draft(group="q")).answer(rows, rows.columns["id"])
    assert (made.answer[:2] == np.array(rows.columns["x"][:2])).all()
    assert not made.fallback.any()
    assert np.isnan(made.scores["candidate"][:2]).all()

    def lost(rows: pl.DataFrame) -> Any:
        raise ValueError("gone")

    strategy = team_draft(group="q")
    state, arms = strategy.init(ARMS, 0), (Served("m/1", lost), (Served("m/2", up),))
    router = Router(Routing(*arms, strategy, state, "1", fallback=0.3, merging=strategy))
    assert router.answer(rows, rows.columns["id"]).answer.tolist() == [0.3] * 4
    late = router.give_up(rows, rows.columns["id"], "candidate")
    assert late.fallback.all()


def test_a_ranking_request_over_http_and_what_the_status_says() -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("uvicorn")
    table = make_world(days=34).with_columns(query=pl.format("q{}", pl.int_range(pl.len()) // 4))
    made = make_app(table, stage="manual").system
    rollout = (parse_rollout("interleave team draft for 14d"),)
    system = replace(made, group="query", gate=Gate(margin=1.0, slice_margin=1.0, overfit=1.0), rollout=rollout)
    live = Live(system, memory_stores("world"), DataClock(SINCE), key=b"k")
    assert not found(live, table.filter(pl.col("at").dt.epoch("us") < SINCE))
    live.retrain("first training", "there is no model yet")
    live.offer(str(live.retrain("by hand", "another", harm=labels_shuffled("y", pl.lit(True), 1), offer=False)), "a test")
    with Server(live) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        rows = rows_of_table(table, SINCE, SINCE + DAY)[:8]
        answers = client.post("/predict", json=rows).json()["answers"]
        assert [a["arm"] for a in answers].count("candidate") == 4
        assert all(a["propensity"] in (0.5, 1.0) for a in answers)
        assert {a["version"] for a in answers} == {"world/1", "world/2"}
        again = client.post("/predict", json=rows[:4]).json()["answers"]
        assert order(np.array([a["prediction"] for a in again])) == order(np.array([a["prediction"] for a in answers[:4]]))
        told = client.post("/feedback", json=[{"id": row["id"], "y": True} for row in rows]).json()
        assert told["joined"] == 12, "four rows were asked twice"
        status = client.get("/status").json()
        assert {name: arm["version"] for name, arm in status["arms"].items()} == {"control": "world/1", "candidate": "world/2"}
        lacking = {name: value for name, value in rows[0].items() if name != "query"}
        assert client.post("/predict", json=lacking).status_code == 422, "a row of no query is told so"
