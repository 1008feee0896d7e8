"""How many labelled rows does a test need, and how long will it take?

The question is non-inferiority: with both arms equal, how soon is the lower end of the interval on candidate minus control
surely above -margin, with the power wanted? `sequential` is for the confidence sequence that may be looked at always (what a
rollout uses); `fixed` is for one look at the end, the least that any test needs.

Source: Chow, Shao & Wang 2008, "Sample size calculations in clinical research", sections 3.2 and 4.2 (non-inferiority); Hanley &
McNeil 1982, "The meaning and use of the area under a ROC curve", Radiology 143, eq. (2), for the variance of an AUC (the
components are those of DeLong 1988).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import scipy

from loudly.errors import ConfigError
from loudly.stats.confidence_sequence import radius

MOST = 10**10


@dataclass(frozen=True, slots=True)
class Size:
    """What a test needs.  control, candidate: labelled rows of each arm."""

    control: int
    candidate: int

    @property
    def rows(self) -> int:
        """Of both arms."""
        return self.control + self.candidate

    def days(self, rows_a_day: float) -> int | None:
        """Days until they are there; None where no row comes.

        >>> Size(1000, 1000).days(300)
        7
        """
        return math.ceil(self.rows / rows_a_day) if rows_a_day > 0 else None


def proportion_deviation(share: float = 0.5) -> float:
    """Standard deviation of a 0/1 value.

    >>> proportion_deviation()
    0.5
    """
    return math.sqrt(share * (1 - share))


def auc_deviation(auc: float, positives: float) -> float:
    """Deviation a row has in an AUC: its standard error is this over √rows. `positives`: the share of rows of that class.

    >>> round(auc_deviation(0.75, 0.5), 2)
    0.49
    """
    of_negatives, of_positives = auc / (2 - auc) - auc**2, 2 * auc**2 / (1 + auc) - auc**2
    return math.sqrt(of_positives / positives + of_negatives / (1 - positives))


@lru_cache(64)  # a test of two arms asks at every call that it counts
def sequential(margin: float, deviation: float, power: float = 0.8, alpha: float = 0.05, share: float = 0.5) -> Size:
    """Rows until the two-arm confidence sequence tells, at the latest, with the power wanted.

    share: of the candidate.  deviation: of a row's value within an arm.
    Raises: ConfigError for a margin, deviation, power, risk or share that cannot be.

    >>> sequential(0.02, 0.5).rows > fixed(0.02, 0.5).rows
    True
    """
    _check(margin, deviation, power, alpha, share)
    z = float(scipy.special.ndtri(power))

    def enough(rows: int) -> bool:
        one, two = max(2, round(rows * (1 - share))), max(2, round(rows * share))
        error = deviation * math.sqrt(1 / one + 1 / two)
        return radius(one + two, error * math.sqrt(one + two), alpha) + z * error <= margin

    high = 4
    while not enough(high) and high < MOST:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return Size(max(2, round(high * (1 - share))), max(2, round(high * share)))


def fixed(margin: float, deviation: float, power: float = 0.8, alpha: float = 0.05, share: float = 0.5) -> Size:
    """Rows for a single look at the end, one-sided at alpha / 2 (the lower end of a 1 - alpha interval).

    Raises: ConfigError as `sequential`.

    >>> fixed(0.05, 0.5).rows
    3140
    """
    _check(margin, deviation, power, alpha, share)
    z = float(scipy.special.ndtri(1 - alpha / 2) + scipy.special.ndtri(power))
    rows = (z * deviation / margin) ** 2 / (share * (1 - share))
    return Size(math.ceil(rows * (1 - share)), math.ceil(rows * share))


def _check(margin: float, deviation: float, power: float, alpha: float, share: float) -> None:
    if margin <= 0 or not 0 < deviation < math.inf or not 0 < power < 1 or not 0 < alpha < 1 or not 0 < share < 1:
        seen = f"margin={margin}, deviation={deviation}, power={power}, alpha={alpha}, share={share}"
        raise ConfigError("No test of any size answers this.", seen=seen, do="Give a margin above 0 and risks inside (0, 1).")
