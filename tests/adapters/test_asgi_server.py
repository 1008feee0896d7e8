"""The server's own promises over real HTTP: columns, keys, limits, traces, deadlines, a model that misbehaves, a mount."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

httpx = pytest.importorskip("httpx")

from conftest import SINCE  # noqa: E402
from live_server import Server, make_live, rows_of  # noqa: E402
from loudly.adapters.asgi_server import build  # noqa: E402
from loudly.app.server import LiveFront  # noqa: E402
from loudly.config import ServerConfig  # noqa: E402
from loudly.core.clock import DAY  # noqa: E402
from loudly.errors import ConfigError  # noqa: E402
from loudly.serve.replies import Served  # noqa: E402

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
Predict = Any


@contextlib.contextmanager
def served(table: pl.DataFrame, predict: Predict | None = None, **settings: Any) -> Iterator[Server]:
    """A server with settings, and a model of our own in the champion's place."""
    live = make_live(table)[0]
    if predict is not None:
        assert live.router is not None
        live.router.swap(replace(live.router.routing, control=Served("world/1", predict), fallback=0.25))
    with Server(live, ServerConfig(**settings)) as running:
        yield running


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=20)


def test_columns_answer_as_rows_do(server: Server, rows: list[dict[str, Any]]) -> None:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    by_rows = httpx.post(f"{server.url}/predict", json=rows).json()
    assert len(by_rows["answers"]) == len(rows)
    assert httpx.post(f"{server.url}/predict", json={"columns": columns}).json() == by_rows
    spaced = json.dumps({"columns": {**columns, "unknown": [1]}}, indent=2)
    assert httpx.post(f"{server.url}/predict", content=spaced).json() == by_rows, "read slowly, answered alike"


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({}, "an object of lists"),
        ({"x1": 3}, "an object of lists"),
        ({"x1": [1.0], "x2": [1.0, 2.0]}, "columns of one length"),
        ({"x1": []}, "an object, or a list"),
    ],
)
def test_columns_that_are_none_are_refused(server: Server, columns: Any, told: str) -> None:
    answer = httpx.post(f"{server.url}/predict", json={"columns": columns})
    assert answer.status_code == 422
    assert told in answer.json()["detail"][0]["msg"]


@pytest.mark.parametrize("name", ["rows", "instances", "dataframe_records"])
def test_rows_in_an_envelope_are_told_what_a_body_is(server: Server, rows: list[dict[str, Any]], name: str) -> None:
    answer = httpx.post(f"{server.url}/predict", json={name: rows[:2]})
    assert answer.status_code == 422
    (said,) = answer.json()["detail"]
    assert said["loc"] == ["body"]
    assert "a row, a list of rows, or" in said["msg"]
    assert f"seen an object with a list under {name!r}" in said["msg"]


def test_a_column_with_a_wrong_value_names_its_row(server: Server, rows: list[dict[str, Any]]) -> None:
    columns = {name: [row[name] for row in rows[:3]] for name in rows[0]}
    columns["x2"][2] = "warm"
    detail = httpx.post(f"{server.url}/predict", json={"columns": columns}).json()["detail"]
    assert [(d["row"], d["field"], d["seen"]) for d in detail] == [(2, "x2", "'warm'")]


def test_ids_and_traces_come_back_and_stand_in_the_answer(server: Server, rows: list[dict[str, Any]]) -> None:
    sent = {"X-Request-Id": "mine-1", "traceparent": TRACE}
    answer = httpx.post(f"{server.url}/predict", json=rows[0], headers=sent)
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["traceparent"] == TRACE
    refused = httpx.post(f"{server.url}/predict", json={}, headers={"X-Request-Id": "a b\tc", "traceparent": "00-0-0-0"})
    assert re.fullmatch("[0-9a-f]{32}", refused.headers["x-request-id"])
    assert "traceparent" not in refused.headers


