"""The metrics by name: what each is, for which tasks, which way is better, and what it reads.

scikit-learn computes them (AUC and average precision without weights are our own: a tenth of the cost); loudly adds direction,
task and orientation. `oriented` makes + mean better everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loudly.core.late import late
from loudly.core.seams import Floats
from loudly.core.values import Task
from loudly.errors import ConfigError, nearest
from loudly.stats.auc import area, average_precision

sk = late("sklearn.metrics")

# Rows of one class only (or of one value, for r2) say nothing of these.
OF_SEVERAL = ("roc_auc", "average_precision", "balanced_accuracy", "f1", "precision", "recall", "r2")
# Of these only the order of the scores counts.
RANKED = ("roc_auc", "average_precision")
# Fewer rows of a class say nothing of a score's order that an interval could tell.
FEWEST_OF_A_CLASS = 20
# Of several classes these are means over the classes.
MACRO = {"f1": "f1_score", "precision": "precision_score", "recall": "recall_score"}
# Of a class: the share of rows that are of it, the share decided to be, and the metric's value for it.
Rate = tuple[float, float, float]
BINARY, MULTI, NUMBER = Task.BINARY, Task.MULTICLASS, Task.REGRESSION


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A metric: `compute(truth, prediction, weight)`; `better` is +1 or -1.

    reads: "score" (probabilities) or "class" (decisions at 0.5 or the likeliest class).
    loss: per-row losses (n,) whose mean the metric is, where there is such a thing; lower is better.
    reach: between the least and the largest loss of a row, where that is bounded.  rates: as of `by_rows`.
    """

    name: str
    compute: Callable[..., float]
    better: int
    tasks: tuple[Task, ...]
    reads: str
    loss: Callable[[Floats, Floats], Floats] | None = None
    reach: float | None = None
    rates: tuple[Rate, ...] = ()

    def __reduce__(self) -> tuple[Callable[..., MetricSpec], tuple[Any, ...]]:
        """By name: a strategy that judges by it travels to workers, and its functions do not."""
        return (by_rows, (self.name, self.rates)) if self.rates else (metric, (self.name,))

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
    """Of several classes the mean over each against the rest, whatever their scores sum to."""
    if score.ndim == 2:
        return float(np.mean([_auc((truth == kind).astype(float), score[:, kind], weight) for kind in range(score.shape[1])]))
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


def _ratio(part: Floats | float, whole: Floats | float) -> Floats:
    return np.asarray(part / np.maximum(whole, 1e-300))


