"""Rows of one unit are not independent: the spread of a mean with units, not rows, as what was drawn.

Units are hashed into a fixed number of buckets, each bucket is a cluster, and the variance of the estimate is that of the sums of
residuals of the clusters. No unit is named or kept, the state does not grow, and a unit that comes back after days is still the
same one. For an AUC the residuals are placements of positives and of negatives.

Source: Liang & Zeger 1986 (the sandwich, here for a ratio of sums); Obuchowski 1997, "Nonparametric analysis of clustered ROC
curve data", Biometrics 53; Deng, Knoblich & Lu 2018 (KDD) on the unit of randomisation against that of analysis.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loudly.stats.confidence_sequence import Running
from loudly.stats.gains import Gains

if TYPE_CHECKING:
    from loudly.core.seams import Floats, Ints

BUCKETS = 256
BITS = 40


def hashes(units: Sequence[str]) -> Ints:
    """(n,) a number below 2**40 for each unit, the same everywhere and independent of the draws that route it."""
    made = (hashlib.blake2b(str(u).encode(), digest_size=BITS // 8, person=b"cluster").digest() for u in units)
    return np.fromiter((int.from_bytes(d, "big") for d in made), dtype=np.int64, count=len(units))


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
