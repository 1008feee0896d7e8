"""Bets against "nothing has changed": what they won, begun at every time there was.

A bet's e-value begun at time j multiplies its gains from j on. Summed over all j with shares of 1 it is a Shiryaev-Roberts
e-detector, with shares that sum to 1 an e-process that never exceeds 1/alpha but with probability alpha (Ville). Both are
cumulative sums: log e_t = gains_t + log-sum over j ≤ t of (log share_j - gains_(j-1)).

Source: Shin, Ramdas & Rinaldo 2023, section 2; Vovk et al. 2021 for capital that is spread over starting times.
"""

from __future__ import annotations

import math

import numpy as np

from loudly.core.seams import Floats
from loudly.shift.streams.stream import first_true

FIRST_SHARE = math.log(0.5)


def played(
    gains: tuple[float, ...], starts: tuple[float, ...], won: Floats, shares: Floats | float, summed: np.ufunc = np.logaddexp
) -> tuple[Floats, Floats]:
    """Gains (k, n) and starts (k, n + 1) of k bets after each of n values.

    Shapes: won (k, n) logs of what each bet made of each value; shares (n,) logs of the shares that begin after each value.
    `starts` holds at t what is begun before value t, so that log e-values are `gains + starts[:, :-1]`.
    """
    gained = np.add.accumulate(np.concatenate((np.array(gains)[:, None], won), axis=1), axis=1)[:, 1:]
    begun: Floats = summed.accumulate(np.concatenate((np.array(starts)[:, None], shares - gained), axis=1), axis=1)
    return gained, begun


def later_shares(seen: int, n: int) -> Floats:
    """Logs of the shares 1/(j (j + 1)) of the starting times j that follow each of n values, `seen` values before them.

    >>> bool(np.isclose(math.exp(FIRST_SHARE) + np.exp(later_shares(0, 10**6)).sum(), 1))
    True
    """
    j = np.arange(seen + 2, seen + n + 2, dtype=np.float64)
    found: Floats = -np.log(j * (j + 1))
    return found


def first_mean_over(logs: Floats, threshold: float) -> int | None:
    """The first column of (k, n) logs whose mean of exponentials has a log of at least `threshold`."""
    near = np.flatnonzero(logs.max(axis=0) >= threshold)
    if not len(near):
        return None
    mixed = np.logaddexp.reduce(logs[:, near], axis=0) - math.log(len(logs))
    at = first_true(mixed >= threshold)
    return None if at is None else int(near[at])


def ladder(bets: int, smallest: float = 0.02, largest: float = 0.9) -> Floats:
    """Bets as shares of the largest that can lose no more than its stake, small to large."""
    found: Floats = np.geomspace(smallest, largest, bets)
    return found
