"""Windows of 10, 20 and 50 rows: false alarms and power of the disagreement test, Detectron as published, KS and the default.

The protocol is that of Ginsberg, Liang & Krishnan 2023 (a model trained on 300 rows, 120 held rows, 100 windows of each n, 5 %),
but NOT their table: their UCI Heart data (four hospitals; Detectron .92 at n = 10) is not at hand, so these are other tables with
a shift each, one of them a shift that does the model no harm. Detectron is refitted for every run, with the authors' settings, on
LightGBM where it is installed, else on scikit-learn; its null is 99 runs on held rows. The ridge and the statistic of
`disagreement` were chosen on these very tables: its level is exact by permutation, its power here is a little flattered.
Run: OMP_NUM_THREADS=1 python benchmarks/tiny_windows.py [--windows 100]   (some minutes on one core)
Data: ../shared/data, or LOUDLY_DATA; what is absent is skipped, loudly. Breast cancer comes with scikit-learn.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from loudly.shift import fit
from loudly.shift.two_sample.disagreement import fit_disagreement
from loudly.shift.two_sample.kolmogorov_smirnov import kolmogorov_smirnov

try:
    from lightgbm import LGBMClassifier
except ImportError:
    LGBMClassifier = None

DATA = Path(os.environ.get("LOUDLY_DATA", str(Path(__file__).parents[2] / "shared" / "data")))
SIZES, LEVEL, NULLS, ROUNDS = (10, 20, 50), 0.05, 99, 5
OURS, DEFAULT, KS = "disagreement", "loudly's default", "KS on each column"


@dataclass(frozen=True)
class World:
    """Inputs and labels; which rows are as in training and which have moved, in random order; how many train, how many are held."""

    x: Any
    y: Any
    same: Any
    moved: Any
    train: int = 300
    held: int = 120


def bikes() -> World:
    """More than 142 rentals in the hour? Learned from May to September, asked in winter."""
    table = pl.read_csv(DATA / "bike_hour" / "hour.csv")
    used = ["hr", "weekday", "workingday", "weathersit", "temp", "atemp", "hum", "windspeed"]
    month = table["mnth"].to_numpy()
    summer, winter = np.isin(month, [5, 6, 7, 8, 9]), np.isin(month, [12, 1, 2])
    return _world(table.select(used).to_numpy(), table["cnt"].to_numpy() > 142, summer, winter)


def credit() -> World:
    """Default next month? Learned from clients with a high limit, asked of those with a low one; the limit is not told."""
    table = pl.read_csv(DATA / "credit_default_uci" / "UCI_Credit_Card.csv").drop("ID")
    goal = "default-payment-next-month"
    high = table["LIMIT_BAL"].to_numpy() >= 150_000
    return _world(table.drop(goal, "LIMIT_BAL").to_numpy(), table[goal].to_numpy() == 1, high, ~high)


def elec2() -> World:
    """Is the price up? Learned from the first years, asked in the last: Victoria's columns, constant at first, move for good."""
    table = pl.read_csv(DATA / "elec2" / "elec.csv")
    used = ["nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"]
    row = np.arange(table.height)
    return _world(table.select(used).to_numpy(), table["class"].to_numpy() == 1, row < 15_000, row >= 35_000)


def cancer() -> World:
    """Benign? Learned mostly from small tumours, asked mostly of large ones; the columns of size are not told."""
    x, y = load_breast_cancer(return_X_y=True)
    large = x[:, 0] > np.quantile(x[:, 0], 0.6)
    drawn = np.random.default_rng(0).random(len(x)) < np.where(large, 0.9, 0.25)
    return _world(x[:, [j for j in range(30) if j % 10 not in (0, 2, 3)]], y == 1, ~drawn, drawn, 120, 70)


def _world(x: Any, y: Any, same: Any, moved: Any, train: int = 300, held: int = 120) -> World:
    rng = np.random.default_rng(0)
    as_before, elsewhere = (rng.permutation(np.flatnonzero(m)) for m in (same, moved))
    return World(x.astype(float), y.astype(float), as_before, elsewhere, train, held)


WORLDS: dict[str, tuple[Callable[[], World], str]] = {
    "bike_hour": (bikes, "bike_hour"),
    "credit_default_uci": (credit, "credit_default_uci"),
    "elec2": (elec2, "elec2"),
    "breast cancer": (cancer, ""),
}


def booster(seed: int) -> Any:
    """The authors' settings: ten rounds, eta 0.1, 80 % of rows and columns."""
    if LGBMClassifier is None:
        return HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=1, early_stopping=False, random_state=seed)
    return LGBMClassifier(
        n_estimators=10, learning_rate=0.1, min_child_samples=1, subsample=0.8, subsample_freq=1, colsample_bytree=0.8, verbose=-1,
        n_jobs=1, random_state=seed,
    )  # fmt: skip


