"""Rows of one unit are not independent: the spread of a mean with units, not rows, as what was drawn.

Units are hashed into a fixed number of buckets, each bucket is a cluster, and the variance of the estimate is that of the sums of
residuals of the clusters. No unit is named or kept, the state does not grow, and a unit that comes back after days is still the
same one. For an AUC the residuals are placements of positives and of negatives.

Few blocks that can be told apart, such as days, are not hashed: `block_mean` and `block_difference` leave each out in turn.

Source: Liang & Zeger 1986 (the sandwich, here for a ratio of sums); Bell & McCaffrey 2002 (the jackknife over blocks, "CR3");
Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data", Biometrics 53; Deng, Knoblich & Lu 2018 (KDD) on the unit of
randomisation against that of analysis.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from loudly.core.seams import Floats, Ints
from loudly.stats.confidence_sequence import Running
from loudly.stats.gains import Gains

BUCKETS = 256
BITS = 40


def hashes(units: Sequence[str]) -> Ints:
    """(n,) a number below 2**40 for each unit, the same everywhere and independent of the draws that route it."""
    names = [str(unit) for unit in units]
    made = {name: hashlib.blake2b(name.encode(), digest_size=BITS // 8, person=b"cluster").digest() for name in set(names)}
    return np.fromiter((int.from_bytes(made[name], "big") for name in names), dtype=np.int64, count=len(names))


@dataclass(frozen=True, slots=True)
class Clusters:
    """Per bucket: counts and sums of the values of positives, then of negatives. Shape: (4, buckets).

    >>> values, units = np.tile([0.0, 1.0], 500).repeat(5), [f"u{i // 5}" for i in range(5000)]
    >>> stream = Clusters().add(values, hashes(units)).stream(Gains().add(values))
    >>> 700 < stream.n < 1500
    True
    """

    sums: Floats | None = None

    def add(self, values: Floats, hashed: Ints, positive: Any = None) -> Clusters:
        """A batch more. Shapes: values (n,), hashed (n,) as of `hashes`, positive (n,) booleans for a rank metric."""
        bucket = hashed % BUCKETS
        first = np.ones(len(values), dtype=bool) if positive is None else positive
        rows: list[Floats] = []
        for mine in (first, ~first):
            rows.append(np.asarray(np.bincount(bucket[mine], minlength=BUCKETS), dtype=np.float64))
            rows.append(np.asarray(np.bincount(bucket[mine], weights=values[mine], minlength=BUCKETS), dtype=np.float64))
        new = np.stack(rows)
        return Clusters(new if self.sums is None else self.sums + new)

    def variance(self) -> float:
        """Of the estimate (mean, or AUC), with buckets as clusters; infinite for fewer than two."""
        if self.sums is None:
            return float("inf")
        residual, used = np.zeros(BUCKETS), (self.sums[0] + self.sums[2]) > 0
        for counts, sums in (self.sums[:2], self.sums[2:]):
            if counts.sum() > 0:
                residual += (sums - sums.sum() / counts.sum() * counts) / counts.sum()
        g = int(used.sum())
        return float((residual**2).sum()) * g / (g - 1) if g > 1 else float("inf")

    def stream(self, gains: Gains) -> Running:
        """`gains` as one stream of as many values as the rows are worth: n divided by the design effect, never more than n."""
        rows = gains.stream()
        found = self.variance()
        if rows.n < 2 or rows.deviation == 0 or self.sums is None:
            return rows
        n = int(min(rows.n, rows.deviation**2 / found)) if found > 0 else rows.n
        return Running(n, rows.mean, rows.deviation**2 * max(0, n - 1))

    def plain(self) -> list[list[float]]:
        """As plain JSON; empty before the first row."""
        return [] if self.sums is None else [[float(v) for v in row] for row in self.sums.tolist()]


def clusters_of(data: Sequence[Sequence[float]]) -> Clusters:
    """The inverse of `Clusters.plain`."""
    return Clusters(np.asarray(data, dtype=np.float64) if data else None)


@dataclass(frozen=True, slots=True)
class Met:
    """Which units have been met, so that each is counted once, in bounded memory.

    kept: hashes of units met.  below: only units whose hash is below it are counted; it halves whenever `most` are kept. A hash
    knows nothing of the arm, so that the units counted split as all do.
    """

    kept: tuple[int, ...] = ()
    below: int = 1 << BITS

    def add(self, hashed: Ints, arm: Ints, arms: int, most: int = 8192) -> tuple[Met, tuple[int, ...]]:
        """After a batch; with how many new units each arm has. A unit counts for the arm it met first."""
        kept, counts, below = set(self.kept), [0] * arms, self.below
        _, first = np.unique(hashed, return_index=True)
        for row in np.sort(first):
            unit = int(hashed[row])
            if unit >= below or unit in kept:
                continue
            kept.add(unit)
            counts[int(arm[row])] += 1
            if len(kept) >= most:
                below //= 2
                kept = {u for u in kept if u < below}
        return Met(tuple(sorted(kept)), below), tuple(counts)

    def plain(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"kept": list(self.kept), "below": self.below}


def met_of(data: Mapping[str, Any]) -> Met:
    """The inverse of `Met.plain`."""
    return Met(tuple(int(u) for u in data["kept"]), int(data["below"]))


@dataclass(frozen=True, slots=True)
class Blocked:
    """A mean, or a difference of means, with its standard error and the degrees of freedom that the blocks leave."""

    value: float
    error: float
    freedom: float

    def reach(self, alpha: float) -> float:
        """Half the width of the two-sided interval at 1 - alpha; infinite where one block is all there is."""
        known = self.freedom > 0 and self.error > 0
        return float(scipy.special.stdtrit(self.freedom, 1 - alpha / 2) * self.error) if known else self.error


def block_mean(values: Any, blocks: Any = None) -> Blocked:
    """A mean of rows that come in blocks, such as days, and are alike within one; without blocks each row is its own.

    The jackknife over blocks: it errs on the wide side, also where blocks differ in size. Shapes: (n,), (n,).

    >>> day = np.repeat(np.arange(10), 100)
    >>> made = block_mean(np.random.default_rng(0).normal(size=10)[day], day)
    >>> round(made.error, 2), made.freedom
    (0.25, 9.0)
    """
    x = np.asarray(values, dtype=np.float64)
    if blocks is None:
        spread = float(x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else float("inf")
        return Blocked(float(x.mean()), spread, float(len(x) - 1))
    mean, left = float(x.mean()), _left_out(x, np.unique(np.asarray(blocks), return_inverse=True)[1])
    g = len(left)
    return Blocked(mean, float(np.sqrt((left**2).sum() * (g - 1) / g)) if g > 1 else float("inf"), float(g - 1))


def block_difference(one: Any, other: Any, blocks: tuple[Any, Any] | None = None) -> Blocked:
    """Mean of one group less mean of another; a block may have rows in both, which then go up and down together.

    Without blocks this is Welch's. Shapes: (n,), (m,), blocks ((n,), (m,)).  The freedom is that of the group with fewer blocks.
    """
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    gap = float(a.mean() - b.mean())
    if blocks is None:
        va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
        freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1)) if va + vb > 0 else float("inf")
        return Blocked(gap, float(np.sqrt(va + vb)), float(freedom))
    codes = np.unique(np.concatenate([np.asarray(x) for x in blocks]), return_inverse=True)[1]
    mine, theirs = codes[: len(a)], codes[len(a) :]
    fewest = min(len(np.unique(mine)), len(np.unique(theirs)))
    if fewest < 2:
        return Blocked(gap, float("inf"), 0.0)
    left = np.zeros(int(codes.max()) + 1)
    np.add.at(left, np.unique(mine), _left_out(a, np.unique(mine, return_inverse=True)[1]))
    np.add.at(left, np.unique(theirs), -_left_out(b, np.unique(theirs, return_inverse=True)[1]))
    return Blocked(gap, float(np.sqrt((left**2).sum() * (fewest - 1) / fewest)), float(fewest - 1))


def _left_out(values: Floats, codes: Ints) -> Floats:
    """(blocks,) how far the mean comes down when a block is left out."""
    counts, sums = np.bincount(codes), np.bincount(codes, weights=values)
    n = len(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((sums - counts * values.mean()) / (n - counts))
