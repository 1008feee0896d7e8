"""One window checked against a fitted reference, 100k × 50 and 1M × 50 (40 numbers, 10 categories): ratios and memory.

Always, interleaved in this process: Polars sorting the same columns, scipy's ks_2samp and
chi2_contingency on the rows. Every KS of ours is held against scipy's, and must lie within its stated error.
Run: python benchmarks/shift.py [--peers [NAME ...]]. With --peers, each peer is installed by uv in an environment of its own under
out/bench/ and run there on the same 100k rows; ours is run before and after each of them by the same script. Exits 1 where a
promise does not hold.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from peers import OURS, PEERS, SCRIPT
from scipy import stats

from loudly.shift.distances import Distances
from loudly.shift.reference import Reference
from loudly.shift.wire import plain_reference, reference_of

FOLDER = Path("out/bench")
PROMISED, MEMORY = 0.3, 1.2


def table(n: int, seed: int, moved: float = 0.0) -> pl.DataFrame:
    """24 normal columns, 4 log-normal, 4 of counts, 4 rounded, 4 with 5% missing; 10 category columns of 20 texts."""
    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {f"x{i}": rng.normal(moved * i / 40, 1 + i, n) for i in range(24)}
    made |= {f"l{i}": np.exp(rng.normal(moved, 1, n)) for i in range(4)}
    made |= {f"n{i}": rng.poisson(5 + moved, n) for i in range(4)}
    made |= {f"r{i}": np.round(rng.normal(moved, 10, n), 1) for i in range(4)}
    made |= {f"m{i}": pl.Series(rng.normal(moved, 1, n)).set(pl.Series(rng.random(n) < 0.05), None) for i in range(4)}
    names = np.array([f"cat{j}" for j in range(20)])
    weights = np.linspace(1, 2, 20) + moved * np.linspace(-0.5, 0.5, 20)
    made |= {f"c{i}": rng.choice(names, n, p=weights / weights.sum()) for i in range(10)}
    return pl.DataFrame(made)


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one run."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def scipy_check(before: pl.DataFrame, now: pl.DataFrame) -> dict[str, float]:
    """ks_2samp for numbers, chi2_contingency for categories, on the rows: what a script would do."""
    found = {}
    for name in before.columns:
        a, b = before[name].drop_nulls(), now[name].drop_nulls()
        if a.dtype == pl.String:
            counts = a.value_counts().join(b.value_counts(), on=name, how="full", suffix="_now").fill_null(0)
            found[name] = float(stats.chi2_contingency(counts.select("count", "count_now").to_numpy().T).statistic)
        else:
            found[name] = float(stats.ks_2samp(a.to_numpy(), b.to_numpy(), method="asymp").statistic)
    return found


def peak(work: Callable[[], object]) -> int:
    """Bytes that a run takes at most, above what was resident before it (Linux); what malloc had kept is given back first."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    work()
    return max(0, memory("VmHWM") - before)


