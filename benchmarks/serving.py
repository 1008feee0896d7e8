"""One row of 30 features a request over real HTTP: loudly with everything on, as a ratio to named peers measured in the same run.

Everything on: validation, API keys, a rate limit, request ids, router, metrics, every answer logged durably and folded into the
monitor's profiles, and one shadow that scores every row. The peers do none of that. Each has an environment of its own, made here
with uv under the system's temporary folder, the same model, and its own batching where it has some. Load: wrk (apt-get install
wrk), loopback, on one machine with the servers; ours and the peer take turns, a ratio is the median of its rounds. An answer that
is not 2xx ends the comparison. A peer that cannot be installed or started is named as not run.

Run: python benchmarks/serving.py [--peers fastapi,mlflow] [--seconds 3] [--rounds 3] [--connections 1,16,64] [--only peers,log]
Exit code: 0 all promises held, 1 some failed, 3 none failed and some were not run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from servers import lifecycle, ours, parts, peers, world, writing
from servers.load import NotRun, Run, Server
from servers.ours import Setting
from servers.promises import Promises

PORT, SECOND_PORT = 8731, 8732
WARM_SECONDS = 1.0
SECTIONS = ("peers", "log", "lifecycle", "parts")
NAMES = {
    "hgb": "scikit-learn, batched",
    "fast": "its ONNX form, unbatched",
    "lgbm": "LightGBM",
    "none": "no cost",
}


@dataclass(frozen=True, slots=True)
class Duel:
    """Ours against a peer, or against ourselves. asked: connections -> the ratio of requests a second that was promised."""

    ours: Setting
    peer: str | Setting
    asked: Mapping[int, float] = field(default_factory=dict)

    @property
    def other(self) -> str:
        return self.peer if isinstance(self.peer, str) else f"ourselves, {self.peer.name}"


BATCHED = {
    "fastapi": {1: 0.9, 16: 4.0, 64: 8.0},
    "mlflow": {16: 10.0, 64: 10.0},
    "mlflow-signature": {16: 50.0, 64: 50.0},
    "ray": {16: 15.0, 64: 15.0},
    "ray-batched": {16: 15.0, 64: 15.0},
    "ray-haproxy": {16: 4.0, 64: 4.0},
    "ray-haproxy-batched": {16: 4.0, 64: 4.0},
    "bentoml": {16: 4.0, 64: 4.0},
    "litserve": {16: 3.5, 64: 3.5},
    "mlserver": {16: 2.0, 64: 2.0},
    "triton": {16: 2.0, 64: 2.0},
}
DUELS = (
    Duel(Setting("none", "inline"), "fastapi", {1: 2.0, 16: 2.0, 64: 2.0}),
    Duel(Setting("none", "inline"), Setting("none", "inline", off=True), {1: 0.85, 16: 0.85, 64: 0.85}),
    Duel(Setting("none"), "fastapi"),
    Duel(Setting("none"), Setting("none", off=True)),
    Duel(Setting("fast", "one"), "fastapi", {16: 10.0}),
    *(Duel(Setting("hgb"), name, asked) for name, asked in BATCHED.items()),
    *(Duel(Setting("lgbm"), name, asked) for name, asked in BATCHED.items()),
)


@dataclass(frozen=True, slots=True)
class Given:
    """How long and how often."""

    seconds: float
    rounds: int
    connections: Sequence[int]


def turns(servers: Sequence[Server], connections: int, given: Given) -> list[list[Run]]:
    """Rounds of wrk, the servers in turn: for each server its runs. Raises: NotRun."""
    runs: list[list[Run]] = [[] for _ in servers]
    for server in servers:
        server.load(connections, WARM_SECONDS)
    for _ in range(given.rounds):
        for server, found in zip(servers, runs, strict=True):
            found.append(server.load(connections, given.seconds))
    return runs


def middle(runs: Sequence[Run]) -> Run:
    """The median of each figure."""
    rate, p50, p99, cpu = (statistics.median(getattr(r, name) for r in runs) for name in ("rate", "p50", "p99", "cpu"))
    return Run(rate, p50, p99, cpu)


class Comparison:
    """Keeps one server of ours up while peers come and go."""

    def __init__(self, given: Given, folder: Path, promises: Promises) -> None:
        self.given, self.folder, self.promises = given, folder, promises
        self.expected = world.save(folder)
        self._up: tuple[Setting, Server] | None = None

    def ours(self, setting: Setting) -> Server:
        """Our server with a setting, started unless it is up. Raises: NotRun."""
        if self._up is None or self._up[0] != setting:
            self.close()
            server = ours.start(setting, PORT, self.expected, self.folder)
            self._up = (setting, server)
            server.wait()
        return self._up[1]

    def close(self) -> None:
        """Stops what is up."""
        if self._up is not None:
            self._up[1].stop()
        self._up = None

    def run(self, duel: Duel) -> dict[int, list[list[Run]]]:
        """Connections -> runs of ours and of the other; prints them and adds the promises."""
        theirs: Server | None = None
        found: dict[int, list[list[Run]]] = {}
        wrong = ""
        try:
            mine = self.ours(duel.ours)
            theirs = self._start(duel)
            patience = peers.PEERS[duel.peer].patience if isinstance(duel.peer, str) else 120.0
            print(f"\n{duel.ours.name} against {duel.other}: ready after {theirs.wait(patience):.1f} s, ", end="")
            print(f"{theirs.megabytes():.0f} MB (ours {mine.megabytes():.0f} MB, the benchmark's training included)")
            for connections in self.given.connections:
                found[connections] = turns((mine, theirs), connections, self.given)
                self._show(duel, connections, found[connections])
        except (NotRun, OSError, subprocess.SubprocessError) as said:
            wrong = f"{type(said).__name__}: {said}"
            print(f"\nLOUD not run: {duel.ours.name} against {duel.other}: {wrong}", flush=True)
        finally:
            if theirs is not None:
                theirs.stop()
        for connections, asked in duel.asked.items():
            if connections in self.given.connections:
                got = _ratio(found[connections]) if connections in found else None
                what = f"{NAMES[duel.ours.kind]} ({duel.ours.ask}) / {duel.other}, {connections} connections"
                self.promises.add(what, asked, got, told="" if got is not None else wrong[:120])
        return found

    def _start(self, duel: Duel) -> Server:
        if isinstance(duel.peer, str):
            model = duel.ours.model
            return peers.start(duel.peer, model, self.expected[model], self.folder, self.folder)
        return ours.start(duel.peer, SECOND_PORT, self.expected, self.folder)

    @staticmethod
    def _show(duel: Duel, connections: int, runs: Sequence[Sequence[Run]]) -> None:
        for name, one in zip(("loudly", duel.other), map(middle, runs), strict=True):
            print(
                f"{connections:>4} connections  {name[:34]:<34} {one.rate:>8,.0f} requests/s  p50 {one.p50:7.2f} ms"
                f"  p99 {one.p99:8.2f} ms  {one.cpu:7.0f} µs of processor a request"
            )
        print(f"{'':<18}{_ratio(runs):.2f} x the requests, {_used(runs):.2f} x the processor", flush=True)


def _ratio(runs: Sequence[Sequence[Run]]) -> float:
    return float(statistics.median(a.rate / b.rate for a, b in zip(*runs, strict=True)))


def _used(runs: Sequence[Sequence[Run]]) -> float:
    return float(statistics.median(a.cpu / max(1e-9, b.cpu) for a, b in zip(*runs, strict=True)))


def logging_costs(comparison: Comparison) -> None:
    """Everything on with and without the log: the share that is kept, what a request pays, and its slowest hundredth."""
    duel = Duel(Setting("none", "inline"), Setting("none", "inline", log=False), {16: 0.97})
    runs = comparison.run(duel).get(16)
    cpu = p99 = None
    if runs is not None:
        cpu = statistics.median(a.cpu - b.cpu for a, b in zip(*runs, strict=True))
        p99 = statistics.median(a.p99 - b.p99 for a, b in zip(*runs, strict=True))
    comparison.promises.add("durable log: processor a request", 2.0, cpu, "µs", most=True)
    comparison.promises.add("durable log: on the slowest hundredth", 1.0, p99, "ms", most=True)
    writing.run(comparison.promises)


def main() -> int:
    """Runs what the arguments say."""
    said = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said.add_argument("--peers", default=",".join(peers.PEERS), help="which, or none; by default all")
    said.add_argument("--models", default=",".join(NAMES), help="of ours: " + ", ".join(NAMES))
    said.add_argument("--seconds", type=float, default=3.0)
    said.add_argument("--rounds", type=int, default=3)
    said.add_argument("--connections", default="1,16,64")
    said.add_argument("--only", default=",".join(SECTIONS))
    given = said.parse_args()
    wanted, models, sections = (set(filter(None, text.split(","))) for text in (given.peers, given.models, given.only))
    for name, known in (*((n, {*peers.PEERS, "none"}) for n in wanted), *((m, set(NAMES)) for m in models)):
        if name not in known:
            said.error(f"{name!r} is none of {', '.join(sorted(known))}")
    if shutil.which("wrk") is None:
        raise SystemExit("This benchmark needs wrk: apt-get install wrk")
    promises = Promises()
    with tempfile.TemporaryDirectory() as folder:
        how = Given(given.seconds, given.rounds, [int(c) for c in given.connections.split(",")])
        comparison = Comparison(how, Path(folder), promises)
        try:
            for duel in DUELS if "peers" in sections else ():
                if duel.ours.kind in models and (isinstance(duel.peer, Setting) or duel.peer in wanted):
                    comparison.run(duel)
            if "log" in sections:
                logging_costs(comparison)
        finally:
            comparison.close()
        if "lifecycle" in sections:
            lifecycle.run(promises, Path(folder))
        if "parts" in sections:
            parts.run()
    return promises.show()


if __name__ == "__main__":
    raise SystemExit(main())
