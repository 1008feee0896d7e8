"""How often the gate passes a model that is worse by exactly the margin, where the class that counts has few held-out rows.

Decisions: the champion finds eight in ten positives. *worse*: a candidate that decides as the champion does, but misses so many
of the positives found that recall falls by exactly the margin. *equal*: one that misses and finds as many in their place. Beside
it what the same decision comes to by the textbook's interval of paired differences (Wald), which has no width where both decide
alike. Scores: the champion's AUC is .8; a candidate that is worse scores so many positives as it scores negatives that the AUC
falls by exactly the margin, and an equal one loses as many as the champion; beside it DeLong's interval of the rows alone.

Run: python benchmarks/gate.py  (1,000 runs a cell, some four minutes on one core; --runs N)
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator

import numpy as np
from scipy.special import ndtri

from loudly.core.seams import Floats
from loudly.core.values import Decision, Evidence
from loudly.evaluate.compare import compare
from loudly.evaluate.gate import Gate
from loudly.stats.auc import auc_difference, normal_interval

ROWS, FOUND, TAKEN, ALPHA = 2000, 0.8, 0.02, 0.025
POSITIVES, RANKED_POSITIVES, MARGINS = (10, 25, 100, 400), (20, 50, 200), (0.01, 0.05)
AREA = 0.8
# DeLong's own error with few lost rows, which a normal quantile takes for as many above as below: beyond ALPHA it passes so many.
SKEWED = 0.025
# How far recall must fall for the metric to fall by so much.
METRICS = {"recall": 1.0, "balanced_accuracy": 2.0}


def drawn(seed: int, positives: int, lost: float, gained: float) -> tuple[Floats, Floats, Floats]:
    """(truth, candidate, champion): of all positives a share is lost, and another gained."""
    rng, truth = np.random.default_rng(seed), (np.arange(ROWS) < positives).astype(float)
    champion = rng.random(ROWS) < np.where(truth > 0, FOUND, TAKEN)
    draw = rng.random(ROWS)
    candidate = np.where(truth > 0, np.where(champion, draw >= lost / FOUND, draw < gained / (1 - FOUND)), champion)
    return truth, candidate.astype(float), champion.astype(float)


def by_wald(name: str, truth: Floats, candidate: Floats, champion: Floats) -> Evidence:
    """The same by the rows of the class alone."""
    gains = (candidate - champion)[truth > 0] / METRICS[name]
    error = float(gains.std(ddof=1) / math.sqrt(len(gains)))
    return Evidence("Wald", float(gains.mean()), *normal_interval(float(gains.mean()), error, 0.95), len(truth), name, name, 0.95)


def ranked(seed: int, positives: int, lost: float, lost_by_champion: float) -> tuple[Floats, Floats, Floats]:
    """(truth, candidate, champion): scores of normal errors, a share of the positives scored as if they were negatives."""
    rng, truth = np.random.default_rng(seed), (np.arange(ROWS) < positives).astype(float)
    scores = rng.normal(truth * math.sqrt(2) * float(ndtri(AREA)))
    told = [np.where((truth > 0) & (rng.random(ROWS) < share), rng.normal(size=ROWS), scores) for share in (lost, lost_by_champion)]
    return truth, told[0], told[1]


def by_delong(truth: Floats, candidate: Floats, champion: Floats) -> Evidence:
    """The same by the rows alone, with normal quantiles, as the textbook has it."""
    gap, error, _ = auc_difference(truth, candidate, champion)
    return Evidence("DeLong", gap, *normal_interval(gap, error, 0.95), len(truth), "roc_auc", "roc_auc", 0.95)


def passed(evidence: Evidence, margin: float) -> bool:
    """Whether the gate lets it through."""
    return Gate(margin=margin).judge(evidence, held_out=ROWS).decision is Decision.PASS


def promises(runs: int) -> Iterator[tuple[str, bool]]:
    """Prints the table, and tells what must hold."""
    allowed = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
    print(f"{runs} gates a cell: passed\n")
    print(f"{'metric':18} {'margin':>6} {'positives':>9} {'worse':>8} {'by Wald':>8} {'equal':>8}")
    for name, margin, positives in ((n, m, p) for n in METRICS for m in MARGINS for p in POSITIVES):
        fall = margin * METRICS[name]
        worse = [drawn(seed, positives, fall + 0.01, 0.01) for seed in range(runs)]
        equal = [drawn(seed, positives, 0.01, 0.01) for seed in range(runs)]
        ours, same = (sum(passed(compare(*rows, name), margin) for rows in cases) / runs for cases in (worse, equal))
        naive = sum(passed(by_wald(name, *rows), margin) for rows in worse) / runs
        print(f"{name:18} {margin:6.2f} {positives:9,} {ours:8.1%} {naive:8.1%} {same:8.1%}", flush=True)
        at = f"{name}, margin {margin:g}, {positives} positives"
        yield f"{at}: one worse by the margin passes in {ALPHA:.1%} at most", ours <= allowed
        if positives <= 25:
            yield f"{at}: by Wald's interval in more than {ALPHA:.1%}", naive > allowed


def promises_of_scores(runs: int) -> Iterator[tuple[str, bool]]:
    """The same table of two models' AUC."""
    allowed = ALPHA + SKEWED + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
    print(f"\n{'metric':18} {'margin':>6} {'positives':>9} {'worse':>8} {'by rows':>8} {'equal':>8}")
    for margin, positives in ((m, p) for m in MARGINS for p in RANKED_POSITIVES):
        worse = [ranked(seed, positives, margin / (AREA - 0.5), 0.0) for seed in range(runs)]
        equal = [ranked(seed, positives, 0.01, 0.01) for seed in range(runs)]
        ours, same = (sum(passed(compare(*rows, "roc_auc"), margin) for rows in cases) / runs for cases in (worse, equal))
        naive = sum(passed(by_delong(*rows), margin) for rows in worse) / runs
        print(f"{'roc_auc':18} {margin:6.2f} {positives:9,} {ours:8.1%} {naive:8.1%} {same:8.1%}", flush=True)
        at = f"roc_auc, margin {margin:g}, {positives} positives"
        yield f"{at}: one worse by the margin passes in {ALPHA + SKEWED:.1%} at most", ours <= allowed
        if positives <= 20:
            yield f"{at}: by DeLong's interval of the rows alone in more than {ALPHA + SKEWED:.1%}", naive > allowed


def main() -> None:
    """Prints the table and exits 1 where a promise fails."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000, help="gates a cell")
    runs = parser.parse_args().runs
    made = [*promises(runs), *promises_of_scores(runs)]
    print()
    for what, holds in made:
        print(f"{'holds' if holds else 'FAILS'}  {what}")
    sys.exit(0 if all(holds for _, holds in made) else 1)


if __name__ == "__main__":
    main()
