"""Candidate minus champion on the same rows, oriented so that + is better, with a paired interval."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from loudly.core.canon import finite
from loudly.core.seams import Floats
from loudly.core.values import Evidence
from loudly.evaluate.doubt import of_scores
from loudly.evaluate.resampled import interval
from loudly.metrics.table import FEWEST_OF_A_CLASS, OF_SEVERAL, RANKED, RATED, MetricSpec, metric
from loudly.stats.auc import auc_difference, normal_interval

BOOTSTRAPS = 200
FEWEST = 30


def compare(
    truth: Floats,
    candidate: Floats,
    champion: Floats,
    name: str,
    *,
    confidence: float = 0.95,
    about: str = "",
    seed: int = 0,
) -> Evidence:
    """The paired difference of a metric.

    Shapes: truth (n,), predictions (n,) or (n, k), row by row the same rows.  Method: DeLong for AUC, the mean of per-row
    loss differences where the metric is a mean, for ratios of decisions a bootstrap over joint confusion counts, else a paired
    bootstrap (200, seeded). Intervals of decisions and of scores' order count with some rows that went otherwise (`doubt`).
    An effect of None means that the rows cannot tell (too few, one class only).
    """
    spec = metric(name)
    about = about or name
    sound = np.isfinite(candidate).all() and np.isfinite(champion).all()
    if len(truth) < FEWEST or not sound or _cannot_tell(spec, truth, candidate.ndim):
        return Evidence(f"paired {name}", None, None, None, len(truth), about, name, confidence)
    if name == "roc_auc" and candidate.ndim == 1:
        method, (effect, low, high) = "paired DeLong", _by_order(truth, candidate, champion, confidence)
    elif spec.loss is not None:
        method, (effect, low, high) = "paired mean", _mean_difference(spec, truth, candidate, champion, confidence)
    else:
        effect = spec.better * (spec(truth, candidate) - spec(truth, champion))
        if name in RATED:
            method, (low, high) = "paired multinomial bootstrap", interval(spec, truth, (candidate, champion), confidence, seed)
        else:
            method, (low, high) = "paired bootstrap", _bootstrap(spec, truth, candidate, champion, confidence, seed)
    return Evidence(method, finite(effect), finite(low), finite(high), len(truth), about, name, confidence)


def compare_slices(
    truth: Floats,
    candidate: Floats,
    champion: Floats,
    name: str,
    slices: Mapping[str, NDArray[np.bool_]],
    *,
    confidence: float = 0.95,
) -> tuple[Evidence, ...]:
    """The paired difference within each slice; intervals hold for all slices together (Bonferroni)."""
    strict = 1 - (1 - confidence) / max(1, len(slices))
    return tuple(
        compare(truth[inside], candidate[inside], champion[inside], name, confidence=strict, about=slice_name)
        for slice_name, inside in slices.items()
    )


def _cannot_tell(spec: MetricSpec, truth: Floats, dimensions: int) -> bool:
    """Whether the rows are all of one class or value, or of two classes have too few of one to say how well scores order them."""
    if spec.name not in OF_SEVERAL:
        return False
    counts = np.unique(truth, return_counts=True)[1]
    return len(counts) < 2 or bool(dimensions == 1 and spec.name in RANKED and counts.min() < FEWEST_OF_A_CLASS)


def _mean_difference(
    spec: MetricSpec, truth: Floats, candidate: Floats, champion: Floats, confidence: float
) -> tuple[float, float, float]:
    assert spec.loss is not None
    gains = spec.loss(truth, champion) - spec.loss(truth, candidate)
    doubted = np.append(gains, [1.0, -1.0]) if spec.reads == "class" else gains  # as in `doubt`, of all rows as one class
    error = float(doubted.std(ddof=1) / np.sqrt(len(doubted)))
    return (float(gains.mean()), *normal_interval(float(doubted.mean()), error, confidence))


def _by_order(truth: Floats, candidate: Floats, champion: Floats, confidence: float) -> tuple[float, float, float]:
    counted, (first, second) = of_scores("roc_auc", truth, (candidate, champion))
    middle, error, freedom = auc_difference(counted, first, second)
    return (auc_difference(truth, candidate, champion)[0], *normal_interval(middle, error, confidence, freedom))


def _bootstrap(
    spec: MetricSpec, truth: Floats, candidate: Floats, champion: Floats, confidence: float, seed: int
) -> tuple[float, float]:
    if spec.name in RANKED:
        truth, (candidate, champion) = of_scores(spec.name, truth, (candidate, champion))

    def gain(rows: NDArray[np.int64]) -> float:
        return spec.better * (spec(truth[rows], candidate[rows]) - spec(truth[rows], champion[rows]))

    rng, n = np.random.default_rng(seed), len(truth)
    drawn = np.array([gain(rng.integers(0, n, n)) for _ in range(BOOTSTRAPS)])
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return float(low), float(high)
