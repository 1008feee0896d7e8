"""AUC, and average precision, of rows that come in batches: the value over all of them from counts, and what each row is worth.

A positive's placement is the share of the negatives seen that score below it, a negative's the share of the positives seen that
score above it (ties count half). Their spread is that of the AUC; their mean is not the AUC, for the first rows are placed among
few. Of average precision a row is worth what it changes, to first order, given the scores seen.

Source: placement values as in DeLong 1988 and Pepe & Cai 2004.

Scores are told apart on a fixed grid of 4,096 bins: by 1/1024 within [0, 1]; by 4 % of the distance from 0 and from 1, down to
10⁻¹², for rare events have small probabilities; by 3 % of the distance beyond, for margins and rankings are no probabilities.
What falls into one bin is a tie: on a grid of [0, 1] alone two models would be equal whose scores are all small, or all large.

Cost: O(batch) with counts on the grid; memory 2 × 4,096 integers an arm.
"""

from __future__ import annotations

import math

import numpy as np

from loudly.core.seams import Floats, Ints

BINS = 4096
# Bins of [0, 1] evenly; then bins an octave, and the octaves: of the distance from 0 and from 1 within, and from them outside.
EVEN = 1024
INSIDE, FINEST, FINE = 16, -40, -8
OUTSIDE, NEAREST, FARTHEST = 24, -10, 32
# Of each class: an average precision is a ratio of small counts, and by fewer its change with a row means nothing.
FEWEST = 30


def grid(score: Floats) -> Ints:
    """(n,) the bin of each score; a larger score is never in a bin before.

    >>> grid(np.array([-5.0, 0.0, 1e-6, 2e-6, 0.5, 0.502, 1.0, 5.0, 6.0])).tolist()
    [712, 1008, 1329, 1345, 2032, 2034, 3056, 3344, 3351]
    """
    inside = _octaves(score, FINEST, FINE) - _octaves(1.0 - score, FINEST, FINE) + (FINE - FINEST)
    outside = _octaves(score - 1.0, NEAREST, FARTHEST) - _octaves(-score, NEAREST, FARTHEST) + (FARTHEST - NEAREST)
    return np.asarray(EVEN * np.clip(score, 0.0, 1.0) + INSIDE * inside + OUTSIDE * outside).astype(np.int64)


def _octaves(distance: Floats, first: int, last: int) -> Floats:
    """(n,) how many octaves above 2**first, `last - first` at most."""
    return np.asarray(np.log2(np.clip(distance, 2.0**first, 2.0**last)) - first)


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


def area_of(negatives: Ints, positives: Ints) -> float:
    """The AUC of all scores that were counted, those of one bin as ties; NaN while a class has not been seen.

    >>> area_of(*count(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.4, 0.8])))
    0.875
    """
    pairs = int(negatives.sum()) * int(positives.sum())
    return float(positives @ (np.cumsum(negatives) - negatives / 2)) / pairs if pairs else math.nan


def average_precision_of(negatives: Ints, positives: Ints) -> float:
    """The average precision of all scores that were counted, those of one bin as ties; NaN while no positive has been seen.

    >>> average_precision_of(*count(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.35, 0.8]))).__round__(4)
    0.8333
    """
    found, wrong = _from_above(positives), _from_above(negatives)
    return float(positives @ (found / np.maximum(1, found + wrong))) / int(found[0]) if found[0] else math.nan


def _from_above(counts: Ints) -> Ints:
    """(bins,) how many are in each bin and in those above."""
    return np.cumsum(counts[::-1])[::-1]


def precision_values(truth: Floats, score: Floats, negatives: Ints, positives: Ints) -> Floats:
    """(n,) values whose mean is the average precision, to first order, against counts seen so far; NaN while a class has few.

    A row moves the precision at each threshold below its score, and a positive adds its own: the influence function of AP as a
    functional of the scores of both classes and the share of positives. Ties count as above the threshold, as in scikit-learn; of
    scores above all that were seen the precision is that of the highest.  Cost: some sums over the grid, and one lookup a row.
    """
    m, n = int(positives.sum()), int(negatives.sum())
    if m < FEWEST or n < FEWEST:
        return np.full(len(truth), np.nan)
    share, bins, positive = m / (m + n), grid(score), truth > 0.5
    weight = positives / m
    found, wrong = _from_above(positives) / m, _from_above(negatives) / n
    above = share * found + (1 - share) * wrong
    top = int(np.flatnonzero(above)[-1])
    above[top + 1 :], found[top + 1 :], wrong[top + 1 :] = above[top], found[top], wrong[top]
    precision = share * found / above
    value = float(weight @ precision)
    by_found, by_wrong = (weight * share * (1 - share) * other / above**2 for other in (wrong, found))
    by_share = float(weight @ (found * wrong / above**2))
    of_positive = precision - value + np.cumsum(by_found) - float(by_found @ found)
    of_negative = float(by_wrong @ wrong) - np.cumsum(by_wrong)
    moved = (of_negative / (1 - share) - share * by_share)[bins]
    moved[positive] = (of_positive / share + (1 - share) * by_share)[bins[positive]]
    return value + moved


def count(truth: Floats, score: Floats) -> tuple[Ints, Ints]:
    """Counts per bin of (negatives, positives): to be added to what was seen."""
    bins, positive = grid(score), truth > 0.5
    return np.bincount(bins[~positive], minlength=BINS), np.bincount(bins[positive], minlength=BINS)