def detectron(x: Any, y: Any, window: Any, said: Any) -> float:
    """Share of the window on which an ensemble that fits the training rows comes to disagree, ties broken by its probabilities."""
    left, chance = np.ones(len(window), dtype=bool), []
    for seed in range(ROUNDS):
        if not left.any():
            break
        rows, goal = np.concatenate([x, window[left]]), np.concatenate([y, 1 - said[left]])
        weight = np.concatenate([np.ones(len(x)), np.full(left.sum(), 1 / (left.sum() + 1))])
        p = booster(seed).fit(rows, goal, sample_weight=weight).predict_proba(window)[:, 1]
        chance.append(np.where(said == 1, 1 - p, p))
        left &= (p > 0.5) == (said == 1)
    return float((~left).mean() + 1e-3 * np.mean(chance))


def measure(name: str, world: World, windows: int) -> dict[tuple[str, int], tuple[float, float]]:
    """(method, n) -> false alarms and power."""
    x, y = world.x, world.y
    train, held = world.same[: world.train], world.same[world.train : world.train + world.held]
    fresh = world.same[world.train + world.held :]
    model = booster(0).set_params(**{"max_iter" if LGBMClassifier is None else "n_estimators": 50}).fit(x[train], y[train])

    def score(rows: Any) -> Any:
        return model.predict_proba(rows)[:, 1]

    before, after = (roc_auc_score(y[rows], score(x[rows])) for rows in (fresh, world.moved))
    print(f"\n{name}: AUC {before:.3f} -> {after:.3f}; {len(train)} rows train, {len(held)} are held", flush=True)
    default = fit(x[held], score(x[held]))
    both = np.concatenate([train, held])
    unscored = fit(x[both])
    ours = fit_disagreement(x[both], y[both])
    found: dict[tuple[str, int], tuple[float, float]] = {}
    for n in SIZES:
        runs = [np.random.default_rng((7, k)).permutation(held)[:n] for k in range(NULLS)]
        null = np.array([detectron(x[train], y[train], x[r], np.round(score(x[r]))) for r in runs])
        hits: dict[str, list[list[bool]]] = {}
        for side, pool in enumerate((fresh, world.moved)):
            for seed in range(windows):
                rows = x[np.random.default_rng((seed, n)).permutation(pool)[:n]]
                said = score(rows)
                reached = detectron(x[train], y[train], rows, np.round(said))
                p = {
                    KS: kolmogorov_smirnov(x[held], rows).p_value,
                    "KS on the scores": kolmogorov_smirnov(score(x[held]), said).p_value,
                    "KS, training rows too": kolmogorov_smirnov(x[both], rows).p_value,
                    DEFAULT: default.check(rows, said).evidence[0].p_value,
                    "default, these too": unscored.check(rows).evidence[0].p_value,
                    OURS: ours.check(rows).p_value,
                    "Detectron, refitted": (1 + (null >= reached).sum()) / (NULLS + 1),
                }
                for method, value in p.items():
                    hits.setdefault(method, [[], []])[side].append(value is not None and value <= LEVEL)
        found |= {(method, n): (float(np.mean(a)), float(np.mean(b))) for method, (a, b) in hits.items()}
    for method in dict.fromkeys(m for m, _ in found):
        told = "".join(f"   n {n}: {found[method, n][1]:.2f} ({found[method, n][0]:.2f})" for n in SIZES)
        print(f"  {method:<22}{told}", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--windows", type=int, default=100)
    windows = parser.parse_args().windows
    warnings.simplefilter("ignore")
    print("LOUD: this is NOT the table of Ginsberg et al. 2023: UCI Heart is not at hand; their protocol on other data.")
    print("Default and KS hold the window against the held rows; 'training rows too' against all that the disagreement test has.")
    print(f"Power (false alarms) at p <= {LEVEL}, {windows} windows each; Detectron refitted on {booster(0).__class__.__name__}")
    alarms: dict[str, list[float]] = {}
    for name, (make, folder) in WORLDS.items():
        if folder and not (DATA / folder).exists():
            print(f"LOUD: {DATA / folder} is absent: {name} was not measured")
            continue
        begun = time.perf_counter()
        for (method, _), (false, _power) in measure(name, make(), windows).items():
            alarms.setdefault(method, []).append(false)
        print(f"  {time.perf_counter() - begun:.0f} s")
    wrong = [m for m in (OURS, DEFAULT) if np.mean(alarms[m]) > LEVEL + 2 * np.sqrt(LEVEL * (1 - LEVEL) / windows / len(SIZES))]
    print("\nFalse alarms over all: " + "; ".join(f"{m} {np.mean(v):.3f}" for m, v in alarms.items()))
    for method in wrong:
        print(f"NOT AS PROMISED: {method} raises more false alarms than {LEVEL}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
