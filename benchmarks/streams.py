"""Values a second through the stream detectors, ours in batches beside river's value by value, as ratios of one run.

river is given Python floats that are already made, one `update` each, and its flag is read after each, which is its use.
Ours is given arrays. Both alarm at the same indices (tests/shift/streams/test_against_river.py); KSWIN draws at random.
Interleaved runs, medians. Run: python benchmarks/streams.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from river import drift

from loudly.shift.reference import Reference
from loudly.shift.streams import STREAMS

VALUES, ROUNDS, COLUMNS, PROMISED = 100_000, 5, 30, 1
BATCHES = (30, 100, 1_000, 10_000)

rng = np.random.default_rng(0)
CALM = rng.normal(0, 0.25, VALUES)
CHANGING = rng.normal(0, 0.25, VALUES) + np.repeat(rng.normal(0, 0.5, VALUES // 5_000), 5_000)
CALM_ERRORS = (rng.random(VALUES) < 0.1).astype(float)
CHANGING_ERRORS = (rng.random(VALUES) < np.repeat(rng.uniform(0.05, 0.4, VALUES // 5_000), 5_000)).astype(float)

PEERS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "adwin": (drift.ADWIN, {"restart": True}),
    "page-hinkley": (drift.PageHinkley, {}),
    "ddm": (drift.binary.DDM, {}),
    "eddm": (drift.binary.EDDM, {}),
    "kswin": (lambda: drift.KSWIN(seed=0), {"restart": True}),
}
ALONE: dict[str, dict[str, Any]] = {
    "cusum": {"target": 0.0, "deviation": 0.25, "threshold": 12.0},
    "e-detector": {"mean": 0.1, "alpha": 1e-9},
    "conformal-martingale": {"calibration": rng.normal(0, 0.25, 1000)},
    "harmful-shift": {"limit": 0.12},
}
OF_ERRORS = ("ddm", "eddm", "e-detector", "harmful-shift")


def ours(detector: Any, values: Any, batch: int) -> int:
    """Alarms of a stream in batches."""
    state, alarms = detector.init(), 0
    for first in range(0, len(values), batch):
        state, found = detector.update(state, values[first : first + batch])
        alarms += len(found)
    return alarms


def theirs(detector: Any, values: list[float]) -> int:
    """Alarms of a stream value by value."""
    alarms = 0
    for value in values:
        detector.update(value)
        alarms += detector.drift_detected
    return alarms


def together(detector: Any, values: Any, batch: int) -> int:
    """Alarms of 30 columns, each with a state of its own, that come in the same batches."""
    table = values[: len(values) // COLUMNS * COLUMNS].reshape(-1, COLUMNS).T.copy()
    states, alarms = [detector.init()] * COLUMNS, 0
    for first in range(0, table.shape[1], batch):
        for i, column in enumerate(table):
            states[i], found = detector.update(states[i], column[first : first + batch])
            alarms += len(found)
    return alarms


def with_bins(reference: Reference, detector: Any, table: pl.DataFrame, batch: int) -> int:
    """Alarms of 30 columns while each batch is also counted in the reference's bins."""
    states, alarms, window = [detector.init()] * COLUMNS, 0, reference.empty()
    for first in range(0, table.height, batch):
        rows = table[first : first + batch]
        window = window.merge(reference.profile(rows))
        for i, column in enumerate(rows):
            states[i], found = detector.update(states[i], column.to_numpy())
            alarms += len(found)
    assert window.rows == table.height
    return alarms


def medians(works: dict[str, Callable[[], int]]) -> dict[str, tuple[float, int]]:
    """Median seconds and alarms of each, interleaved; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    alarms = {}
    for _ in range(ROUNDS + 1):
        for name, work in works.items():
            begun = time.perf_counter()
            alarms[name] = work()
            seconds[name].append(time.perf_counter() - begun)
    return {name: (statistics.median(found[1:]), alarms[name]) for name, found in seconds.items()}


def stream(name: str, changing: bool) -> Any:
    """The stream of a detector; KSWIN's is shorter, for river takes a fifth of a millisecond a value."""
    kinds = (CALM_ERRORS, CHANGING_ERRORS) if name in OF_ERRORS else (CALM, CHANGING)
    return kinds[changing][: 6_000 if name == "kswin" else VALUES]


def against(name: str, changing: bool) -> None:
    """One line: river's rate, and ours by batch with the ratio."""
    peer, settings = PEERS[name]
    values, detector = stream(name, changing), STREAMS[name](**settings)
    listed = values.tolist()
    works: dict[str, Callable[[], int]] = {"river": lambda: theirs(peer(), listed)}
    works |= {str(batch): lambda b=batch: ours(detector, values, b) for batch in BATCHES}  # type: ignore[misc]
    found = medians(works)
    base, alarms = found["river"]
    told = "  ".join(f"{len(values) / found[str(b)][0] / 1e6:7.2f} M/s {base / found[str(b)][0]:6.1f} x" for b in BATCHES)
    counts = f"{alarms} alarms" if found["1000"][1] == alarms else f"{alarms} alarms, ours {found['1000'][1]}"
    print(f"{name:<22}{'changing' if changing else 'calm':<10}{len(values) / base / 1e6:8.3f} M/s  {told}   {counts}")


def alone(name: str) -> None:
    """One line: our rate by batch, where river has no such detector."""
    values, detector = stream(name, False), STREAMS[name](**ALONE[name])
    found = medians({str(batch): lambda b=batch: ours(detector, values, b) for batch in BATCHES})  # type: ignore[misc]
    told = "  ".join(f"{len(values) / found[str(b)][0] / 1e6:7.2f} M/s         " for b in BATCHES)
    print(f"{name:<22}{'calm':<10}{'no peer':>12}  {told}   {found['1000'][1]} alarms")


if __name__ == "__main__":
    heads = "  ".join(f"{f'batches of {b:,}':<20}" for b in BATCHES)
    print(f"{'detector':<22}{'stream':<10}{'river':>12}  {heads}")
    for name in PEERS:
        for changing in (False, True):
            against(name, changing)
    for name in ALONE:
        alone(name)
    print(f"\n{COLUMNS} columns together, values a second of all columns, batches of 1,000 rows")
    for name in STREAMS:
        detector, values = (
            STREAMS[name](**{**PEERS.get(name, (None, {}))[1], **ALONE.get(name, {})}),
            np.tile(stream(name, False), 5),
        )
        seconds, _ = medians({name: lambda d=detector, v=values: together(d, v, 1000)})[name]  # type: ignore[misc]
        print(f"{name:<22}{len(values) / seconds / 1e6:8.2f} M/s")

    table = pl.DataFrame(rng.normal(size=(20_000, COLUMNS)))
    reference, adwin = Reference.fit(table, features=0, keep=0), STREAMS["adwin"]()
    print(f"\n{COLUMNS} columns, bins and ADWIN together, values a second of all columns")
    for batch in (100, 1_000):
        seconds, _ = medians({"both": lambda b=batch: with_bins(reference, adwin, table, b)})["both"]  # type: ignore[misc]
        rate = table.height * COLUMNS / seconds / 1e6
        print(f"{'holds' if rate >= PROMISED else 'FAILS'}  batches of {batch:,} rows: {rate:.2f} M/s >= {PROMISED:g} M/s")
