"""`loudly serve --workers`: real processes, real clients, real kills; what was acknowledged is in the log, once."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

from live_server import free_port  # noqa: E402
from loudly.loop import traffic  # noqa: E402
from loudly.store.segments import read_segments  # noqa: E402
from loudly.store.sqlite_ledger import SqliteLedger  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="LOUD: processes are found by /proc; workers are tested on Linux alone"),
]

LOUDLY = str(Path(sys.executable).with_name("loudly"))
ROW = {"asked_at": "2026-01-01T00:00:00", "income": 30000.0, "debt": 9000.0, "region": "west", "purpose": "car"}
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
PATIENCE = 240.0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two versions, the first of which answers."""
    folder = tmp_path_factory.mktemp("trained")
    subprocess.run([LOUDLY, "init", "."], cwd=folder, check=True, capture_output=True)
    app = folder / "app.py"
    app.write_text(app.read_text().replace("app.labels(", ODD + "\n\napp.labels("))
    for command in (["train"], ["ship"], ["train"]):
        subprocess.run([LOUDLY, *command], cwd=folder, check=True, capture_output=True)
    toml = folder / "loudly.toml"
    toml.write_text(toml.read_text().replace("[server]", "[server]\ntick = 0.5\ndeadline = 3.0\ndrain = 1.0"))
    return folder


