"""The real server under a mix of good and bad clients for some minutes: memory stays flat, and no answer is a 5xx.

`loudly serve` of a fresh project in a process of its own, over real HTTP: one row, many rows, columns, labels, the watchful paths,
explanations, and garbage: half a body, 100 MB (announced and in pieces), JSON nested 100,000 deep, wrong types, 10,000 unknown
columns, bytes that are no HTTP. Answered rows wait for their label and labelled ones for the next fit, all but 20,000 of each in
files; an index of each stays in memory. So the bound on the growth after the warm-up (the first fifth) has a part that is free
(pools of allocators), and some bytes for each answered row. Slope: least squares over RSS, read each second.

Run: python benchmarks/soak.py [--minutes 10] [--clients 4] [--rate 10]
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

LOUDLY = str(Path(sys.executable).with_name("loudly"))
FREE_MIB, BYTES_A_ROW, WARM = 24.0, 100, 0.2
MIB = 2**20
MANY = 200
LARGE = 100 * MIB
JSON = {"Content-Type": "application/json"}
PLACES = ("west", "north", "south")
WRONG: tuple[Any, ...] = (None, [], {}, "x", True, 1e999, -5, [[]], {"a": 1})


@dataclass
class Tally:
    """What the clients saw. `asked`: (kind, status) -> how often; status 0 is a connection that was cut."""

    asked: Counter[tuple[str, int]] = field(default_factory=Counter)
    rows: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, status: int, rows: int = 0) -> None:
        with self.lock:
            self.asked[kind, status] += 1
            self.rows += rows


class Client:
    """One client: asks by a mix, each request by its own chance."""

    def __init__(self, port: int, name: str, tally: Tally, seed: int) -> None:
        self.port, self.name, self.tally, self.random = port, name, tally, random.Random(seed)
        self.connection = self._connect()
        self.keys: list[str] = []
        self.number = 0

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self) -> None:
        """One request, of any kind."""
        works: tuple[tuple[Callable[[], None], float], ...] = (
            (self.one, 40),
            (self.many, 6),
            (self.columns, 4),
            (self.labels, 15),
            (self.watch, 6),
            (self.explain, 2),
            (self.wrong_types, 8),
            (self.deep, 3),
            (self.unknown_columns, 3),
            (self.half, 2),
            (self.no_http, 2),
            (self.tensors, 4),
            (self.large, 0.15),
        )
        kinds, weights = zip(*works, strict=True)
        self.random.choices(kinds, weights)[0]()

    def row(self) -> dict[str, Any]:
        self.number += 1
        key = f"{self.name}-{self.number}"
        self.keys.append(key)
        made = {"loan_id": key, "asked_at": "2026-01-01T00:00:00", "income": self.random.uniform(1e4, 9e4)}
        return {**made, "debt": self.random.uniform(0, 3e4), "region": self.random.choice(PLACES), "purpose": "car"}

    def send(self, kind: str, method: str, path: str, body: bytes | Iterator[bytes] | None = None, rows: int = 0) -> int:
        """Asks and tallies; a connection that the server has closed is made anew."""
        try:
            self.connection.request(method, path, body, JSON, encode_chunked=not isinstance(body, bytes) and body is not None)
            answer = self.connection.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):
            self.connection.close()
            self.connection, status = self._connect(), 0
        self.tally.add(kind, status, rows if status == 200 else 0)
        return status

    def post(self, kind: str, path: str, content: Any, rows: int = 0) -> int:
        return self.send(kind, "POST", path, json.dumps(content).encode(), rows)

    def one(self) -> None:
        self.post("one row", "/predict", self.row(), 1)

    def many(self) -> None:
        self.post("many rows", "/predict", [self.row() for _ in range(MANY)], MANY)

    def columns(self) -> None:
        rows = [self.row() for _ in range(10)]
        self.post("columns", "/predict", {"columns": {name: [r[name] for r in rows] for name in rows[0]}}, 10)

    def labels(self) -> None:
        keys, self.keys = self.keys, []
        if keys:
            self.post("labels", "/feedback", [{"loan_id": k, "late": self.random.random() < 0.3} for k in keys])

    def watch(self) -> None:
        path = self.random.choice(("/health", "/ready", "/status", "/metrics", "/openapi.json", "/docs", "/v2", "/nowhere"))
        self.send("watching", "GET", path)

    def explain(self) -> None:
        row = self.row()
        self.keys.pop()
        self.post("explain", "/explain", row)

    def wrong_types(self) -> None:
        row = self.row()
        self.keys.pop()
        row[self.random.choice(list(row))] = self.random.choice(WRONG)
        self.post("wrong types", self.random.choice(("/predict", "/feedback", "/explain")), row)

    def deep(self) -> None:
        self.send("deep", "POST", self.random.choice(("/predict", "/feedback")), b'{"loan_id":' + b"[" * 100_000)

    def unknown_columns(self) -> None:
        self.post("10,000 unknown columns", "/predict", {**{f"u{i}": i for i in range(10_000)}, **self.row()}, 1)

    def tensors(self) -> None:
        body: dict[str, Any] = {"inputs": [{"name": "income", "datatype": "FP64", "shape": [1], "data": [1.0]}]}
        self.post("tensors that lack", "/v2/models/loans/infer", body)

    def half(self) -> None:
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as door:
            door.sendall(head + b'{"loan_id":')
            if self.random.random() < 0.5:
                self.tally.add("half a body, left", 0)
                return
            told = b""
            while piece := door.recv(4096):
                told += piece
            self.tally.add("half a body, waits", int(told.split(b" ", 2)[1]))

    def no_http(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as door:
            door.sendall(self.random.randbytes(200) + b"\r\n\r\n")
            told = door.recv(4096)
            self.tally.add("no HTTP", int(told.split(b" ", 2)[1]) if told.startswith(b"HTTP/") else 0)

    def large(self) -> None:
        piece = b" " * MIB
        pieces = (piece for _ in range(LARGE // MIB))
        if self.random.random() < 0.5:
            self.send("100 MB in pieces", "POST", "/predict", pieces)
        else:
            self.send("100 MB", "POST", "/predict", piece * (LARGE // MIB))


def main() -> int:
    """Drives the server and prints what came of it; 1 where a bound does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second of each client, at most")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        port = _free_port()
        process = _serve(Path(folder), port)
        try:
            tally, memory = _drive(process, port, given.minutes * 60, given.clients, given.rate)
            process.send_signal(signal.SIGTERM)
            ended = process.wait(60)
        finally:
            process.kill()
            process.wait()
    return _report(tally, memory, ended)


