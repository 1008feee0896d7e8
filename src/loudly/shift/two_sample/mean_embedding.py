"""Linear-time MMD: the distance of mean embeddings by random Fourier features; the means are all one needs to keep.

Cost: n k for the features, and one matrix product for the permutations. Source: Rahimi & Recht 2007; Zhao & Meng 2015.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from loudly.core.seams import Floats
from loudly.core.values import Evidence
from loudly.shift.two_sample.kernels import median_distance
from loudly.shift.two_sample.samples import FARTHEST, two_samples
from loudly.stats.permutation import p_value, subsets, window_means

FEATURES = 512


def mean_embedding(reference: Any, window: Any, *, rng: np.random.Generator, permutations: int = 500) -> Evidence:
    """Squared distance of the mean embeddings, and its p-value. Shapes: (n, d), (m, d).

    >>> rng = np.random.default_rng(0)
    >>> mean_embedding(rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) + 1, rng=rng, permutations=99).p_value
    0.01
    """
    one, two = two_samples(reference, window, farthest=FARTHEST)
    features = fourier_features(np.concatenate([one, two]), median_distance(one, two), FEATURES, rng)
    means = window_means(features - features.mean(axis=0), subsets(len(features), len(two), permutations, rng))
    gap = np.einsum("bk,bk->b", means, means, dtype=np.float64) * (len(features) / len(one)) ** 2
    return Evidence("mean embedding, permuted", float(gap[0]), n=len(two), about="rows", unit="MMD²", p_value=p_value(gap))


def fourier_features(rows: Floats, bandwidth: float, count: int, rng: np.random.Generator) -> Any:
    """sqrt(2 / k) cos(w x + b): features whose products approximate the Gaussian kernel. Shape: (n, d) -> (n, k) float32."""
    directions = rng.standard_normal((rows.shape[1], count)) / bandwidth
    phases = rng.uniform(0, 2 * np.pi, count)
    return (np.sqrt(2 / count) * np.cos(rows @ directions + phases)).astype(np.float32)
