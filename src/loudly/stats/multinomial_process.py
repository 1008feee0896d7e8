"""Do a window's counts come from the distribution of the reference, where the reference itself is a finite sample?

The e-process is tempered universal inference. For a known distribution p the Dirichlet-multinomial predictive Q of the
window divided by p(window) is a martingale (Lindon & Malek 2022), and so is the constant 1. Here p is not known but has been
sampled m times. For every p the factor (1 - a)^(k-1)·exp(a·m·KL(reference || p)) has expectation at most 1 (Agrawal 2020,
for every m, k and p), so its product with (1 + Q(w)/p(w))/2 is an e-process for that p, and the smallest over all p is one
for the null. That minimum is convex in p, and by duality equals the largest over s in [0, 1] of a closed form

    log E = (k-1)·log(1-a) + a·l(r) + s·log Q(w | r) - l(a·r + s·w) + h(s) - log 2,   l(x) = sum x·log(x / sum x)

with h the binary entropy: any s gives a lower bound, so a grid of s costs power, never validity. It holds at *every* look and
for any size of the reference, without an asymptotic. Q and the temper a are mixed over fixed grids.

Source: Wasserman, Ramdas & Balakrishnan 2020 (universal inference); Lindon & Malek 2022, "Anytime-valid inference for
multinomial count data"; Agrawal 2020, "Finite-sample concentration of the multinomial in relative entropy", theorem I.3;
the two-sample setting is that of Turner & Grünwald 2023.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy

from loudly.core.seams import Floats

Counts = Any

# How much of the reference is spent on what p can be; a small temper costs little and suffices where m is much above n.
TEMPERS = (0.03, 0.1, 0.3, 0.6)
# Rows that the predictive takes the reference for, per bin: few for a large shift, many for a small one.
WEIGHTS = (1.0, 8.0, 64.0, 512.0)
# How much of the window speaks (s of the dual): all of it where the reference is long, a part where it is the short side.
SLOPES = (1.0, 0.9, 0.7, 0.4, 0.2, 0.1, 0.05, 0.02)


def log_likelihood(counts: Counts) -> Floats:
    """Largest multinomial log-likelihood of counts (..., k), without the coefficient; 0 for none."""
    counts = np.asarray(counts, dtype=np.float64)
    total = counts.sum(axis=-1)
    return np.asarray(scipy.special.xlogy(counts, counts).sum(axis=-1) - scipy.special.xlogy(total, total))


def log_predictive(counts: Counts, prior: Counts) -> Floats:
    """Log-probability of a sequence with these counts (..., k) under a Dirichlet prior (k,)."""
    counts, prior = np.asarray(counts, dtype=np.float64), np.asarray(prior, dtype=np.float64)
    whole = scipy.special.gammaln(prior.sum()) - scipy.special.gammaln(prior.sum() + counts.sum(axis=-1))
    return np.asarray(whole + (scipy.special.gammaln(prior + counts) - scipy.special.gammaln(prior)).sum(axis=-1))


def log_e(reference: Counts, window: Counts, tempers: Sequence[float] = TEMPERS, weights: Sequence[float] = WEIGHTS) -> Floats:
    """Log of the e-value against "the window comes from where the reference came from".

    Shapes: reference (k,), window (..., k) counts since the start of the look; the answer (...). Along growing counts of
    one stream it is an e-process: it ever reaches log(1/alpha) with probability at most alpha.
    Cost: O(k) a window. No rows in either give at most 0, which is no evidence.

    >>> bool(log_e([500, 500], [20, 80]) > 3), bool(log_e([500, 500], [52, 48]) < 0), float(log_e([0, 0], [52, 48])) <= 0
    (True, True, True)
    """
    return log_e_within(np.asarray(reference)[None, :], np.asarray(window)[..., None, :], tempers, weights)


def log_e_within(
    reference: Counts, window: Counts, tempers: Sequence[float] = TEMPERS, weights: Sequence[float] = WEIGHTS
) -> Floats:
    """The same within strata: each stratum of the window comes from where the same stratum of the reference came from.

    Shapes: reference (s, k), window (..., s, k); the answer (...). How often each stratum occurs may change freely.
    """
    held = np.asarray(reference, dtype=np.float64)
    seen = np.asarray(window, dtype=np.float64)
    strata, k = held.shape
    priors = (held + 0.5) / (held.sum(axis=1, keepdims=True) + k / 2) * k
    each = [sum(log_predictive(seen[..., s, :], w * priors[s]) for s in range(strata)) for w in weights]
    told = scipy.special.logsumexp(each, axis=0) - math.log(len(weights))
    free = strata * (k - 1)
    spent = [free * math.log1p(-a) + a * log_likelihood(held).sum() + _least(a * held, seen, told) for a in tempers]
    return np.asarray(scipy.special.logsumexp(spent, axis=0) - math.log(2 * len(tempers)))


def log_e_ordered(reference: Counts, window: Counts, cuts: int = 15) -> Floats:
    """The same for bins that have an order: half of the bet is on all bins, half on cuts of the order into below and above.

    A cut has one free share instead of k - 1, so a small shift of location is found with fewer rows. The mean of e-values is
    an e-value; along growing counts it is an e-process. Shapes: as `log_e`. At most `cuts` cuts, evenly spaced.
    """
    held, seen = np.asarray(reference, dtype=np.float64), np.asarray(window, dtype=np.float64)
    whole = log_e(held, seen)
    if len(held) < 3:
        return whole
    at = np.unique(np.linspace(1, len(held) - 1, min(cuts, len(held) - 1)).astype(int))
    two = [log_e([held[:i].sum(), held[i:].sum()], np.stack([seen[..., :i].sum(-1), seen[..., i:].sum(-1)], -1)) for i in at]
    return np.asarray(np.logaddexp(whole, scipy.special.logsumexp(two, axis=0) - math.log(len(at))) - math.log(2))


def _least(held: Floats, seen: Floats, told: Floats) -> Floats:
    """The minimum over p by its dual: the largest over s of s·log Q - l(held + s·seen) + h(s)."""
    s = np.array(SLOPES).reshape(-1, *(1,) * np.ndim(told))
    entropy = scipy.special.entr(s) + scipy.special.entr(1 - s)
    bound = s * told - log_likelihood(held + s[..., None, None] * seen).sum(axis=-1) + entropy
    return np.asarray(bound.max(axis=0))


@dataclass(frozen=True, slots=True)
class MultinomialProcess:
    """A stream's counts beside the reference's: plain, resumable, and judged at any look."""

    reference: tuple[int, ...]
    counts: tuple[int, ...]

    def add(self, counts: Counts) -> MultinomialProcess:
        """A stretch more."""
        both = tuple(int(a + b) for a, b in zip(self.counts, counts, strict=True))
        return MultinomialProcess(self.reference, both)

    @property
    def log_e(self) -> float:
        """Log of the e-value as of now."""
        return float(log_e(self.reference, self.counts))

    def shifted(self, alpha: float) -> bool:
        """Whether the stream surely left the reference's distribution; wrong at any look with probability <= alpha."""
        return self.log_e >= -math.log(alpha)

    def plain(self) -> dict[str, Any]:
        """As plain JSON."""
        return {name: list(counts) for name, counts in asdict(self).items()}


