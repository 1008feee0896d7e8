"""An e-value for every window from its recent past: hours for a large shift, days for a small one, all looked at all the time.

For each window the e-values of its last 1, 2, 4, ... windows against the finite reference are averaged: each has expectation
at most 1 where nothing moved, so has their mean, whatever their dependence. That is what `AlertBudget` spends.
Cost: O(windows · lengths · k); with `worth` only windows that could matter get the exact value, some 50 times quicker.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy

from loudly.core.seams import Floats
from loudly.errors import DataError
from loudly.stats.multinomial_process import log_e, log_e_ordered

# Three weeks of hourly windows.
LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
# Above this many rows the logarithms are taken, not looked up.
MOST_LOOKED_UP = 200_000


def lookback_log_e(
    reference: Any, windows: Any, lengths: Sequence[int] = LENGTHS, worth: float = -math.inf, ordered: bool = False
) -> Floats:
    """(t,) log e-values, one for each window, each over the last 1, 2, 4, ... windows. `worth`: what is surely below is -inf.

    `ordered` says that the bins have an order (a number's), so that cuts of it are bet on too: small shifts are found sooner.

    Shapes: reference (k,) counts, windows (t, k) counts in order of time. Lengths that reach before the first window are
    left out of the mean.

    >>> quiet, loud = [[25, 25]] * 20, [[5, 45]] * 4
    >>> told = lookback_log_e([5000, 5000], quiet + loud)
    >>> bool(told[:20].max() < 0), bool(told[-1] > 20)
    (True, True)
    """
    held, seen = np.asarray(reference, dtype=np.int64), np.asarray(windows, dtype=np.int64)
    if seen.ndim != 2 or seen.shape[1:] != held.shape:
        raise DataError("Windows must be (t, k) counts in the reference's k bins.", seen=str(seen.shape), do=f"k is {len(held)}")
    sums = np.zeros((len(held), len(seen) + 1), dtype=np.int64)
    np.cumsum(seen.T, axis=1, out=sums[:, 1:])
    at = np.arange(len(seen)) if worth == -math.inf else np.flatnonzero(_most(held, sums, lengths) >= worth)
    out = np.full(len(seen), -math.inf)
    if len(at) == 0:
        return out
    judge, n = log_e_ordered if ordered else log_e, np.asarray(lengths)[:, None]
    counts = sums[:, at + 1] - sums[:, np.maximum(0, at + 1 - n)].transpose(1, 0, 2)
    told = np.where(at + 1 >= n, judge(held, counts.transpose(0, 2, 1)), -math.inf)
    out[at] = scipy.special.logsumexp(told, axis=0) - np.log(np.maximum(1, (n <= at + 1).sum(axis=0)))
    return out


def _most(held: Any, sums: Any, lengths: Sequence[int]) -> Floats:
    """(t,) an upper bound of the log e-values: of each length half the two-sample G statistic, and of these the log of the mean.

    The smallest over p is at most that at the pooled shares, and no bet on the window (nor one on a cut of its order) beats
    its largest likelihood, so log E <= l(held) + l(window) - l(held + window). Shapes: sums (k, t + 1), cumulative.
    """
    windows = sums.shape[1] - 1
    fit = [n for n in lengths if n <= windows]
    rows = sums.sum(axis=0)
    longest = max((int((rows[n:] - rows[:-n]).max()) for n in fit), default=0)
    each, whole = _gain(held, longest), _gain(held.sum(keepdims=True), longest)
    before = float(scipy.special.xlogy(held, held).sum() - scipy.special.xlogy(held.sum(), held.sum()))
    out = np.full((len(fit), windows), -math.inf)
    for i, n in enumerate(fit):
        gain = each(sums[:, n:] - sums[:, :-n]).sum(axis=0) - whole((rows[n:] - rows[:-n])[None])[0]
        out[i, n - 1 :] = before + gain
    most = out.max(axis=0, initial=-math.inf)
    # Where even the largest is small, so is the mean, and its logarithm need not be taken.
    high = np.flatnonzero(most > math.log(len(lengths)))
    most[high] = scipy.special.logsumexp(out[:, high], axis=0) - np.log((np.asarray(lengths)[:, None] <= high + 1).sum(axis=0))
    return np.asarray(most)


def _gain(held: Any, longest: int) -> Any:
    """counts (k, t) -> x log x - (x + held) log (x + held) of each, by a table where no count is very large."""
    before = held[:, None]
    if longest > MOST_LOOKED_UP:
        return lambda counts: scipy.special.xlogy(counts, counts) - scipy.special.xlogy(counts + before, counts + before)
    grid = np.arange(longest + int(held.max(initial=0)) + 1.0)
    terms = scipy.special.xlogy(grid, grid)
    table = np.stack([terms[: longest + 1] - terms[h : h + longest + 1] for h in held])
    begins = np.arange(len(held))[:, None] * (longest + 1)
    return lambda counts: table.take(counts + begins)