METRICS: dict[str, MetricSpec] = {
    m.name: m
    for m in (
        MetricSpec("roc_auc", _auc, +1, (BINARY, MULTI), "score", reach=1.0),
        MetricSpec(
            "average_precision",
            _average_precision,
            +1,
            (BINARY,),
            "score",
        ),
        MetricSpec("log_loss", _log_loss, -1, (BINARY, MULTI), "score", _log_losses),
        MetricSpec("brier", _mean_of(_squares), -1, (BINARY, MULTI), "score", _squares, reach=1.0),
        MetricSpec(
            "accuracy",
            lambda t, s, w: sk.accuracy_score(t, s, sample_weight=w),
            +1,
            (BINARY, MULTI),
            "class",
            _wrongs,
            reach=1.0,
        ),
        MetricSpec(
            "balanced_accuracy",
            lambda t, s, w: sk.balanced_accuracy_score(t, s, sample_weight=w),
            +1,
            (BINARY, MULTI),
            "class",
        ),
        MetricSpec("f1", _of_two("f1"), +1, (BINARY, MULTI), "class"),
        MetricSpec("precision", _of_two("precision"), +1, (BINARY, MULTI), "class"),
        MetricSpec("recall", _of_two("recall"), +1, (BINARY, MULTI), "class"),
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
IN_TRAFFIC = {"balanced_accuracy": "accuracy", "f1": "accuracy", "precision": "accuracy",
              "recall": "accuracy", "rmse": "mse", "r2": "mse"}  # fmt: skip


# Of these a margin is another one in traffic, and how large it is there hangs on a scale that is known beforehand.
SCALED = ("rmse", "r2")


def margin_in_traffic(name: str, margin: float, scale: float) -> float:
    """A margin of rmse or r2 as one of mse. scale: the rmse of control, or the variance of the label.

    >>> margin_in_traffic("rmse", 0.5, scale=2.0), margin_in_traffic("r2", 0.1, scale=4.0)
    (2.25, 0.4)
    """
    return margin * (2 * scale + margin) if name == "rmse" else margin * scale


# Of these a row has a value, once it is known how often each class comes and is decided, and what control is worth.
RATED = ("balanced_accuracy", "f1", "precision", "recall")


def rates_of(name: str, truth: Floats, answers: Floats, expected: float) -> tuple[Rate, ...]:
    """The rates of each class by labels (n,) and answers (n,) or (n, k), with values in proportion to what is expected of them all.

    Empty where the rows have too few of a class to tell: none of it, or none decided to be of it.
    """
    classes = answers.shape[1] if answers.ndim == 2 else 2
    known = np.isfinite(truth) & np.isfinite(answers).reshape(len(answers), -1).all(axis=1)
    truth, given, found = truth[known], decided(answers[known]), list[Rate]()
    for kind in range(classes):
        true, told = truth == kind, given == kind
        if not true.any() or (name == "precision" and not told.any()):
            return ()
        both, share, said = float((true & told).mean()), float(true.mean()), float(told.mean())
        found.append((share, said, float(value_of(name, share, said, both))))
    mean = found[1][2] if classes == 2 else sum(value for *_, value in found) / classes
    part = expected / mean if mean > 0 else 0.0
    return tuple((share, said, min(1.0, value * part)) for share, said, value in found)


def value_of(name: str, came: Floats | float, said: Floats | float, both: Floats | float) -> Floats:
    """The ratio of a class, of which so many came, were decided to be of it, and both: its recall but for F1 and precision.

    Of any one shape; 0 where there is nothing to divide by.
    """
    match name:
        case "f1":
            return _ratio(2 * both, came + said)
        case "precision":
            return _ratio(both, said)
        case _:
            return _ratio(both, came)


def ratio_of(name: str, came: Floats, said: Floats, both: Floats, *, several: bool) -> Floats:
    """One of `RATED` from the counts of each class, as of `value_of`. Shapes: (m, k) -> (m,).

    Of two classes F1, precision and recall are those of the second; else they are means over the classes that came.

    >>> came, said, both = np.array([[6.0, 4.0]]), np.array([[7.0, 3.0]]), np.array([[5.0, 2.0]])
    >>> ratio_of("recall", came, said, both, several=False), ratio_of("recall", came, said, both, several=True).round(3)
    (array([0.5]), array([0.667]))
    """
    values = value_of(name, came, said, both)
    if not several and name != "balanced_accuracy":
        return np.asarray(values[:, 1])
    there = came > 0
    return _ratio((values * there).sum(axis=1), there.sum(axis=1))


def by_rows(name: str, rates: tuple[Rate, ...]) -> MetricSpec:
    """F1, precision, recall or balanced accuracy as a mean over rows: as it changes around what control is expected to do.

    A ratio of counts moves by (moved part - value x moved whole) / whole, to first order; whole and value are those of `rates`, one
    for each class. Two arms are told apart as they are by the ratio itself where the change is small, and in the same order where
    it is not. Of two classes F1, precision and recall are those of the second; else they are means over the classes.

    >>> truth, all_no, perfect = np.array([0.0, 0, 0, 1]), np.zeros(4), np.array([0.0, 0, 0, 1])
    >>> spec = by_rows("recall", ((0.75, 0.75, 0.9), (0.25, 0.25, 0.9)))
    >>> float(spec.loss(truth, all_no).mean() - spec.loss(truth, perfect).mean())
    1.0
    """
    judged = (1,) if len(rates) == 2 and name != "balanced_accuracy" else range(len(rates))
    worth = np.zeros((len(rates), 3))
    worth[list(judged)] = [_worth(name, rates[kind]) for kind in judged]
    both, came, said = worth.T / len(judged)

    def value(truth: Floats, given: Floats) -> Floats:
        true, told = truth.astype(np.int64), given.astype(np.int64)
        return np.asarray(came[true] + said[told] + np.where(true == told, both[true], 0.0))

    possible = came[:, None] + said + np.diag(both)
    return replace(
        metric(name), loss=lambda truth, score: -value(truth, decided(score)), reach=float(np.ptp(possible)), rates=rates
    )


def _worth(name: str, rate: Rate) -> tuple[float, float, float]:
    """What a row of a class counts that is found, that came, and that was decided to be of it."""
    share, said, value = rate
    match name:
        case "f1":
            whole = share + said
            return 2 / whole, -value / whole, -value / whole
        case "precision":
            return 1 / said, 0.0, -value / said
        case _:
            return 1 / share, 0.0, 0.0


def in_traffic(name: str, task: Task, rates: tuple[Rate, ...] = ()) -> MetricSpec:
    """The metric by which traffic is judged row by row; multiclass AUC is followed by the Brier score. rates: where known."""
    if rates:
        return by_rows(name, rates)
    spec = metric(IN_TRAFFIC.get(name, name))
    return metric("brier") if spec.name == "roc_auc" and task is Task.MULTICLASS else spec
