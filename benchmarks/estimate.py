"""Performance estimated without labels: against what labels said on real data, and against NannyML on the same rows.

Prints for each window of elec2, bike_hour and credit_default_uci (../shared/data) the estimate, the confirmed figure and the
check's verdict; with --peers NannyML's CBPE and DLE beside ours. Its public release has no PAPE to compare with.
Run: python benchmarks/estimate.py [--peers]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from loudly.shift.estimate.answer import realised
from loudly.shift.estimate.atc import Atc
from loudly.shift.estimate.cbpe import Cbpe
from loudly.shift.estimate.dle import Dle
from loudly.shift.estimate.pape import Pape

DATA = Path(__file__).parents[2] / "shared" / "data"
OUT = Path("out/bench")
PEER = """
import json, sys, warnings; warnings.filterwarnings("ignore")
import pandas as pd, nannyml as nml
job = json.load(open(sys.argv[1])); ref, ana, size = pd.DataFrame(job["reference"]), pd.DataFrame(job["windows"]), job["size"]
if job["kind"] == "cbpe":
    made = nml.CBPE(metrics=["roc_auc", "accuracy", "f1"], y_pred_proba="score", y_pred="called", y_true="y", chunk_size=size,
                    problem_type="classification_binary")
else:
    features = [c for c in ref.columns if c not in ("score", "y", "called")]
    made = nml.DLE(metrics=["mae", "rmse"], feature_column_names=features, y_pred="score", y_true="y", chunk_size=size)
