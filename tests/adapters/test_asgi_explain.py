"""`POST /explain` over real HTTP: it takes what `/predict` takes, adds up, leaves no trace, and is bounded."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

httpx = pytest.importorskip("httpx")

from live_server import Server, make_live  # noqa: E402
from loudly.config import ServerConfig  # noqa: E402


class Slow:
    """A model that is no sum, and takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def predict(self, X: Any) -> Any:
        time.sleep(self.seconds)
        return np.full(len(X), 0.5)


class Broken:
    """A model that raises."""

    def predict(self, X: Any) -> Any:
        raise ZeroDivisionError


def slowed(table: pl.DataFrame, seconds: float, **settings: Any) -> Server:
    live = make_live(table)[0]
    live.ready["world/1"] = replace(live.ready["world/1"], model=Slow(seconds), served="original")
    return Server(live, ServerConfig(**settings))


def test_a_row_rows_and_columns_add_up_and_nothing_is_logged(server: Server, rows: list[dict[str, Any]]) -> None:
    few = rows[:4]
    told = httpx.post(f"{server.url}/explain", json=few).json()
    columns = {"columns": {name: [row[name] for row in few] for name in few[0]}}
    assert httpx.post(f"{server.url}/explain", json=columns).json() == told
    assert httpx.post(f"{server.url}/explain", json=few[0]).json()["explanations"] == told["explanations"][:1]
    assert httpx.get(f"{server.url}/status").json()["waiting_for_labels"] == 0
    answers = httpx.post(f"{server.url}/predict", json=few).json()
    assert told["schema_version"] == answers["schema_version"]
    for why, answer in zip(told["explanations"], answers["answers"], strict=True):
        assert (why["version"], why["arm"], why["method"], why["space"]) == ("world/1", "control", "linear", "log-odds")
        assert why["prediction"] == pytest.approx(answer["prediction"], abs=1e-6)
        assert why["base"] + sum(why["contributions"].values()) == pytest.approx(why["score"])
        assert 1 / (1 + math.exp(-why["score"])) == pytest.approx(why["prediction"], abs=1e-6)
        assert set(why["contributions"]) == {"x1", "x2", "group", "x2_centred"}


def test_it_is_refused_as_predict_is(server: Server, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert httpx.post(f"{server.url}/explain?version=2", json=rows[0]).status_code == 422, "not by another one, in silence"
    wrong = httpx.post(f"{server.url}/explain", json={**rows[0], "x1": "high"})
    assert wrong.status_code == 422
    assert wrong.json() == httpx.post(f"{server.url}/predict", json={**rows[0], "x1": "high"}).json()
    many = httpx.post(f"{server.url}/explain", json=rows[:33])
    assert (many.status_code, many.json()["detail"]) == (413, "a request may have 32 rows at most")
    assert httpx.post(f"{server.url}/explain", content=b"[" * 100_000).status_code == 422


def test_it_takes_the_role_of_predict(table: pl.DataFrame, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASK", "ask")
    monkeypatch.setenv("LABEL", "label")
    with Server(make_live(table)[0], ServerConfig(keys=("predict=env:ASK", "feedback=env:LABEL"))) as server:
        statuses = {
            key: httpx.post(f"{server.url}/explain", json=rows[0], headers={"X-API-Key": key}).status_code
            for key in ("ask", "label", "guess")
        }
    assert statuses == {"ask": 200, "label": 403, "guess": 401}


def test_it_ends_at_its_deadline_and_predictions_go_on_beside_it(table: pl.DataFrame, rows: list[dict[str, Any]]) -> None:
    with slowed(table, 0.2, deadline=0.6) as server:
        found: list[int] = []
        asking = threading.Thread(
            target=lambda: found.append(httpx.post(f"{server.url}/explain", json=rows[:30], timeout=20).status_code)
        )
        asking.start()
        assert httpx.post(f"{server.url}/predict", json=rows[0]).status_code == 200
        asking.join()
    assert found == [503]


class Hanging:
    """A model that answers when it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def predict(self, X: Any) -> Any:
        self.let_go.wait(60)
        return np.full(len(X), 0.5)


def test_models_that_hang_take_no_thread_from_labels_and_status(table: pl.DataFrame, rows: list[dict[str, Any]]) -> None:
    live, model = make_live(table)[0], Hanging()
    live.ready["world/1"] = replace(live.ready["world/1"], model=model, served="original")
    with Server(live, ServerConfig(deadline=0.05)) as server, httpx.Client(base_url=server.url, timeout=10) as client:
        told = [client.post("/explain", json=rows[0]) for _ in range(40)]
        assert {answer.status_code for answer in told} == {503}
        assert "hang in the model" in told[-1].json()["detail"]
        assert client.get("/status").json()["champion"] == "world/1"
        assert client.post("/feedback", json={"id": rows[0]["id"], "y": True}).status_code == 200
        model.let_go.set()
        until = time.monotonic() + 10
        while (last := client.post("/explain", json=rows[0])).status_code == 503 and time.monotonic() < until:
            time.sleep(0.05)
        assert "hang in the model" not in last.text


def test_few_may_wait_for_it(table: pl.DataFrame, rows: list[dict[str, Any]]) -> None:
    with slowed(table, 0.3) as server:
        found: list[int] = []
        threads = [
            threading.Thread(target=lambda: found.append(httpx.post(f"{server.url}/explain", json=rows[0], timeout=20).status_code))
            for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(found) == {200, 429}
    assert found.count(200) >= 4


def test_a_model_that_raises_is_told_and_no_5xx(table: pl.DataFrame, rows: list[dict[str, Any]]) -> None:
    live = make_live(table)[0]
    live.ready["world/1"] = replace(live.ready["world/1"], model=Broken(), served="original")
    with Server(live) as server:
        answer = httpx.post(f"{server.url}/explain", json=rows[0])
    assert answer.status_code == 422
    assert "world/1 could not score these rows" in answer.json()["detail"]
