"""Distribution functions within bands that hold at every look, and the Kolmogorov-Smirnov distance to a finite reference.

A stream of which one row more is seen at each look gets the time-uniform band; a reference of fixed size the classical
one (Dvoretzky, Kiefer & Wolfowitz 1956 with Massart's constant). A distance is bounded from below by both bands together;
from above a single point suffices, for the place of the largest true gap is one place, chosen by no data.

Source: Howard & Ramdas 2022, "Sequential estimation of quantiles with applications to A/B testing and best-arm
identification", Bernoulli 28(3), theorem 2 (band); Howard, Ramdas, McAuliffe & Sekhon 2021, "Time-uniform, nonparametric,
nonasymptotic confidence sequences", Ann. Statist. 49(2), eq. (3.7) (one point); Massart 1990.
"""

from __future__ import annotations

import math
from functools import lru_cache

import scipy

# The A of Howard & Ramdas, and the first look at which the band speaks.
STEEPNESS = 0.85
FIRST_LOOK = 32


def crossing(steepness: float, height: float) -> float:
    """Bound on the probability that an empirical distribution function ever leaves A·sqrt((log log(et/m) + C)/t).

    A is `steepness` (above 1/sqrt 2), C is `height`. Source: Howard & Ramdas 2022, theorem 2: the infimum over eta of
    4·exp(-g²C)·(1 + 1/((g² - 1) log eta)) with g = sqrt(2/eta)·(A - sqrt(2(eta - 1)/C)).

    >>> round(crossing(0.85, 0.8 * math.log(1612 / 0.05)), 3)
    0.039
    """

    def bound(eta: float) -> float:
        g = slope(eta)
        if g <= 1:
            return 1e6 * (eta + 1)
        return 4 * math.exp(-g * g * height) * (1 + 1 / ((g * g - 1) * math.log(eta)))

    def slope(eta: float) -> float:
        return math.sqrt(2 / eta) * (steepness - math.sqrt(2 * (eta - 1) / height))

    widest = scipy.optimize.brentq(lambda eta: slope(eta) - 1, 1.0, 2 * steepness**2)
    found = scipy.optimize.minimize_scalar(bound, bounds=(1 + 1e-9, widest), method="bounded", options={"xatol": 1e-12})
    return float(found.fun)


@lru_cache(maxsize=256)
def height(alpha: float, steepness: float = STEEPNESS) -> float:
    """The smallest C whose crossing probability is alpha (the published 0.8·log(1612/alpha) is a bound on it).

    >>> height(0.05) < 0.8 * math.log(1612 / 0.05)
    True
    """
    top = 0.8 * math.log(1612 / alpha) + 40
    return float(scipy.optimize.brentq(lambda c: math.log(crossing(steepness, c) / alpha), 2.0, top, xtol=1e-10))


def band(n: int, alpha: float, first: int = FIRST_LOOK) -> float:
    """Half-width around an empirical distribution function that holds at all n >= first together, for all x at once.

    >>> round(band(1000, 0.05, first=100), 6)
    0.082048
    """
    if n < first:
        return math.inf
    return STEEPNESS * math.sqrt((math.log(1 + math.log(n / first)) + height(alpha)) / n)


def fixed_band(n: int, alpha: float) -> float:
    """Half-width around an empirical distribution function of n rows, n fixed beforehand (Massart 1990).

    >>> round(fixed_band(10_000, 0.05), 5)
    0.01358
    """
    return math.sqrt(math.log(2 / alpha) / (2 * n)) if n > 0 else math.inf


def share_band(n: int, log_alpha: float) -> float:
    """One-sided reach of a share over n rows, n fixed beforehand (Hoeffding 1963); alpha as its logarithm."""
    return math.sqrt(-log_alpha / (2 * n)) if n > 0 else math.inf


def share_sequence(n: int, log_alpha: float, best_at: int = 10_000) -> float:
    """One-sided reach of the share of a stream's rows that lie in one fixed set, valid at all n, tightest near `best_at`.

    A row's membership is sub-Gaussian with variance 1/4. The level comes as its logarithm, so that a union over 2^k sets
    does not underflow. Source: closed form above the one-sided normal mixture boundary, Howard et al. 2021, eq. (3.7).

    >>> share_sequence(10_000, math.log(0.05)) / share_band(10_000, math.log(0.05)) < 1.5
    True
    """
    if n <= 0:
        return math.inf
    told = -2 * log_alpha
    mixed = best_at / 4 / (told + math.log(1 + told))
    room = n / 4 + mixed
    level = 0.5 * math.log(room / mixed) - log_alpha - math.log(2)
    return math.sqrt(2 * room * (level + math.log1p(math.exp(-level)))) / n


def ks_interval(
    effect: float, reference_n: int, n: int, alpha: float = 0.05, bin_error: float = 0.0, best_at: int = 10_000
) -> tuple[float, float]:
    """Interval for the KS distance of two populations, valid at every look at the growing window.

    `effect` is the distance of the reference's `reference_n` rows and the window's `n` rows; where it comes from bin
    counts the distance of the rows themselves is at most `effect + bin_error`. Alpha is split in four equal parts: the
    window's band and the reference's band for the lower end, one point of each for the upper end.

    >>> low, high = ks_interval(0.10, 20_000, 10_000)
    >>> 0.04 < low < 0.10 < high < 0.14
    True
    """
    quarter = alpha / 4
    below = band(n, quarter) + fixed_band(reference_n, quarter)
    above = share_sequence(n, math.log(quarter), best_at) + share_band(reference_n, math.log(quarter))
    return max(0.0, effect - below), min(1.0, effect + bin_error + above)
