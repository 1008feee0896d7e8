"""Which arm erred? An exact e-process on the arm of each error, valid under shared outages and however often one looks.

Given an error, it comes from the candidate with probability p0 (its share of what was answered) when both arms err at the
same rate. Betting on a Beta(1, 1) mixture of other probabilities gives an e-process; 1/alpha is crossed with probability
at most alpha.

Source: Lindon, Sanden & Shirikian 2022 (KDD); Ville's inequality.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class ArmProcess:
    """candidate, control: errors of each.  log_null: log-likelihood of those arms under p0."""

    candidate: int = 0
    control: int = 0
    log_null: float = 0.0

    def add(self, candidate: int, control: int, share: float) -> ArmProcess:
        """Errors of a stretch in which the candidate answered `share` of all. A share of 0 or 1 tells nothing."""
        if not 0 < share < 1 or candidate + control == 0:
            return self
        gained = candidate * math.log(share) + control * math.log1p(-share)
        return ArmProcess(self.candidate + candidate, self.control + control, self.log_null + gained)

    @property
    def log_e(self) -> float:
        """Log of the e-value against equal error rates."""
        a, b = self.candidate + 1, self.control + 1
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b) - self.log_null

    def worse(self, alpha: float, share: float) -> bool:
        """Whether the candidate surely errs more."""
        total = self.candidate + self.control
        return total > 0 and self.candidate / total > share and self.log_e >= math.log(1 / alpha)

    def plain(self) -> dict[str, float]:
        """As plain JSON."""
        return asdict(self)


def arm_process_of(data: Mapping[str, float]) -> ArmProcess:
    """The inverse of `ArmProcess.plain`."""
    return ArmProcess(int(data["candidate"]), int(data["control"]), float(data["log_null"]))
