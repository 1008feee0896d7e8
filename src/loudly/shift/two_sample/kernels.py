"""Kernel matrices of pooled rows, in single precision: what the MMD family spends its time on.

Physical floor: one matrix product of the rows with themselves, and one pass of exp over the result.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from loudly.core.seams import Floats

Kernel = NDArray[np.float32]

MEDIAN_ROWS = 1000


def squared_distances(rows: Floats) -> Kernel:
    """Squared Euclidean distances of all pairs. Shape: (p, d) -> (p, p) float32. The rows are centred first, for precision."""
    x = (rows - rows.mean(axis=0)).astype(np.float32)
    norms = np.einsum("ij,ij->i", x, x)
    out: Kernel = x @ x.T
    out *= -2.0
    out += norms[:, None]
    out += norms[None, :]
    np.maximum(out, 0.0, out=out)
    np.fill_diagonal(out, 0.0)
    return out


def gaussian(squared: Kernel, bandwidth: float) -> Kernel:
    """exp(-distance² / (2 bandwidth²))."""
    out: Kernel = squared * np.float32(-0.5 / bandwidth**2)
    return np.exp(out, out=out)


def laplace(l1: Kernel, bandwidth: float) -> Kernel:
    """exp(-L1 distance / bandwidth)."""
    out: Kernel = l1 * np.float32(-1.0 / bandwidth)
    return np.exp(out, out=out)


def median_distance(reference: Floats, window: Floats) -> float:
    """Median Euclidean distance between the samples (first 1,000 rows of each); 1 where all rows are the same."""
    found = float(np.median(scipy.spatial.distance.cdist(reference[:MEDIAN_ROWS], window[:MEDIAN_ROWS])))
    return found if found > 0 else 1.0
