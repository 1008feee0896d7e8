"""How often a canary judged by F1, recall or balanced accuracy of a rare class is wrong; and what the same is by accuracy.

Two models of a class of one row in twenty or in a hundred, 3,000 labelled rows a day, looked at each day for four weeks. *equal*:
as good, wrong on other rows. *worse*: by exactly the margin, found less often. *deaf*: never says yes. The weights begin with
control's rates, or with those of a time when the class came twice as often. By accuracy the margin is the same.

Run: python benchmarks/ratios.py  (400 runs a cell, some five minutes on one core; --runs N)
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from loudly.core.clock import DAY
from loudly.core.seams import Feedback, Floats
from loudly.core.values import Arm, Decision
from loudly.deliver.canary import Canary
from loudly.deliver.rollout import parse_rollout
from loudly.metrics.table import MetricSpec, Rate, by_rows, metric

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))
ALPHA, ROWS, DAYS = 0.05, 3000, 28
Rates = tuple[float, float]
# Of the class: found, and of the others: taken for it.
CONTROL: Rates = (0.7, 0.01)
DEAF: Rates = (0.0, 0.0)
MARGIN = {"f1": 0.1, "recall": 0.1, "balanced_accuracy": 0.05}
SHARES = (0.05, 0.01)
METRICS: dict[str, Callable[[float, float, float], float]] = {
    "f1": lambda share, hit, false: 2 * share * hit / (share * (1 + hit) + (1 - share) * false),
    "recall": lambda share, hit, false: hit,
    "balanced_accuracy": lambda share, hit, false: (hit + 1 - false) / 2,
}


def worse(name: str, share: float, by: float) -> Rates:
    """Control's rates with fewer found, so that the metric is lower by that much."""
    low, high, (hit, false) = 0.0, CONTROL[0], CONTROL
    wanted = METRICS[name](share, hit, false) - by
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if METRICS[name](share, middle, false) < wanted else (low, middle)
    return (low + high) / 2, false


def spec_of(name: str, share: float) -> MetricSpec:
    """The metric row by row, with control's rates where the class comes so often."""
    hit, false = CONTROL
    said = share * hit + (1 - share) * false
    value = METRICS[name](share, hit, false)
    rates: tuple[Rate, ...] = ((1 - share, 1 - said, value), (share, said, value))
    return by_rows(name, rates)


def answered(rng: np.random.Generator, truth: Floats, rates: Rates) -> Floats:
    """Whether each row is said to be of the class; models are wrong on rows of their own."""
    return (rng.random(len(truth)) < np.where(truth > 0, *rates)).astype(float)


def ended(seed: int, judged: MetricSpec, margin: float, share: float, candidate: Rates) -> tuple[Decision, int]:
    """What a rollout comes to, and on which day."""
    rng, canary = np.random.default_rng(seed), Canary(parse_rollout("canary 10% 100%", margin=margin), judged)
    state = canary.init(ARMS, 0)
    for day in range(DAYS):
        truth = (rng.random(ROWS) < share).astype(float)
        scores = {arm.name: answered(rng, truth, rates) for arm, rates in zip(ARMS, (CONTROL, candidate), strict=True)}
        units = [f"{day}-{i}" for i in range(ROWS)]
        given = Feedback(day * DAY, units, np.zeros(ROWS, dtype=np.int64), truth, scores, {}, [day])
        state, _ = canary.update(state, given)
        state, found = canary.advance(state, (day + 1) * DAY)
        if found.decision is not Decision.UNDECIDED:
            return found.decision, day + 1
    return Decision.UNDECIDED, DAYS


def cell(runs: int, judged: MetricSpec, margin: float, share: float, candidate: Rates) -> tuple[float, float, float]:
    """Shares promoted and rolled back, and the median day on which that was."""
    found = [ended(seed, judged, margin, share, candidate) for seed in range(runs)]
    promoted, back = (sum(decision is which for decision, _ in found) / runs for which in (Decision.PASS, Decision.FAIL))
    return promoted, back, float(np.median([day for _, day in found]))


def promises(runs: int) -> Iterator[tuple[str, bool]]:
    """Prints the table, and tells what must hold."""
    allowed = ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
    print(f"{runs} rollouts a cell: promoted / rolled back / median days\n")
    heads = " ".join(f"{head:>22}" for head in ("equal", "worse by the margin", "deaf", "deaf, by accuracy"))
    print(f"{'metric':18} {'class':>5} {'margin':>6}  {heads}")
    for name, margin in MARGIN.items():
        for share in SHARES:
            lost = worse(name, share, margin)
            at = spec_of(name, share)
            cells = [cell(runs, at, margin, share, candidate) for candidate in (CONTROL, lost, DEAF)]
            cells.append(cell(max(20, runs // 10), metric("accuracy"), margin, share, DEAF))
            shown = " ".join(f"{p:7.1%} {b:7.1%} {d:4.0f} d".rjust(22) for p, b, d in cells)
            print(f"{name:18} {share:5.0%} {margin:6.2f}  {shown}", flush=True)
            yield f"{name} at {share:.0%}: equal models are rolled back in {ALPHA:.0%} at most", cells[0][1] <= allowed
            yield f"{name} at {share:.0%}: one worse by the margin is promoted in {ALPHA:.0%} at most", cells[1][0] <= allowed
            yield f"{name} at {share:.0%}: the deaf one is rolled back", cells[2][1] == 1
            yield f"{name} at {share:.0%}: by accuracy it was promoted", cells[3][0] == 1
            off = cell(max(20, runs // 4), spec_of(name, 2 * share), margin, share, DEAF)
            yield f"{name} at {share:.0%}: and is rolled back where the class came twice as often before", off[1] == 1


def main() -> None:
    """Prints the table and exits 1 where a promise fails."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=400, help="rollouts a cell")
    begun, made = time.perf_counter(), list(promises(parser.parse_args().runs))
    print()
    for what, holds in made:
        print(f"{'holds' if holds else 'FAILS'}  {what}")
    print(f"{time.perf_counter() - begun:,.0f} s")
    sys.exit(0 if all(holds for _, holds in made) else 1)


if __name__ == "__main__":
    main()