found = made.fit(ref).estimate(ana).filter(period="analysis").to_df()
print(json.dumps({m: [float(v) for v in found[m]["value"]] for m in dict.fromkeys(c[0] for c in found.columns) if m != "chunk"}))
"""


def elec2() -> tuple[np.ndarray, np.ndarray]:
    """Half-hourly prices, in order; is the price up?"""
    table = pl.read_csv(DATA / "elec2" / "elec.csv")
    return table.drop("class").to_numpy().astype(float), table["class"].to_numpy().astype(float)


def credit() -> tuple[np.ndarray, np.ndarray]:
    """Clients who default next month: no time, so no shift."""
    table = pl.read_csv(DATA / "credit_default_uci" / "UCI_Credit_Card.csv").drop("ID")
    goal = "default-payment-next-month"
    return table.drop(goal).to_numpy().astype(float), table[goal].to_numpy().astype(float)


def bikes() -> tuple[np.ndarray, np.ndarray]:
    """Hourly rentals, in order."""
    table = pl.read_csv(DATA / "bike_hour" / "hour.csv")
    used = ["season", "mnth", "hr", "holiday", "weekday", "workingday", "weathersit", "temp", "atemp", "hum", "windspeed"]
    return table.select(used).to_numpy().astype(float), table["cnt"].to_numpy().astype(float)


def binary(name: str, X: np.ndarray, y: np.ndarray, windows: int, peers: Path | None) -> list[float]:
    """The first fifth trains, the second fifth is the reference, the rest are windows. Returns the gaps to the peer."""
    n = len(y) // 5
    model = HistGradientBoostingClassifier(max_iter=100, random_state=0).fit(X[:n], y[:n])
    score = model.predict_proba(X)[:, 1]
    ref, size = slice(n, 2 * n), (len(y) - 2 * n) // windows
    cut = [slice(2 * n + i * size, 2 * n + (i + 1) * size) for i in range(windows)]
    cbpe = {m: Cbpe.fit(score[ref], y[ref], metric=m) for m in ("roc_auc", "accuracy", "f1")}
    pape, atc = Pape.fit(score[ref], y[ref], X[ref]), Atc.fit(score[ref], y[ref])
    print(f"\n{name}: reference roc_auc {cbpe['roc_auc'].expected:.3f}; {windows} windows of {size:,} rows")
    print(f"{'window':>7} {'roc_auc':>8} {'CBPE':>6} {'interval':>15} {'check':>9} {'PAPE':>6} {'rows':>6} {'check':>9}", end="")
    print(f" {'accuracy':>9} {'CBPE':>6} {'ATC':>6}")
    for i, w in enumerate(cut):
        e, p = cbpe["roc_auc"].estimate(score[w]), pape.estimate(score[w], X[w])
        told, again = cbpe["roc_auc"].check_against(score[w], y[w]), pape.check_against(score[w], X[w], y[w])
        right, ours = realised("accuracy", score[w], y[w])[0], cbpe["accuracy"].estimate(score[w]).effect
        confirmed = realised("roc_auc", score[w], y[w])[0]
        print(
            f"{i:>7} {confirmed:>8.3f} {e.effect:>6.3f}  [{e.low:.3f}, {e.high:.3f}] {told.decision:>9}"
            f" {p.effect:>6.3f} {float(str(p.detail['effective_rows'])):>6.0f} {again.decision:>9}"
            f" {right:>9.3f} {ours:>6.3f} {atc.estimate(score[w]).effect:>6.3f}"
        )
    if peers is None:
        return []
    rows = [{"score": float(s), "called": int(s >= 0.5), "y": int(t)} for s, t in zip(score, y, strict=True)]
    theirs = ask(peers, "cbpe", rows[ref], rows[2 * n : 2 * n + size * windows], size)
    return compare({m: [c.estimate(score[w]).effect for w in cut] for m, c in cbpe.items()}, theirs)


def regression(name: str, X: np.ndarray, y: np.ndarray, windows: int, peers: Path | None) -> list[float]:
    """As `binary`, by DLE."""
    n = len(y) // 5
    f = HistGradientBoostingRegressor(max_iter=100, random_state=0).fit(X[:n], y[:n]).predict(X)
    ref, size = slice(n, 2 * n), (len(y) - 2 * n) // windows
    cut = [slice(2 * n + i * size, 2 * n + (i + 1) * size) for i in range(windows)]
    made = {m: Dle.fit(f[ref], y[ref], X[ref], metric=m) for m in ("mae", "rmse")}
    print(f"\n{name}: reference MAE {made['mae'].expected:.1f}; {windows} windows of {size:,} rows")
    print(f"{'window':>7} {'mae':>6} {'DLE':>6} {'interval':>15} {'check':>9}")
    for i, w in enumerate(cut):
        e, told = made["mae"].estimate(f[w], X[w]), made["mae"].check_against(f[w], X[w], y[w])
        print(f"{i:>7} {np.abs(f[w] - y[w]).mean():>6.1f} {e.effect:>6.1f}  [{e.low:>5.1f}, {e.high:>5.1f}] {told.decision:>9}")
    if peers is None:
        return []
    rows = [
        {**{f"x{j}": float(v) for j, v in enumerate(x)}, "score": float(s), "y": float(t)} for x, s, t in zip(X, f, y, strict=True)
    ]
    theirs = ask(peers, "dle", rows[ref], rows[2 * n : 2 * n + size * windows], size)
    return compare({m: [c.estimate(f[w], X[w]).effect for w in cut] for m, c in made.items()}, theirs, relative=True)


def peer() -> Path:
    """NannyML in an environment of its own; it needs statsmodels, which it does not declare."""
    home = OUT / "peers-estimate"
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "uv"], check=True)
        subprocess.run(
            [python, "-m", "uv", "pip", "install", "-q", "--python", python, "nannyml==0.13.1", "statsmodels"], check=True
        )
    return python


def ask(
    python: Path, kind: str, reference: list[dict[str, float]], windows: list[dict[str, float]], size: int
) -> dict[str, list[float]]:
    """NannyML's estimates of each window."""
    job = OUT / "estimate.json"
    turned = {k: {c: [r[c] for r in rows] for c in rows[0]} for k, rows in (("reference", reference), ("windows", windows))}
    job.write_text(json.dumps({"kind": kind, "size": size, **turned}))
    done = subprocess.run([python, "-c", PEER, job], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def compare(ours: dict[str, list[float | None]], theirs: dict[str, list[float]], *, relative: bool = False) -> list[float]:
    """Prints the agreement; the largest gap of each metric."""
    worst = []
    for metric, values in ours.items():
        mine, other = np.array(values, dtype=float), np.array(theirs[metric])
        gap = np.abs(mine - other) / (other if relative else 1.0)
        worst.append(float(gap.max()))
        print(f"   {metric:>9} ours    {np.round(mine, 3).tolist()}")
        print(f"   {metric:>9} NannyML {np.round(other, 3).tolist()}  largest gap {gap.max():.3f}")
    return worst


def main() -> int:
    """0 where ours agree with the peer's within .02 (CBPE) and a quarter (DLE), or no peer was asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", action="store_true")
    asked = parser.parse_args().peers
    if not DATA.exists():
        print("LOUD: skipped, ../shared/data is absent")
        return 0
    OUT.mkdir(parents=True, exist_ok=True)
    python = peer().absolute() if asked else None
    gaps = binary("elec2", *elec2(), 9, python) + binary("credit_default_uci", *credit(), 6, python)
    errors = regression("bike_hour", *bikes(), 8, python)
    return 0 if all(g < 0.02 for g in gaps) and all(g < 0.25 for g in errors) else 1


if __name__ == "__main__":
    sys.exit(main())
