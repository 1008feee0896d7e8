"""What a model is worth on held-out rows: metrics with intervals, classes, calibration, slices. Plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loudly.core.canon import finite
from loudly.core.late import late
from loudly.core.seams import Floats
from loudly.core.values import Evidence, Task
from loudly.evaluate.doubt import of_scores
from loudly.evaluate.resampled import interval
from loudly.metrics.table import RANKED, RATED, MetricSpec, decided, metric, metrics_for
from loudly.stats.auc import auc, normal_interval

sklearn = late("sklearn")

BINS = 10
BOOTSTRAPS = 100
FEWEST = 30


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Rows of one tenth of the scores: mean score, share of positives, with its interval."""

    score: float
    truth: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Report:
    """All of a judgment on held-out rows. `main` is the metric the user named."""

    task: Task
    main: str
    rows: int
    metrics: tuple[Evidence, ...]
    slices: tuple[Evidence, ...]
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration: tuple[CalibrationBin, ...]

    @property
    def value(self) -> float | None:
        """The named metric; None where the rows could not tell."""
        return next((e.effect for e in self.metrics if e.about == self.main), None)


def evaluate(
    truth: Floats,
    score: Floats,
    *,
    task: Task,
    main: str,
    classes: Sequence[str] = (),
    slices: Mapping[str, NDArray[np.bool_]] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Report:
    """Judges scores against the truth. Shapes: truth (n,), score (n,) or (n, k)."""
    slices = slices or {}
    measured = tuple(measure(m, truth, score, confidence, seed) for m in metrics_for(task))
    strict = 1 - (1 - confidence) / max(1, len(slices))
    main_spec = metric(main)
    by_slice = tuple(_named(measure(main_spec, truth[rows], score[rows], strict, seed), name) for name, rows in slices.items())
    known = task is not Task.REGRESSION
    confusion = _confusion(truth, score, len(classes) or 2) if known else ()
    calibration = _calibration(truth, score) if task is Task.BINARY else ()
    return Report(task, main, len(truth), measured, by_slice, tuple(classes), confusion, calibration)


def measure(spec: MetricSpec, truth: Floats, score: Floats, confidence: float = 0.95, seed: int = 0) -> Evidence:
    """One metric with its interval: DeLong for AUC, the normal interval for means of losses, a bootstrap otherwise."""
    value = spec(truth, score)
    if len(truth) < FEWEST or not np.isfinite(value):
        return Evidence(spec.name, finite(value), None, None, len(truth), spec.name, spec.name, confidence)
    if spec.name == "roc_auc" and score.ndim == 1:
        counted, (told,) = of_scores(spec.name, truth, (score,))
        found = auc(counted, told)
        method, bounds = "DeLong", normal_interval(found.value, found.error, confidence)
    elif spec.loss is not None:
        losses = spec.loss(truth, score)
        method, bounds = "normal", normal_interval(value, float(losses.std(ddof=1) / np.sqrt(len(losses))), confidence)
    elif spec.name in RATED:
        method, bounds = "multinomial bootstrap", interval(spec, truth, (score,), confidence, seed)
    else:
        method, bounds = "bootstrap", _bootstrap(spec, truth, score, confidence, seed)
    return Evidence(method, finite(value), finite(bounds[0]), finite(bounds[1]), len(truth), spec.name, spec.name, confidence)


def _named(evidence: Evidence, name: str) -> Evidence:
    return Evidence(
        evidence.method,
        evidence.effect,
        evidence.low,
        evidence.high,
        evidence.n,
        name,
        evidence.unit,
        evidence.confidence,
    )


def _bootstrap(spec: MetricSpec, truth: Floats, score: Floats, confidence: float, seed: int) -> tuple[float, float]:
    """Percentile bootstrap, with at most 2,000 rows a draw scaled back by sqrt(n)."""
    if spec.name in RANKED:
        truth, (score,) = of_scores(spec.name, truth, (score,))
    rng, n = np.random.default_rng(seed), len(truth)
    take = min(n, 2_000)
    value = spec(truth, score)
    drawn = [spec(truth[rows], score[rows]) for rows in (rng.integers(0, n, take) for _ in range(BOOTSTRAPS))]
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    shrink = float(np.sqrt(take / n))
    return value + (float(low) - value) * shrink, value + (float(high) - value) * shrink


def _confusion(truth: Floats, score: Floats, k: int) -> tuple[tuple[int, ...], ...]:
    counts = sklearn.metrics.confusion_matrix(truth, decided(score), labels=np.arange(k, dtype=float))
    return tuple(tuple(int(c) for c in row) for row in counts)


def _calibration(truth: Floats, score: Floats) -> tuple[CalibrationBin, ...]:
    if len(score) < FEWEST or not np.isfinite(score).all():
        return ()
    order = np.argsort(score, kind="stable")
    bins = []
    for rows in np.array_split(order, BINS):
        n, share = len(rows), float(truth[rows].mean())
        low, high = _wilson(share, n)
        bins.append(CalibrationBin(float(score[rows].mean()), share, low, high, n))
    return tuple(bins)


def _wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))) / (1 + z * z / n)
    return middle - reach, middle + reach
