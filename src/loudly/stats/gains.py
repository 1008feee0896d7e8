"""A stream of per-row values whose mean is a quality, or whose spread is that of one: plain means, or an AUC of two samples.

An AUC depends on positives and on negatives: its variance is S10/m + S01/n (DeLong 1988), several times that of a mean over
the same placements. The confidence sequence is the one for asymptotically linear estimators.

Source: Waudby-Smith et al. 2024 (section 3); DeLong et al. 1988.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loudly.core.seams import Floats
from loudly.stats.confidence_sequence import Running, interval, running_of


@dataclass(frozen=True, slots=True)
class Gains:
    """Values of positives and of negatives apart; where classes do not matter all are in `positives`."""

    positives: Running = field(default_factory=Running)
    negatives: Running = field(default_factory=Running)

    def add(self, values: Floats, positive: Any = None) -> Gains:
        """A batch more. Shapes: values (n,), positive (n,) booleans for a rank metric."""
        if positive is None:
            return Gains(self.positives.add(values), self.negatives)
        return Gains(self.positives.add(values[positive]), self.negatives.add(values[~positive]))

    @property
    def n(self) -> int:
        """Rows."""
        return self.positives.n + self.negatives.n

    @property
    def mean(self) -> float:
        """The quality as estimated; both classes tell it equally."""
        if self.negatives.n == 0 or self.positives.n == 0:
            return self.positives.mean + self.negatives.mean
        return (self.positives.mean + self.negatives.mean) / 2

    def stream(self) -> Running:
        """The same as one stream of influence values, for intervals."""
        if self.negatives.n == 0 or self.positives.n == 0:
            return self.positives.merge(self.negatives)
        n = self.n
        variance = n * (self.positives.deviation**2 / self.positives.n + self.negatives.deviation**2 / self.negatives.n)
        return Running(n, self.mean, variance * (n - 1))

    def interval(self, alpha: float, best_at: int = 3000) -> tuple[float, float]:
        """The confidence sequence as of now."""
        return interval(self.stream(), alpha, best_at)

    def plain(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"positives": self.positives.plain(), "negatives": self.negatives.plain()}


def gains_of(data: Mapping[str, Any]) -> Gains:
    """The inverse of `Gains.plain`."""
    return Gains(running_of(data["positives"]), running_of(data["negatives"]))
