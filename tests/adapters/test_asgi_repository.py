"""Versions beside the routing over real HTTP: loaded, asked by name, unloaded; no evidence for anybody, and bounded."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

httpx = pytest.importorskip("httpx")

from conftest import SINCE, make_world  # noqa: E402
from live_server import Server, make_live, rows_of  # noqa: E402
from loudly.config import ServerConfig  # noqa: E402
from loudly.core.clock import DAY  # noqa: E402
from loudly.errors import DiskFull, StaleWriter  # noqa: E402
from loudly.loop import traffic  # noqa: E402
from loudly.loop.live import Live  # noqa: E402
from loudly.loop.pins import router_of  # noqa: E402
from loudly.loop.restart import catch_up  # noqa: E402
from loudly.serve.replies import Served  # noqa: E402
from loudly.serve.router import Router, Routing  # noqa: E402
from loudly.store.segments import SegmentWriter, read_segments  # noqa: E402

TABLE = make_world(days=50)
ROWS = rows_of(TABLE, SINCE, SINCE + DAY)
HIDE, SHOW = "/v2/repository/models/world/versions/{}/unload", "/v2/repository/models/world/versions/{}/load"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Three versions; the first is champion, none is on a rollout."""
    live = make_live(TABLE)[0]
    live.stores = replace(live.stores, traffic=SegmentWriter(tmp_path / "traffic"))
    for number in (2, 3):
        assert live.retrain("by hand", f"number {number}", offer=False) == f"world/{number}"
    with Server(live, ServerConfig(max_versions=2)) as running:
        yield running


def states(server: Server) -> dict[str, str]:
    told = httpx.post(f"{server.url}/v2/repository/index").json()
    assert {one["name"] for one in told} == {"world"}
    return {one["version"]: one["state"] for one in told}


