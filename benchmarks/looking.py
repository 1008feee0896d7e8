"""Continuous looking: streams of a year of hourly windows, 50 columns each, judged in every hour.

Nothing moves: how many alarms a year, against the budget, beside a KS p-value a day and column as monitoring tools take it.
One column moves: hours until its alarm, by the size of the move, at that same budget.

A row's bin is three random bits, so a window's counts are the bits set in words put together: exactly the counts of the rows,
without the rows. On a sample the rows are made and profiled, and must give the same counts and the same e-values.

Run: python benchmarks/looking.py  (1,000 streams; --few: 60 of them). Half a second a stream on one idle core.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import polars as pl
from scipy.stats import kstwobign

from loudly.shift.bins import Bins
from loudly.shift.budget import AlertBudget
from loudly.shift.lookback import lookback_log_e
from loudly.shift.profile import profile

HOURS, COLUMNS, ROWS, REFERENCE, BINS = 8760, 50, 100, 20_000, 8
FLAT = np.full(BINS, 1 / BINS)
BUDGET = AlertBudget(false_alarms=1, columns=COLUMNS, windows=HOURS)
STILL, NAIVE, RUNS = 1000, 4, 100
LONGEST = 2000
SIZES = (0.4, 0.2, 0.1, 0.05, 0.03)


def drawn(rng: np.random.Generator, hours: int) -> np.ndarray:
    """(3, hours, words) random words: bit i of the three together is the bin of row i."""
    words = -(-ROWS // 64)
    return rng.integers(2**64, size=(3, hours, words), dtype=np.uint64)


def counted(bits: np.ndarray) -> np.ndarray:
    """(hours, 8) how many rows lie in each bin."""
    kept = np.array([2 ** min(64, ROWS - 64 * w) - 1 for w in range(bits.shape[2])], dtype=np.uint64)
    low, middle, high = ((b & kept, ~b & kept) for b in bits)
    cells = [h & m & x for h in high[::-1] for m in middle[::-1] for x in low[::-1]]
    return np.stack([np.bitwise_count(c).sum(axis=1, dtype=np.int64) for c in cells], axis=1)


def same_as_rows(hours: int = 300) -> bool:
    """Whether the counts of bits are those of rows that are made and profiled one window after the other."""
    rng = np.random.default_rng(30_000)
    held, bits = rng.multinomial(REFERENCE, FLAT), drawn(rng, hours)
    bins = Bins("x", np.arange(1, BINS) / BINS, (), np.zeros(BINS, dtype=np.int64), centre=0.5)
    rows = []
    for hour in range(hours):
        each = [np.unpackbits(word.view(np.uint8), bitorder="little")[:ROWS] for word in bits[:, hour]]
        values = (each[0] + 2 * each[1] + 4 * each[2] + 1 - rng.random(ROWS)) / BINS
        rows.append(profile(pl.DataFrame({"x": values}), {"x": bins}).counts("x"))
    by_rows, by_bits = (lookback_log_e(held, windows, ordered=True) for windows in (np.stack(rows), counted(bits)))
    return bool(np.array_equal(rows, counted(bits)) and np.array_equal(by_rows, by_bits))


def quiet(seed: int) -> int:
    """Alarms that a year of one stream raises where nothing moves."""
    rng = np.random.default_rng(seed)
    over: dict[int, dict[str, float]] = {}
    for column in range(COLUMNS):
        windows = counted(drawn(rng, HOURS))
        told = lookback_log_e(rng.multinomial(REFERENCE, FLAT), windows, worth=BUDGET.log_threshold, ordered=True)
        for at in np.flatnonzero(told >= BUDGET.log_threshold):
            over.setdefault(int(at), {})[f"c{column}"] = float(told[at])
    state, alarms = BUDGET.init("m/1"), 0
    for hour in sorted(over):
        state, alert = BUDGET.update(state, hour, over[hour], "m/1")
        alarms += len(alert.raised)
    return alarms


def ks_p(reference: np.ndarray, day: np.ndarray) -> float:
    """The two-sample KS p-value (asymptotic) of a day's rows; `reference` is sorted."""
    day = np.sort(day)
    below = np.searchsorted(reference, day, side="right") / len(reference)
    steps = np.arange(1, len(day) + 1) / len(day)
    gap = max(float((steps - below).max()), float((below - steps + 1 / len(day)).max()))
    return float(kstwobign.sf(gap * np.sqrt(len(day) * len(reference) / (len(day) + len(reference)))))


