"""A project that real processes serve, and clients that ask them without end."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

from command_line import LOUDLY, ROW, Project, free_port  # noqa: E402
from loudly.loop import traffic  # noqa: E402
from loudly.store.segments import read_segments  # noqa: E402
from loudly.store.sqlite_ledger import SqliteLedger  # noqa: E402
from waiting import PATIENCE, until  # noqa: E402

OF_PROCESSES = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="LOUD: processes are found by /proc; workers are tested on Linux alone"),
]
PAUSE = 0.005  # between the requests of a client: what is tested needs requests under way, not all of the processors


class Site:
    """A project that is served, by workers or (count 0) by one process."""

    def __init__(self, trained: Project, folder: Path, count: int = 2) -> None:
        self.project, self.count = trained.copy(folder), count
        self.folder = self.project.folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.errors = folder / "errors.txt"
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        with self.errors.open("ab") as err:
            words = [LOUDLY, "serve", "--port", str(self.port), *(["--workers", str(self.count)] if self.count else [])]
            self.process = subprocess.Popen(words, cwd=self.folder, stderr=err)
        if self.count:
            until(lambda: len(self.doors()) == self.count, "all workers")
        else:
            until(lambda: self.get("/ready").status_code == 200, "the server")
        return self.process

    def doors(self) -> set[str]:
        """The workers that answer."""
        told = self.get("/status").json()
        self.seen = {*getattr(self, "seen", ()), told["door"]} if self.process.poll() is None else set()
        return self.seen

    def get(self, path: str) -> Any:
        """Over a connection of its own, which any worker may take."""
        return httpx.get(f"{self.url}{path}", timeout=120, verify=False)

    def post(self, path: str, body: Any) -> Any:
        return httpx.post(f"{self.url}{path}", json=body, timeout=120, verify=False)

    def waiting(self) -> int:
        """Answers that wait for their label."""
        return int(self.get("/status").json()["waiting_for_labels"])

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

    def records(self, kind: str) -> list[bytes]:
        """What the traffic log holds of a kind."""
        return [r.payload for r in read_segments(self.folder / ".loudly" / "traffic") if r.kind == kind]

    def logged(self) -> Counter[str]:
        return Counter(k for payload in self.records("predictions") for k in traffic.from_bytes(payload)["loan_id"].to_list())

    def events(self, kind: str) -> list[dict[str, Any]]:
        ledger = SqliteLedger(self.folder / ".loudly" / "ledger.db")
        found = [dict(r.event.data) for r in ledger.read() if r.event.kind == kind]
        ledger.close()
        return found


@contextmanager
def serving(trained: Project, folder: Path, count: int = 2) -> Iterator[Site]:
    made = Site(trained, folder, count)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
    until(lambda: not made.pids("worker") and not made.pids("wheel"), "children end when their parent is gone")


class Load:
    """Clients that ask without end, each row once; what they were answered, and what broke."""

    numbers = itertools.count()

    def __init__(self, site: Site, clients: int = 4) -> None:
        self.site, self.ended, number = site, threading.Event(), next(self.numbers)
        self.acknowledged: list[str] = []
        self.when: dict[str, float] = {}
        self.statuses: Counter[int] = Counter()
        self.broken: list[str] = []
        self.threads = [threading.Thread(target=self._ask, args=(f"{number}c{i}",)) for i in range(clients)]

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
                self.when[f"{name}-{number}"] = time.monotonic()
                self.acknowledged.append(f"{name}-{number}")
            self.ended.wait(PAUSE)
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
    """What was acknowledged is in the log, which a running wheel may still be writing, and no row stands there twice."""
    assert set(load.statuses) == {200}
    if site.process.poll() is None:
        until(lambda: not set(load.acknowledged) - set(site.logged()), "what was acknowledged, in the log")
    logged = site.logged()
    assert not set(load.acknowledged) - set(logged), "acknowledged, and in no log"
    assert max(logged[k] for k in load.acknowledged) == 1, "taken over twice"
