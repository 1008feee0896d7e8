"""Processes under load: start, wait until the right answer comes, wrk, processor and memory of the whole tree, stop."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 8.0
TICKS = os.sysconf("SC_CLK_TCK")
LUA = """
local n = 0
local path, before, after = %s, %s, %s
wrk.method = "POST"
%s
request = function()
  n = n + 1
  return wrk.format(nil, path, nil, after == "" and before or before .. n .. after)
end
"""


class NotRun(Exception):
    """A server that could not be made, started or trusted. It is named in the table, and never left out in silence."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. "NUMBER" in the body becomes the number of the request.  expected: a number that must stand in the answer."""

    port: int
    path: str
    body: str
    expected: float
    headers: Mapping[str, str]

    def once(self, seconds: float = 5.0) -> tuple[int, bytes]:
        """Status and body of one answer. Raises: OSError where none came."""
        headers = {"Content-Type": "application/json", **self.headers}
        data = self.body.replace("NUMBER", "0").encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{self.path}", data, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()

    def script(self, folder: Path) -> Path:
        """For wrk."""
        headers = "\n".join(f'wrk.headers["{k}"] = "{v}"' for k, v in {"Content-Type": "application/json", **self.headers}.items())
        path = folder / f"ask{self.port}.lua"
        before, _, after = self.body.partition("NUMBER")
        path.write_text(LUA % (json.dumps(self.path), f"[=[{before}]=]", f"[=[{after}]=]", headers))
        return path


@dataclass(frozen=True, slots=True)
class Run:
    """One run of wrk. cpu: µs of processor a request, of the server's whole tree."""

    rate: float
    p50: float
    p99: float
    cpu: float


class Server:
    """A server in a process group of its own, and all that it starts."""

    def __init__(self, name: str, command: Sequence[str], ask: Ask, env: Mapping[str, str], folder: Path) -> None:
        self.name, self.ask, self.folder = name, ask, folder
        self.log = folder / f"{name}.log"
        self._pids: set[int] = set()
        self.begun = time.perf_counter()
        whole = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **env}
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                list(command), cwd=folder, env=whole, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait(self, seconds: float = 120.0) -> float:
        """Seconds from the start to the first right answer. Raises: NotRun."""
        status, body = 0, b""
        while time.perf_counter() - self.begun < seconds:
            try:
                status, body = self.ask.once()
                if status == 200:
                    took = time.perf_counter() - self.begun
                    break
            except OSError:
                if self.process.poll() is not None:
                    raise NotRun(f"ended with {self.process.returncode}: {self.said()}") from None
            time.sleep(0.01)
        else:
            raise NotRun(f"no answer within {seconds:g} s; last status {status} {body[:200]!r}: {self.said()}")
        numbers = [float(n) for n in re.findall(rb"-?\d+\.\d+(?:[eE][-+]?\d+)?", body)]
        if not any(abs(n - self.ask.expected) < 1e-5 for n in numbers):
            raise NotRun(f"its answer does not hold {self.ask.expected:.7f}: {body[:300]!r}")
        return took

    def said(self) -> str:
        """The last words of its log."""
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-4:])[-500:]

    def tree(self) -> set[int]:
        """Its process and all that came of it, also those whose parent has ended since they were first seen."""
        children: dict[int, list[int]] = {}
        for pid, fields in _stats():
            children.setdefault(int(fields[1]), []).append(pid)
        alive = {pid for pids in children.values() for pid in pids}
        self._pids = {pid for pid in self._pids | {self.process.pid} if pid in alive}
        new = list(self._pids)
        while new:
            found = [c for c in children.get(new.pop(), ()) if c not in self._pids]
            self._pids.update(found)
            new.extend(found)
        return set(self._pids)

    def cpu(self) -> float:
        """Seconds of processor that the tree has used."""
        tree = self.tree()
        return sum(int(f[11]) + int(f[12]) for pid, f in _stats() if pid in tree) / TICKS

    def megabytes(self) -> float:
        """Its proportional share of memory (PSS), the whole tree."""
        return sum(_pss(pid) for pid in self.tree()) / 1024

    def load(self, connections: int, seconds: float) -> Run:
        """wrk, and longer where it gets hardly an answer. Raises: NotRun at the first answer that is not 2xx."""
        script = self.ask.script(self.folder)
        spent = self.cpu()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "60s", "--latency", "-s", str(script)]
        told = subprocess.run([*command, f"http://127.0.0.1:{self.ask.port}"], capture_output=True, text=True, check=True).stdout
        used = self.cpu() - spent
        if "Non-2xx" in told or "Socket errors" in told:
            raise NotRun(f"answers that are not 2xx at {connections} connections: {' '.join(told.split()[-25:])}: {self.said()}")
        count = int(_found(r"(\d+) requests in", told)[1])
        if count < 2 * connections and seconds < PATIENCE_SECONDS:
            return self.load(connections, min(PATIENCE_SECONDS, 4 * seconds))
        if count == 0:
            raise NotRun(f"not one answer in {seconds:g} s at {connections} connections: {self.said()}")
        rate = float(_found(r"Requests/sec:\s+([\d.]+)", told)[1])
        p50, p99 = (_ms(_found(rf"{p}%\s+([\d.]+)(us|ms|s|m)", told)) for p in (50, 99))
        return Run(rate, p50, p99, used / count * 1e6)

    def stop(self, seconds: float = 20.0) -> None:
        """SIGTERM to what was started, SIGKILL to whatever of the tree is left."""
        tree = self.tree()
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        for pid in sorted(tree | self.tree()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


def _found(pattern: str, text: str) -> re.Match[str]:
    found = re.search(pattern, text)
    if found is None:
        raise NotRun(f"wrk said no {pattern}: {text[-300:]}")
    return found


def _ms(found: Any) -> float:
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}[found[2]]


def _stats() -> Iterator[tuple[int, list[str]]]:
    """pid -> the fields of /proc/PID/stat after the name; zombies are left out."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            yield int(path.parent.name), fields


def _pss(pid: int) -> int:
    try:
        return int(_found(r"Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())[1])
    except (OSError, NotRun):
        return 0
