"""Which arm erred? An exact e-process on the arm of each error, valid under shared outages and however often one looks.

Given an error, it comes from the candidate with probability s (its share by assignment) when both arms err at the same rate, and
with r·s / (1 - s + r·s) when the candidate errs r times as often. A bet spread over a few ratios r above 1 is an e-process
however the share moves; it is above 1/alpha at some look with probability at most alpha. Errors must be counted so that the arm
of each is an independent draw: one a unit, where units stick to an arm (see `deliver.failing`).

Source: Lindon, Sanden & Shirikian 2022 (KDD), with the mixture over ratios in place of shares; Ville's inequality.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# How many times as often the candidate may err, and the stake on each. 5 stands for 0.2 % -> 1 %; 20 for a broken candidate.
RATIOS = (1.25, 2.0, 5.0, 20.0)
STAKES = (0.05, 0.2, 0.55, 0.2)


@dataclass(frozen=True, slots=True)
class ArmProcess:
    """candidate, control: errors of each.  log_bets: log of what a stake of 1 on each ratio has become.

    >>> ArmProcess().add(6, 1, 0.1).worse(0.05, 0.1), ArmProcess().add(1, 6, 0.1).worse(0.05, 0.1)
    (True, False)
    """

    candidate: int = 0
    control: int = 0
    log_bets: tuple[float, ...] = (0.0,) * len(RATIOS)

    def add(self, candidate: int, control: int, share: float) -> ArmProcess:
        """Errors of a stretch in which the candidate had `share` by assignment. A share of 0 or 1 tells nothing."""
        if not 0 < share < 1 or candidate + control == 0:
            return self
        total = candidate + control
        gained = (candidate * math.log(r) - total * math.log(1 - share + r * share) for r in RATIOS)
        bets = tuple(old + new for old, new in zip(self.log_bets, gained, strict=True))
        return ArmProcess(self.candidate + candidate, self.control + control, bets)

    @property
    def log_e(self) -> float:
        """Log of the e-value against equal error rates, for a candidate that errs more."""
        most = max(self.log_bets)
        return most + math.log(sum(s * math.exp(bet - most) for s, bet in zip(STAKES, self.log_bets, strict=True)))

    def worse(self, alpha: float, share: float) -> bool:
        """Whether the candidate surely errs more."""
        total = self.candidate + self.control
        return total > 0 and self.candidate / total > share and self.log_e >= math.log(1 / alpha)

    def plain(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"candidate": self.candidate, "control": self.control, "log_bets": list(self.log_bets)}


def arm_process_of(data: Mapping[str, Any]) -> ArmProcess:
    """The inverse of `ArmProcess.plain`."""
    return ArmProcess(int(data["candidate"]), int(data["control"]), tuple(float(bet) for bet in data["log_bets"]))
