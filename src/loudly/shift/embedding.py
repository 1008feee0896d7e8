"""The mean embedding of rows: random Fourier features of a Gaussian kernel, summed as integers.

Each row becomes cosines and sines of D random projections; the mean over rows is the state, and the distance of two means is
the maximum mean discrepancy (MMD). A value enters as the place of its bin: the mean of the reference's values there,
standardised by the reference, on a grid of 1/16 within ±7.5 standard deviations, so that no outlier outweighs all else.
Phases are turns. Projections are kept on a grid, so phases are exact in float32 however rows are blocked and whichever way a
processor adds; then they are rounded to 1/4,096 of a turn, and cosine and sine are looked up as integers of 2⁻¹⁰: any split of
the rows gives the same integers on every machine.

Source: Rahimi & Recht 2007; Gretton et al. 2012 (MMD); Keriven, Garreau & Poli 2020 (the mean as state).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from loudly.core.seams import Floats, Ints
from loudly.stats.threads import LONG, together

Singles = NDArray[np.float32]
Steps = NDArray[np.int8]

STEP = 16.0
REACH = 7.5
GRID = 1024.0
# A turn has so many places; projections are in 1/64 of one, and a phase of 2**18 places needs 24 bits: float32 holds it.
TURN, PART = 4096, 64.0
# Added to a float32, this rounds it to an integer, which then stands in its lowest bits.
ROUND = np.float32(1.5 * 2**23)
ROWS = 4096
PAIR_ROWS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """weights (D, d): places of a turn for each step.  scores: for each column the steps of each bin, and then of missing values,
    -inf and +inf.  bandwidth: of the kernel.
    """

    weights: Singles
    scores: tuple[Steps, ...]
    bandwidth: float

    @property
    def size(self) -> int:
        """Features: D cosines, then D sines."""
        return 2 * len(self.weights)

    def sums(self, steps: Steps) -> Ints:
        """(2D,) sums over rows, in units of 2**-10, of the features of rows given as columns of steps (d, n)."""
        parts = np.array_split(steps, 2 if steps.shape[1] >= LONG else 1, axis=1)
        made: Ints = np.sum(together([partial(self._sums, part) for part in parts]), axis=0)
        return made

    def _sums(self, steps: Steps) -> Ints:
        half = len(self.weights)
        made = np.zeros(2 * half, dtype=np.int64)
        size = (half, min(ROWS, steps.shape[1]))
        phase, place, wave = np.empty(size, dtype=np.float32), np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
        numbers = np.empty((len(steps), size[1]), dtype=np.float32)
        for at in range(0, steps.shape[1], ROWS):
            part = steps[:, at : at + ROWS]
            x, p, i, w = (whole[:, : part.shape[1]] for whole in (numbers, phase, place, wave))
            np.copyto(x, part)
            np.matmul(self.weights, x, out=p)
            np.add(p, ROUND, out=p)
            np.bitwise_and(p.view(np.int32), TURN - 1, out=i)
            both = WAVES.take(i, out=w, mode="wrap").sum(axis=1)
            cosines = ((both + 2**31) & (2**32 - 1)) - 2**31
            made[:half] += cosines
            made[half:] += (both - cosines) >> 32
        return made


def _waves() -> Ints:
    """Of each place of a turn: the cosine in the lower 32 bits, the sine above; sums of 4,096 of them stay apart."""
    turn = np.arange(TURN) * (2 * np.pi / TURN)
    made: Ints = np.rint(np.cos(turn) * GRID).astype(np.int64) + (np.rint(np.sin(turn) * GRID).astype(np.int64) << 32)
    return made


WAVES = _waves()


def projections(columns: int, features: int, bandwidth: float, seed: int) -> Singles:
    """(features, columns) Gaussian projections on the grid, in places of a turn for each step of 1/16.

    Shrunk a little where a row of extreme values could leave the exact range of float32.
    """
    drawn = np.random.default_rng(seed).standard_normal((features, columns)) / bandwidth
    reach = np.abs(drawn).sum(axis=1, keepdims=True) * REACH
    drawn *= np.minimum(1.0, 250.0 / np.maximum(reach, 1e-12))
    places = drawn * (TURN / (2 * np.pi) / STEP)
    return (np.round(places * PART) / PART).astype(np.float32)


def median_bandwidth(steps: Steps, seed: int) -> float:
    """The median distance of pairs of rows (median heuristic); 1 where rows do not differ. Shapes: steps (d, n)."""
    rng = np.random.default_rng(seed)
    n = steps.shape[1]
    pick = rng.permutation(n)[:PAIR_ROWS]
    z = steps[:, pick].T.astype(np.float64) / STEP
    square = (z**2).sum(axis=1)
    far = square[:, None] + square[None, :] - 2 * z @ z.T
    pairs = far[np.triu_indices(len(z), 1)]
    found = float(np.sqrt(max(0.0, np.median(pairs)))) if len(pairs) else 0.0
    return found if found > 1e-6 else 1.0


def number_scores(counts: Ints, sums: Floats, edges: Floats) -> Steps:
    """Steps of each bin: its mean, standardised by the median and the interquartile range of the reference.

    Bins without reference rows lie at their upper edge; the last one as far as a step allows. Shapes: counts, sums (k,) of
    x - centre, edges (k-1,) likewise.
    """
    place = np.r_[edges, np.inf]
    some = counts > 0
    place[some] = sums[some] / counts[some]
    before = np.cumsum(counts)
    if not before[-1]:
        return np.zeros(len(counts) + 4, dtype=np.int8)
    low, middle, high = (place[np.searchsorted(before, q * before[-1])] for q in (0.25, 0.5, 0.75))
    spread = (high - low) / 1.349 or np.sqrt(np.average((place[some] - middle) ** 2, weights=counts[some]))
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.clip(np.round((place - middle) / (spread or 1.0) * STEP), -REACH * STEP, REACH * STEP)
    made: Steps = np.r_[steps, 0.0, -REACH * STEP, REACH * STEP, 0.0].astype(np.int8)
    return made


def category_scores(counts: Ints) -> Steps:
    """Steps for each bin of a category column: distinct places that do not depend on rows, standardised by the reference.

    A category has no order, so places are spread by the golden ratio; a missing one lies where the mean is.
    """
    k = len(counts)
    place = (np.arange(1, k + 1) * 0.6180339887498949) % 1.0
    share = counts / max(1, counts.sum())
    mean = float((share * place).sum())
    spread = float(np.sqrt((share * (place - mean) ** 2).sum())) or 1.0
    steps = np.clip(np.round((place - mean) / spread * STEP), -REACH * STEP, REACH * STEP)
    steps[-1] = 3 * STEP  # unseen categories lie apart from all seen
    made: Steps = np.r_[steps, 0.0].astype(np.int8)
    return made


def mmd2(reference: Ints, n: int, window: Ints, m: int) -> tuple[float, float]:
    """Squared MMD of two sums of features, without bias, and the standard size of its sampling noise under no shift.

    The covariance trace of unit features is 1 - |mean|², so noise needs no second moments. NaN below two rows a side.
    """
    if min(n, m) < 2:
        return float("nan"), float("nan")
    half = len(reference) // 2
    scale = 1 / (GRID * np.sqrt(half))
    a, b = reference * (scale / n), window * (scale / m)
    trace_a, trace_b = (covariance_trace(s, k) for s, k in ((reference, n), (window, m)))
    square = float(((a - b) ** 2).sum() - trace_a / n - trace_b / m)
    pooled = (n * trace_a + m * trace_b) / (n + m)
    return square, float(pooled * (1 / n + 1 / m))


def covariance_trace(sums: Ints, n: int) -> float:
    """The trace of the features' covariance, E|φ|² - |Eφ|² with |φ| = 1, without bias."""
    if n < 2:
        return float("nan")
    mean = sums / (GRID * np.sqrt(len(sums) // 2) * n)
    return float(n / (n - 1) * max(0.0, 1 - (mean**2).sum()))
