"""How traffic is watched. Durations in µs."""

from __future__ import annotations

from dataclasses import dataclass

from loudly.core.clock import DAY
from loudly.errors import ConfigError


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """Windows, tolerances and the alarm budget.

    window: length of a window of event time.  lateness: how long late rows may still correct a window.
    trailing: windows that confirmed performance looks back on.  enough: labelled rows that it needs.
    tolerance: by how much, in units of the metric, the champion may fall below what it was expected to do.
    bias: largest |mean label - mean score| (binary, regression in standard deviations of the label).
    shift: KS distance (numbers, predictions) or total variation (categories) above which a column has shifted.
    alpha: risk over all looks at one champion.
    budget: alarms a `period`; more are kept for the digest.
    """

    window: int = DAY
    lateness: int = 3 * DAY
    trailing: int = 14
    enough: int = 2000
    tolerance: float = 0.01
    bias: float = 0.05
    shift: float = 0.25
    alpha: float = 0.05
    budget: int = 10
    period: int = 7 * DAY

    def __post_init__(self) -> None:
        if self.window <= 0 or self.trailing < 1 or not 0 < self.alpha < 0.5 or self.budget < 1:
            raise ConfigError("Impossible monitor settings.", seen=repr(self))