def _drive(process: Any, port: int, seconds: float, clients: int, rate: float) -> tuple[Tally, list[tuple[float, int, int]]]:
    """Runs the clients. Returns what they saw, and (seconds, bytes of RSS, rows answered) for each second."""
    tally, stop = Tally(), threading.Event()

    def client(index: int) -> None:
        asking = Client(port, f"c{index}", tally, seed=index)
        while not stop.is_set():
            begun = time.perf_counter()
            asking.ask()
            stop.wait(max(0.0, 1 / rate - (time.perf_counter() - begun)))

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    begun, memory = time.perf_counter(), []
    while (now := time.perf_counter() - begun) < seconds and process.poll() is None:
        memory.append((now, _rss(process.pid), tally.rows))
        time.sleep(1.0)
    stop.set()
    for thread in threads:
        thread.join()
    return tally, memory


def _report(tally: Tally, memory: list[tuple[float, int, int]], ended: int) -> int:
    for kind, status in sorted(tally.asked):
        print(f"{kind:24} {status or 'cut':>4} {tally.asked[kind, status]:9,}")
    table = np.array(memory, dtype=np.float64)
    after = table[table[:, 0] >= WARM * table[-1, 0]]
    slope = float(np.polyfit(after[:, 0], after[:, 1], 1)[0])
    minutes = float(after[-1, 0] - after[0, 0]) / 60
    rows = float(after[-1, 2] - after[0, 2])
    grown, allowed = slope * minutes * 60 / MIB, FREE_MIB + rows * BYTES_A_ROW / MIB
    print(f"\n{sum(tally.asked.values()):,} requests, {tally.rows:,} rows answered, {table[-1, 0] / 60:.1f} minutes")
    first, last, most = after[0, 1] / MIB, after[-1, 1] / MIB, after[:, 1].max() / MIB
    print(f"RSS {first:.0f} MiB after the warm-up, {last:.0f} MiB at the end, {most:.0f} MiB at most")
    print(f"slope {slope * 60 / MIB:+.2f} MiB a minute over {minutes:.1f} minutes and {rows:,.0f} rows: {grown:+.1f} MiB")
    print(f"bound {allowed:.1f} MiB: {FREE_MIB:g} free and {BYTES_A_ROW} bytes for each answered row")
    wrong = [f"{kind}: {status}" for kind, status in tally.asked if status >= 500]
    cut = [kind for kind, status in tally.asked if status == 0 and kind not in ("half a body, left", "no HTTP")]
    failed = [*wrong, *(f"{kind}: cut" for kind in cut), *(["memory grows"] if grown > allowed else [])]
    failed += [f"the server ended with {ended}"] if ended not in (0, -signal.SIGTERM) else []
    failed += [] if tally.rows else ["no row was answered"]
    print("PASS" if not failed else f"FAIL: {', '.join(failed)}")
    return 1 if failed else 0


def _serve(folder: Path, port: int) -> Any:
    """A fresh project, served; ready."""
    for command in (["init", "."], ["train"], ["ship"]):
        subprocess.run([LOUDLY, *command], cwd=folder, check=True, capture_output=True)
    toml = folder / "loudly.toml"
    said = toml.read_text().replace("[store]", "[store]\nrows_in_memory = 20_000")
    toml.write_text(said.replace("[server]", "[server]\nslow = 10.0\ndrain = 0.5\ntick = 1.0"))
    process = subprocess.Popen([LOUDLY, "serve", "--port", str(port)], cwd=folder, stderr=subprocess.DEVNULL)
    for _ in range(1200):
        try:
            asking = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            asking.request("GET", "/ready")
            if asking.getresponse().status == 200:
                return process
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise SystemExit("the server did not come up")


def _rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    raise SystemExit(main())
