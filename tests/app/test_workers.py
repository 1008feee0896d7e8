"""`loudly serve --workers`: real processes, real clients, real kills; what was acknowledged is in the log, once."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

from command_line import ROW, Project, free_port  # noqa: E402
from loudly.app.wheel import wait_for  # noqa: E402
from under_load import OF_PROCESSES, Load, Site, compare, serving  # noqa: E402
from waiting import PATIENCE, until  # noqa: E402

pytestmark = OF_PROCESSES

ODD = '''
import time

import numpy as np


@app.feature
def odd(income):
    """Hangs, raises or is no number where a client says so; else it is the income."""
    if (income == -1).any():
        time.sleep(60)
    if (income == -2).any():
        raise RuntimeError("out of order")
    return income
'''


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with two versions, the first of which answers."""
    made = Project(tmp_path_factory.mktemp("trained"))
    for words in (["init", "."], ["train"], ["ship"], ["train"]):
        assert made.run(*words).returncode == 0
        if words[0] == "init":
            made.edit("app.py", "app.labels(", ODD + "\n\napp.labels(")
    made.edit("loudly.toml", "[server]", "[server]\ntick = 0.5\ndeadline = 3.0\ndrain = 1.0")
    return made


@pytest.fixture
def site(trained: Project, tmp_path: Path) -> Iterator[Site]:
    """A site of the test's own, which may end it."""
    with serving(trained, tmp_path / "site") as made:
        yield made


