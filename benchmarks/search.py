"""A search on two worker processes beside one here, and beside joblib.Parallel: the same points, fitted on one thread each.

Points are drawn at random, so that none is stopped early and all sides do the same work. Rounds take turns; medians of wall time.
Workers are started before the clock; what that takes is printed beside. Two are as much quicker than one as the machine has free
cores: what joblib's two gain in the same minute tells. Exits 1 where our two take a quarter longer than joblib's.
Run: python benchmarks/search.py [--rounds 3] [--points 4] [--rows 60000] [--ray]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import joblib
from servers.world import table
from sklearn.ensemble import HistGradientBoostingClassifier

from loudly.app.app import App
from loudly.core.clock import stopwatch
from loudly.core.seams import Executor
from loudly.loop.system import System
from loudly.loop.tally import Tally
from loudly.loop.tuning import tune
from loudly.plugins import resolve
from loudly.store.executors import Here, Processes
from loudly.train.random_search import RandomSearch

LONGER = 1.25


def system_of(rows: int, points: int) -> System:
    app = App("search", label="y", time="at", key="id", metric="roc_auc")
    app.data(lambda: table(rows))

    @app.train(tune={"leaves": (8, 64)}, trials=points)
    def fit(X: Any, y: Any, *, leaves: int = 31) -> Any:
        return HistGradientBoostingClassifier(max_leaf_nodes=leaves, max_iter=100, early_stopping=False, random_state=0).fit(X, y)

    return app.system


class Joblib:
    """joblib as it comes."""

    workers = 2

    def map(self, work: Any, items: Any) -> list[Any]:
        made: list[Any] = joblib.Parallel(self.workers)(joblib.delayed(work)(item) for item in items)
        return made

    def close(self) -> None:
        """Its workers end with the process."""


def searched(system: System, executor: Executor) -> tuple[float, Any]:
    """Seconds, and what was found."""
    rows: Any = system.data()
    begun = stopwatch()
    found = tune(system, rows, RandomSearch(system.train.tune, 0), Tally(), executor)
    return stopwatch() - begun, (found.params, found.value)


def nothing(item: int) -> int:
    """Imports what a fit needs."""
    return item + len(HistGradientBoostingClassifier.__name__)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--points", type=int, default=4)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--ray", action="store_true")
    given = parser.parse_args()
    system = system_of(given.rows, given.points)
    sides: dict[str, Executor] = {
        "here": Here(),
        "one process": Processes(1),
        "two processes": Processes(2),
        "joblib's two": Joblib(),
    }
    if given.ray:
        sides["Ray, two workers"] = resolve("executor", "ray")(2)
    for name, side in sides.items():
        begun = stopwatch()
        side.map(nothing, range(side.workers))
        print(f"{name}: {stopwatch() - begun:.1f} s to begin")
    taken: dict[str, list[float]] = {name: [] for name in sides}
    answers = set()
    for _ in range(given.rounds):
        for name, side in sides.items():
            seconds, found = searched(system, side)
            taken[name].append(seconds)
            answers.add(str(found))
    for side in sides.values():
        side.close()
    here = statistics.median(taken["here"])
    fit = here / (3 * given.points)
    print(f"{given.points} points, each on three splits of {given.rows:,} rows x 30: {here:.1f} s here, {fit:.2f} s a fit")
    for name, times in taken.items():
        print(f"{name}: {statistics.median(times):.1f} s, {here / statistics.median(times):.2f} x as quick as here")
    beside = statistics.median(a / b for a, b in zip(taken["two processes"], taken["joblib's two"], strict=True))
    print(f"two processes take {beside:.2f} x the time of joblib's two (median of the rounds' ratios)")
    print("all found the same" if len(answers) == 1 else f"they found different points: {sorted(answers)}")
    return 0 if beside <= LONGER and len(answers) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
