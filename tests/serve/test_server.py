"""The real server over real HTTP: typed answers, named refusals, swaps and drains without a lost request."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("prometheus_client")
pytest.importorskip("uvicorn")

from command_line import ROW, Project, free_port  # noqa: E402
from conftest import SINCE, make_app  # noqa: E402
from live_server import Server, rows_of  # noqa: E402
from loudly.app.verbs import memory_stores  # noqa: E402
from loudly.core.clock import DAY, DataClock, instant  # noqa: E402
from loudly.loop.founding import found  # noqa: E402
from loudly.loop.live import Live  # noqa: E402
from loudly.loop.replay import replay  # noqa: E402
from loudly.serve.replies import Served  # noqa: E402
from loudly.store.sqlite_ledger import SqliteLedger  # noqa: E402
from waiting import until  # noqa: E402


def test_one_row_and_many(server: Server, table: pl.DataFrame) -> None:
    rows = rows_of(table, SINCE, SINCE + DAY)
    one = httpx.post(f"{server.url}/predict", json=rows[0]).json()
    many = httpx.post(f"{server.url}/predict", json=rows).json()
    assert len(one["answers"]) == 1
    assert len(many["answers"]) == len(rows)
    assert many["answers"][0]["prediction"] == one["answers"][0]["prediction"]
    assert {a["version"] for a in many["answers"]} == {"world/1"}
    assert not any(a["fallback"] for a in many["answers"])


def test_a_bad_row_gets_422_naming_field_expectation_and_schema(server: Server, table: pl.DataFrame) -> None:
    row = rows_of(table, SINCE, SINCE + DAY)[0]
    answer = httpx.post(f"{server.url}/predict", json=[row, {**row, "x1": "high", "group": None}])
    assert answer.status_code == 422
    wrong = {d["field"]: d for d in answer.json()["detail"]}
    assert wrong["x1"]["row"] == 1
    assert "number" in wrong["x1"]["expected"]
    assert wrong["x1"]["seen"] == "'high'"
    assert wrong["group"]["seen"] == "null"
    schema = server.live.ready["world/1"].schema.version
    assert all(d["schema_version"] == schema for d in answer.json()["detail"])


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b'"x"', b"[1]", b"\xff\xfe", b"[" * 5000])
def test_nonsense_is_refused_never_a_500(server: Server, body: bytes) -> None:
    for path in ("/predict", "/feedback"):
        assert httpx.post(f"{server.url}{path}", content=body).status_code == 422


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00"])
def test_a_time_that_utc_has_no_year_for_is_a_bad_field(server: Server, table: pl.DataFrame, at: str) -> None:
    row = {**rows_of(table, SINCE, SINCE + DAY)[0], "at": at}
    for path in ("/predict", "/predict?nothing=1", "/explain"):
        answer = httpx.post(f"{server.url}{path}", json=row)
        assert (answer.status_code, answer.json()["detail"][0]["field"]) == (422, "at")


def test_too_much_is_refused(server: Server) -> None:
    assert httpx.post(f"{server.url}/predict", content=b"[" + b"1," * 9_000_000 + b"1]").status_code == 413


def test_the_document_is_typed_from_the_schema(server: Server) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    row = document["components"]["schemas"]["Row"]
    sent = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
    assert sent[0] == {"$ref": "#/components/schemas/Row"}
    assert row["properties"]["x1"]["type"] == "number"
    assert row["properties"]["at"]["format"] == "date-time"
    assert set(row["required"]) == {"id", "at", "x1", "x2", "group"}
    assert httpx.post(f"{server.url}/predict", json=row["example"]).status_code == 200


def test_watchful_endpoints(server: Server, table: pl.DataFrame) -> None:
    httpx.post(f"{server.url}/predict", json=rows_of(table, SINCE, SINCE + DAY)[:5])
    assert httpx.get(f"{server.url}/health").json() == {"status": "alive"}
    assert httpx.get(f"{server.url}/ready").json()["ready"] is True
    assert httpx.get(f"{server.url}/status").json()["champion"] == "world/1"
    metrics = httpx.get(f"{server.url}/metrics").text
    assert 'loudly_rows_total{arm="control",version="world/1"} 5.0' in metrics


def test_feedback_joins_and_names_the_unknown(server: Server, table: pl.DataFrame) -> None:
    rows = rows_of(table, SINCE, SINCE + DAY)[:3]
    httpx.post(f"{server.url}/predict", json=rows)
    labels = [{"id": rows[0]["id"], "y": True}, {"id": "nobody", "y": False}]
    assert httpx.post(f"{server.url}/feedback", json=labels).json() == {"joined": 1, "unknown": 1, "repeated": 0}
    assert httpx.post(f"{server.url}/feedback", json=labels[:1]).json() == {"joined": 0, "unknown": 0, "repeated": 1}
    other = [{**labels[0], "y": not labels[0]["y"]}]
    assert httpx.post(f"{server.url}/feedback", json=other).json() == {"joined": 0, "unknown": 0, "repeated": 1, "changed": 1}
    assert httpx.post(f"{server.url}/feedback", json=[{"id": "x"}]).status_code == 422
    for odd in ({"id": "x", "y": [1]}, {"id": "x", "y": {"a": 1}}, {"id": ["x"], "y": True}):
        assert httpx.post(f"{server.url}/feedback", json=odd).status_code == 422


def test_a_model_that_raises_is_answered_by_a_marked_fallback(server: Server, table: pl.DataFrame) -> None:
    def broken(_: pl.DataFrame) -> Any:
        raise RuntimeError("out of order")

    assert server.live.router is not None
    server.live.router.swap(replace(server.live.router.routing, control=Served("world/1", broken), fallback=0.25))
    answer = httpx.post(f"{server.url}/predict", json=rows_of(table, SINCE, SINCE + DAY)[0])
    assert answer.status_code == 200
    assert answer.json()["answers"][0] | {"version": ""} == {
        "prediction": 0.25,
        "version": "",
        "arm": "control",
        "propensity": 1.0,
        "fallback": True,
    }
    assert "loudly_fallbacks_total 1.0" in httpx.get(f"{server.url}/metrics").text


def test_a_swap_under_load_fails_no_request(server: Server, table: pl.DataFrame) -> None:
    rows = rows_of(table, SINCE, SINCE + DAY)[:2]
    statuses: list[int] = []
    stop = threading.Event()

    def load() -> None:
        with httpx.Client() as client:
            while not stop.is_set():
                statuses.append(client.post(f"{server.url}/predict", json=rows).status_code)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    router = server.live.router
    assert router is not None
    before = router.routing
    for i in range(200):
        router.swap(replace(before, control=Served(f"world/{i}", before.control.predict)))
        time.sleep(0.005)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(statuses) > 50
    assert set(statuses) == {200}


def test_versions_change_under_load_and_each_answer_names_its_own(server: Server, table: pl.DataFrame) -> None:
    """Real versions of the ledger, promoted back and forth while one-row clients ask."""
    live = server.live
    second = live.retrain("by hand", "another version", offer=False)
    assert second == "world/2"
    row = rows_of(table, SINCE, SINCE + DAY)[0]
    expected = {}
    for version in ("world/2", "world/1"):
        live.promote(version, "somebody asked for it")
        answer = httpx.post(f"{server.url}/predict", json=row).json()["answers"][0]
        assert answer["version"] == version
        expected[version] = answer["prediction"]
    wrong: list[object] = []
    seen: set[str] = set()
    stop = threading.Event()

    def load() -> None:
        with httpx.Client() as client:
            while not stop.is_set():
                sent = client.post(f"{server.url}/predict", json=row)
                answer = sent.json()["answers"][0] if sent.status_code == 200 else {"version": sent.text, "prediction": 9.0}
                seen.add(answer["version"])
                if abs(answer["prediction"] - expected.get(answer["version"], 0.0)) > 1e-12:
                    wrong.append(answer)

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    for i in range(30):
        live.promote(("world/2", "world/1")[i % 2], "back and forth")
        live.tick()
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert seen == {"world/1", "world/2"}


def test_http_gives_the_same_predictions_and_decisions_as_the_replay(table: pl.DataFrame) -> None:
    """A stretch of history sent over real HTTP instead of through `replay`: same answers, same ledger."""
    until = instant("2024-02-19")
    whole = replay(make_app(table).system, table, memory_stores("world"), since=SINCE, until=until)
    clock = DataClock(SINCE)
    live = Live(make_app(table).system, memory_stores("world"), clock, key=b"replay")
    at = table["at"].dt.epoch("us")
    known = table.filter(at < SINCE).with_columns(y=pl.when(pl.col("at").dt.epoch("us") + DAY <= SINCE).then(pl.col("y")))
    assert not found(live, known)
    live.retrain("first training", "there is no model yet")
    answers: list[float] = []
    with Server(live) as server, httpx.Client(timeout=30) as client:
        for now in range(SINCE, until, DAY):
            late = table.filter((at + DAY >= now - DAY) & (at + DAY < now) & (at >= SINCE))
            if late.height:
                told = client.post(f"{server.url}/feedback", json=late.select("id", "y").to_dicts())
                assert told.json()["joined"] == late.height
            sent = client.post(f"{server.url}/predict", json=rows_of(table, now, now + DAY))
            answers += [a["prediction"] for a in sent.json()["answers"]]
            clock.advance(now + DAY)
            live.tick()
    assert answers == whole.answers["_answer"].to_list()
    ours = [r.chain for r in live.stores.ledger.read()]
    theirs = [r.chain for r in whole.events if r.event.kind != "history_replayed"]
    assert ours == theirs


REFUSED = r"LOUD loans: traffic log: (OSError|short write)"


@pytest.mark.slow
@pytest.mark.parametrize("tick", [0.3, 600])
def test_a_disk_that_fills_while_it_serves_loses_no_answer_and_is_said(shipped: Project, tmp_path: Path, tick: float) -> None:
    """The real server, whose files may not grow: it answers on, says LOUD, and the ledger and /status know why; at
    the next tick, or at its end.
    """
    project = shipped.copy(tmp_path)
    project.edit("loudly.toml", "[server]", f"[server]\ntick = {tick}")
    port, errors = free_port(), tmp_path / "errors.txt"
    limit = max(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) + 200_000
    with errors.open("wb") as err, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        process = project.serve(port, err, limit)
        rows = [{**ROW, "loan_id": f"many-{i}"} for i in range(2000)]
        for _ in range(8):
            assert client.post("/predict", json=rows).status_code == 200
        until(lambda: "loudly_log_refused 1.0" in client.get("/metrics").text, "the disk refuses the log")
        assert client.post("/predict", json={**ROW, "loan_id": "one"}).status_code == 200
        if tick < 1:
            until(lambda: re.search(REFUSED, errors.read_text()), "a tick says it")
        assert bool(re.search(REFUSED, errors.read_text())) is (tick < 1)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert re.search(REFUSED, errors.read_text())
    assert re.search(
        r"LOUD loans: traffic log: [\d,]+ records that the disk did not take are lost with this process", errors.read_text()
    )
    assert project.json("status")["champion"]
    ledger = SqliteLedger(tmp_path / ".loudly" / "ledger.db")
    weakened = [r.event.data["reason"] for r in ledger.read() if r.event.kind == "guarantee_weakened"]
    ledger.close()
    assert any("OSError" in str(reason) or "short write" in str(reason) for reason in weakened)


@pytest.mark.slow
def test_sigterm_under_load_loses_no_request_and_kill_loses_no_flushed_prediction(shipped: Project, tmp_path: Path) -> None:
    project, port, row = shipped.copy(tmp_path), free_port(), ROW
    process = project.serve(port)
    answered: list[str] = []
    lost: list[str] = []

    def load(name: str) -> None:
        with httpx.Client() as client:
            for i in range(10_000):
                key = f"{name}-{i}"
                try:
                    answer = client.post(f"http://127.0.0.1:{port}/predict", json={**row, "loan_id": key})
                except httpx.ConnectError:
                    return
                except httpx.TransportError:
                    lost.append(key)
                    return
                assert answer.status_code == 200
                answered.append(key)

    threads = [threading.Thread(target=load, args=(n,)) for n in "abcd"]
    for thread in threads:
        thread.start()
    time.sleep(1.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) in (0, -signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert len(answered) > 20
    assert not lost

    process = project.serve(port)
    kept = httpx.post(f"http://127.0.0.1:{port}/predict", json={**row, "loan_id": "kept"})
    assert kept.status_code == 200
    time.sleep(0.3)  # beyond the stated flush bound
    process.kill()
    process.wait()
    labels = tmp_path / "labels.jsonl"
    labels.write_text("\n".join(json.dumps({"loan_id": k, "late": True}) for k in (*answered, "kept")))
    assert project.json("feedback", "labels.jsonl")["joined"] == len(answered) + 1
