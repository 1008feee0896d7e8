"""Energy distance with a permutation p-value: no bandwidth to choose, good for heavy tails.

Cost: as MMD. Source: Székely & Rizzo 2013; the energy distance is twice the MMD² of the kernel -|x - y| (Sejdinovic et al. 2013).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from loudly.core.values import Evidence
from loudly.shift.two_sample.kernels import squared_distances
from loudly.shift.two_sample.samples import FARTHEST, two_samples
from loudly.stats.permutation import p_value, quadratic, subsets


def energy(reference: Any, window: Any, *, rng: np.random.Generator, permutations: int = 500) -> Evidence:
    """2 E|x - y| - E|x - x'| - E|y - y'|, unbiased, and its p-value. Shapes: (n, d), (m, d).

    >>> rng = np.random.default_rng(0)
    >>> energy(rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 1, rng=rng, permutations=99).p_value
    0.01
    """
    one, two = two_samples(reference, window, farthest=FARTHEST)
    kernel = -np.sqrt(squared_distances(np.concatenate([one, two])))
    found = quadratic(kernel, subsets(len(kernel), len(two), permutations, rng))
    return Evidence("energy distance, permuted", float(found[0]), n=len(two), about="rows", unit="energy", p_value=p_value(found))
