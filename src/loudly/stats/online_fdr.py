"""Many tests, one after the other: the share of false ones among the alarms stays below alpha.

`Lord` and `Saffron` take p-values, in order, independent under the null; `ELond` takes e-values of any dependence whatever;
`e_bh` takes the e-values of all columns of one window at once, again of any dependence. States are plain and resumable: what
is kept is the times of the discoveries (and, for SAFFRON, how many candidates came since each).

Source: Ramdas, Yang, Wainwright & Jordan 2017 (LORD++); Ramdas, Zrnic, Wainwright & Jordan 2018 (SAFFRON); Xu & Ramdas 2024,
"Online multiple testing with e-values" (e-LOND); Wang & Ramdas 2022, "False discovery rate control with e-values" (e-BH).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


def lord_weight(j: int) -> float:
    """The weight of the j-th test, from 1, by Javanmard & Montanari 2018: log(max(j, 2)) / (j·exp(sqrt(log j))), sum 1."""
    return 0.07720838 * math.log(max(j, 2)) / (j * math.exp(math.sqrt(math.log(j)))) if j > 0 else 0.0


def saffron_weight(j: int) -> float:
    """The weight of the j-th test, from 1: proportional to j^-1.6, sum 1."""
    return 0.4374901658 / j**1.6 if j > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Lord:
    """LORD++. tests: how many so far.  found: which of them (from 1) were discoveries.

    >>> state, first = Lord(0.05).test(2.9e-8)
    >>> first, state.found
    (True, (1,))
    """

    alpha: float
    wealth: float | None = None
    tests: int = 0
    found: tuple[int, ...] = ()

    @property
    def level(self) -> float:
        """What the next p-value must not exceed."""
        now = self.tests + 1
        start = self.alpha / 10 if self.wealth is None else self.wealth
        gained = [lord_weight(now - t) for t in self.found]
        return start * lord_weight(now) + (self.alpha - start) * sum(gained[:1]) + self.alpha * sum(gained[1:])

    def test(self, p: float) -> tuple[Lord, bool]:
        """The state after one p-value more, and whether it is a discovery."""
        hit = p <= self.level
        now = self.tests + 1
        return replace(self, tests=now, found=(*self.found, now) if hit else self.found), hit

    def plain(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "found": list(self.found)}


@dataclass(frozen=True, slots=True)
class Saffron:
    """SAFFRON. after: for the start and for each discovery, (its time, candidates that came after it)."""

    alpha: float
    threshold: float = 0.5
    wealth: float | None = None
    tests: int = 0
    after: tuple[tuple[int, int], ...] = ((0, 0),)

    @property
    def level(self) -> float:
        """What the next p-value must not exceed."""
        now = self.tests + 1
        start = self.alpha / 2 if self.wealth is None else self.wealth
        gained = [saffron_weight(now - t - candidates) for t, candidates in self.after]
        told = start * gained[0] + (self.alpha - start) * sum(gained[1:2]) + self.alpha * sum(gained[2:])
        return min(self.threshold, (1 - self.threshold) * told)

    def test(self, p: float) -> tuple[Saffron, bool]:
        """The state after one p-value more, and whether it is a discovery."""
        hit, now = p <= self.level, self.tests + 1
        more = int(p <= self.threshold)
        after = tuple((t, candidates + more) for t, candidates in self.after)
        return replace(self, tests=now, after=(*after, (now, 0)) if hit else after), hit

    def plain(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "after": [list(a) for a in self.after]}


@dataclass(frozen=True, slots=True)
class ELond:
    """e-LOND: valid under arbitrary dependence. found: how many discoveries so far."""

    alpha: float
    tests: int = 0
    found: int = 0

    @property
    def level(self) -> float:
        """One over what the next e-value must reach."""
        return self.alpha * saffron_weight(self.tests + 1) * (self.found + 1)

    def test(self, log_e: float) -> tuple[ELond, bool]:
        """The state after one e-value more (as its logarithm), and whether it is a discovery."""
        hit = log_e >= -math.log(self.level)
        return replace(self, tests=self.tests + 1, found=self.found + hit), hit

    def plain(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def lord_of(data: Mapping[str, Any]) -> Lord:
    """The inverse of `Lord.plain`."""
    return Lord(**{**data, "found": tuple(data["found"])})


def saffron_of(data: Mapping[str, Any]) -> Saffron:
    """The inverse of `Saffron.plain`."""
    return Saffron(**{**data, "after": tuple((int(t), int(c)) for t, c in data["after"])})


def e_lond_of(data: Mapping[str, Any]) -> ELond:
    """The inverse of `ELond.plain`."""
    return ELond(**data)


def e_bh(log_e: Any, alpha: float, before: int = 0) -> NDArray[np.bool_]:
    """Which of the e-values (k,), given as logarithms, are discoveries: FDR <= alpha under any dependence.

    The largest r such that r of them reach k/(alpha·(before + r)). NaN (cannot tell) is never one. `before` counts the
    discoveries of earlier batches: with alpha·weight(t) for the t-th batch this is e-LOND in batches, for then
    false/all <= sum of e·alpha·weight(t)/k over the true nulls, whose expectation is at most alpha.

    >>> e_bh([9.0, 0.0, 5.0], 0.05).tolist()
    [True, False, True]
    """
    told = np.nan_to_num(np.asarray(log_e, dtype=np.float64), nan=-np.inf)
    k = len(told)
    if k == 0:
        return np.zeros(0, dtype=bool)
    ranked = np.sort(told)[::-1]
    enough = ranked >= np.log(k / alpha) - np.log(before + np.arange(1, k + 1))
    if not enough.any():
        return np.zeros(k, dtype=bool)
    return np.asarray(told >= math.log(k / alpha) - math.log(before + np.flatnonzero(enough)[-1] + 1))
