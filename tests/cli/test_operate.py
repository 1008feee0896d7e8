"""Operations as they are typed: batches, forgetting beside a running server, exports."""

from __future__ import annotations

import signal
from pathlib import Path

import polars as pl
import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

from command_line import ROW, Project, free_port  # noqa: E402
from loudly.store.sqlite_ledger import SqliteLedger  # noqa: E402
from waiting import until  # noqa: E402


def segments(project: Project) -> bytes:
    """All that the traffic log holds."""
    return b"".join(p.read_bytes() for p in (project.folder / ".loudly" / "traffic").iterdir())


@pytest.fixture(scope="module")
def project(shipped: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = shipped.copy(tmp_path_factory.mktemp("project"))
    made.edit("loudly.toml", "[server]", "[server]\ntick = 0.3")
    made.edit("loudly.toml", "[store]", '[store]\nretention = "90d"')
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
def test_what_a_killed_server_left_in_a_spool_is_forgotten_by_the_next_one(shipped: Project, tmp_path: Path) -> None:
    project = shipped.copy(tmp_path)
    project.edit("loudly.toml", "[server]", "[server]\ntick = 0.3")
    port = free_port()
    server = project.serve(port)
    assert httpx.post(f"http://127.0.0.1:{port}/predict", json={**ROW, "loan_id": "subject-dan"}).status_code == 200
    until(lambda: b"subject-dan" in segments(project), "it is logged")
    server.kill()
    server.wait()
    spool = project.folder / ".loudly" / "spools" / "worker-1-abc"
    spool.mkdir(parents=True)
    for path in (project.folder / ".loudly" / "traffic").glob("*.open"):
        path.rename(spool / path.name)  # as if a worker had answered, and nobody had taken it over
    asked = project.run("forget", "subject-dan", "--reason", "asked to")
    assert asked.returncode == 3, asked.stdout
    assert "the next one takes over what a killed one left in spools" in asked.stdout
    server = project.serve(port)
    ledger = SqliteLedger(project.folder / ".loudly" / "ledger.db")
    until(lambda: any(r.event.kind == "subject_erased" for r in ledger.read()), "it is erased")
    assert [r.event.data["rows"] for r in ledger.read() if r.event.kind == "subject_erased"] == [1]
    ledger.close()
    server.send_signal(signal.SIGTERM)
    server.wait(30)
    assert b"subject-dan" not in segments(project)


@pytest.mark.slow
def test_a_subject_is_forgotten_beside_a_running_server_and_without_one(project: Project) -> None:
    port = free_port()
    server = project.serve(port)
    for key in ("ann", "bob", "cid"):
        sent = httpx.post(f"http://127.0.0.1:{port}/predict", json={**ROW, "loan_id": f"subject-{key}"})
        assert sent.status_code == 200
    until(lambda: b"subject-cid" in segments(project), "it is logged")
    assert b"subject-ann" in segments(project)
    asked = project.run("forget", "subject-ann", "--reason", "asked to")
    assert asked.returncode == 3, "the log is the server's: not yet"
    assert "it erases at its next tick" in asked.stdout
    until(lambda: b"subject-ann" not in segments(project), "it is erased")
    assert b"subject-ann" not in segments(project)
    assert b"subject-bob" in segments(project)
    assert httpx.get(f"http://127.0.0.1:{port}/status").json()["waiting_for_labels"] == 2
    server.send_signal(signal.SIGTERM)
    server.wait(30)
    told = project.json("forget", "subject-bob", "--reason", "asked to")
    assert told["erased"][0]["rows"] == 1
    assert told["versions"] == [], "nobody was fitted on this row"
    assert b"subject-bob" not in segments(project)
    assert b"subject-cid" in segments(project)
    assert project.run("doctor").returncode == 0
    trained = pl.read_csv(project.folder / "loans.csv")["loan_id"][5]
    assert project.json("forget", trained, "--reason", "asked to")["versions"] == ["loans/1"]
    ledger = (project.folder / ".loudly" / "ledger.db").read_bytes()
    assert not any(name in ledger for name in (b"subject-ann", b"subject-bob", trained.encode()))


@pytest.mark.slow
def test_labels_of_a_file_reach_a_running_server_and_a_second_server_is_refused(shipped: Project, tmp_path: Path) -> None:
    project = shipped.copy(tmp_path)
    project.edit("loudly.toml", "[server]", "[server]\ntick = 0.3")
    port = free_port()
    server = project.serve(port)
    ask = f"http://127.0.0.1:{port}"
    for key in ("ann", "bob"):
        assert httpx.post(f"{ask}/predict", json={**ROW, "loan_id": key}).status_code == 200
    (tmp_path / "labels.csv").write_text("loan_id,late\nann,true\nnobody,false\n")
    told = project.run("feedback", "labels.csv")
    assert told.returncode == 3, "not yet"
    assert "2 labels wait for the server" in told.stdout
    until(lambda: httpx.get(f"{ask}/status").json()["waiting_for_labels"] == 1, "the server has joined it")
    until(lambda: "nobody" in project.run("status").stdout, "the unknown key is told")
    second = project.alone("serve", "--port", str(free_port()))
    assert second.returncode == 1
    assert "Another process writes this log" in second.stderr
    assert "Traceback" not in second.stderr
    assert httpx.post(f"{ask}/predict", json={**ROW, "loan_id": "cid"}).status_code == 200
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0
    assert b"cid" in segments(project), "the log of the first goes on"
    (tmp_path / "labels.csv").write_text("loan_id,late\nbob,true\n")
    none = {"joined": 0, "unknown": 0, "strange": 0, "repeated": 0, "changed": 0, "spooled": 0}
    assert project.json("feedback", "labels.csv") == none | {"joined": 1}
    (tmp_path / "labels.csv").write_text("loan_id,late\nbob,false\nann,true\n")
    assert "2 repeated, of which 1 say otherwise" in " ".join(project.run("feedback", "labels.csv").stdout.split())
    (tmp_path / "labels.csv").write_text("loan_id,late\ncid,1\n")
    wrong = project.run("feedback", "labels.csv")
    assert wrong.returncode == 1
    assert "expected boolean" in wrong.stderr
    assert "Seen: 1" in wrong.stderr
    (tmp_path / "labels.csv").write_text("loan,late\ncid,true\n")
    assert "no column 'loan_id'" in project.run("feedback", "labels.csv").stderr
