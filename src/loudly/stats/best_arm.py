"""The probability that each of several independent random numbers is the largest: what Thompson sampling draws from.

A sampler draws once from each posterior and takes the largest; here the same probabilities come from one integral,
P(a is best) = ∫ Π_{b≠a} F_b dF_a, by the trapezoid rule on edges that follow every distribution's own width. So a policy
knows its propensities without Monte Carlo.

Source: Thompson 1933; Russo, Van Roy, Kazerouni, Osband & Wen 2018, "A tutorial on Thompson sampling", section 3.
Accuracy: 2e-3 for Beta posteriors of a few rewards, 1e-3 for Gaussians (tested against 10⁶ draws).
"""

from __future__ import annotations

import numpy as np
import scipy

from loudly.core.seams import Floats

SPREAD = np.linspace(-6.0, 6.0, 49)
EVEN = np.linspace(0.0, 1.0, 33)
ROWS = 512


def best_beta(a: Floats, b: Floats) -> Floats:
    """(k,) probabilities that Beta(a_i, b_i) is the largest. Shapes: a, b (k,).  Cost: about 0.1 ms for 10 arms.

    >>> best_beta(np.array([1.0, 1.0]), np.array([1.0, 1.0]))
    array([0.5, 0.5])
    """
    mean = a / (a + b)
    deviation = np.sqrt(mean * (1 - mean) / (a + b + 1))
    near = mean[:, None] + deviation[:, None] * SPREAD
    edges = np.unique(np.clip(np.concatenate([near.ravel(), EVEN]), 0.0, 1.0))
    return matching(np.asarray(scipy.special.betainc(a[:, None], b[:, None], edges)))


def best_normal(mean: Floats, deviation: Floats) -> Floats:
    """(n, k) probabilities that each Gaussian of a row is its largest. Shapes: mean, deviation (n, k), deviation > 0.

    Cost: about 60 µs a row for 5 arms; memory for 512 rows at a time.

    >>> best_normal(np.array([[0.0, 0.0]]), np.array([[1.0, 3.0]])).round(6)
    array([[0.5, 0.5]])
    """
    rows = range(0, len(mean), ROWS)
    parts = [_best_normal(mean[first : first + ROWS], deviation[first : first + ROWS]) for first in rows]
    return np.concatenate(parts) if parts else np.zeros(mean.shape)


def matching(below: Floats) -> Floats:
    """P(arm is best) from distribution functions at common rising edges. Shapes: (..., k, m) -> (..., k)."""
    k = below.shape[-2]
    others = np.stack([np.delete(below, arm, axis=-2).prod(axis=-2) for arm in range(k)], axis=-2)
    mass = np.diff(below, axis=-1) * (others[..., 1:] + others[..., :-1]) / 2
    shares = mass.sum(axis=-1)
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True))


def _best_normal(mean: Floats, deviation: Floats) -> Floats:
    near = mean[:, :, None] + deviation[:, :, None] * SPREAD
    edges = np.sort(near.reshape(len(mean), -1), axis=1)
    return matching(np.asarray(scipy.special.ndtr((edges[:, None, :] - mean[:, :, None]) / deviation[:, :, None])))
