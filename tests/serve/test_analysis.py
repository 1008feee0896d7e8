"""Flagger's and Argo's webhooks over real HTTP, through a whole rollout: UNDECIDED is never a success."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")


from conftest import SINCE, make_world  # noqa: E402
from live_server import Server, make_live, rows_of  # noqa: E402
from loudly.core.clock import DAY, DataClock  # noqa: E402
from loudly.core.values import Decision, Verdict  # noqa: E402
from loudly.deliver.analysis import analyse  # noqa: E402
from loudly.loop.live import Live  # noqa: E402

PROMOTION, ROLLBACK, ARGO = "/analysis/flagger/promotion", "/analysis/flagger/rollback", "/analysis/argo"
PAYLOAD = {"name": "world", "namespace": "test", "phase": "Progressing", "metadata": {"version": "world/2"}}


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return make_world(days=60)


def asked(server: Server) -> tuple[str, int, int]:
    """What Argo reads and what Flagger's two hooks see, as they ask: GET, and POST with a payload."""
    argo = httpx.get(f"{server.url}{ARGO}/world/2")
    assert argo.status_code == 200
    named = httpx.post(f"{server.url}{PROMOTION}", json=PAYLOAD).status_code
    assert httpx.post(f"{server.url}{PROMOTION}/world/2", json={"name": "world"}).status_code == named
    return argo.json()["result"], named, httpx.post(f"{server.url}{ROLLBACK}", json=PAYLOAD).status_code


def turned(live: Live, clock: DataClock, server: Server, table: pl.DataFrame) -> list[tuple[str, int, int]]:
    """Day after day of traffic and labels until the rollout is over; what the webhooks were told each day, and after it."""
    told, at = [], table["at"].dt.epoch("us")
    for day in range(25):
        now = SINCE + day * DAY
        told.append(asked(server))
        if live.state.rollout is None:
            return told
        httpx.post(f"{server.url}/predict", json=rows_of(table, now, now + DAY), timeout=30)
        clock.advance(now + DAY)
        labels = table.filter((at >= now) & (at < now + DAY)).select("id", "y").to_dicts()
        httpx.post(f"{server.url}/feedback", json=labels, timeout=30)
        told.append(asked(server))
        live.tick()
    raise AssertionError("the rollout did not end")


def test_a_good_candidate_is_a_success_only_when_its_last_stage_has_passed(table: pl.DataFrame) -> None:
    live, clock = make_live(table)
    with Server(live) as server:
        assert asked(server) == ("UNDECIDED", 425, 425), "there is no such version yet"
        live.retrain("by hand", "a second one", offer=False)
        assert asked(server) == ("UNDECIDED", 425, 425), "it is not shipped"
        live.offer("world/2", "a test")
        told = turned(live, clock, server, table)
        assert live.state.champion == "world/2"
        assert told[-1] == ("PASS", 200, 409)
        assert set(told) <= {("UNDECIDED", 425, 425), ("PASS", 200, 409)}
        assert told.index(("PASS", 200, 409)) > 2, "a shadow that has passed is no promotion yet"
        first = httpx.get(f"{server.url}{ARGO}/world/1").json()
        assert (first["result"], first["reason"]) == ("UNDECIDED", "it became champion without a rollout")
        assert httpx.get(f"{server.url}{ARGO}/2").json() == httpx.get(f"{server.url}{ARGO}/world/2").json()
        nothing = httpx.get(f"{server.url}{ARGO}").json()
        assert (nothing["result"], nothing["missing"]) == ("UNDECIDED", "a rollout")


def test_a_bad_candidate_is_a_failure_and_stays_one(table: pl.DataFrame) -> None:
    live, clock = make_live(table)
    harm = lambda rows: rows.with_columns(y=pl.col("y").shuffle(seed=0))  # noqa: E731
    with Server(live) as server:
        live.retrain("by hand", "a bad one", offer=False, harm=harm)
        live.offer("world/2", "somebody insisted")
        told = turned(live, clock, server, table)
        assert live.state.champion == "world/1"
        assert told[-1] == ("FAIL", 409, 200)
        assert set(told) == {("UNDECIDED", 425, 425), ("FAIL", 409, 200)}
        assert "rolled back" in httpx.get(f"{server.url}{ARGO}/world/2").json()["reason"]


def test_nonsense_is_refused_and_never_a_success(table: pl.DataFrame) -> None:
    with Server(make_live(table)[0]) as server:
        for path in ("/analysis/", "/analysis/nobody", "/analysis/flagger", "/analysis/flagger/promotions", "/analysis/argosy"):
            assert httpx.get(f"{server.url}{path}").status_code == 404, path
        for body in (b"{", b'{"metadata": {"version": 3}}', b'{"metadata": false}', b"null", b"[]", b"\xff", b"[" * 10_000):
            for path in (PROMOTION, f"{PROMOTION}/world/2"):
                assert httpx.post(f"{server.url}{path}", content=body).status_code == 400, body[:10]


PATHS = st.sampled_from([ARGO, PROMOTION, ROLLBACK, "/analysis/", "/analysis/else"])


@given(PATHS, st.sampled_from(["", "/m/2", "/x"]), st.binary(max_size=40), st.sampled_from(Decision))
def test_whatever_is_asked_a_success_is_pass_and_a_rollback_is_fail(path: str, more: str, body: bytes, decision: Decision) -> None:
    verdict: Any = Verdict(decision, "m/2", "because")
    told = analyse(path + more, body, lambda _: verdict)
    if path == PROMOTION and told.status < 300:
        assert decision is Decision.PASS
    if path == ROLLBACK and told.status < 300:
        assert decision is Decision.FAIL
    if path == ARGO and told.status == 200:
        assert json.loads(told.body)["result"] == decision.value
    assert told.status != 200 or path in (ARGO, PROMOTION, ROLLBACK)
