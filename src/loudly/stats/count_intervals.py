"""Intervals for distances of two count vectors, valid at every look at the window; the reference has a fixed size.

Alpha is split in four: lower and upper end, and within each the reference and the window. The upper end of a total
variation needs no union over sets: the set in which the populations differ most is one set that no data chose. So a
window is cleared with a width that does not grow with the number of bins; accusing it pays for all 2^k sets.

Source: Howard et al. 2021 (one set at every look); Hoeffding 1963; Agrawal 2020, theorem I.2 (KL ball of the reference);
Lindon & Malek 2022 (KL ball of the window); Endres & Schindelin 2003 (Jensen-Shannon is a metric).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy

from loudly.core.seams import Floats
from loudly.stats.divergence import js, psi, total_variation
from loudly.stats.dkw import share_band, share_sequence
from loudly.stats.multinomial_process import fixed_share_interval, log_likelihood, log_predictive, share_interval

Counts = Any
Interval = tuple[float, float]


def total_variation_reach(k: int, reference_n: int, n: int, alpha: float, best_at: int = 10_000) -> Interval:
    """How far below and above the observed distance the true one can lie, at every look."""
    quarter = math.log(alpha / 4)
    every = quarter - k * math.log(2)
    below = share_sequence(n, every, best_at) + share_band(reference_n, every)
    return below, share_sequence(n, quarter, best_at) + share_band(reference_n, quarter)


def total_variation_interval(reference: Counts, window: Counts, alpha: float = 0.05, best_at: int = 10_000) -> Interval:
    """Interval for the total variation of two populations over the same bins, valid at every look.

    >>> low, high = total_variation_interval([9_000, 1_000], [7_000, 3_000])
    >>> 0.15 < low < 0.2 < high < 0.24
    True
    """
    held, seen = int(np.sum(reference)), int(np.sum(window))
    if min(held, seen) == 0:
        return 0.0, 1.0
    effect = total_variation(reference, window)
    below, above = total_variation_reach(len(reference), held, seen, alpha, best_at)
    return max(0.0, effect - below), min(1.0, effect + above)


def js_interval(reference: Counts, window: Counts, alpha: float = 0.05) -> Interval:
    """Interval for the Jensen-Shannon distance (base 2), valid at every look: the triangle inequality over two KL balls.

    Within KL(observed || true) <= r the squared Hellinger distance is at most 1 - exp(-r/2), and the divergence in nats
    is at most the squared Hellinger distance.
    """
    held, seen = int(np.sum(reference)), int(np.sum(window))
    if min(held, seen) == 0:
        return 0.0, 1.0
    k, half = len(reference), alpha / 2
    prior = np.full(k, 0.5)
    ball = (float(log_likelihood(window) - log_predictive(window, prior)) - math.log(half)) / seen
    reach = _js_of_kl(ball) + _js_of_kl(fixed_kl_ball(k, held, half))
    effect = js(reference, window)
    return max(0.0, effect - reach), min(1.0, effect + reach)


def psi_interval(reference: Counts, window: Counts, alpha: float = 0.05, floor: float = 1e-4) -> Interval:
    """Interval for the population stability index, valid at every look: each bin's term over a box of both its shares."""
    held, seen = int(np.sum(reference)), int(np.sum(window))
    if min(held, seen) == 0:
        return 0.0, math.inf
    each = alpha / 2 / len(reference)
    p = [np.maximum(end, floor) for end in fixed_share_interval(reference, np.full(len(reference), held), each)]
    q = [np.maximum(end, floor) for end in share_interval(window, np.full(len(reference), seen), each)]
    apart = np.maximum(_term(p[1], q[0]) * (q[0] > p[1]), _term(p[0], q[1]) * (p[0] > q[1]))
    widest = np.maximum(_term(p[0], q[1]), _term(p[1], q[0]))
    effect = psi(reference, window, floor)
    return min(effect, float(apart.sum())), max(effect, float(widest.sum()))


def fixed_kl_ball(k: int, n: int, alpha: float) -> float:
    """KL(observed || true) of n rows over k bins, exceeded with probability at most alpha (Agrawal 2020, theorem I.2)."""
    if n == 0:
        return math.inf
    if k < 2:
        return 0.0
    free = k - 1
    top = free + 4 * (free - math.log(alpha)) + 10
    found = scipy.optimize.brentq(lambda x: x - free - free * math.log(x / free) + math.log(alpha), free, top * 4)
    return float(found) / n


def _js_of_kl(ball: float) -> float:
    return min(1.0, math.sqrt(-math.expm1(-ball / 2) / math.log(2)))


def _term(p: Floats, q: Floats) -> Floats:
    return np.asarray((q - p) * np.log(q / p))
