"""The metrics by name: what each is, for which tasks, which way is better, and what it reads.

scikit-learn computes them (AUC and average precision without weights are our own: a tenth of the cost); loudly adds direction,
task and orientation. `oriented` makes + mean better everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from loudly.core.late import late
from loudly.core.seams import Floats
from loudly.core.values import Task
from loudly.errors import ConfigError, nearest
from loudly.stats.auc import area, average_precision

sk = late("sklearn.metrics")

# Rows of one class only (or of one value, for r2) say nothing of these.
OF_SEVERAL = ("roc_auc", "average_precision", "balanced_accuracy", "f1", "precision", "recall", "r2")
# Of several classes these are means over the classes.
MACRO = {"f1": "f1_score", "precision": "precision_score", "recall": "recall_score"}
BINARY, MULTI, NUMBER = Task.BINARY, Task.MULTICLASS, Task.REGRESSION


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A metric: `compute(truth, prediction, weight)`; `better` is +1 or -1.

    reads: "score" (probabilities) or "class" (decisions at 0.5 or the likeliest class).
    loss: per-row losses (n,) whose mean the metric is, where there is such a thing; lower is better.
    counts: the metric of binary decisions from (tn, fp, fn, tp), vectorised, where it depends on those alone.
    """

    name: str
    compute: Callable[..., float]
    better: int
    tasks: tuple[Task, ...]
    reads: str
    loss: Callable[[Floats, Floats], Floats] | None = None
    counts: Callable[[Floats, Floats, Floats, Floats], Floats] | None = None

    def __reduce__(self) -> tuple[Callable[[str], MetricSpec], tuple[str]]:
        """By name: a strategy that judges by it travels to workers, and its functions do not."""
        return metric, (self.name,)

    def __call__(self, truth: Floats, prediction: Floats, weight: Floats | None = None) -> float:
        """The value; NaN where the rows cannot tell (no rows, one class or value only, a NaN among the predictions)."""
        if len(truth) == 0 or not np.isfinite(prediction).all():
            return float("nan")
        if self.name in OF_SEVERAL and len(np.unique(truth)) < 2:
            return float("nan")
        if self.name in MACRO and prediction.ndim == 2:
            return _macro(self.name, truth, decided(prediction), weight)
        given = decided(prediction) if self.reads == "class" else prediction
        return float(self.compute(truth, given, weight))


def decided(prediction: Floats) -> Floats:
    """Classes of scores: the likeliest of (n, k), or 0/1 at one half for (n,)."""
    if prediction.ndim == 2:
        return np.asarray(prediction.argmax(axis=1), dtype=np.float64)
    return (prediction >= 0.5).astype(np.float64)


def _auc(truth: Floats, score: Floats, weight: Floats | None) -> float:
    if score.ndim == 2:
        return float(sk.roc_auc_score(truth, score, sample_weight=weight, multi_class="ovr", labels=np.arange(score.shape[1])))
    return area(truth, score) if weight is None else float(sk.roc_auc_score(truth, score, sample_weight=weight))


def _average_precision(truth: Floats, score: Floats, weight: Floats | None) -> float:
    return (
        average_precision(truth, score) if weight is None else float(sk.average_precision_score(truth, score, sample_weight=weight))
    )


def _log_loss(truth: Floats, score: Floats, weight: Floats | None) -> float:
    return float(np.average(_log_losses(truth, score), weights=weight))


def _log_losses(truth: Floats, score: Floats) -> Floats:
    picked = score[np.arange(len(truth)), truth.astype(int)] if score.ndim == 2 else np.where(truth > 0.5, score, 1 - score)
    return np.asarray(-np.log(np.clip(picked, 1e-15, 1.0)))


def _squares(truth: Floats, score: Floats) -> Floats:
    if score.ndim == 2:
        return np.asarray(((score - np.eye(score.shape[1])[truth.astype(int)]) ** 2).sum(axis=1))
    return np.asarray((score - truth) ** 2)


def _wrongs(truth: Floats, score: Floats) -> Floats:
    return np.asarray(decided(score) != truth, dtype=np.float64)


def _absolutes(truth: Floats, score: Floats) -> Floats:
    return np.asarray(np.abs(score - truth))


def _mean_of(losses: Callable[[Floats, Floats], Floats]) -> Callable[[Floats, Floats, Floats | None], float]:
    return lambda truth, score, weight: float(np.average(losses(truth, score), weights=weight))