@pytest.fixture(scope="module")
def lasting(trained: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site that goes on from test to test, through all that happens to it; at its end its log is held against its answers."""
    with serving(trained, tmp_path_factory.mktemp("lasting") / "site") as made:
        yield made
        made.stop()
        assert max(made.logged().values()) == 1, "taken over twice"


def test_a_worker_that_is_killed_under_load_loses_nothing_and_is_started_again(lasting: Site) -> None:
    before = len(lasting.events("process_restarted"))
    with Load(lasting) as load:
        for _ in range(2):
            victim = lasting.pids("worker")[0]
            os.kill(victim, signal.SIGKILL)
            until(lambda v=victim: len(lasting.pids("worker")) == 2 and v not in lasting.pids("worker"), "another worker")
            load.more(50)
        until(lambda: len(lasting.events("process_restarted")) == before + 2, "both are written down")
    compare(lasting, load)
    assert [e["reason"] for e in lasting.events("process_restarted")[before:]] == ["killed by signal 9"] * 2
    assert (
        len(re.findall(r"LOUD loans: worker \d \(process \d+\)\s+killed\s+by\s+signal\s+9;", lasting.errors.read_text()))
        == before + 2
    )


def test_while_the_wheel_is_away_answers_go_on_and_are_folded_once_when_it_returns(lasting: Site) -> None:
    before, waited = len(lasting.events("process_restarted")), lasting.waiting()
    with Load(lasting) as load:
        for _ in range(2):
            (victim,) = lasting.pids("wheel")
            os.kill(victim, signal.SIGKILL)
            load.more(50)
            spooled = lasting.post("/feedback", {"loan_id": load.acknowledged[-1], "late": True}).json()
            assert spooled["spooled"] == 1 or spooled["joined"] == 1
            until(lambda: not lasting.get("/status").json()["wheel_away"], "the wheel's return")
            load.more(50)
    wanted = waited + len(load.acknowledged) - 2 + len(load.broken)
    until(lambda: lasting.waiting() == wanted, "all answers are folded, and once")
    assert not load.broken, "a wheel that dies breaks no connection"
    again = lasting.post("/feedback", [{"loan_id": k, "late": False} for k in load.acknowledged[:30]])
    assert again.json()["unknown"] == 0
    compare(lasting, load)
    assert [e["what"] for e in lasting.events("process_restarted")[before:]] == ["wheel", "wheel"]
    assert "answers go on as told last" in lasting.errors.read_text().replace("\n", " ")


def test_a_parent_that_is_killed_takes_its_children_along_and_loses_nothing(site: Site) -> None:
    with Load(site) as load:
        site.process.kill()
        site.process.wait()
        until(lambda: not site.pids("worker") and not site.pids("wheel"), "children end when their parent is gone")
    site.start()
    site.stop()
    compare(site, load)


def test_sigterm_under_load_drains_all_workers_and_breaks_no_request(site: Site) -> None:
    with Load(site) as load:
        site.process.send_signal(signal.SIGTERM)
        assert site.process.wait(PATIENCE) in (0, -signal.SIGTERM)
    assert set(load.broken) <= {"ConnectError", "ConnectTimeout"}
    compare(site, load)
    assert not list((site.folder / ".loudly" / "spools").glob("*/*.seg")), "all is taken over"


def test_versions_change_in_every_worker_and_no_request_fails(lasting: Site) -> None:
    with Load(lasting) as load, httpx.Client(base_url=lasting.url, timeout=60) as client:
        for version in ("2", "1", "2"):

            def promoted(version: str = version) -> dict[str, Any] | None:
                """What was said, once it is heard: where the wheel wrote an event of its own meanwhile, it is read again."""
                said = {"version": version, "ledger": client.get("/status").json()["ledger"], "reason": "a test"}
                status = client.post("/promote", json=said).status_code
                assert status in (200, 409)
                return said if status == 200 else None

            said = until(promoted, f"version {version} is promoted")
            assert client.post("/promote", json=said).status_code == 409, "the second has read an old ledger"

            def answers(version: str = version) -> bool:
                asked = [lasting.post("/predict", {**ROW, "loan_id": f"v{time.monotonic_ns()}"}) for _ in range(20)]
                return {a.json()["answers"][0]["version"] for a in asked} == {f"loans/{version}"}

            until(answers, f"version {version} in every worker")
        for work, status in (("load", 200), ("unload", 404)):
            assert client.post(f"/v2/repository/models/loans/versions/1/{work}").status_code == 200

            def named(status: int = status) -> bool:
                asked = [lasting.post("/predict?version=1", {**ROW, "loan_id": f"p{time.monotonic_ns()}"}) for _ in range(10)]
                return {a.status_code for a in asked} == {status}

            until(named, f"{work} in every worker")
    assert not load.broken
    compare(lasting, load)


def test_a_scrape_is_the_sum_whoever_answers_it_and_feedback_reaches_the_wheel_from_any_worker(lasting: Site) -> None:
    champion, waited, before = lasting.get("/status").json()["champion"], lasting.waiting(), lasting.get("/metrics").text
    rows = f'loudly_rows_total{{arm="control",version="{champion}"}}'
    keys = [f"k{i}" for i in range(60)]
    for key in keys:
        assert lasting.post("/predict", {**ROW, "loan_id": key}).status_code == 200
    for _ in range(12):  # a connection each: whichever worker takes it
        until(lambda: _count(ANSWERED, lasting.get("/metrics").text) == _count(ANSWERED, before) + 60, "the sum")
        assert _count(rows, lasting.get("/metrics").text) == _count(rows, before) + 60
    page = lasting.get("/-/").text
    assert f"<b>{champion}</b> answers since" in page
    assert f"{int(_count(rows, before)) + 60:,}</td>" in page, "the page counts for all workers, too"
    told = [lasting.post("/feedback", {"loan_id": key, "late": True}).json() for key in keys]
    assert sum(t["joined"] for t in told) == 60
    assert {lasting.waiting() for _ in range(6)} == {waited}
    restarted = len(lasting.events("process_restarted"))
    os.kill(lasting.pids("worker")[0], signal.SIGKILL)
    until(lambda: len(lasting.events("process_restarted")) > restarted, "the wheel writes it down")
    until(
        lambda: _count(ANSWERED, lasting.get("/metrics").text) == _count(ANSWERED, before) + 60,
        "what a dead worker counted still counts",
    )


ANSWERED = 'loudly_requests_total{path="/predict",status="200"}'


def _count(of: str, text: str) -> float:
    return sum(map(float, re.findall(rf"{re.escape(of)} ([\d.]+)", text)))


def test_a_model_that_hangs_or_raises_in_one_worker_costs_its_own_requests(lasting: Site) -> None:
    until(lambda: len(lasting.doors()) == lasting.count, "all workers")
    restarted = len(lasting.events("process_restarted"))
    found: list[int] = []
    hanging = {**ROW, "loan_id": "hangs", "income": -1.0}
    asking = threading.Thread(target=lambda: found.append(lasting.post("/predict", hanging).status_code))
    asking.start()
    answered = [lasting.post("/predict", {**ROW, "loan_id": f"h{i}"}).status_code for i in range(40)]
    asking.join()
    assert found == [503]
    assert answered.count(200) >= 20, "the worker that hangs refuses those that waited behind; the other goes on"
    assert set(answered) <= {200, 503}
    raised = lasting.post("/predict", {**ROW, "loan_id": "raises", "income": -2.0}).json()
    assert raised["answers"][0]["fallback"] is True
    assert lasting.post("/predict", {**ROW, "loan_id": "sound"}).json()["answers"][0]["fallback"] is False
    until(lambda: "sound" in lasting.logged(), "what was answered last, in the log")
    assert "hangs" not in lasting.logged(), "what its client did not get is not logged as answered"
    assert len(lasting.events("process_restarted")) == restarted


def test_an_address_that_is_taken_and_workers_that_cannot_be_are_said(trained: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for workers in ("1", "2"):
            done = trained.alone("serve", "--workers", workers, "--port", str(taken.getsockname()[1]))
            assert (done.returncode, "Nobody can listen" in done.stderr) == (1, True)
    for words, told in ((["--workers", "0"], "at least one process"), (["--workers", "2", "app.py", "app.py"], "different names")):
        done = trained.run("serve", *words)
        assert (done.returncode, told in done.stderr) == (1, True)


def test_workers_that_cannot_begin_end_the_server(trained: Project, tmp_path: Path) -> None:
    """They were started again for ever, every 30 s, and nobody answered."""
    project = trained.copy(tmp_path / "keyless")
    project.edit("loudly.toml", "[server]", '[server]\nkeys = ["admin=env:NOBODY_SETS_THIS"]')
    done = project.alone("serve", "--workers", "2", "--port", str(free_port()))
    assert done.returncode == 1
    assert "Seen: env:NOBODY_SETS_THIS" in done.stderr
    assert "cannot begin, so nobody would answer" in " ".join(done.stderr.split())


def test_a_wheel_that_waits_for_another_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wheel.lock"
    with path.open("ab") as first, path.open("ab") as second:
        wait_for(first)
        assert capsys.readouterr().err == ""
        waiting = threading.Thread(target=wait_for, args=(second,), daemon=True)
        waiting.start()
        time.sleep(0.2)
        assert waiting.is_alive(), "one wheel at a time"
        first.close()
        waiting.join(PATIENCE)
        assert not waiting.is_alive()
    assert "LOUD another wheel turns" in " ".join(capsys.readouterr().err.split())
