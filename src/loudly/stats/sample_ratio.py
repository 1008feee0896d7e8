"""Did the units split as planned? A sequential test of the sample ratio, valid however often one looks.

Units of each arm are multinomial with the planned shares, or something is broken: a redirect that loses a browser, a cache, a
crash of one arm, a log that drops rows. No effect can be believed until that is found, so a mismatch stops the analysis.
The e-value is the Dirichlet-multinomial mixture over the planned one. Count units, once each: requests of one unit are not
independent.

Source: Lindon & Malek 2022, "Anytime-valid inference for multinomial count data" (NeurIPS), eq. (5)-(7); Ville's inequality.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import scipy

from loudly.core.seams import Ints
from loudly.core.values import Evidence
from loudly.errors import DataError

CONCENTRATION = 1000.0


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """shares: as planned, summing to 1.  counts: units seen of each arm.  past: log-e of plans before this one.

    peak: the largest log-e so far; what was once rejected stays rejected.  concentration: how near to the plan the
    alternatives lie; 1,000 is best for shares about 1.6 points off.

    >>> fair, skewed = (SampleRatio((0.5, 0.5)).add(seen) for seen in ((5000, 5040), (5200, 4800)))
    >>> fair.off(0.05), skewed.off(0.05)
    (False, True)
    """

    shares: tuple[float, ...]
    counts: tuple[int, ...] = ()
    past: float = 0.0
    peak: float = 0.0
    concentration: float = CONCENTRATION

    def __post_init__(self) -> None:
        if len(self.shares) < 2 or min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-9:
            raise DataError("Planned shares are two or more, each above 0, and sum to 1.", seen=str(self.shares))

    def add(self, counts: Sequence[int]) -> SampleRatio:
        """More units of each arm. Raises: DataError where the arms are not those of the plan."""
        if len(counts) != len(self.shares) or min(counts) < 0:
            raise DataError("Units are counted for each arm of the plan.", seen=f"{tuple(counts)} for {len(self.shares)} arms")
        seen = self.counts or (0,) * len(self.shares)
        new = replace(self, counts=tuple(int(a + b) for a, b in zip(seen, counts, strict=True)))
        return replace(new, peak=max(self.peak, new.log_e))

    def follow(self, arms: Ints) -> SampleRatio:
        """More units one by one, by the arm of each: the peak follows every one of them. Shape: (n,)."""
        seen = np.asarray(self.counts or (0,) * len(self.shares))
        walk = seen + np.cumsum(np.eye(len(self.shares), dtype=np.int64)[arms], axis=0)
        peak = float(np.max(self._log_e(walk.T), initial=self.peak))
        return replace(self, counts=tuple(walk[-1].tolist()) if len(arms) else self.counts, peak=peak)

    def planned(self, shares: tuple[float, ...]) -> SampleRatio:
        """From now on another plan (a canary grows): e-values of one plan after the other multiply."""
        return SampleRatio(shares, (0,) * len(shares), self.log_e, self.peak, self.concentration)

    @property
    def n(self) -> int:
        """Units under the plan of now."""
        return sum(self.counts)

    @property
    def log_e(self) -> float:
        """Log of the e-value against the plan, as of now."""
        return float(self._log_e(self.counts))

    def _log_e(self, counts: Any) -> Any:
        """The same of other counts, or of many. Shape: (arms, ...)."""
        log_e = self.past - _rising(self.concentration, sum(counts))
        for share, seen in zip(self.shares, counts, strict=False):
            log_e = log_e + (_rising(self.concentration * share, seen) - seen * math.log(share))
        return log_e

    @property
    def p_value(self) -> float:
        """Valid at every look: 1 / the largest e-value so far."""
        return math.exp(-max(0.0, self.peak))

    def off(self, alpha: float) -> bool:
        """Whether the split is surely not the planned one."""
        return self.peak >= math.log(1 / alpha)

    def interval(self, arm: int, alpha: float) -> tuple[float, float]:
        """The confidence sequence for one arm's share under the plan of now, by inverting the two-arm test."""
        if self.n == 0:
            return 0.0, 1.0
        seen, share = self.counts[arm], self.shares[arm]
        a, b = self.concentration * share, self.concentration * (1 - share)
        mixed = float(_rising(a, seen) + _rising(b, self.n - seen) - _rising(a + b, self.n))

        def room(p: float) -> float:
            return mixed - (seen * math.log(p) if seen else 0.0) - ((self.n - seen) * math.log1p(-p) if seen < self.n else 0.0)

        bar, likeliest, edge = math.log(1 / alpha), seen / self.n, 1e-12
        below = seen > 0 and room(edge) > bar
        above = seen < self.n and room(1 - edge) > bar
        inside = min(max(likeliest, edge), 1 - edge)
        low = float(scipy.optimize.brentq(lambda p: room(p) - bar, edge, inside)) if below else 0.0
        return low, float(scipy.optimize.brentq(lambda p: room(p) - bar, inside, 1 - edge)) if above else 1.0

    def evidence(self, arms: Sequence[str], alpha: float) -> Evidence:
        """The arm that is furthest off: its share minus the planned one, with an interval for all arms together."""
        if self.n == 0:
            return Evidence("sample ratio e-test", None, about="units of each arm", confidence=1 - alpha)
        gaps = [seen / self.n - share for seen, share in zip(self.counts, self.shares, strict=True)]
        worst = max(range(len(gaps)), key=lambda arm: abs(gaps[arm]))
        low, high = (end - self.shares[worst] for end in self.interval(worst, alpha / len(gaps)))
        detail: dict[str, Any] = {"counts": list(self.counts), "shares": list(self.shares), "off": self.off(alpha)}
        return Evidence(
            "sample ratio e-test",
            gaps[worst],
            low,
            high,
            self.n,
            arms[worst],
            "share",
            1 - alpha,
            p_value=self.p_value,
            detail=detail,
        )

    def plain(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "shares": list(self.shares), "counts": list(self.counts)}


def sample_ratio_of(data: Mapping[str, Any]) -> SampleRatio:
    """The inverse of `SampleRatio.plain`."""
    shares, counts = tuple(float(s) for s in data["shares"]), tuple(int(c) for c in data["counts"])
    return SampleRatio(shares, counts, float(data["past"]), float(data["peak"]), float(data["concentration"]))


def _rising(start: float, steps: Any) -> Any:
    """log Γ(start + steps) - log Γ(start), of a number or of many."""
    return scipy.special.gammaln(start + steps) - scipy.special.gammaln(start)
