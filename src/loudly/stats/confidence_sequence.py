"""Intervals for a mean that hold at every look.

Source: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024, "Time-uniform central limit theory and asymptotic confidence
sequences", Ann. Statist. 52(6), eq. (3) with the mixture parameter of eq. (58).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import scipy

from loudly.core.seams import Floats


@dataclass(frozen=True, slots=True)
class Running:
    """n, mean and sum of squared deviations of a stream; merges as Chan, Golub & LeVeque 1979."""

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def add(self, values: Floats) -> Running:
        """The stream with a batch more."""
        if len(values) == 0:
            return self
        mean = float(values.mean())
        return self.merge(Running(len(values), mean, float(((values - mean) ** 2).sum())))

    def merge(self, other: Running) -> Running:
        """Both streams together."""
        n = self.n + other.n
        if n == 0:
            return self
        gap = other.mean - self.mean
        mean = self.mean + gap * other.n / n
        return Running(n, mean, self.m2 + other.m2 + gap * gap * self.n * other.n / n)

    @property
    def deviation(self) -> float:
        """Standard deviation; 0 for fewer than two values."""
        return math.sqrt(self.m2 / (self.n - 1)) if self.n > 1 else 0.0

    def plain(self) -> dict[str, float]:
        """As plain JSON."""
        return asdict(self)


def running_of(data: Mapping[str, float]) -> Running:
    """The inverse of `Running.plain`."""
    return Running(int(data["n"]), float(data["mean"]), float(data["m2"]))


def radius(n: int, deviation: float, alpha: float, best_at: int = 3000) -> float:
    """Half-width of the asymptotic confidence sequence after n values: valid at all n together, tightest near `best_at`.

    >>> radius(1000, 0.1, 0.05) > 1.96 * 0.1 / 1000**0.5
    True
    """
    if n < 2:
        return math.inf
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1) / best_at
    room = n * rho2 + 1
    return deviation * math.sqrt(2 * room / (n * n * rho2) * math.log(math.sqrt(room) / alpha))


def interval(stream: Running, alpha: float, best_at: int = 3000) -> tuple[float, float]:
    """The confidence sequence for the mean as of now; infinite before two values."""
    reach = radius(stream.n, stream.deviation, alpha, best_at)
    return stream.mean - reach, stream.mean + reach


def difference(first: Running, second: Running) -> Running:
    """Mean of the second minus mean of the first, of two independent arms, as one stream of as many values as both have."""
    n, mean = first.n + second.n, second.mean - first.mean
    if first.n < 2 or second.n < 2:
        return Running(0, mean)
    variance = n * (first.deviation**2 / first.n + second.deviation**2 / second.n)
    return Running(n, mean, variance * (n - 1))


def cautious(stream: Running, reach: float) -> Running:
    """The stream as if two more values, `reach` above and below the mean, had been seen: what is rare has its spread, too.

    Without it a stream of 0/1 values has no spread until the first 1 is seen, and too little after the first few.
    """
    return Running(stream.n, stream.mean, stream.m2 + 2 * reach * reach)


def stretch(stream: Running, alpha: float, margin: float, best_at: int = 3000) -> float | None:
    """By which factor the stream must grow until, with even odds, its interval lies above -margin or below 0; None where never.

    The mean to come is as uncertain as what has been seen leaves it: N(mean, deviation² (1/n - 1/m)) after m values.

    >>> stretch(Running(300, 0.0, 299.0), 0.05, 0.2) < 2 < stretch(Running(300, 0.0, 299.0), 0.05, 0.1)
    True
    """
    n, deviation = stream.n, stream.deviation
    if n < 2 or deviation == 0:
        return None

    def odds(factor: float) -> float:
        spread = deviation * math.sqrt((1 - 1 / factor) / n)
        reach = radius(round(n * factor), deviation, alpha, best_at)
        above, below = (stream.mean + margin - reach) / spread, (-stream.mean - reach) / spread
        return float(scipy.special.ndtr(above) + scipy.special.ndtr(below))

    low, high = 1.0, 2.0
    while odds(high) < 0.5:
        low, high = high, 2 * high
        if high > 10**6:
            return None
    while high - low > 0.01 * low:
        middle = (low + high) / 2
        low, high = (low, middle) if odds(middle) >= 0.5 else (middle, high)
    return high