def _macro(name: str, truth: Floats, given: Floats, weight: Floats | None) -> float:
    """Over the classes that the rows have: one of which none came was neither found nor missed."""
    there = np.unique(truth)
    return float(getattr(sk, MACRO[name])(truth, given, labels=there, average="macro", sample_weight=weight, zero_division=0.0))


def _of_two(name: str) -> Callable[[Floats, Floats, Floats | None], float]:
    return lambda truth, given, weight: float(getattr(sk, MACRO[name])(truth, given, sample_weight=weight, zero_division=0.0))


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.asarray(part / np.maximum(whole, 1e-300))


def _f1_counts(tn: Floats, fp: Floats, fn: Floats, tp: Floats) -> Floats:
    return _ratio(2 * tp, 2 * tp + fp + fn)


def _balanced_counts(tn: Floats, fp: Floats, fn: Floats, tp: Floats) -> Floats:
    return (_ratio(tp, tp + fn) + _ratio(tn, tn + fp)) / 2


METRICS: dict[str, MetricSpec] = {
    m.name: m
    for m in (
        MetricSpec("roc_auc", _auc, +1, (BINARY, MULTI), "score"),
        MetricSpec(
            "average_precision",
            _average_precision,
            +1,
            (BINARY,),
            "score",
        ),
        MetricSpec("log_loss", _log_loss, -1, (BINARY, MULTI), "score", _log_losses),
        MetricSpec("brier", _mean_of(_squares), -1, (BINARY, MULTI), "score", _squares),
        MetricSpec("accuracy", lambda t, s, w: sk.accuracy_score(t, s, sample_weight=w), +1, (BINARY, MULTI), "class", _wrongs),
        MetricSpec(
            "balanced_accuracy",
            lambda t, s, w: sk.balanced_accuracy_score(t, s, sample_weight=w),
            +1,
            (BINARY, MULTI),
            "class",
            counts=_balanced_counts,
        ),
        MetricSpec("f1", _of_two("f1"), +1, (BINARY, MULTI), "class", counts=_f1_counts),
        MetricSpec(
            "precision", _of_two("precision"), +1, (BINARY, MULTI), "class", counts=lambda tn, fp, fn, tp: _ratio(tp, tp + fp)
        ),
        MetricSpec("recall", _of_two("recall"), +1, (BINARY, MULTI), "class", counts=lambda tn, fp, fn, tp: _ratio(tp, tp + fn)),
        MetricSpec("mae", _mean_of(_absolutes), -1, (NUMBER,), "score", _absolutes),
        MetricSpec("mse", _mean_of(_squares), -1, (NUMBER,), "score", _squares),
        MetricSpec("rmse", lambda t, s, w: float(np.sqrt(np.average(_squares(t, s), weights=w))), -1, (NUMBER,), "score"),
        MetricSpec("r2", lambda t, s, w: sk.r2_score(t, s, sample_weight=w), +1, (NUMBER,), "score"),
    )
}


def metric(name: str) -> MetricSpec:
    """The metric of that name. Raises: ConfigError with the nearest valid name."""
    if name not in METRICS:
        raise ConfigError(f"There is no metric {name!r}.", do=nearest(name, METRICS))
    return METRICS[name]


def metrics_for(task: Task) -> tuple[MetricSpec, ...]:
    """All metrics that make sense for a task, in the order of the table."""
    return tuple(m for m in METRICS.values() if task in m.tasks)


# A metric that is no mean over rows is followed in traffic by the nearest one that is, and the verdict says which.
IN_TRAFFIC = {"average_precision": "roc_auc", "balanced_accuracy": "accuracy", "f1": "accuracy", "precision": "accuracy",
              "recall": "accuracy", "rmse": "mse", "r2": "mse"}  # fmt: skip


# Of these a margin is another one in traffic, and how large it is there hangs on a scale that is known beforehand.
SCALED = ("rmse", "r2")


def margin_in_traffic(name: str, margin: float, scale: float) -> float:
    """A margin of rmse or r2 as one of mse. scale: the rmse of control, or the variance of the label.

    >>> margin_in_traffic("rmse", 0.5, scale=2.0), margin_in_traffic("r2", 0.1, scale=4.0)
    (2.25, 0.4)
    """
    return margin * (2 * scale + margin) if name == "rmse" else margin * scale


def in_traffic(name: str, task: Task) -> MetricSpec:
    """The metric by which traffic is judged row by row; multiclass AUC is followed by the Brier score."""
    spec = metric(IN_TRAFFIC.get(name, name))
    return metric("brier") if spec.name == "roc_auc" and task is Task.MULTICLASS else spec