def multinomial_process(reference: Counts) -> MultinomialProcess:
    """The process before its first row."""
    return MultinomialProcess(tuple(int(c) for c in reference), (0,) * len(reference))


def multinomial_process_of(data: Mapping[str, Any]) -> MultinomialProcess:
    """The inverse of `MultinomialProcess.plain`."""
    return MultinomialProcess(tuple(data["reference"]), tuple(data["counts"]))


def share_interval(hits: Counts, n: Counts, alpha: float) -> tuple[Floats, Floats]:
    """Confidence sequence of a share, exact at every look: those p that a Beta(1/2, 1/2) mixture does not outbid 1/alpha times.

    Shapes: hits, n (...). Source: Robbins 1970; Lindon & Malek 2022 for k = 2.

    >>> low, high = share_interval(30, 1000, 0.05)
    >>> round(float(low), 3), round(float(high), 3)
    (0.014, 0.054)
    """
    hits, n = np.asarray(hits, dtype=np.float64), np.asarray(n, dtype=np.float64)
    mixed = scipy.special.betaln(hits + 0.5, n - hits + 0.5) - scipy.special.betaln(0.5, 0.5)
    top = np.divide(hits, n, out=np.full(np.shape(hits), 0.5), where=n > 0)

    def outbid(p: Floats) -> Any:
        return mixed - scipy.special.xlogy(hits, p) - scipy.special.xlogy(n - hits, 1 - p) >= -math.log(alpha)

    ends = []
    for edge in (0.0, 1.0):
        out, inside = np.full(np.shape(hits), edge), top.copy()
        for _ in range(40):
            middle = (out + inside) / 2
            far = outbid(middle)
            out, inside = np.where(far, middle, out), np.where(far, inside, middle)
        ends.append(np.where(outbid(np.full(np.shape(hits), edge)), out, edge))
    return ends[0], ends[1]


def fixed_share_interval(hits: Counts, n: Counts, alpha: float) -> tuple[Floats, Floats]:
    """Interval of a share over n rows, n fixed beforehand (Clopper & Pearson 1934).

    >>> [round(float(x), 4) for x in fixed_share_interval(0, 100, 0.05)]
    [0.0, 0.0362]
    """
    hits, n = np.asarray(hits, dtype=np.float64), np.asarray(n, dtype=np.float64)
    low = np.where(hits > 0, scipy.special.betaincinv(np.maximum(hits, 1), n - hits + 1, alpha / 2), 0.0)
    high = np.where(hits < n, scipy.special.betaincinv(hits + 1, np.maximum(n - hits, 1), 1 - alpha / 2), 1.0)
    return low, high
