"""From the start of a process to its first 200 on /ready, and the memory it holds then, later, and after a window was judged.

`loudly serve` of three projects, each with a champion of 100 trees and 30 features: an ONNX graph, LightGBM, and scikit-learn's
boosting served from its ONNX form. Beside them, in turns: the floor (an interpreter that imports NumPy, Polars, ONNX Runtime and
uvicorn, and does nothing), and a peer (FastAPI around ONNX Runtime with the same graph: no log, no monitor, no wheel). Of all the
median is told. Memory is resident, in brackets what is the process's own (code of libraries is shared, and its pages come and go).

Then rows come, four in 20 ms on one connection, until a window of them has been judged: only now scipy is imported, on the
wheel's own thread. The slowest answers until then and afterwards are told.

Run: python benchmarks/start.py [--rounds 5]
Exit code: 0 all promises held, 1 some failed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
# An installed package has its bytecode; a checkout may be told not to write it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import polars as pl
from servers import world
from servers.lifecycle import LOUDLY, loudly
from servers.promises import Promises

from loudly.adapters.onnx_trees import OnnxTrees
from loudly.app.project import load_app
from loudly.app.verbs import events, using_stores
from loudly.core.clock import WallClock, iso

PORT, PATIENCE_SECONDS, LOOK_SECONDS, AFTER_SECONDS = 8741, 60.0, 0.002, 8.0
REQUESTS, BURST, PAUSE_SECONDS, LOOK_AGAIN_SECONDS = 1000, 4, 0.02, 1.0
WINDOW_SECONDS = 10
HERE = Path(__file__).parent
FITS = {
    "onnx": "from loudly.adapters.onnx_format import OnnxModel; return OnnxModel(HERE.joinpath('graph.onnx').read_bytes())",
    "lightgbm": "import lightgbm as m; return m.LGBMClassifier(n_estimators=100, n_jobs=1, verbose=-1, random_state=0).fit(X, y)",
    "scikit-learn": "from sklearn.ensemble import HistGradientBoostingClassifier as M; return M(random_state=0).fit(X, y)",
}
APP = f"""
from pathlib import Path

import loudly
from loudly.core.clock import SECOND
from loudly.monitor.settings import MonitorSettings

HERE = Path(__file__).parent
app = loudly.App("bench", label="y", time="at", key="id", metric="roc_auc")
app.data(lambda: HERE / "rows.parquet")
app.monitor(MonitorSettings(window={WINDOW_SECONDS} * SECOND, lateness=0))


@app.train(holdout="7d")
def fit(X, y):
    FIT
"""
TOML = "[server]\ntick = 0.5\ndrain = 0.1\n"
FLOOR = """
import time, numpy, polars, onnxruntime, uvicorn
print(flush=True)
time.sleep(60)
"""


@dataclass(frozen=True, slots=True)
class Held:
    """Memory of a process in MB: resident, and of it its own."""

    resident: float
    own: float

    def __str__(self) -> str:
        return f"{self.resident:4.0f} ({self.own:3.0f})"


def held(process: subprocess.Popen[str]) -> Held:
    """What a process holds now."""
    told = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    found = {name: int(kb) / 1024 for name, kb in re.findall(r"^(\w+):\s+(\d+) kB", told, re.MULTILINE)}
    return Held(found["Rss"], found["Anonymous"])


def started(command: Sequence[str], folder: Path) -> tuple[subprocess.Popen[str], float]:
    """The process, and when it was started."""
    begun = time.perf_counter()
    told = (folder / "said.log").open("w")
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=told, text=True), begun


def ready(process: subprocess.Popen[str]) -> None:
    """Waits for the first 200 on /ready."""
    end = time.perf_counter() + PATIENCE_SECONDS
    while time.perf_counter() < end and process.poll() is None:
        line = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
        try:
            line.request("GET", "/ready")
            if line.getresponse().status == 200:
                return
        except OSError:
            time.sleep(LOOK_SECONDS)
        finally:
            line.close()
    raise SystemExit(f"{process.args!r} was not ready: it ended with {process.poll()}")


def imported(process: subprocess.Popen[str]) -> None:
    """Waits for the floor's line."""
    assert process.stdout is not None
    process.stdout.readline()


class Client:
    """Asks on one connection; all rows are alike, so the first window judged is told. seconds: of each answer."""

    def __init__(self) -> None:
        self._line = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
        self._number = 0
        self.seconds: list[float] = []

    def ask(self, count: int) -> None:
        """So many rows that come now."""
        for _ in range(count):
            self._number += 1
            row = {"id": f"r{self._number}", "at": iso(WallClock().now()), **dict(zip(world.FEATURES, world.ROW, strict=True))}
            begun = time.perf_counter()
            self._line.request("POST", "/predict", json.dumps(row), {"Content-Type": "application/json"})
            answer = self._line.getresponse()
            answer.read()
            self.seconds.append(time.perf_counter() - begun)
            assert answer.status == 200

    def until(self, holds: Callable[[], bool]) -> list[float]:
        """Bursts of rows until something holds; milliseconds of each answer."""
        self.seconds.clear()
        begun = time.perf_counter()
        while True:
            looked = time.perf_counter()
            while time.perf_counter() - looked < LOOK_AGAIN_SECONDS:
                self.ask(BURST)
                time.sleep(PAUSE_SECONDS)
            if holds():
                return [1e3 * s for s in self.seconds]
            if looked - begun > PATIENCE_SECONDS:
                raise SystemExit("No window was judged.")


