"""Several models in one process: each answers under its own name, and nothing of one is seen by the other."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

httpx = pytest.importorskip("httpx")
uvicorn = pytest.importorskip("uvicorn")

from command_line import LOUDLY, ROW, Project, free_port  # noqa: E402
from conftest import SINCE, make_app, make_world  # noqa: E402
from live_server import make_live, rows_of  # noqa: E402
from loudly.adapters.asgi_models import build as build_models  # noqa: E402
from loudly.adapters.asgi_server import build  # noqa: E402
from loudly.app.project import load_apps, make_project  # noqa: E402
from loudly.app.server import LiveFront, apart  # noqa: E402
from loudly.app.verbs import memory_stores  # noqa: E402
from loudly.config import ServerConfig  # noqa: E402
from loudly.core.clock import DAY, DataClock  # noqa: E402
from loudly.errors import ConfigError, UserFileError  # noqa: E402
from loudly.loop.founding import found  # noqa: E402
from loudly.loop.live import Live  # noqa: E402
from waiting import until  # noqa: E402

TABLE = make_world(days=50)
ROWS = rows_of(TABLE, SINCE, SINCE + DAY)


def other_live() -> Live:
    live = Live(replace(make_app(TABLE).system, name="other"), memory_stores("other"), DataClock(SINCE), key=b"other")
    known = TABLE.filter(pl.col("at").dt.epoch("us") < SINCE).with_columns(y=~pl.col("y"))
    assert not found(live, known)
    live.retrain("first training", "there is no model yet")
    return live


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Live, Live, list[str]]]:
    """Two projects behind one port, each with a key of its own; what started and stopped."""
    monkeypatch.setenv("ONE", "one")
    monkeypatch.setenv("TWO", "two")
    lives, told = (make_live(TABLE)[0], other_live()), list[str]()
    servers: dict[str, Any] = {}
    for live, key in zip(lives, ("ONE", "TWO"), strict=True):
        name, settings = live.system.name, ServerConfig(keys=(f"admin=env:{key}",))
        servers[name] = build(
            LiveFront(live), lambda n=name: told.append(f"start {n}"), lambda n=name: told.append(f"stop {n}"), settings
        )
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(build_models(servers), host="127.0.0.1", port=port, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        threading.Event().wait(0.01)
    yield f"http://127.0.0.1:{port}", *lives, told
    server.should_exit = True
    thread.join(30)


def test_each_model_answers_under_its_own_name_with_its_own_key(two: tuple[str, Live, Live, list[str]]) -> None:
    url, world, other, _ = two
    keys = {"world": {"X-API-Key": "one"}, "other": {"X-API-Key": "two"}}
    with httpx.Client(base_url=url, timeout=30) as client:
        for name, mine in keys.items():
            answers = client.post(f"/models/{name}/predict", json=ROWS[:5], headers=mine).json()["answers"]
            assert {a["version"] for a in answers} == {f"{name}/1"}
            foreign = keys["other" if name == "world" else "world"]
            for path in ("predict", "feedback"):
                assert client.post(f"/models/{name}/{path}", json=ROWS[0], headers=foreign).status_code == 401
            for path in ("status", "metrics", "-/"):
                assert client.get(f"/models/{name}/{path}", headers=foreign).status_code == 401
            assert client.get(f"/v2/models/{name}").json()["name"] == name
            assert client.get(f"/models/{name}/v2/models/{name}").json()["name"] == name
            assert [m["name"] for m in client.post(f"/models/{name}/v2/repository/index", headers=mine).json()] == [name]
        crossed = client.get("/models/world/v2/models/other", headers=keys["world"])
        assert crossed.status_code == 404
        labels = [{"id": ROWS[0]["id"], "y": True}]
        assert client.post("/models/world/feedback", json=labels, headers=keys["world"]).json()["joined"] == 1
        assert client.get("/models/world/status", headers=keys["world"]).json()["waiting_for_labels"] == 4
        assert client.get("/models/other/status", headers=keys["other"]).json()["waiting_for_labels"] == 5
        page = client.get("/models/other/-/", headers=keys["other"]).text
        assert "<b>other/1</b> answers since" in page
        assert "world" not in page
        metrics = client.get("/models/other/metrics", headers=keys["other"]).text
        assert "world" not in metrics
        assert 'loudly_rows_total{arm="control",version="other/1"} 5.0' in metrics
    assert {r.event.data.get("version", "other/1") for r in other.stores.ledger.read()} == {"other/1"}
    assert {r.event.data.get("version", "world/1") for r in world.stores.ledger.read()} == {"world/1"}


def test_the_process_speaks_for_itself_and_names_nobody(two: tuple[str, Live, Live, list[str]]) -> None:
    url, world, _, told = two
    assert told == ["start world", "start other"]
    with httpx.Client(base_url=url) as client:
        for path in ("/health", "/ready", "/v2", "/v2/health/live", "/v2/health/ready"):
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert "world" not in answer.text
        assert client.post("/health").status_code == 405
        for path in (
            "/",
            "/predict",
            "/models",
            "/models/",
            "/models/nobody/predict",
            "/metrics",
            "/status",
            "/models/worldly/health",
        ):
            answer = client.get(path)
            assert answer.status_code == 404, path
            assert "world" not in answer.text
        world.state = replace(world.state, champion=None)
        assert client.get("/ready").status_code == 503
        assert client.get("/models/other/ready").status_code == 200


def test_what_two_projects_share_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_project(tmp_path / name)
    with pytest.raises(UserFileError, match="different names"):
        load_apps([tmp_path / "a" / "app.py", tmp_path / "b" / "app.py"])
    (tmp_path / "b" / "app.py").rename(tmp_path / "b" / "second.py")
    with pytest.raises(ConfigError, match="share their name"):
        apart(load_apps([tmp_path / "a" / "app.py", tmp_path / "b" / "second.py"]))
    text = (tmp_path / "b" / "second.py").read_text().replace('"loans"', '"others"', 1)
    (tmp_path / "b" / "second.py").write_text(text)
    apart(load_apps([tmp_path / "a" / "app.py", tmp_path / "b" / "second.py"]))
    (tmp_path / "a" / "third.py").write_text(text)
    with pytest.raises(ConfigError, match="share their folder"):
        apart(load_apps([tmp_path / "a" / "app.py", tmp_path / "a" / "third.py"]))
    for name in ("a", "b"):
        toml = tmp_path / name / "loudly.toml"
        toml.write_text(toml.read_text().replace("[store]", '[store]\nledger = "postgres"\nurl = "postgresql://one"'))
    with pytest.raises(ConfigError, match="share their ledger"):
        apart(load_apps([tmp_path / "a" / "app.py", tmp_path / "b" / "second.py"]))


@pytest.mark.slow
def test_the_command_serves_two_files_and_keeps_their_logs_apart(tmp_path: Path) -> None:
    for name in ("first", "second"):
        make_project(tmp_path / name)
        project = Project(tmp_path / name)
        project.edit("app.py", 'App("loans"', f'App("{name}"')
        (project.folder / "app.py").rename(project.folder / f"{name}.py")
        for command in ("train", "ship"):
            assert project.run(command, "-f", f"{name}.py").returncode == 0
    port = free_port()
    process = subprocess.Popen([LOUDLY, "serve", "first/first.py", "second/second.py", "--port", str(port)], cwd=tmp_path)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        until(lambda: client.get("/ready").status_code == 200, "the server")
        for name, rows in (("first", 3), ("second", 5)):
            sent = [{**ROW, "loan_id": f"{name}-{i}"} for i in range(rows)]
            answers = client.post(f"/models/{name}/predict", json=sent).json()["answers"]
            assert {a["version"] for a in answers} == {f"{name}/1"}
            assert client.get(f"/models/{name}/status").json()["waiting_for_labels"] == rows
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) in (0, -signal.SIGTERM)
    for name, stranger in (("first", b"second-0"), ("second", b"first-0")):
        logged = b"".join(p.read_bytes() for p in (tmp_path / name / ".loudly" / "traffic").glob("*.*"))
        assert f"{name}-0".encode() in logged
        assert stranger not in logged
