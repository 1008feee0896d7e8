"""One row and 32 rows: a model as its library answers against its fast form, interleaved, medians, ratio printed.

The largest difference is over the probes of registration (training rows, holes, values never seen, the cuts of the trees).
Run: python benchmarks/forms.py
"""

from __future__ import annotations

import statistics
import time
import warnings
from typing import Any

import lightgbm as lgb
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from loudly.app.verbs import fast_forms, formats
from loudly.core.seams import Model
from loudly.loop.serving import opened
from loudly.register.fast_form import Guarded, fasten
from loudly.register.skops_format import SklearnModel

ROUNDS, FEATURES, ROWS = 15, 30, 5_000


def models() -> dict[str, Any]:
    """100 trees of 31 leaves each, or a line, on 30 features."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, FEATURES))
    y = (X[:, 0] + X[:, 1] * X[:, 2] + rng.normal(size=ROWS) > 0).astype(int)
    made = {
        "HistGradientBoosting": HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0),
        "RandomForest": RandomForestClassifier(100, max_leaf_nodes=64, random_state=0),
        "scaler + LogisticRegression": make_pipeline(StandardScaler(), LogisticRegression()),
        "LightGBM, wrapper": lgb.LGBMClassifier(n_estimators=100, n_jobs=1, verbose=-1),
    }
    return {name: (model.fit(X, y), X) for name, model in made.items()}


def seconds(model: Model, rows: Any) -> float:
    """The median of a few calls."""
    taken = []
    for _ in range(9):
        begun = time.perf_counter()
        model.predict(rows)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def main() -> None:
    """Prints one line for each model and number of rows."""
    warnings.simplefilter("ignore")  # LightGBM's wrapper warns about names that it made up itself
    by_name = {form.name: form for form in formats()}
    print(f"{'model':<28} {'fast form':<13} {'rows':>4} {'original':>10} {'fast':>10} {'ratio':>7}  largest difference")
    for name, (fitted, X) in models().items():
        original: Model = SklearnModel(fitted)
        fast = fasten(fitted, original, X, opened(fast_forms()))
        if not fast.verdict.passed:
            print(f"{name:<28} LOUD the original serves: {fast.verdict.reason}")
            continue
        reader: Any = by_name.get(fast.runs) or fast_forms()[fast.form]()
        quick = Guarded(reader.load(fast.data), fast.refuses)
        for n in (1, 32):
            pairs = [(seconds(original, X[:n]), seconds(quick, X[:n])) for _ in range(ROUNDS)]
            before, after = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = statistics.median(b / a for b, a in pairs)
            gap = fast.plain()["gap"]
            print(f"{name:<28} {fast.form:<13} {n:>4} {before * 1e6:>7.0f} µs {after * 1e6:>7.1f} µs {ratio:>6.0f}x  {gap:.1g}")


if __name__ == "__main__":
    main()
