"""A server's life, as users have it: versions of `loudly serve` swapped under load, rolled back, told to stop under load.

The model is scikit-learn's boosting, served from its ONNX form; the project, ledger and log are files.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from servers import ours, world
from servers.load import Ask, NotRun, Server
from servers.ours import Setting
from servers.peers import NAMED
from servers.promises import Promises

PORT = 8736
CLIENTS, TICK_SECONDS = 16, 0.25
LOUDLY = [sys.executable, "-W", "ignore", "-c", "from loudly.cli.main import main; main()"]
APP = """
import loudly

app = loudly.App("bench", label="y", time="at", key="id", metric="roc_auc")


@app.data
def rows():
    return "rows.parquet"


@app.train(holdout="7d")
def fit(X, y):
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0).fit(X, y)


app.rollout("blue-green", deadline="60d")
"""
TOML = f"""
[store]
root = ".loudly"

[server]
tick = {TICK_SECONDS}
drain = 2.0
"""


@dataclass(slots=True)
class Clients:
    """Clients with kept connections that ask until the server is gone. failed: a status other than 200.  lost: no answer."""

    ask: Ask
    stop: bool = False
    answered: int = 0
    failed: list[int] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    versions: dict[str, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> Clients:
        """Begins."""
        self._threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def join(self, *, stop: bool = True) -> None:
        """Waits for the last answers."""
        self.stop = stop
        for thread in self._threads:
            thread.join(60)

    def _run(self, number: int) -> None:
        body = self.ask.body.replace("NUMBER", f"c{number}").encode()
        headers = {"Content-Type": "application/json", **self.ask.headers}
        connection: http.client.HTTPConnection | None = None
        while not self.stop:
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.ask.port, timeout=5)
                try:
                    connection.connect()
                except OSError:
                    return
            begun = time.perf_counter()
            try:
                connection.request("POST", self.ask.path, body, headers)
                answer = connection.getresponse()
                said = answer.read()
            except (OSError, http.client.HTTPException) as wrong:
                self.lost.append(f"{type(wrong).__name__}: {wrong}")
                connection = None
                continue
            self._note(answer.status, said, time.perf_counter() - begun)
            if answer.will_close:
                connection.close()
                connection = None

    def _note(self, status: int, said: bytes, seconds: float) -> None:
        self.answered += 1
        self.seconds.append(seconds)
        if status != 200:
            self.failed.append(status)
            return
        version = said.partition(b'"version":"')[2].partition(b'"')[0].decode()
        self.versions.setdefault(version, time.perf_counter())


def project(folder: Path) -> Path:
    """A project with one champion and one version more."""
    folder.mkdir()
    world.table().write_parquet(folder / "rows.parquet")
    (folder / "app.py").write_text(APP)
    (folder / "loudly.toml").write_text(TOML)
    for command in (["train"], ["ship"], ["train"]):
        loudly(folder, *command)
    return folder


def loudly(folder: Path, *said: str) -> str:
    """A command of the command line, to its end. Raises: NotRun."""
    done = subprocess.run([*LOUDLY, *said], cwd=folder, env=_env(), capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise NotRun(f"loudly {' '.join(said)} ended with {done.returncode}: {done.stdout[-300:]}{done.stderr[-300:]}")
    return done.stdout


def serve(folder: Path, expected: float) -> Server:
    """`loudly serve`, just started."""
    ask = Ask(PORT, "/predict", NAMED, expected, {})
    return Server("loudly-serve", [*LOUDLY, "serve", "--port", str(PORT)], ask, _env(), folder)


def swapping(folder: Path, expected: float, promises: Promises) -> None:
    """ship and rollback from the command line while clients ask."""
    server = serve(folder, expected)
    try:
        server.wait()
        clients = Clients(server.ask).start()
        time.sleep(1.0)
        for command, version in (("ship", "bench/2"), ("rollback", "bench/1")):
            clients.versions.clear()
            begun = time.perf_counter()
            loudly(folder, command, *(["2"] if command == "ship" else ["--reason", "benchmark"]))
            said = time.perf_counter() - begun
            while version not in clients.versions and time.perf_counter() - begun < 30:
                time.sleep(0.005)
            seen = clients.versions.get(version, float("nan")) - begun
            print(f"  loudly {command}: {said:.2f} s; first answer of {version} after {seen:.2f} s (tick {TICK_SECONDS} s)")
            time.sleep(1.0)
        clients.join()
    finally:
        server.stop()
    wrong = len(clients.failed) + len(clients.lost)
    print(f"  {clients.answered:,} answers while versions changed twice, {wrong} failed or lost {clients.lost[:2]}", flush=True)
    promises.add("swap of versions under load: failed requests", 0, wrong, "", most=True)


def stopping(folder: Path, expected: float, promises: Promises) -> None:
    """SIGTERM while clients ask."""
    lost = failed = answered = 0
    for _ in range(3):
        server = serve(folder, expected)
        try:
            server.wait()
            clients = Clients(server.ask).start()
            time.sleep(1.0)
            begun = time.perf_counter()
            server.process.terminate()
            server.process.wait(60)
            took = time.perf_counter() - begun
            clients.join(stop=False)
        finally:
            server.stop()
        lost, failed, answered = lost + len(clients.lost), failed + len(clients.failed), answered + clients.answered
        print(
            f"  SIGTERM: {clients.answered:,} answered, {len(clients.lost)} lost {clients.lost[:2]}, gone after {took:.2f} s",
            flush=True,
        )
    promises.add("SIGTERM under load: lost requests", 0, lost + failed, "", most=True)


def rolling_back(promises: Promises) -> None:
    """In the process that serves: from the decision to the routing that answers by it, with its event in the ledger."""
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        live = ours.wheel(Setting("fast"), Path(folder))
        version = list(live.state.versions)[-1]
        for _ in range(5):
            begun = time.perf_counter()
            live.roll_back(version, "benchmark")
            taken.append((time.perf_counter() - begun) * 1e3)
            assert live.router is not None
            assert not live.router.routing.candidates
            live.offer(version, "benchmark")
    print(f"  a rollback in the process takes {statistics.median(taken):.2f} ms", flush=True)
    promises.add("rollback: decision to routing, in the process", 100.0, statistics.median(taken), "ms", most=True)


def run(promises: Promises, folder: Path) -> None:
    """Prints all of it."""
    print("\nloudly serve, a scikit-learn model served from its ONNX form; ledger and log are files")
    try:
        expected = world.save(folder)["hgb"]
        made = project(folder / "project")
        expected = _said_by(made, expected)
        swapping(made, expected, promises)
        stopping(made, expected, promises)
    except NotRun as wrong:
        print(f"LOUD not run: {wrong}")
        promises.add("swap and stop of a server", 0, None, told=str(wrong)[:120])
    rolling_back(promises)


def _said_by(folder: Path, expected: float) -> float:
    """What the champion says of the row: it was fitted without the newest week, so not what the peers' model says."""
    server = Server(
        "loudly-first", [*LOUDLY, "serve", "--port", str(PORT)], Ask(PORT, "/predict", NAMED, expected, {}), _env(), folder
    )
    try:
        while True:
            try:
                status, body = server.ask.once()
            except OSError:
                if server.process.poll() is not None:
                    raise NotRun(f"loudly serve ended: {server.said()}") from None
                time.sleep(0.05)
                continue
            if status == 200:
                return float(json.loads(body)["answers"][0]["prediction"])
            raise NotRun(f"loudly serve answers {status}: {body[:300]!r}")
    finally:
        server.stop()


def _env() -> Mapping[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}