def test_a_version_is_loaded_asked_and_unloaded_while_the_champion_answers(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        assert states(server) == {"1": "READY", "2": "UNAVAILABLE", "3": "UNAVAILABLE"}
        refused = client.post("/predict?version=2", json=ROWS[0])
        assert refused.status_code == 404
        assert "loaded: world/1" in refused.json()["detail"]
        assert client.post(SHOW.format(2)).status_code == 200
        assert client.post(SHOW.format(2)).status_code == 200, "twice is once"
        assert states(server) == {"1": "READY", "2": "READY", "3": "UNAVAILABLE"}
        named = client.post("/predict?version=2", json=ROWS[:3]).json()["answers"]
        assert {(a["version"], a["arm"], a["propensity"], a["fallback"]) for a in named} == {("world/2", "pinned", 1.0, False)}
        assert client.post("/predict?version=world/2", json=ROWS[:3]).json()["answers"] == named
        plain = client.post("/predict", json=ROWS[:3]).json()["answers"]
        assert {(a["version"], a["arm"]) for a in plain} == {("world/1", "control")}
        full = client.post(SHOW.format(3))
        assert full.status_code == 409
        assert "2 of 2: world/1, world/2" in full.json()["error"]
        assert client.post(HIDE.format(1)).status_code == 409, "the routing asks it"
        assert client.post(HIDE.format(2)).status_code == 200
        assert client.post(HIDE.format(2)).status_code == 404
        assert client.post("/predict?version=2", json=ROWS[0]).status_code == 404
        assert client.post(SHOW.format(3)).status_code == 200
        assert client.post(SHOW.format(9)).status_code == 404
    events = [r.event for r in server.live.stores.ledger.read() if r.event.kind.startswith("version_")]
    kinds = [(e.kind, e.data.get("version")) for e in events]
    assert kinds[-3:] == [("version_loaded", "world/2"), ("version_unloaded", "world/2"), ("version_loaded", "world/3")]


def test_the_protocol_names_versions_in_paths_and_in_bodies(server: Server) -> None:
    load, unload = (f"{server.url}/v2/repository/models/world/{what}" for what in ("load", "unload"))
    assert httpx.post(load, json={"parameters": {"version": 2}}).status_code == 200
    inputs = [
        {"name": n, "datatype": k, "shape": [1], "data": [ROWS[0][n]]}
        for n, k in {"id": "BYTES", "at": "BYTES", "x1": "FP64", "x2": "FP64", "group": "BYTES"}.items()
    ]
    told = httpx.post(f"{server.url}/v2/models/world/versions/2/infer", json={"inputs": inputs}).json()
    assert told["model_version"] == "2"
    assert {o["name"]: o["data"] for o in told["outputs"]}["arm"] == ["pinned"]
    assert httpx.get(f"{server.url}/v2/models/world").json()["versions"] == ["1", "2"]
    assert httpx.get(f"{server.url}/v2/models/world/versions/2/ready").status_code == 200
    assert httpx.post(unload, json={}).status_code == 200
    gone = httpx.post(f"{server.url}/v2/models/world/versions/2/infer", json={"inputs": inputs})
    assert gone.status_code == 404
    assert "loaded: world/1" in gone.json()["error"]
    assert httpx.post(load).status_code == 200, "no version named: the newest"
    assert states(server)["3"] == "READY"
    assert httpx.post(load, content=b"[1]").status_code == 400
    assert httpx.post(load.replace("world", "other")).status_code == 404


def test_the_triton_client_loads_and_asks_a_version(server: Server) -> None:
    triton = pytest.importorskip(
        "tritonclient.http", reason="LOUD: tritonclient is not installed; its repository calls are not tried"
    )
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    client.load_model("world")
    assert client.is_model_ready("world", "3")
    assert [(m["version"], m["state"]) for m in client.get_model_repository_index()][-1] == ("3", "READY")
    client.unload_model("world")
    assert not client.is_model_ready("world", "3")
    assert client.is_model_ready("world", "1")
    client.close()


def test_only_an_admin_loads_and_unloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASK", "ask")
    monkeypatch.setenv("ADMIN", "admin")
    with Server(make_live(TABLE)[0], ServerConfig(keys=("predict=env:ASK", "admin=env:ADMIN"))) as server:
        for path in ("/v2/repository/index", SHOW.format(1), HIDE.format(1), "/v2/repository/models/world/load"):
            statuses = [httpx.post(f"{server.url}{path}", headers={"X-API-Key": k}).status_code for k in ("", "ask", "admin")]
            assert statuses[:2] == [401, 403], path
            assert statuses[2] in (200, 409), path


def test_what_is_asked_by_name_is_logged_as_such_and_is_evidence_for_nobody(server: Server, tmp_path: Path) -> None:
    live = server.live
    live.offer("world/2", "to have a rollout on the way")
    with httpx.Client(base_url=server.url, timeout=30) as client:
        named = client.post("/predict?version=2", json=ROWS[:50]).json()["answers"]
        assert {a["arm"] for a in named} == {"pinned"}, "the candidate is loaded: the routing asks it"
        routed = client.post("/predict", json=ROWS[50:70]).json()["answers"]
        assert "pinned" not in {a["arm"] for a in routed}
        assert client.get("/status").json()["waiting_for_labels"] == 20
        assert sum(live.given.values()) == 20
        labels = [{"id": r["id"], "y": True} for r in ROWS[40:60]]
        assert client.post("/feedback", json=labels).json() == {"joined": 10, "unknown": 0, "repeated": 0}
        assert client.post("/feedback", json=[{"id": "nobody", "y": True}]).json()["unknown"] == 1
    live.stores.traffic.flush()  # type: ignore[union-attr]
    records = [r for r in read_segments(tmp_path / "traffic") if r.kind != "calls"]
    assert [r.kind for r in records] == ["pinned", "predictions", "labels", "labels"]
    table = traffic.from_bytes(records[0].payload)
    assert set(table["_version"]) == {"world/2"}
    assert set(table["_propensity"]) == {1.0}
    assert table["_answer"].to_list() == [a["prediction"] for a in named]
    again = Live(live.system, replace(live.stores, traffic=None), live.clock, key=b"replay")
    again.watch.crown(again.ready["world/1"], TABLE.head(500), None, live.clock.now())
    catch_up(again, tmp_path / "traffic")
    assert (again.book.waiting, again.pins.book.waiting) == (live.book.waiting, live.pins.book.waiting) == (10, 40)


def test_a_restart_loads_again_what_was_loaded_and_says_what_it_cannot(server: Server) -> None:
    assert httpx.post(f"{server.url}{SHOW.format(3)}").status_code == 200
    live = server.live
    again = Live(live.system, replace(live.stores, traffic=None), live.clock, key=b"replay")
    assert again.pins.loaded() == ("world/1",), "nothing is loaded for those who do not serve"
    again.pins.follow()
    assert again.pins.loaded() == ("world/1", "world/3")
    broken = Live(live.system, replace(live.stores, traffic=None), live.clock, key=b"replay")
    gone = replace(live.state.versions["world/3"], model="0" * 64)
    broken.state = replace(broken.state, versions={**broken.state.versions, "world/3": gone})
    broken.pins.follow()
    assert broken.pins.loaded() == ("world/1",)
    assert "world/3" in broken.pins.failed


def test_a_named_version_that_hangs_or_fails_holds_nobody_else_up(server: Server) -> None:
    live, release = server.live, threading.Event()
    server.app.settings = replace(server.app.settings, deadline=0.5)
    assert httpx.post(f"{server.url}{SHOW.format(2)}").status_code == 200
    ready = live.pins.of("world/2")[0]

    def with_model(predict: Any) -> Router:
        return Router(Routing(Served("world/2", predict), schema=ready.schema))

    def hangs(rows: Any) -> Any:
        release.wait(60)
        return np.full(rows.height, 0.5)

    def raises(rows: Any) -> Any:
        raise RuntimeError("out of order")

    live.pins._ready["world/2"] = (ready, with_model(hangs))
    found: list[int] = []
    asking = threading.Thread(
        target=lambda: found.append(httpx.post(f"{server.url}/predict?version=2", json=ROWS[0], timeout=60).status_code)
    )
    asking.start()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        assert [client.post("/predict", json=row).status_code for row in ROWS[:20]] == [200] * 20
        asking.join()
        assert found == [503]
        for broken in (raises, lambda rows: np.full(rows.height, np.nan)):
            live.pins._ready["world/2"] = (ready, with_model(broken))
            answer = client.post("/predict?version=2", json=ROWS[0]).json()["answers"][0]
            assert (answer["version"], answer["fallback"]) == ("world/2", True)
        release.set()
        live.pins._ready["world/2"] = (ready, router_of("world/2", ready))
        assert client.post("/predict?version=2", json=ROWS[0]).json()["answers"][0]["fallback"] is False


def test_versions_come_and_go_under_load_and_no_request_of_the_champion_fails(server: Server) -> None:
    stop, statuses, named = threading.Event(), [], []

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            while not stop.is_set():
                statuses.append(client.post("/predict", json=ROWS[0]).status_code)
                named.append(client.post("/predict?version=2", json=ROWS[1]).status_code)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for _ in range(10):
            assert client.post(SHOW.format(2)).status_code == 200
            assert client.post("/predict?version=2", json=ROWS[2]).status_code == 200
            assert client.post(HIDE.format(2)).status_code == 200
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    assert set(named) <= {200, 404}


def test_two_who_write_at_once_one_is_told_409(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def beaten(*_: object) -> int:
        raise StaleWriter("Somebody else appended first.", do="Read the new events and decide again.")

    with monkeypatch.context() as patch:
        patch.setattr(server.live.stores.ledger, "append", beaten)
        assert httpx.post(f"{server.url}{SHOW.format(2)}").status_code == 409
    assert "2" not in {v for v, state in states(server).items() if state == "READY"}
    assert httpx.post(f"{server.url}{SHOW.format(2)}").status_code == 200


def test_a_ledger_that_has_no_room_is_not_the_fault_of_the_request(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise DiskFull("The ledger has no room.")

    position = httpx.get(f"{server.url}/status").json()["ledger"]
    monkeypatch.setattr(server.live.stores.ledger, "append", full)
    said = {"version": "2", "ledger": position, "reason": "a test"}
    assert httpx.post(f"{server.url}/promote", json=said).status_code == 503


def test_two_admins_who_promote_at_once_one_is_heard_and_the_other_told_409(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        position = client.get("/status").json()["ledger"]
        statuses: list[int] = []

        def promote(version: str) -> None:
            said = {"version": version, "ledger": position, "reason": "it is mine"}
            statuses.append(httpx.post(f"{server.url}/promote", json=said, timeout=30).status_code)

        threads = [threading.Thread(target=promote, args=(version,)) for version in ("2", "3", "2", "3")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200, 409, 409, 409]
        changes = [r.event.data["version"] for r in server.live.stores.ledger.read(position) if r.event.kind == "champion_changed"]
        assert changes == [client.get("/status").json()["champion"]]
        now = client.get("/status").json()["ledger"]
        assert client.post("/promote", json={"version": "1", "ledger": now, "reason": "back"}).json() == {"champion": "world/1"}
        for said in (
            {},
            {"version": "1"},
            {"version": "1", "ledger": "x", "reason": "y"},
            {"version": "1", "ledger": 1, "reason": ""},
        ):
            assert client.post("/promote", json=said).status_code == 422
        now = client.get("/status").json()["ledger"]
        half = json.dumps({"version": "1", "ledger": now, "reason": "half of a pair: \ud800"})
        assert client.post("/promote", content=half).status_code == 422
        assert client.post("/promote", json={"version": "9", "ledger": now, "reason": "none"}).status_code == 404
        server.live.event("kill_switch_set", on=True, reason="a test")
        assert client.post("/promote", json={"version": "2", "ledger": now + 1, "reason": "no"}).status_code == 409
