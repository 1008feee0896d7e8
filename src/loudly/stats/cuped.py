"""CUPED: what was known of a unit before the test takes away the part of the spread that it explains.

The difference of means is corrected by θ times the difference of the covariate's means, θ = cov(y, x) / var(x) within the arms.
The covariate must come from before the test: then both arms share its mean and nothing is biased; the variance falls by the
squared correlation.

Source: Deng, Xu, Kohavi & Walker 2013, "Improving the sensitivity of online controlled experiments by utilizing pre-experiment
data" (WSDM), eq. (4)-(5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from loudly.core.seams import Floats

FEWEST = 30


@dataclass(frozen=True, slots=True)
class Cuped:
    """n, means, and sums of squares and products of a covariate x and an outcome y, as a stream; arms hold one each.

    >>> x = np.arange(40.0)
    >>> Cuped().add(x, 2 * x + 1).theta
    2.0
    """

    n: int = 0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    yy: float = 0.0

    def add(self, x: Floats, y: Floats) -> Cuped:
        """A batch more; rows where either is not finite are left out. Shapes: (n,), (n,)."""
        known = np.isfinite(x) & np.isfinite(y)
        x, y = x[known], y[known]
        if len(x) == 0:
            return self
        a, b = float(x.mean()), float(y.mean())
        squares = (float(((x - a) ** 2).sum()), float(((x - a) * (y - b)).sum()), float(((y - b) ** 2).sum()))
        return self.merge(Cuped(len(x), a, b, *squares))

    def merge(self, other: Cuped) -> Cuped:
        """Both streams together, as one."""
        n = self.n + other.n
        if n == 0:
            return self
        dx, dy, part = other.x - self.x, other.y - self.y, self.n * other.n / n
        return Cuped(
            n,
            self.x + dx * other.n / n,
            self.y + dy * other.n / n,
            self.xx + other.xx + dx * dx * part,
            self.xy + other.xy + dx * dy * part,
            self.yy + other.yy + dy * dy * part,
        )

    @property
    def theta(self) -> float:
        """The slope of y on x; 0 where x does not vary or fewer than `FEWEST` rows told it."""
        return self.xy / self.xx if self.xx > 0 and self.n >= FEWEST else 0.0

    def adjust(self, x: Floats, y: Floats) -> Floats:
        """(n,) y less what x explains by the rows *before* these; a missing x takes nothing away."""
        moved = self.theta * np.where(np.isfinite(x), x - self.x, 0.0)
        return np.asarray(y - moved)

    def plain(self) -> dict[str, float]:
        """As plain JSON."""
        return asdict(self)


def cuped_of(data: Mapping[str, float]) -> Cuped:
    """The inverse of `Cuped.plain`."""
    sums = (float(data[name]) for name in ("x", "y", "xx", "xy", "yy"))
    return Cuped(int(data["n"]), *sums)


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Difference of means with its standard error, as it is and adjusted.  reduction: share of the variance taken away."""

    plain: float
    plain_error: float
    effect: float
    error: float
    theta: float

    @property
    def reduction(self) -> float:
        """1 - adjusted variance / plain variance."""
        return 1.0 - (self.error / self.plain_error) ** 2 if self.plain_error > 0 else 0.0


def adjusted_difference(y0: Floats, x0: Floats, y1: Floats, x1: Floats) -> Adjusted:
    """Mean of arm 1 minus mean of arm 0, adjusted with one θ pooled within the arms. Shapes: y and x alike, one row a unit.

    >>> x = np.arange(60.0)
    >>> round(adjusted_difference(x, x, x + 3.0, x).effect, 6)
    3.0
    """
    one, two = Cuped().add(x0, y0), Cuped().add(x1, y1)
    xx = one.xx + two.xx
    theta = (one.xy + two.xy) / xx if xx > 0 else 0.0

    def variance(s: Cuped, t: float) -> float:
        return max(0.0, s.yy - 2 * t * s.xy + t * t * s.xx) / max(1, s.n - 1) / max(1, s.n)

    gap = two.y - one.y
    errors = [math.sqrt(variance(one, t) + variance(two, t)) for t in (0.0, theta)]
    return Adjusted(gap, errors[0], gap - theta * (two.x - one.x), errors[1], theta)