def taken(now: pl.DataFrame, reference: Reference) -> float:
    """Bytes that a check takes beside the data, in shares of it: in a process that holds the window and the reference alone."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    now.write_parquet(FOLDER / "window.parquet")
    (FOLDER / "reference.json").write_text(json.dumps(plain_reference(reference)))
    # What Polars has freed must not hide what we take.
    freed = os.environ | {"_RJEM_MALLOC_CONF": "dirty_decay_ms:0,muzzy_decay_ms:0"}
    told = subprocess.run([sys.executable, __file__, "--memory"], check=True, capture_output=True, text=True, env=freed)
    return float(told.stdout)


def take() -> float:
    """What `taken` runs: a small window first, so that what a reference keeps for good (tables, threads' stacks) is there."""
    now = pl.read_parquet(FOLDER / "window.parquet").rechunk()
    reference = reference_of(json.loads((FOLDER / "reference.json").read_text()))
    reference.distances(reference.profile(now.head(20_000)))
    return peak(lambda: reference.distances(reference.profile(now))) / now.estimated_size()


def memory(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def within(found: Distances, exact: dict[str, float]) -> float:
    """The largest amount by which an exact KS leaves its stated interval; 0 where the promise holds."""
    outside = 0.0
    for name, column in found.columns.items():
        ks = column.distances.get("ks")
        if ks is not None and ks.high is not None:
            outside = max(outside, ks.low - exact[name], exact[name] - ks.high)
    return max(0.0, outside)


def _ratios(runs: dict[str, list[float]]) -> dict[str, float]:
    """Medians of the ratios to Polars' sort of the same round."""
    sort = runs["polars sort"]
    return {name: statistics.median([a / b for a, b in zip(t, sort, strict=False)]) for name, t in runs.items()}


def measure(n: int, rounds: int, scipy_rounds: int) -> bool:
    """Prints all figures of one size; returns whether a promise does not hold."""
    before, now = table(n, 0), table(n, 1, 0.05)
    lean, full = Reference.fit(before, features=0, keep=0), Reference.fit(before)
    works: dict[str, Callable[[], object]] = {
        "polars sort": lambda: now.select(pl.all().sort()),
        "profile: counts, sums, moments": lambda: lean.profile(now),
        "profile, with embedding and sample": lambda: full.profile(now),
        "check: counts and all distances": lambda: lean.distances(lean.profile(now)),
        "check, with embedding and sample": lambda: full.distances(full.profile(now)),
    }
    for work in works.values():
        work()
    runs: dict[str, list[float]] = {name: [] for name in [*works, "scipy ks_2samp and chi2"]}
    spent: dict[str, list[float]] = {name: [] for name in works}
    exact: dict[str, float] = {}
    for i in range(rounds):
        for name, work in works.items():
            begun = time.process_time()
            runs[name].append(seconds(work))
            spent[name].append(time.process_time() - begun)
        if i < scipy_rounds:
            runs["scipy ks_2samp and chi2"].append(seconds(lambda: exact.update(scipy_check(before, now))))
    medians = {name: statistics.median(t) for name, t in runs.items()}
    ratios, processor = _ratios(runs), _ratios(spent)
    print(f"{n:,} rows × {now.width} columns, medians of {rounds} interleaved runs")
    for name, value in medians.items():
        cpu = processor.get(name, float("nan"))
        print(f"  {name:<38} {value * 1e3:>9.1f} ms   {ratios[name]:>7.3f} x Polars sort   (processor time {cpu:.3f} x)")
    used = taken(now, full)
    outside = within(full.distances(full.profile(now)), exact)
    print(f"  beside the data, the check took at most {used:.2f} x the data; with it {1 + used:.2f}")
    print(f"  exact KS outside its stated interval by at most {outside:.1e}")
    check, everything = "check: counts and all distances", "check, with embedding and sample"
    print(f"  scipy / check by counts                {medians['scipy ks_2samp and chi2'] / medians[check]:>9.1f} x")
    held = {
        **{
            f"{n:,}: {name} {found[name]:.3f} <= {PROMISED} x Polars sort, {time} time": found[name] <= PROMISED
            for name in (check, everything)
            for time, found in (("wall", ratios), ("processor", processor))
        },
        f"{n:,}: memory {1 + used:.2f} <= {MEMORY} x the data": 1 + used <= MEMORY,
        f"{n:,}: same KS as scipy within the stated error": outside <= 1e-12,
    }
    for what, holds in held.items():
        print(f"{'holds' if holds else 'FAILS'}  {what}")
    return not all(held.values())


def run_peers(names: list[str]) -> None:
    """Installs and runs peers, and ours before and after each; a peer that does not install or run is said, not hidden."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, made in (("before", table(100_000, 0)), ("now", table(100_000, 1, 0.05))):
        columns = {c: s.to_numpy().astype(str if s.dtype == pl.String else float) for c, s in zip(made.columns, made, strict=True)}
        np.savez(FOLDER / f"{name}.npz", allow_pickle=True, **columns)
    ours: dict[str, list[float]] = {way: [] for way in OURS}
    theirs: dict[str, float] = {}
    for name in [*(names or PEERS), ""]:
        for way, code in OURS.items():
            ours[way].append(_timed(sys.executable, code))
        if name:
            try:
                theirs[name] = _timed(str(_environment(name) / "bin" / "python"), PEERS[name][1])
            except subprocess.TimeoutExpired:
                print(f"  {name:<14} not done in 900 s")
            except (subprocess.CalledProcessError, ValueError, IndexError) as broken:
                why = str(getattr(broken, "stderr", "") or broken).strip().splitlines()
                print(f"  {name:<14} does not run: {why[-1] if why else broken}")
    medians = {way: statistics.median(runs) for way, runs in ours.items()}
    told = ", ".join(f"{way} ({of * 1e3:.0f} ms)" for way, of in medians.items())
    print(f"  {'':<14} {'seconds':>8}  times as long as ours: {told}")
    for name, found in theirs.items():
        print(f"  {name:<14} {found:>8.2f}  {'':>22}" + "".join(f"{found / s:>9.1f}" for s in medians.values()))


def _environment(name: str) -> Path:
    """The folder of an environment with this peer."""
    home = FOLDER / f"env-{name}"
    if not (home / "bin" / "python").exists():
        uv = [shutil.which("uv")] if shutil.which("uv") else [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "-q", "--python", "3.11", str(home)], check=True)
        python = ["--python", str(home / "bin" / "python")]
        subprocess.run([*uv, "pip", "install", "-q", *python, *PEERS[name][0]], check=True, timeout=900)
    return home


def _timed(python: str, code: str) -> float:
    """Median seconds of one check, in a process of its own that does nothing else."""
    script = FOLDER / "run.py"
    script.write_text(SCRIPT.replace("#CODE", code))
    asked = [python, "-W", "ignore", str(script), str(FOLDER)]
    told = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=900)
    return float(told.stdout.splitlines()[-1])


if __name__ == "__main__":
    if "--memory" in sys.argv:
        print(take())
        sys.exit(0)
    failed = measure(100_000, 9, 3)
    if "--small" not in sys.argv:
        failed |= measure(1_000_000, 5, 1)
    if "--peers" in sys.argv:
        print("peers, 100,000 × 50, each in an environment and a process of its own; ours before and after each, in the same way")
        run_peers([a for a in sys.argv[sys.argv.index("--peers") + 1 :] if a in PEERS])
    sys.exit(int(failed))
