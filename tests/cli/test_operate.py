"""Operations as they are typed: batches, forgetting beside a running server, exports."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

LOUDLY = [sys.executable, "-c", "import sys; from loudly.cli.main import main; sys.argv[0] = 'loudly'; main()"]
ROW = {"asked_at": "2026-01-01T00:00:00", "income": 30000.0, "debt": 9000.0, "region": "west", "purpose": "car"}


class Project:
    """A folder and the command line in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*LOUDLY, *words], cwd=self.folder, capture_output=True, text=True, check=False)

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").stdout)

    def serve(self, port: int) -> subprocess.Popen[bytes]:
        """The real server, ready."""
        process = subprocess.Popen([*LOUDLY, "serve", "--port", str(port)], cwd=self.folder, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200:
                    return process
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError("the server did not come up")

    def segments(self) -> bytes:
        """All that the traffic log holds."""
        return b"".join(p.read_bytes() for p in (self.folder / ".loudly" / "traffic").iterdir())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("project"))
    for words in (["init", "."], ["train"], ["ship"]):
        assert made.run(*words).returncode == 0
    toml = made.folder / "loudly.toml"
    toml.write_text(toml.read_text().replace("[server]", "[server]\ntick = 0.3").replace("[store]", '[store]\nretention = "90d"'))
    return made


def test_a_batch_is_answered_and_bad_rows_are_told(project: Project) -> None:
    rows = pl.read_csv(project.folder / "loans.csv", try_parse_dates=True).drop("late").head(50)
    rows = rows.with_columns(loan_id=pl.when(pl.int_range(pl.len()) != 7).then("loan_id"))
    rows.write_parquet(project.folder / "rows.parquet")
    told = project.run("predict", "rows.parquet", "-o", "out.parquet")
    assert told.returncode == 0, told.stderr
    assert "49 rows answered by loans/1: out.parquet" in told.stdout
    assert "LOUD 1 rows set aside" in told.stdout
    assert project.json("predict", "rows.parquet", "-o", "out.parquet")["aside"] == 1
    assert project.run("predict", "nothing*.parquet", "-o", "out.parquet").returncode == 1


def test_exports_are_written(project: Project) -> None:
    assert project.run("export", "kubernetes", "-o", "deploy").returncode == 1, "an image has to be named"
    made = project.json("export", "kubernetes", "-o", "deploy", "--image", "loans:1")["made"]
    assert all(Path(p).exists() for p in made)
    assert {Path(p).name for p in made} >= {"deployment.yaml", "service.yaml", "autoscaler.yaml", "disruption.yaml"}


@pytest.mark.slow
def test_a_subject_is_forgotten_beside_a_running_server_and_without_one(project: Project) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = project.serve(port)
    for key in ("ann", "bob", "cid"):
        sent = httpx.post(f"http://127.0.0.1:{port}/predict", json={**ROW, "loan_id": f"subject-{key}"})
        assert sent.status_code == 200
    time.sleep(0.2)
    assert b"subject-ann" in project.segments()
    asked = project.run("forget", "subject-ann", "--reason", "asked to")
    assert asked.returncode == 3, "the log is the server's: not yet"
    assert "it erases at its next tick" in asked.stdout
    for _ in range(100):
        if b"subject-ann" not in project.segments():
            break
        time.sleep(0.1)
    assert b"subject-ann" not in project.segments()
    assert b"subject-bob" in project.segments()
    assert httpx.get(f"http://127.0.0.1:{port}/status").json()["waiting_for_labels"] == 2
    server.send_signal(signal.SIGTERM)
    server.wait(30)
    told = project.json("forget", "subject-bob", "--reason", "asked to")
    assert told["erased"][0]["rows"] == 1
    assert told["versions"] == [], "nobody was fitted on this row"
    assert b"subject-bob" not in project.segments()
    assert b"subject-cid" in project.segments()
    assert project.run("doctor").returncode == 0
    trained = pl.read_csv(project.folder / "loans.csv")["loan_id"][5]
    assert project.json("forget", trained, "--reason", "asked to")["versions"] == ["loans/1"]
    ledger = (project.folder / ".loudly" / "ledger.db").read_bytes()
    assert not any(name in ledger for name in (b"subject-ann", b"subject-bob", trained.encode()))
