"""AUC as a stream of bounded values: each new row's placement among the rows of the other class seen so far.

A positive's placement is the share of earlier negatives that score below it, a negative's the share of earlier positives
that score above it (ties count half). Given the past, its expectation is the AUC against what was seen, so the running
mean of paired placement differences is the difference of two AUCs, row by row, in [-1, 1].

Source: placement values as in DeLong 1988 and Pepe & Cai 2004, taken predictably (each row against its past only).
Cost: O(batch) with counts on a grid of 1,024 score bins; memory 2 × 1,024 integers an arm.
"""

from __future__ import annotations

import numpy as np

from loudly.core.seams import Floats, Ints

BINS = 1024


def grid(score: Floats) -> Ints:
    """The bin of each score in [0, 1]."""
    return np.clip((score * BINS).astype(np.int64), 0, BINS - 1)


def placements(truth: Floats, score: Floats, negatives: Ints, positives: Ints) -> Floats:
    """(n,) placements in [0, 1] against counts seen so far; NaN while the other class has not been seen."""
    bins, positive = grid(score), truth > 0.5
    below, total_negatives = np.cumsum(negatives), int(negatives.sum())
    above, total_positives = np.cumsum(positives), int(positives.sum())
    out = np.full(len(truth), np.nan)
    if total_negatives:
        under = below[bins] - negatives[bins] + negatives[bins] / 2
        out[positive] = under[positive] / total_negatives
    if total_positives:
        over = total_positives - above[bins] + positives[bins] / 2
        out[~positive] = over[~positive] / total_positives
    return out


def count(truth: Floats, score: Floats) -> tuple[Ints, Ints]:
    """Counts per bin of (negatives, positives): to be added to what was seen."""
    bins, positive = grid(score), truth > 0.5
    return np.bincount(bins[~positive], minlength=BINS), np.bincount(bins[positive], minlength=BINS)