def naive(seed: int) -> tuple[int, int]:
    """Alarms a year of daily KS p-values: at 5 %, and at 5 % split over the columns."""
    rng = np.random.default_rng(10_000 + seed)
    p = []
    for _ in range(COLUMNS):
        reference = np.sort(rng.random(REFERENCE))
        p += [ks_p(reference, rng.random(24 * ROWS)) for _ in range(HOURS // 24)]
    return int((np.array(p) < 0.05).sum()), int((np.array(p) < 0.05 / COLUMNS).sum())


def delay(size: float, seed: int) -> tuple[float, float, float]:
    """Hours from the move of a share of rows into the last bin until our alarm, until a daily KS p-value that is split over
    the columns, and until one that is split over columns and days (the same budget as ours).
    """
    rng = np.random.default_rng(20_000 + seed)
    raw = rng.random(REFERENCE)
    moved = (1 - size) * FLAT + size * np.eye(BINS)[-1]
    windows = np.vstack([rng.multinomial(ROWS, FLAT, size=STILL), rng.multinomial(ROWS, moved, size=LONGEST)])
    told = lookback_log_e(np.bincount((raw * BINS).astype(int), minlength=BINS), windows, worth=BUDGET.log_threshold, ordered=True)
    hits = np.flatnonzero(told[STILL:] >= BUDGET.log_threshold)
    ours = float(hits[0] + 1) if len(hits) else np.inf
    reference = np.sort(raw)
    split, fair = np.inf, np.inf
    for day in range(LONGEST // 24):
        rows = rng.random(24 * ROWS)
        last = rng.random(24 * ROWS) < size
        rows[last] = 1 - rows[last] / BINS
        p, now = ks_p(reference, rows), 24.0 * (day + 1)
        split = min(split, now) if p < 0.05 / COLUMNS else split
        if p < 1 / (COLUMNS * HOURS // 24):
            fair = now
            break
    return ours, split, fair


def hours(values: list[float]) -> str:
    """Median and 90th percentile; `never` beyond what was simulated."""
    told = [np.sort(values)[min(len(values) - 1, int(q * len(values)))] for q in (0.5, 0.9)]
    return "   ".join("  never" if np.isinf(v) else f"{v:5.0f} h" for v in told)


def main() -> int:
    """Prints both tables; 1 where a promise does not hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--few", action="store_true", help="60 streams instead of 1,000")
    streams = 60 if parser.parse_args().few else 1000
    begun = time.perf_counter()
    same = same_as_rows()
    print(f"{'holds' if same else 'FAILS'}  counts of bits are the counts of rows that are profiled, to the last e-value")
    with ProcessPoolExecutor(2) as pool:
        alarms = list(pool.map(quiet, range(streams), chunksize=5))
        spent = time.perf_counter() - begun
        peers = np.array(list(pool.map(naive, range(NAIVE))))
        print(f"{streams:,} streams × {HOURS:,} hourly windows × {COLUMNS} columns × {ROWS} rows, reference of {REFERENCE:,} rows")
        print("nothing moves: false alarms a stream and year")
        print(f"  loudly, every hour, budget {BUDGET.false_alarms:g}      {np.mean(alarms):10.3f}   (most: {max(alarms)})")
        told = ", ".join(f"{alarms.count(n):,} of {n}" for n in sorted(set(alarms)))
        error = np.std(alarms, ddof=1) / np.sqrt(streams)
        held = np.mean(alarms) + 3 * error <= BUDGET.false_alarms
        print(
            f"{'holds' if held else 'FAILS'}  within the budget by three standard errors ({error:.3f}); streams by alarms: {told}"
        )
        print(f"  {spent:,.0f} s, {1e3 * spent / streams:,.0f} ms a stream, with two processes")
        print(f"  a KS p-value a day, 5 %          {peers[:, 0].mean():10.1f}   ({NAIVE} streams)")
        print(f"  the same, split over columns     {peers[:, 1].mean():10.1f}")
        print(f"one column moves by a KS distance: hours to its alarm, median and 90 % of {RUNS} runs ({LONGEST:,} h simulated)")
        print("              loudly, 1 a year           daily KS, 5 % over columns   daily KS, 1 a year")
        for size in SIZES:
            runs = zip(*pool.map(delay, [size] * RUNS, range(RUNS), chunksize=10), strict=True)
            print(f"  {size * (1 - 1 / BINS):5.3f}       " + "        ".join(hours(list(told)) for told in runs))
    print(f"{time.perf_counter() - begun:,.0f} s")
    return 0 if same and held else 1


if __name__ == "__main__":
    raise SystemExit(main())
