"""The baseline ladder: random -> prior -> rules -> simple -> yours. What does not beat it is not worth serving."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from loudly.core.canon import finite
from loudly.core.late import late
from loudly.core.seams import Floats
from loudly.core.values import Decision, Evidence, Task, Verdict
from loudly.metrics.table import metric

sklearn = late("sklearn")

SIMPLE_ROWS = 50_000
MUST_BEAT = ("random", "prior")


def climb(
    X: Floats,
    y: Floats,
    X_held: Floats,
    truth: Floats,
    score: Floats,
    *,
    task: Task,
    name: str,
    rules: Mapping[str, Floats],
    seed: int,
) -> Verdict:
    """The metric of every rung on held-out rows; yours must beat random, the prior and each rule.

    The simple model (ridge or logistic regression, imputed and scaled, on at most 50,000 newest rows, on all where a class is not
    among these) is reported; a model below it passes with that said, since simple is a choice, not a fault. Without numbers and
    categories, X of no columns, there is none.
    """
    spec, newest = metric(name), slice(-SIMPLE_ROWS, None)
    if task is not Task.REGRESSION and len(np.unique(y[newest])) < len(np.unique(y)):
        newest = slice(None)
    rungs = {
        "random": _random(y, len(truth), task, seed),
        "prior": _prior(y, len(truth), task),
        **{f"rule {n}": values for n, values in rules.items()},
        **({"simple": _simple(X[newest], y[newest], X_held, task)} if X.shape[1] else {}),
        "yours": score,
    }
    values = {rung: spec(truth, given) for rung, given in rungs.items()}
    evidence = tuple(Evidence("ladder", finite(v), n=len(truth), about=rung, unit=name) for rung, v in values.items())
    yours = values["yours"]
    below = [r for r, v in values.items() if _must(r) and np.isfinite(v) and not spec.better * yours > spec.better * v]
    told = ", ".join(f"{rung} {value:.4f}" for rung, value in values.items())
    if below:
        return Verdict(Decision.FAIL, "ladder", f"yours does not beat {', '.join(below)}: {told}", evidence)
    simple = values.get("simple", values["prior"])
    note = "" if spec.better * yours > spec.better * simple else " (a simple model does as well)"
    return Verdict(Decision.PASS, "ladder", told + note, evidence)


def _must(rung: str) -> bool:
    return rung in MUST_BEAT or rung.startswith("rule ")


def _random(y: Floats, n: int, task: Task, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    match task:
        case Task.BINARY:
            return rng.random(n)
        case Task.MULTICLASS:
            drawn = rng.random((n, int(y.max()) + 1))
            return np.asarray(drawn / drawn.sum(axis=1, keepdims=True))
        case Task.REGRESSION:
            return rng.choice(y, n)


def _prior(y: Floats, n: int, task: Task) -> Floats:
    match task:
        case Task.BINARY:
            return np.full(n, y.mean())
        case Task.MULTICLASS:
            return np.tile(np.bincount(y.astype(int)) / len(y), (n, 1))
        case Task.REGRESSION:
            return np.full(n, np.median(y))


def _simple(X: Floats, y: Floats, X_held: Floats, task: Task) -> Floats:
    linear = sklearn.linear_model
    model = linear.Ridge() if task is Task.REGRESSION else linear.LogisticRegression(max_iter=300)
    steps = sklearn.impute.SimpleImputer(keep_empty_features=True), sklearn.preprocessing.StandardScaler(), model
    pipeline = sklearn.pipeline.make_pipeline(*steps).fit(X, y)
    if task is Task.REGRESSION:
        return np.asarray(pipeline.predict(X_held))
    proba = pipeline.predict_proba(X_held)
    return np.asarray(proba[:, 1] if task is Task.BINARY else proba)
