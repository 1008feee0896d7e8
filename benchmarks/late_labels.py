"""What to do about labels that come later for one class than for another: which remedy keeps its promise, and what each costs.

Three judges of the same canary: all labels alike as they come (as everybody does); labels weighted to the classes' true shares
(post-stratification, what importance weights by class amount to); and cohorts, rows so old that nearly all labels of each class
have come, as 30 days of the champion's own labels told beforehand. The harm is just the margin and sits in the slow rows.
Accuracy, margin 0.02, 300 rows a day, looked at four times a day for 28 days; alpha is 5 %.

Run: python benchmarks/late_labels.py [--runs 2000]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import numpy as np
from rollout_traffic import POSITIVES, Traffic, World, drawn, waits
from rollouts import radii
from scipy.stats import beta

from loudly.core.clock import DAY

ALPHA, MARGIN, LOOKS, DAYS, ROWS, DAYS_WANTED = 0.05, 0.02, 4, 28, 300, 4
LABELS = ("on time", "late alike", "late", "very late", "half late")
JUDGES = ("alike", "by class", "cohorts")


def ends(t: Traffic, judge: str, wait: float) -> np.ndarray:
    """When each run is promoted, in days; infinite where it never is."""
    gain = (t.control != t.truth).astype(float) - (t.candidate != t.truth)
    come, asked = t.at / DAY, t.asked.astype(float)
    wait = wait if judge == "cohorts" else 0.0
    counts_at = np.maximum(come, asked + wait) if wait else come
    when = np.full(t.at.shape[1], np.inf)
    for at in np.arange(wait + DAYS_WANTED, DAYS, 1 / LOOKS):
        there = counts_at <= at
        n, mean, deviation = _weighted(gain, there, t.truth) if judge == "by class" else _plain(gain, there)
        passed = (mean - radii(n, deviation, ALPHA) > -MARGIN) & (n >= 500)
        when[passed & ~np.isfinite(when)] = at
    return when


def _plain(gain: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = there.sum(axis=0)
    mean = (gain * there).sum(axis=0) / np.maximum(n, 1)
    m2 = (gain**2 * there).sum(axis=0) - n * mean**2
    return n, mean, np.sqrt((m2 + 2) / np.maximum(n - 1, 1))


def _weighted(gain: np.ndarray, there: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes by their true shares, which are known here."""
    total = there.sum(axis=0)
    mean, variance = np.zeros(len(total)), np.zeros(len(total))
    for value, share in ((1, POSITIVES), (0, 1 - POSITIVES)):
        n, of_class, deviation = _plain(gain, there & (truth == value))
        mean, variance = mean + share * of_class, variance + share**2 * np.where(n > 30, deviation**2 / np.maximum(n, 1), np.inf)
    return total, mean, np.sqrt(total * variance)


def rate(hits: int, n: int) -> str:
    """A share with its Clopper-Pearson interval."""
    low, high = beta.ppf(0.025, hits, n - hits + 1), beta.ppf(0.975, hits + 1, n - hits)
    return f"{hits / n:6.1%} [{0.0 if hits == 0 else low:5.1%}, {1.0 if hits == n else high:5.1%}]"


def main() -> None:
    """Prints both errors and the time of every judge; exits 1 where cohorts promote too often, or cost without need."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2000)
    runs, kept = parser.parse_args().runs, True
    print(f"{runs:,} runs a cell. Worse by the margin, all of it in the slow rows: promoted.   Equal: promoted, median day")
    for labels in LABELS:
        equal = World("accuracy", 0.0, labels, days=DAYS, rows=ROWS)
        worlds = [drawn(replace(equal, worse=MARGIN, slow_only=True), runs, 1), drawn(equal, runs, 2)]
        wait = waits(equal) / DAY
        told = {judge: [ends(t, judge, wait) for t in worlds] for judge in JUDGES}
        for judge, (worse, same) in told.items():
            hits, middle = int(np.isfinite(worse).sum()), float(np.median(same))
            aged = f"  (after {wait:.1f} days)" if judge == "cohorts" else ""
            print(f"  {labels:12}{judge:10}{rate(hits, runs)}      {np.isfinite(same).mean():6.1%} {middle:6.2f}{aged}", flush=True)
        kept &= np.isfinite(told["cohorts"][0]).mean() <= ALPHA + 2 * (ALPHA * (1 - ALPHA) / runs) ** 0.5
        if labels == "on time":
            kept &= bool((told["cohorts"][1] == told["alike"][1]).all())
    print("holds" if kept else "FAILS", " cohorts promote at most alpha, and cost nothing where labels are on time")
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
