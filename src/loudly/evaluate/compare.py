"""Candidate minus champion on the same rows, oriented so that + is better, with a paired interval."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from loudly.core.canon import finite
from loudly.core.seams import Floats
from loudly.core.values import Evidence
from loudly.metrics.table import OF_SEVERAL, MetricSpec, decided, metric
from loudly.stats.auc import auc_difference, normal_interval

BOOTSTRAPS = 200
COUNT_BOOTSTRAPS = 2000
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
    loss differences where the metric is a mean; for binary decisions a bootstrap over the eight joint confusion counts; else a
    paired bootstrap (200, seeded).
    An effect of None means that the rows cannot tell (too few, one class only).
    """
    spec = metric(name)
    about = about or name
    alike = name in OF_SEVERAL and len(np.unique(truth)) < 2
    if len(truth) < FEWEST or alike or not (np.isfinite(candidate).all() and np.isfinite(champion).all()):
        return Evidence(f"paired {name}", None, None, None, len(truth), about, name, confidence)
    if name == "roc_auc" and candidate.ndim == 1:
        method, (effect, error) = "paired DeLong", auc_difference(truth, candidate, champion)
        low, high = normal_interval(effect, error, confidence)
    elif spec.loss is not None:
        method, (effect, low, high) = "paired mean", _mean_difference(spec, truth, candidate, champion, confidence)
    elif spec.counts is not None and candidate.ndim == 1:
        method = "paired multinomial bootstrap"
        effect, low, high = _count_bootstrap(spec, truth, candidate, champion, confidence, seed)
    else:
        method, (effect, low, high) = "paired bootstrap", _bootstrap(spec, truth, candidate, champion, confidence, seed)
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


def _mean_difference(
    spec: MetricSpec, truth: Floats, candidate: Floats, champion: Floats, confidence: float
) -> tuple[float, float, float]:
    assert spec.loss is not None
    gains = spec.loss(truth, champion) - spec.loss(truth, candidate)
    effect, error = float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains)))
    return (effect, *normal_interval(effect, error, confidence))


def _count_bootstrap(
    spec: MetricSpec, truth: Floats, candidate: Floats, champion: Floats, confidence: float, seed: int
) -> tuple[float, float, float]:
    """Resamples the joint counts of (truth, candidate, champion) instead of the rows: the same distribution, far cheaper."""
    cells = (4 * truth + 2 * decided(candidate) + decided(champion)).astype(int)
    counts = np.bincount(cells, minlength=8)
    drawn = np.random.default_rng(seed).multinomial(len(truth), counts / len(truth), COUNT_BOOTSTRAPS)
    gain = float(_gain(spec, counts[None, :].astype(float))[0])
    return (gain, *normal_interval(gain, float(_gain(spec, drawn.astype(float)).std(ddof=1)), confidence))


def _gain(spec: MetricSpec, cells: Floats) -> Floats:
    """The oriented gain of rows of the eight joint counts, indexed by 4 truth + 2 candidate + champion."""
    assert spec.counts is not None
    c = cells.reshape(len(cells), 2, 2, 2)
    candidate, champion = c.sum(axis=3), c.sum(axis=2)
    return spec.better * (_of_counts(spec, candidate) - _of_counts(spec, champion))


def _of_counts(spec: MetricSpec, table: Floats) -> Floats:
    assert spec.counts is not None
    return spec.counts(table[:, 0, 0], table[:, 0, 1], table[:, 1, 0], table[:, 1, 1])


def _bootstrap(
    spec: MetricSpec, truth: Floats, candidate: Floats, champion: Floats, confidence: float, seed: int
) -> tuple[float, float, float]:
    def gain(rows: NDArray[np.int64]) -> float:
        return spec.better * (spec(truth[rows], candidate[rows]) - spec(truth[rows], champion[rows]))

    rng, n = np.random.default_rng(seed), len(truth)
    drawn = np.array([gain(rng.integers(0, n, n)) for _ in range(BOOTSTRAPS)])
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return gain(np.arange(n)), float(low), float(high)
