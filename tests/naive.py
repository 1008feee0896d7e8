"""The interval of somebody who looks once: what a simulation of error rates must catch, or it is blind."""

from __future__ import annotations

from loudly.core.values import Evidence
from loudly.stats.confidence_sequence import radius


def naive(found: Evidence) -> tuple[float, float]:
    """The ends that 1.96 standard errors have, where the evidence has those that hold at every look."""
    if found.effect is None or found.low is None or found.confidence is None or found.n < 2:
        return float("-inf"), float("inf")
    error = (found.effect - found.low) / (radius(found.n, 1.0, 1 - found.confidence) * found.n**0.5)
    return found.effect - 1.96 * error, found.effect + 1.96 * error
