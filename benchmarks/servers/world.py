"""What all servers of the benchmark share: a made-up table of 30 features, the models, one row, and what a model says of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import joblib
import lightgbm as lgb
import numpy as np
import polars as pl
from sklearn.ensemble import HistGradientBoostingClassifier

from loudly.core.clock import DAY, WallClock

FEATURES = [f"f{i}" for i in range(30)]
ROW = np.random.default_rng(1).normal(size=len(FEATURES)).round(3).tolist()
AT = "2026-01-01T00:00:00"
KEY = "benchmark"


def table(rows: int = 4000) -> pl.DataFrame:
    """30 numbers, a label, a key and a time."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, len(FEATURES))).round(3)
    y = (rng.random(rows) < 1 / (1 + np.exp(-X[:, 0] - X[:, 1]))).astype(int)
    at = pl.Series(WallClock().now() - 41 * DAY + np.arange(rows) * DAY // 100, dtype=pl.Int64).cast(pl.Datetime("us"))
    return pl.DataFrame({"id": [f"t{i}" for i in range(rows)], "at": at, **{f: X[:, i] for i, f in enumerate(FEATURES)}, "y": y})


def fitted(kind: str, X: Any, y: Any) -> Any:
    """100 trees of 31 leaves. kind: lgbm is LightGBM's wrapper, everything else scikit-learn's histogram boosting."""
    if kind == "lgbm":
        return lgb.LGBMClassifier(n_estimators=100, num_leaves=31, n_jobs=1, verbose=-1, random_state=0).fit(np.asarray(X), y)
    return HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0).fit(np.asarray(X), y)


def save(folder: Path) -> dict[str, float]:
    """Writes the models that peers serve into a folder; returns what each says of the row: kind -> probability."""
    made = table()
    X, y = made.select(FEATURES).to_numpy(), made["y"].to_numpy()
    said = {"none": 0.5}
    for kind in ("hgb", "lgbm"):
        model = fitted(kind, X, y)
        if kind == "hgb":
            model._feature_subsample_rng = None  # only a fit needs it, and another numpy cannot read it
        joblib.dump(model, folder / f"{kind}.joblib")
        said[kind] = float(model.predict_proba(np.array([ROW]))[0, 1])
    (folder / "row.json").write_text(json.dumps({"features": FEATURES, "row": ROW}))
    return said


def python_version() -> str:
    """The Python that peers get: ours."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"
