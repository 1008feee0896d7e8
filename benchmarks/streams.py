"""Values a second through the stream detectors, beside river's value by value, as ratios of one run.

First the promise: one row of 30 columns a call, folded into bins and ADWIN together. Then ADWIN by how many values come at
once, after what no Python goes below: a method that keeps a value and counts. Then the other detectors. river is given Python
floats that are already made, one `update` each, and its flag is read after each, which is its use. Ours: `update` is the state
as a value, `running` the window that changes in place; both alarm at the same indices as river
(tests/shift/streams/test_against_river.py); KSWIN draws at random. Interleaved, medians of the processor time of one thread.
Run: python benchmarks/streams.py [--only rows | adwin | others]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from river import drift

from loudly import plugins
from loudly.shift.profile import Profile
from loudly.shift.reference import Reference
from loudly.shift.streams.adwin import Adwin
from loudly.shift.streams.adwin_window import AdwinState

VALUES, ROUNDS, COLUMNS, PROMISED = 100_000, 3, 30, 1
AT_ONCE = (1, 32, 100, 1_000, 10_000)
BATCHES = (30, 100, 1_000, 10_000)

rng = np.random.default_rng(0)
CALM = rng.normal(0, 0.25, VALUES)
CHANGING = rng.normal(0, 0.25, VALUES) + np.repeat(rng.normal(0, 0.5, VALUES // 5_000), 5_000)
RESTLESS = rng.normal(0, 0.25, VALUES) + np.repeat(rng.normal(0, 1, VALUES // 200), 200)
CALM_ERRORS = (rng.random(VALUES) < 0.1).astype(float)
CHANGING_ERRORS = (rng.random(VALUES) < np.repeat(rng.uniform(0.05, 0.4, VALUES // 5_000), 5_000)).astype(float)

PEERS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
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


class Rows:
    """Bins and an ADWIN for each column of rows that come one a call; they wait, and are folded `most` at once or when asked."""

    def __init__(self, reference: Reference, most: int = 1_000) -> None:
        self._reference, self._detector, self._most, self._names = reference, Adwin(), most, list(reference.plan.bins)
        self._window, self._states = reference.empty(), [self._detector.init()] * len(self._names)
        self._waiting, self._n = np.empty((most, len(self._names)), order="F"), 0

    def push(self, row: Any) -> None:
        """One row."""
        self._waiting[self._n] = row
        self._n += 1
        if self._n == self._most:
            self.look()

    def look(self) -> tuple[Profile, list[AdwinState]]:
        """What all rows so far have come to."""
        rows, self._n = self._waiting[: self._n], 0
        if len(rows):
            self._window = self._window.merge(self._reference.profile(pl.DataFrame(rows, schema=self._names)))
            self._states = [self._detector.update(s, c)[0] for s, c in zip(self._states, rows.T, strict=True)]
        return self._window, self._states


def one_row_a_call(rows: int = 20_000) -> None:
    """The line that is promised, and that the outcome is that of one batch of all rows."""
    table = rng.normal(size=(rows, COLUMNS))
    frame = pl.DataFrame(table, schema=[f"c{i}" for i in range(COLUMNS)])
    reference, seconds = Reference.fit(frame, features=0, keep=0), []
    for _ in range(ROUNDS + 1):
        fold = Rows(reference)
        begun = time.thread_time()
        for row in table:
            fold.push(row)
        window, states = fold.look()
        seconds.append(time.thread_time() - begun)
    whole, detector = reference.profile(frame), Adwin()
    assert all((window.counts(name) == whole.counts(name)).all() for name in frame.columns)
    assert states == [detector.update(detector.init(), column)[0] for column in table.T]
    rate = rows * COLUMNS / statistics.median(seconds[1:]) / 1e6
    print(
        f"{'holds' if rate >= PROMISED else 'FAILS'}  {COLUMNS} columns, one row a call, bins and ADWIN together, one core: ",
        end="",
    )
    print(
        f"{rate:.2f} M values/s >= {PROMISED:g} M (rows wait up to 1,000 or a look; the outcome is that of one batch)", flush=True
    )


def ours(detector: Any, values: Any, batch: int) -> int:
    """Alarms of a stream in batches."""
    state, alarms = detector.init(), 0
    for first in range(0, len(values), batch):
        state, found = detector.update(state, values[first : first + batch])
        alarms += len(found)
    return alarms


def running(values: Any, listed: list[float], batch: int) -> int:
    """Alarms of ADWIN's window that changes in place."""
    window, alarms = Adwin(restart=True).running(), 0
    if batch == 1:
        for value in listed:
            alarms += window.push(value)
    else:
        for first in range(0, len(values), batch):
            alarms += len(window.extend(values[first : first + batch]))
    return alarms