@dataclass(frozen=True, slots=True)
class Start:
    """One start. judged, busy, calm: where a window was waited for, the memory then, and ms of each answer until then and after."""

    seconds: float
    ready: Held
    asked: Held | None = None
    judged: Held | None = None
    busy: Sequence[float] = ()
    calm: Sequence[float] = ()


def floor(folder: Path) -> Start:
    """The imports alone."""
    process, begun = started([sys.executable, "-c", FLOOR], folder)
    return _looked(process, begun, imported, dict)


def peer(folder: Path) -> Start:
    """FastAPI around ONNX Runtime."""
    words = [sys.executable, str(HERE / "servers" / "peer_onnx.py"), str(folder / "onnx" / "graph.onnx"), str(PORT)]
    process, begun = started(words, folder)
    return _looked(process, begun, ready, lambda: {"asked": _asked(process, Client())})


def ours(folder: Path, *, watch: bool) -> Start:
    """`loudly serve` without a log of before, which a restart folds in again. watch: until a window was judged."""
    shutil.rmtree(folder / ".loudly" / "traffic", ignore_errors=True)
    process, begun = started([*LOUDLY, "serve", "--port", str(PORT)], folder)

    def more() -> dict[str, object]:
        client, before = Client(), judgments(folder)
        found: dict[str, object] = {"asked": _asked(process, client)}
        if watch:
            found["busy"] = client.until(lambda: judgments(folder) > before)
            found["judged"], end = held(process), time.perf_counter() + AFTER_SECONDS
            found["calm"] = client.until(lambda: time.perf_counter() > end)
        return found

    return _looked(process, begun, ready, more)


def _looked(
    process: subprocess.Popen[str],
    begun: float,
    wait: Callable[[subprocess.Popen[str]], None],
    more: Callable[[], dict[str, object]],
) -> Start:
    """A start, its memory, and what is found when it is up; the process is ended."""
    try:
        wait(process)
        seconds, memory = time.perf_counter() - begun, held(process)
        return Start(seconds, memory, **more())  # type: ignore[arg-type]
    finally:
        process.terminate()
        process.wait()


def _asked(process: subprocess.Popen[str], client: Client) -> Held:
    client.ask(REQUESTS)
    return held(process)


def judgments(folder: Path) -> int:
    """Windows that the project's ledger tells of."""
    app = load_app(folder / "app.py")
    with using_stores(app.name, app.folder) as opened:
        return sum(r.event.kind == "window_judged" for r in events(opened))


def project(folder: Path, fit: str, graph: bytes) -> Path:
    """A project whose champion is ready to serve. Rows of a day come at once, so that a day is a window, too."""
    folder.mkdir()
    world.table().with_columns(pl.col("at").dt.truncate("1d")).write_parquet(folder / "rows.parquet")
    (folder / "graph.onnx").write_bytes(graph)
    (folder / "app.py").write_text(APP.replace("FIT", fit))
    (folder / "loudly.toml").write_text(TOML)
    loudly(folder, "train")
    loudly(folder, "ship")
    return folder


def show(name: str, starts: Sequence[Start], least: float) -> None:
    """One line."""
    seconds = statistics.median(s.seconds for s in starts)
    told = [str(middle([s.ready for s in starts]))]
    told += [str(middle(asked)) if (asked := [s.asked for s in starts if s.asked]) else ""]
    told += [str(middle(judged)) if (judged := [s.judged for s in starts if s.judged]) else ""]
    print(f"{name:<34} {seconds:6.2f} s {seconds / least:6.1f} x   {told[0]:>12} {told[1]:>16} {told[2]:>16}", flush=True)


def middle(all_held: Sequence[Held]) -> Held:
    """The median of each figure."""
    return Held(statistics.median(h.resident for h in all_held), statistics.median(h.own for h in all_held))


def main() -> int:
    """Runs all of it and prints the table."""
    said = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said.add_argument("--rounds", type=int, default=5)
    rounds = said.parse_args().rounds
    made = world.table()
    graph = OnnxTrees().compile(world.fitted("hgb", made.select(world.FEATURES).to_numpy(), made["y"].to_numpy()), 30)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        projects = {kind: project(folder / kind, fit, graph) for kind, fit in FITS.items()}
        each: dict[str, Callable[[bool], Start]] = {"floor": lambda _: floor(folder), "peer": lambda _: peer(folder)}
        each |= {kind: lambda last, p=p: ours(p, watch=last) for kind, p in projects.items()}  # type: ignore[misc]
        for one in each.values():
            one(False)  # its bytecode is written, its files are read
        starts: dict[str, list[Start]] = {name: [] for name in each}
        for number in range(rounds):
            for name, one in each.items():
                starts[name].append(one(number == rounds - 1))
    least = statistics.median(s.seconds for s in starts["floor"])
    print(f"{'':<34} {'start to ready':>17}   {'MB when ready':>12} {'after 1,000 rows':>16} {'a window judged':>16}")
    show("the floor: imports alone", starts["floor"], least)
    show("FastAPI, the ONNX graph", starts["peer"], least)
    for kind in FITS:
        show(f"loudly serve, {kind}", starts[kind], least)
    promises = Promises()
    for kind in FITS:
        last = starts[kind][-1]
        busy, calm = (f"p99 {sorted(ms)[int(0.99 * len(ms))]:.1f} ms, slowest {max(ms):.1f} ms" for ms in (last.busy, last.calm))
        print(f"{kind}: until the first window has been judged {busy}; afterwards {calm}")
        promises.add(f"{kind}: start to ready", 1.0, statistics.median(s.seconds for s in starts[kind]), "s", most=True)
    return promises.show()


if __name__ == "__main__":
    raise SystemExit(main())
