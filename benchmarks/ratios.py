"""How often a canary judged by a metric of a rare class is wrong: F1, recall, balanced accuracy, average precision.

Two models of a class of one row in twenty or in a hundred, 3,000 labelled rows a day, looked at each day for four weeks. *equal*:
as good, wrong on other rows. *worse*: by exactly the margin. *deaf*: never says yes, or, by average precision, ranks by chance.
What rollouts were judged by before stands beside it, with the same margin: accuracy for the deaf one, AUC for the worse one.
Weights begin with control's rates, or with those of a time when the class came twice as often.

Run: python benchmarks/ratios.py  (400 runs a cell, some ten minutes on one core; --runs N)
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from loudly.core.clock import DAY
from loudly.core.seams import Feedback, Floats
from loudly.core.values import Arm, Decision
from loudly.deliver.canary import Canary
from loudly.deliver.rollout import parse_rollout
from loudly.metrics.table import MetricSpec, Rate, by_rows, metric

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))
ALPHA, ROWS, DAYS = 0.05, 3000, 28
Model = Callable[[np.random.Generator, Floats], Floats]
# Of the class: found, and of the others: taken for it.
FOUND, TAKEN = 0.7, 0.01
MARGIN = {"f1": 0.1, "recall": 0.1, "balanced_accuracy": 0.05}
SHARES = (0.05, 0.01)
METRICS: dict[str, Callable[[float, float], float]] = {
    "f1": lambda share, hit: 2 * share * hit / (share * (1 + hit) + (1 - share) * TAKEN),
    "recall": lambda share, hit: hit,
    "balanced_accuracy": lambda share, hit: (hit + 1 - TAKEN) / 2,
}
# How far the scores of the class lie from those of the others, by its share, and the margin of average precision.
APART, AP_MARGIN = {0.05: 2.5, 0.01: 3.0}, {0.05: 0.05, 0.01: 0.1}


def decides(hit: float, false: float, rng: np.random.Generator, truth: Floats) -> Floats:
    """Whether each row is said to be of the class; models are wrong on rows of their own."""
    return (rng.random(len(truth)) < np.where(truth > 0, hit, false)).astype(float)


def scores(apart: float, rng: np.random.Generator, truth: Floats) -> Floats:
    """Scores that lie so far apart."""
    return np.asarray(1 / (1 + np.exp(3 - rng.normal(apart * truth, 1))))


def lower(value: Callable[[float], float], most: float, by: float) -> float:
    """Below `most`, where the value is less by that much."""
    low, high, wanted = 0.0, most, value(most) - by
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if value(middle) < wanted else (low, middle)
    return (low + high) / 2


def precision_of(share: float, apart: float) -> float:
    """The average precision of such scores, by a million of them."""
    rng = np.random.default_rng(9)
    truth = (rng.random(1_000_000) < share).astype(float)
    return metric("average_precision")(truth, scores(apart, rng, truth))


def spec_of(name: str, share: float) -> MetricSpec:
    """The metric row by row, with control's rates where the class comes so often."""
    said, value = share * FOUND + (1 - share) * TAKEN, METRICS[name](share, FOUND)
    rates: tuple[Rate, ...] = ((1 - share, 1 - said, value), (share, said, value))
    return by_rows(name, rates)


def ended(seed: int, judged: MetricSpec, margin: float, share: float, models: tuple[Model, Model]) -> tuple[Decision, int]:
    """What a rollout comes to, and on which day."""
    rng, canary = np.random.default_rng(seed), Canary(parse_rollout("canary 10% 100%", margin=margin), judged)
    state = canary.init(ARMS, 0)
    for day in range(DAYS):
        truth = (rng.random(ROWS) < share).astype(float)
        made = {arm.name: model(rng, truth) for arm, model in zip(ARMS, models, strict=True)}
        units = [f"{day}-{i}" for i in range(ROWS)]
        given = Feedback(day * DAY, units, np.zeros(ROWS, dtype=np.int64), truth, made, {}, [day])
        state, _ = canary.update(state, given)
        state, found = canary.advance(state, (day + 1) * DAY)
        if found.decision is not Decision.UNDECIDED:
            return found.decision, day + 1
    return Decision.UNDECIDED, DAYS


def cell(runs: int, judged: MetricSpec, margin: float, share: float, *models: Model) -> tuple[float, float, float]:
    """Shares promoted and rolled back, and the median day on which that was."""
    found = [ended(seed, judged, margin, share, (models[0], models[1])) for seed in range(runs)]
    promoted, back = (sum(decision is which for decision, _ in found) / runs for which in (Decision.PASS, Decision.FAIL))
    return promoted, back, float(np.median([day for _, day in found]))


def row(name: str, share: float, margin: float, cells: list[tuple[float, float, float]]) -> None:
    """Prints a row of the table."""
    shown = " ".join(f"{p:7.1%} {b:7.1%} {d:4.0f} d".rjust(22) for p, b, d in cells)
    print(f"{name:18} {share:5.0%} {margin:6.2f}  {shown}", flush=True)


def promises(runs: int) -> Iterator[tuple[str, bool]]:
    """Prints the table, and tells what must hold."""
    allowed, few = ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / runs), max(20, runs // 10)
    print(f"{runs} rollouts a cell: promoted / rolled back / median days\n")
    heads = " ".join(f"{head:>22}" for head in ("equal", "worse by the margin", "deaf", "as it was judged"))
    print(f"{'metric':18} {'class':>5} {'margin':>6}  {heads}")
    for name, share in ((name, share) for name in (*MARGIN, "average_precision") for share in SHARES):
        if name in MARGIN:
            margin, judged, before, deaf = MARGIN[name], spec_of(name, share), "accuracy", partial(decides, 0.0, 0.0)
            control = partial(decides, FOUND, TAKEN)
            worse = partial(decides, lower(partial(METRICS[name], share), FOUND, margin), TAKEN)
        else:
            margin, judged, before, deaf = AP_MARGIN[share], metric(name), "roc_auc", partial(scores, 0.0)
            control = partial(scores, APART[share])
            worse = partial(scores, lower(partial(precision_of, share), APART[share], margin))
        cells = [cell(runs, judged, margin, share, control, model) for model in (control, worse, deaf)]
        cells.append(cell(few, metric(before), margin, share, control, deaf if name in MARGIN else worse))
        row(name, share, margin, cells)
        at = f"{name} at {share:.0%}"
        yield f"{at}: equal models are rolled back in {ALPHA:.0%} at most", cells[0][1] <= allowed
        yield f"{at}: one worse by the margin is promoted in {ALPHA:.0%} at most", cells[1][0] <= allowed
        yield f"{at}: the deaf one is rolled back", cells[2][1] == 1
        yield f"{at}: by {before} the {'deaf' if name in MARGIN else 'worse'} one was promoted", cells[3][0] == 1
        if name in MARGIN:
            off = cell(2 * few, spec_of(name, 2 * share), margin, share, control, deaf)
            yield f"{at}: the deaf one is rolled back where the class came twice as often before", off[1] == 1


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