class Counting:
    """The least that a method called for every value does: it keeps the value, and knows every 32nd."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[float] = []

    def push(self, value: float) -> bool:
        """One value."""
        self._waiting.append(value)
        if len(self._waiting) == 32:
            self._waiting = []
        return False


def counting(listed: list[float]) -> int:
    """No alarms."""
    window, alarms = Counting(), 0
    for value in listed:
        alarms += window.push(value)
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


def medians(works: dict[str, Callable[[], int]]) -> dict[str, tuple[float, int]]:
    """Median seconds and alarms of each, interleaved; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    alarms = {}
    for _ in range(ROUNDS + 1):
        for name, work in works.items():
            begun = time.thread_time()
            alarms[name] = work()
            seconds[name].append(time.thread_time() - begun)
    return {name: (statistics.median(found[1:]), alarms[name]) for name, found in seconds.items()}


def adwin(told: str, values: Any) -> None:
    """Three lines: the least there is, `running` and `update` against river, by how many values come at once."""
    listed, detector = values.tolist(), Adwin(restart=True)
    works: dict[str, Callable[[], int]] = {"river": lambda: theirs(drift.ADWIN(), listed)}  # type: ignore[no-untyped-call]
    works |= {f"running {n}": lambda n=n: running(values, listed, n) for n in AT_ONCE}  # type: ignore[misc]
    works |= {f"update {n}": lambda n=n: ours(detector, values, n) for n in AT_ONCE}  # type: ignore[misc]
    found = medians(works | {"floor": lambda: counting(listed)})
    base, alarms = found["river"]
    floor, _ = found.pop("floor")
    assert all(count == alarms for _, count in found.values()), "the same alarms"
    river, least = base / len(values) * 1e9, f"{floor / len(values) * 1e9:.0f} ns, {base / floor:.2f} x"
    print(f"{told}: {alarms} alarms, river {river:.0f} ns a value; a method that keeps a value and counts {least}")
    for way in ("running", "update"):
        ratios = "  ".join(f"{base / found[f'{way} {n}'][0]:8.2f} x" for n in AT_ONCE)
        print(f"{'':<10} {way:<35} {ratios}", flush=True)


def stream(name: str, changing: bool) -> Any:
    """The stream of a detector; KSWIN's is shorter, for river takes a fifth of a millisecond a value."""
    kinds = (CALM_ERRORS, CHANGING_ERRORS) if name in OF_ERRORS else (CALM, CHANGING)
    return kinds[changing][: 6_000 if name == "kswin" else VALUES]


def against(name: str, changing: bool) -> None:
    """One line: river's rate, and ours by batch with the ratio."""
    peer, settings = PEERS[name]
    values, detector = stream(name, changing), plugins.resolve("stream", name)(**settings)
    listed = values.tolist()
    works: dict[str, Callable[[], int]] = {"river": lambda: theirs(peer(), listed)}
    works |= {str(batch): lambda b=batch: ours(detector, values, b) for batch in BATCHES}  # type: ignore[misc]
    found = medians(works)
    base, alarms = found["river"]
    told = "  ".join(f"{len(values) / found[str(b)][0] / 1e6:7.2f} M/s {base / found[str(b)][0]:6.1f} x" for b in BATCHES)
    counts = f"{alarms} alarms" if found["1000"][1] == alarms else f"{alarms} alarms, ours {found['1000'][1]}"
    kind = "changing" if changing else "calm"
    print(f"{name:<22}{kind:<10}{len(values) / base / 1e6:8.3f} M/s  {told}   {counts}", flush=True)


def alone(name: str) -> None:
    """One line: our rate by batch, where river has no such detector."""
    values, detector = stream(name, False), plugins.resolve("stream", name)(**ALONE[name])
    found = medians({str(batch): lambda b=batch: ours(detector, values, b) for batch in BATCHES})  # type: ignore[misc]
    told = "  ".join(f"{len(values) / found[str(b)][0] / 1e6:7.2f} M/s         " for b in BATCHES)
    print(f"{name:<22}{'calm':<10}{'no peer':>12}  {told}   {found['1000'][1]} alarms", flush=True)


def others() -> None:
    """The detectors beside ADWIN, and all of them on 30 columns."""
    heads = "  ".join(f"{f'batches of {b:,}':<20}" for b in BATCHES)
    print(f"\n{'detector':<22}{'stream':<10}{'river':>12}  {heads}")
    for name in PEERS:
        for changing in (False, True):
            against(name, changing)
    for name in ALONE:
        alone(name)
    print(f"\n{COLUMNS} columns together, values a second of all columns, batches of 1,000 rows")
    for name in plugins.names("stream"):
        settings = {**PEERS.get(name, (None, {}))[1], **ALONE.get(name, {})}
        detector, values = plugins.resolve("stream", name)(**settings), np.tile(stream(name, False), 5)
        seconds, _ = medians({name: lambda d=detector, v=values: together(d, v, 1000)})[name]  # type: ignore[misc]
        print(f"{name:<22}{len(values) / seconds / 1e6:8.2f} M/s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=("rows", "adwin", "others"))
    only = parser.parse_args().only
    if only in (None, "rows"):
        one_row_a_call()
    if only in (None, "adwin"):
        print(f"\nADWIN against river, by values at once     {'  '.join(f'{n:8,} ' for n in AT_ONCE)}")
        for told, values in (("calm", CALM), ("calm × 100", 100 * CALM), ("changing", CHANGING), ("restless", RESTLESS)):
            adwin(told, values)
    if only in (None, "others"):
        others()