def until(holds: Callable[[], Any], what: str) -> Any:
    """Waits for it, as long as a busy machine may need."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if made := holds():
                return made
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"it did not come: {what}")


class Site:
    """A project that is served by workers."""

    def __init__(self, trained: Path, folder: Path, count: int = 2) -> None:
        self.folder, self.count = folder, count
        shutil.copytree(trained, folder)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.errors = folder / "errors.txt"
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        with self.errors.open("ab") as err:
            words = [LOUDLY, "serve", "--workers", str(self.count), "--port", str(self.port)]
            self.process = subprocess.Popen(words, cwd=self.folder, stderr=err)
        until(lambda: len(self.doors()) == self.count, "all workers")
        return self.process

    def doors(self) -> set[str]:
        """The workers that answer."""
        told = httpx.get(f"{self.url}/status", timeout=60).json()
        self.seen = {*getattr(self, "seen", ()), told["door"]} if self.process.poll() is None else set()
        return self.seen

    def pids(self, what: str) -> list[int]:
        found = []
        for path in Path("/proc").iterdir():
            if path.name.isdigit():
                try:
                    words = (path / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if f"loudly.app.{what}".encode() in words and str(self.folder).encode() in b" ".join(words):
                    found.append(int(path.name))
        return found

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) in (0, -signal.SIGTERM)
        assert not self.pids("worker")
        assert not self.pids("wheel")

    def logged(self) -> Counter[str]:
        records = read_segments(self.folder / ".loudly" / "traffic")
        return Counter(k for r in records if r.kind == "predictions" for k in traffic.from_bytes(r.payload)["loan_id"].to_list())

    def events(self, kind: str) -> list[dict[str, Any]]:
        ledger = SqliteLedger(self.folder / ".loudly" / "ledger.db")
        found = [dict(r.event.data) for r in ledger.read() if r.event.kind == kind]
        ledger.close()
        return found


@pytest.fixture
def site(trained: Path, tmp_path: Path) -> Iterator[Site]:
    made = Site(trained, tmp_path / "site")
    yield made
    made.process.kill()
    made.process.wait()
    until(lambda: not made.pids("worker") and not made.pids("wheel"), "children end when their parent is gone")


class Load:
    """Clients that ask without end, each row once; what they were answered, and what broke."""

    def __init__(self, site: Site, clients: int = 4) -> None:
        self.site, self.ended = site, threading.Event()
        self.acknowledged: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.broken: list[str] = []
        self.threads = [threading.Thread(target=self._ask, args=(f"c{i}",)) for i in range(clients)]

    def _ask(self, name: str) -> None:
        client, number = httpx.Client(base_url=self.site.url, timeout=60), 0
        while not self.ended.is_set():
            number += 1
            try:
                answer = client.post("/predict", json={**ROW, "loan_id": f"{name}-{number}"})
            except httpx.TransportError as gone:
                self.broken.append(type(gone).__name__)
                client.close()
                client = httpx.Client(base_url=self.site.url, timeout=60)
                self.ended.wait(0.05)
                continue
            self.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                self.acknowledged.append(f"{name}-{number}")
        client.close()

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        self.more(50)
        return self

    def more(self, answers: int) -> None:
        before = len(self.acknowledged)
        until(lambda: len(self.acknowledged) >= before + answers, f"{answers} more answers")

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()


def compare(site: Site, load: Load) -> None:
    logged = site.logged()
    assert not set(load.acknowledged) - set(logged), "acknowledged, and in no log"
    assert max(logged.values()) == 1, "taken over twice"
    assert set(load.statuses) == {200}


def test_a_worker_that_is_killed_under_load_loses_nothing_and_is_started_again(site: Site) -> None:
    with Load(site) as load:
        for _ in range(2):
            victim = site.pids("worker")[0]
            os.kill(victim, signal.SIGKILL)
            until(lambda v=victim: len(site.pids("worker")) == 2 and v not in site.pids("worker"), "another worker")
            load.more(50)
    site.stop()
    compare(site, load)
    assert [e["reason"] for e in site.events("process_restarted")] == ["killed by signal 9"] * 2
    assert len(re.findall(r"LOUD worker \d \(process \d+\)\s+killed\s+by\s+signal\s+9;", site.errors.read_text())) == 2


def test_while_the_wheel_is_away_answers_go_on_and_are_folded_once_when_it_returns(site: Site) -> None:
    with Load(site) as load:
        for _ in range(2):
            (victim,) = site.pids("wheel")
            os.kill(victim, signal.SIGKILL)
            load.more(50)
            spooled = httpx.post(f"{site.url}/feedback", json={"loan_id": load.acknowledged[-1], "late": True}, timeout=60).json()
            assert spooled["spooled"] == 1 or spooled["joined"] == 1
            until(lambda: not httpx.get(f"{site.url}/status", timeout=60).json()["wheel_away"], "the wheel's return")
            load.more(50)
    waiting = httpx.get(f"{site.url}/status", timeout=60).json()["waiting_for_labels"]
    assert waiting == len(load.acknowledged) - 2 + len(load.broken)
    assert not load.broken, "a wheel that dies breaks no connection"
    again = httpx.post(f"{site.url}/feedback", json=[{"loan_id": k, "late": False} for k in load.acknowledged[:30]], timeout=60)
    assert again.json()["unknown"] == 0
    site.stop()
    compare(site, load)
    assert [e["what"] for e in site.events("process_restarted")] == ["wheel", "wheel"]
    assert "answers go on as told last" in site.errors.read_text().replace("\n", " ")


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


def test_versions_change_in_every_worker_and_no_request_fails(site: Site) -> None:
    with Load(site) as load, httpx.Client(base_url=site.url, timeout=60) as client:
        for version in ("2", "1", "2"):
            said = {"version": version, "ledger": client.get("/status").json()["ledger"], "reason": "a test"}
            statuses = [client.post("/promote", json=said).status_code for _ in range(2)]
            assert statuses == [200, 409], "the second has read an old ledger"

            def answers(version: str = version) -> bool:
                asked = [httpx.post(f"{site.url}/predict", json={**ROW, "loan_id": f"v{time.monotonic_ns()}"}) for _ in range(20)]
                return {a.json()["answers"][0]["version"] for a in asked} == {f"loans/{version}"}

            until(answers, f"version {version} in every worker")
        assert client.post("/v2/repository/models/loans/versions/1/load").status_code == 200
        until(
            lambda: (
                {httpx.post(f"{site.url}/predict?version=1", json={**ROW, "loan_id": "p"}).status_code for _ in range(10)} == {200}
            ),
            "the version that was loaded, in every worker",
        )
        assert client.post("/v2/repository/models/loans/versions/1/unload").status_code == 200
        until(
            lambda: (
                {httpx.post(f"{site.url}/predict?version=1", json={**ROW, "loan_id": "p"}).status_code for _ in range(10)} == {404}
            ),
            "it is gone, in every worker",
        )
    assert not load.broken
    site.stop()
    compare(site, load)


def test_a_scrape_is_the_sum_whoever_answers_it_and_feedback_reaches_the_wheel_from_any_worker(site: Site) -> None:
    keys = [f"k{i}" for i in range(60)]
    for key in keys:
        assert httpx.post(f"{site.url}/predict", json={**ROW, "loan_id": key}, timeout=60).status_code == 200
    for _ in range(12):  # a connection each: whichever worker takes it
        until(lambda: _answered(httpx.get(f"{site.url}/metrics", timeout=60).text) == 60, "the sum")
        text = httpx.get(f"{site.url}/metrics", timeout=60).text
        assert 'loudly_rows_total{arm="control",version="loans/1"} 60.0' in text
    told = [httpx.post(f"{site.url}/feedback", json={"loan_id": key, "late": True}, timeout=60).json() for key in keys]
    assert sum(t["joined"] for t in told) == 60
    assert {httpx.get(f"{site.url}/status", timeout=60).json()["waiting_for_labels"] for _ in range(6)} == {0}
    os.kill(site.pids("worker")[0], signal.SIGKILL)
    until(lambda: site.events("process_restarted"), "the wheel writes it down")
    until(lambda: _answered(httpx.get(f"{site.url}/metrics", timeout=60).text) == 60, "what a dead worker counted still counts")


def _answered(text: str) -> float:
    found = re.findall(r'loudly_requests_total\{path="/predict",status="200"\} ([\d.]+)', text)
    return sum(map(float, found))


def test_a_model_that_hangs_or_raises_in_one_worker_costs_its_own_requests(site: Site) -> None:
    found: list[int] = []
    hanging = {**ROW, "loan_id": "hangs", "income": -1.0}
    asking = threading.Thread(target=lambda: found.append(httpx.post(f"{site.url}/predict", json=hanging, timeout=120).status_code))
    asking.start()
    answered = [httpx.post(f"{site.url}/predict", json={**ROW, "loan_id": f"k{i}"}, timeout=60).status_code for i in range(40)]
    asking.join()
    assert found == [503]
    assert answered.count(200) >= 20, "the worker that hangs refuses those that waited behind; the other goes on"
    assert set(answered) <= {200, 503}
    raised = httpx.post(f"{site.url}/predict", json={**ROW, "loan_id": "raises", "income": -2.0}, timeout=60).json()
    assert raised["answers"][0]["fallback"] is True
    assert httpx.post(f"{site.url}/predict", json={**ROW, "loan_id": "sound"}, timeout=60).json()["answers"][0]["fallback"] is False
    site.stop()
    assert "hangs" not in site.logged(), "what its client did not get is not logged as answered"
    assert json.dumps(site.events("process_restarted")) == "[]"


def test_an_address_that_is_taken_and_workers_that_cannot_be_are_said(trained: Path, site: Site) -> None:
    for words, told in (
        (["--workers", "2", "--port", str(site.port)], "Nobody can listen"),
        (["--workers", "0"], "at least one process"),
        (["--workers", "2", "app.py", "app.py"], "different names"),
    ):
        done = subprocess.run([LOUDLY, "serve", *words], cwd=site.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert told in done.stderr