def test_keys_open_what_their_role_says(table: pl.DataFrame, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ASK", "LABEL", "ADMIN"):
        monkeypatch.setenv(name, f"key-{name}")
    keys = ("predict=env:ASK", "feedback=env:LABEL", "admin=env:ADMIN")
    with served(table, keys=keys) as server, httpx.Client(base_url=server.url) as client:
        label = {"id": rows[0]["id"], "y": True}
        asked = {"/predict": rows[0], "/feedback": label, "/status": None, "/metrics": None}

        def statuses(headers: dict[str, str]) -> list[int]:
            made = [
                client.get(path, headers=headers) if body is None else client.post(path, json=body, headers=headers)
                for path, body in asked.items()
            ]
            return [answer.status_code for answer in made]

        assert statuses({}) == [401] * 4
        assert statuses({"X-API-Key": "guess"}) == [401] * 4
        assert statuses({"X-API-Key": "key-ASK"}) == [200, 403, 403, 403]
        assert statuses({"Authorization": "Bearer key-LABEL"}) == [403, 200, 403, 403]
        assert statuses({"Authorization": "bearer key-ADMIN"}) == [200] * 4
        for path in ("/health", "/ready", "/docs", "/openapi.json", "/v2", "/v2/health/ready"):
            assert client.get(path).status_code == 200, path
        assert client.post("/predict", json=rows[0]).headers["www-authenticate"] == "Bearer"
        assert "key-ASK" not in client.get("/openapi.json").text


def test_the_document_says_where_a_key_is_asked_for(table: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN", "secret")
    with served(table, keys=("admin=env:ADMIN",)) as server, httpx.Client(base_url=server.url) as client:
        paths = client.get("/openapi.json").json()["paths"]
        for path, methods in paths.items():
            for method, said in methods.items():
                asked = client.request(method, path).status_code == 401
                assert asked == ("401" in said["responses"]) == (said.get("security") != []), path


def test_a_method_that_is_not_there_names_the_one_that_is(server: Server) -> None:
    assert httpx.get(f"{server.url}/predict").headers["allow"] == "POST"
    assert httpx.post(f"{server.url}/health").headers["allow"] == "GET"


def test_a_label_of_another_kind_is_refused_and_not_folded_as_none(server: Server, rows: list[dict[str, Any]]) -> None:
    httpx.post(f"{server.url}/predict", json=rows[0])
    for label in ("yes", 1, 0.5):
        refused = httpx.post(f"{server.url}/feedback", json={"id": rows[0]["id"], "y": label})
        assert refused.status_code == 422
        assert refused.json()["detail"][0]["loc"] == ["body", 0, "y"]
    assert httpx.post(f"{server.url}/feedback", json={"id": rows[0]["id"], "y": True}).json()["joined"] == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("predict=hunter2", "stands in loudly.toml"),
        ("predikt=env:ASK", "did you mean 'predict'"),
        ("predict=env:NOWHERE", "NOWHERE"),
    ],
)
def test_keys_that_cannot_be_are_refused_at_the_start(
    table: pl.DataFrame, line: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASK", "x")
    with pytest.raises(ConfigError, match=told) as wrong:
        build(LiveFront(make_live(table)[0]), lambda: None, lambda: None, ServerConfig(keys=(line,)))
    assert "hunter2" not in str(wrong.value)


def test_the_rate_of_a_key_is_kept_and_says_when_to_come_again(table: pl.DataFrame, rows: list[dict[str, Any]]) -> None:
    with served(table, rate=2.0, burst=5.0) as server, httpx.Client(base_url=server.url) as client:
        begun = time.monotonic()
        made = [client.post("/predict", json=rows[0])]
        while made[-1].status_code == 200:
            made.append(client.post("/predict", json=rows[0]))
        assert 5 <= len(made) - 1 <= 5 + 2.0 * (time.monotonic() - begun)
        assert made[-1].status_code == 429
        time.sleep(float(made[-1].headers["retry-after"]))
        assert client.post("/predict", json=rows[0]).status_code == 200
        assert client.get("/health").status_code == 200


def test_too_many_waiting_rows_get_429_and_the_others_their_answer(table: pl.DataFrame, rows: list[dict[str, Any]]) -> None:
    def slow(rows: pl.DataFrame) -> Any:
        time.sleep(0.05)
        return np.full(rows.height, 0.5)

    found: list[tuple[int, str | None]] = []

    def ask(url: str) -> None:
        answer = httpx.post(f"{url}/predict", json=rows[0], timeout=30)
        found.append((answer.status_code, answer.headers.get("retry-after")))

    with served(table, slow, batch=1, queue=4) as server:
        threads = [threading.Thread(target=ask, args=(server.url,)) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    statuses = [status for status, _ in found]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 5
    assert all(after is not None and int(after) >= 1 for status, after in found if status == 429)


@pytest.mark.parametrize("late", ["refuse", "fallback"])
def test_a_model_that_hangs_costs_its_own_requests_and_no_others(
    table: pl.DataFrame, rows: list[dict[str, Any]], late: str
) -> None:
    release = threading.Event()
    hangs = [True]

    def stuck(rows: pl.DataFrame) -> Any:
        if hangs:
            hangs.pop()
            release.wait(20)
        return np.full(rows.height, 0.75)

    with served(table, stuck, deadline=0.4, late=late) as server, httpx.Client(base_url=server.url, timeout=20) as client:
        first = client.post("/predict", json=rows[0])
        assert client.get("/health").status_code == 200
        second = client.post("/predict", json=rows[1])
        assert "loudly_threads_stuck 1.0" in client.get("/metrics").text
        release.set()
        if late == "refuse":
            assert first.status_code == 503
            assert int(first.headers["retry-after"]) >= 1
        else:
            answer = first.json()["answers"][0]
            assert (answer["prediction"], answer["fallback"]) == (0.25, True)
        assert second.json()["answers"][0]["prediction"] == 0.75
        for _ in range(100):
            if "loudly_threads_stuck 0.0" in client.get("/metrics").text:
                break
            time.sleep(0.02)
        waiting = client.get("/status").json()["waiting_for_labels"]
        assert waiting == (1 if late == "refuse" else 2), "what a client did not get is not logged as answered"


@pytest.mark.parametrize(
    "made",
    [
        lambda rows: np.full(rows.height, np.nan),
        lambda rows: np.full(rows.height + 1, 0.5),
        lambda rows: np.zeros((rows.height, 1, 1)),
        lambda rows: 1 / 0,
        lambda rows: ["high"] * rows.height,
    ],
    ids=["nan", "too many", "three dimensions", "raises", "words"],
)
def test_a_model_that_answers_nonsense_is_answered_by_the_fallback(
    table: pl.DataFrame, rows: list[dict[str, Any]], made: Predict
) -> None:
    with served(table, made) as server:
        answers = httpx.post(f"{server.url}/predict", json=rows[:3]).json()["answers"]
    assert [(a["prediction"], a["fallback"]) for a in answers] == [(0.25, True)] * 3


HOSTILE = {
    "deep list": b"[" * 200_000,
    "deep object": b'{"a":' * 200_000,
    "deep unknown": b'{"id":"x","deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nul": b"\x00" * 100,
    "utf-16": "{}".encode("utf-16"),
    "half a pair": b'{"id":"\\ud800","at":"2024-02-01","x1":1.0,"x2":1.0,"group":"a"}',
    "huge integer": b'{"id":"x","at":"2024-02-01","x1":' + b"9" * 5000 + b',"x2":1.0,"group":"a"}',
    "beyond float": b'{"id":"x","at":"2024-02-01","x1":' + b"9" * 400 + b',"x2":1.0,"group":"a"}',
    "a time that is none": b'{"id":"x","at":"yesterday","x1":1.0,"x2":1.0,"group":"a"}',
    "key null": b'{"id":null,"at":"2024-02-01","x1":1.0,"x2":1.0,"group":"a"}',
    "boolean for a number": b'{"id":"x","at":"2024-02-01","x1":true,"x2":1.0,"group":"a"}',
    "columns of columns": b'{"columns":{"columns":{}}}',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bodies_get_422_and_the_next_client_an_answer(server: Server, rows: list[dict[str, Any]], body: bytes) -> None:
    for path in ("/predict", "/feedback", "/v2/models/world/infer"):
        assert httpx.post(f"{server.url}{path}", content=body, timeout=30).status_code in (422, 400), path
    assert httpx.post(f"{server.url}/predict", json=rows[0]).status_code == 200


def test_ten_thousand_unknown_columns_change_nothing(server: Server, rows: list[dict[str, Any]]) -> None:
    wide = {**{f"u{i}": i for i in range(10_000)}, **rows[0]}
    assert httpx.post(f"{server.url}/predict", json=wide).json() == httpx.post(f"{server.url}/predict", json=rows[0]).json()


def test_a_hundred_megabytes_are_refused_by_name_whether_announced_or_not(server: Server) -> None:
    piece = b"[" + b" " * (2**20 - 1)

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield piece

    announced = httpx.post(f"{server.url}/predict", content=piece * 100, timeout=60)
    chunked = httpx.post(f"{server.url}/predict", content=pieces(), timeout=60)
    for answer in (announced, chunked):
        assert answer.status_code == 413
        assert "bytes at most" in answer.json()["detail"]


def test_half_a_body_is_given_up_after_its_time_and_hurts_nobody(table: pl.DataFrame, rows: list[dict[str, Any]]) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    with served(table, slow=0.3) as server:
        waiting, leaving = connect(server), connect(server)
        waiting.sendall(head + b'{"id":')
        leaving.sendall(head + b'{"id":')
        leaving.close()
        assert httpx.post(f"{server.url}/predict", json=rows[0]).status_code == 200
        told = b""
        while piece := waiting.recv(4096):
            told += piece
        waiting.close()
        assert told.startswith(b"HTTP/1.1 408")
        assert httpx.post(f"{server.url}/predict", json=rows[0]).status_code == 200


def test_wrong_methods_and_paths(server: Server) -> None:
    assert httpx.get(f"{server.url}/predict").status_code == 405
    assert httpx.post(f"{server.url}/health").status_code == 405
    for path in ("/", "/nowhere", "/v2/models", "/predict/", "/v2/models/world/versions"):
        assert httpx.get(f"{server.url}{path}").status_code == 404, path
    metrics = httpx.get(f"{server.url}/metrics").text
    assert "/nowhere" not in metrics, "a stranger cannot make new series"
    assert 'path="other"' in metrics


def test_the_page_needs_nothing_from_outside(server: Server) -> None:
    page = httpx.get(f"{server.url}/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "x2" in page.text
    assert page.text.index("For example") < page.text.index("/v2/models"), "what one sends first stands first"
    assert not re.search(r"https?://|<script|src=", page.text)


def test_clients_under_load_get_their_own_answers(server: Server, table: pl.DataFrame) -> None:
    """Many clients with one row each: batched or not, every answer is the one its row gets alone."""
    sent = rows_of(table, SINCE, SINCE + 5 * DAY)
    alone = {
        r["id"]: a["prediction"]
        for r, a in zip(sent, httpx.post(f"{server.url}/predict", json=sent).json()["answers"], strict=True)
    }
    wrong: list[str] = []

    def load(part: list[dict[str, Any]]) -> None:
        client = http.client.HTTPConnection("127.0.0.1", int(server.url.rsplit(":", 1)[1]), timeout=20)
        for row in part:
            client.request("POST", "/predict", json.dumps(row))
            answer = client.getresponse()
            told = json.loads(answer.read())
            if answer.status != 200 or abs(told["answers"][0]["prediction"] - alone[row["id"]]) > 1e-12:
                wrong.append(row["id"])
        client.close()

    threads = [threading.Thread(target=load, args=(sent[i::16],)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert server.app.predictor.batcher.batches < len(sent) + 1, "some were answered together"


def test_it_can_be_mounted_in_another_application(table: pl.DataFrame, rows: list[dict[str, Any]]) -> None:
    fastapi = pytest.importorskip("fastapi")
    testclient = pytest.importorskip("fastapi.testclient")
    begun: list[str] = []
    ours = build(LiveFront(make_live(table)[0]), lambda: begun.append("start"), lambda: begun.append("stop"))

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> Any:
        async with ours.running():
            yield

    theirs = fastapi.FastAPI(lifespan=lifespan)
    theirs.get("/own")(lambda: {"mine": True})
    theirs.mount("/model", ours)
    with testclient.TestClient(theirs) as client:
        assert client.get("/own").json() == {"mine": True}
        assert client.post("/model/predict", json=rows[0]).json()["answers"][0]["version"] == "world/1"
        assert client.get("/model/ready").json()["ready"] is True
        assert client.get("/model/v2/models/world").json()["name"] == "world"
        assert client.get("/model/nowhere").status_code == 404
    assert begun == ["start", "stop"]


@pytest.mark.parametrize(("access", "lines"), [("none", []), ("refused", [422, 404]), ("all", [200, 422, 200, 404])])
def test_a_request_has_its_line_where_one_is_asked_for(
    access: str, lines: list[int], table: pl.DataFrame, rows: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    with served(table, access_log=access) as server, httpx.Client(base_url=server.url) as client, caplog.at_level("INFO", "loudly"):
        client.post("/predict", json=rows[0], headers={"X-Request-Id": "mine", "traceparent": TRACE})
        client.post("/predict", json={})
        client.get("/health")
        client.get("/nowhere")
    told = [record for record in caplog.records if hasattr(record, "status")]
    assert [record.status for record in told] == lines  # type: ignore[attr-defined]
    if access == "all":
        first = vars(told[0])
        assert (first["request_id"], first["trace_id"], first["path"]) == ("mine", TRACE.split("-")[1], "/predict")
        assert 0 < first["seconds"] < 60
        assert vars(told[-1])["path"] == "other", "what a client makes up is no path of ours"
