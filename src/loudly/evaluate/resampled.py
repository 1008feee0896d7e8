"""Ratios of decisions with a standard error, resampled by counts of rows that are alike: a fraction of the cost of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loudly.core.seams import Floats
from loudly.evaluate.doubt import of_decisions
from loudly.metrics.table import MetricSpec, decided, ratio_of
from loudly.stats.auc import normal_interval

DRAWS, DRAWS_OF_SEVERAL = 2000, 400


def interval(spec: MetricSpec, truth: Floats, predictions: Sequence[Floats], confidence: float, seed: int) -> tuple[float, float]:
    """Bounds of a ratio of one model, or of the first model's minus the second's.

    Shapes: truth (n,) of two classes or more, predictions (n,) or (n, k) each.  Cost: 400 x k a kind of row, of several classes.
    """
    several = predictions[0].ndim == 2
    kinds = predictions[0].shape[1] if several else 2
    counted, decisions = of_decisions(truth, [decided(prediction) for prediction in predictions])
    alike, counts = np.unique(np.stack([counted, *decisions]).astype(np.int64), axis=1, return_counts=True)
    rows, draws = int(counts.sum()), DRAWS_OF_SEVERAL if several else DRAWS
    drawn = np.random.default_rng(seed).multinomial(rows, counts / rows, draws)
    weights = np.vstack([counts, drawn]).astype(np.float64)
    true, of = alike[0], np.eye(kinds)
    came = weights @ of[true]
    values = [
        ratio_of(spec.name, came, weights @ of[told], weights @ (of[told] * (told == true)[:, None]), several=several)
        for told in alike[1:]
    ]
    value = values[0] if len(values) == 1 else spec.better * (values[0] - values[1])
    return normal_interval(float(value[0]), float(value[1:].std(ddof=1)), confidence)
