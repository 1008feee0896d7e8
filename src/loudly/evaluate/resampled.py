"""Ratios of decisions with a standard error: resampled by counts of rows that are alike, not row by row, at a fraction of the cost.

Where a model is right on all of the few rows of a class, or two models decide alike on them, the rows alone leave no doubt. So the
resampled rows hold for each class one more that is decided rightly and one that is not: of two models the first is right on the
one and the second on the other. (Laplace's rule of succession; Bonett & Price 2012, "Adjusted Wald confidence interval for a
difference of binomial proportions based on paired data", for each class.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loudly.core.seams import Floats
from loudly.metrics.table import MetricSpec, decided, ratio_of
from loudly.stats.auc import normal_interval

DRAWS, DRAWS_OF_SEVERAL = 2000, 400


def interval(spec: MetricSpec, truth: Floats, predictions: Sequence[Floats], confidence: float, seed: int) -> tuple[float, float]:
    """Bounds of a ratio of one model, or of the first model's minus the second's.

    Shapes: truth (n,) of two classes or more, predictions (n,) or (n, k) each.  Cost: 400 x k a kind of row, of several classes.
    """
    several = predictions[0].ndim == 2
    kinds = predictions[0].shape[1] if several else 2
    found = _doubted(truth, [decided(prediction) for prediction in predictions])
    alike, counts = np.unique(np.stack(found).astype(np.int64), axis=1, return_counts=True)
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


def _doubted(truth: Floats, decisions: Sequence[Floats]) -> list[Floats]:
    """The truth and the decisions (n,) of one or two models, with two rows more for each class."""
    classes, counts = np.unique(truth, return_counts=True)
    usual = classes[np.argsort(-counts, kind="stable")]
    wrong = np.where(classes == usual[0], usual[1], usual[0])
    more = ([*classes, *wrong], [*wrong, *classes])
    return [np.append(truth, [*classes, *classes]), *(np.append(d, m) for d, m in zip(decisions, more, strict=False))]
