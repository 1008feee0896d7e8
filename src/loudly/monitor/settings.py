"""How traffic is watched. Durations in µs."""

from __future__ import annotations

from dataclasses import dataclass

from loudly.core.clock import DAY
from loudly.errors import ConfigError, nearest
from loudly.monitor.streams import Asked
from loudly.shift.budget import Rule

MONTH = 30 * DAY
PAGED = ("harmful", "all", "none")


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """Windows, tolerances and the alarm budget.

    window: length of a window of event time.  lateness: how long late rows may still correct a window.
    trailing: windows that confirmed performance looks back on.  enough: labelled rows that it needs.
    tolerance: by how much, in units of the metric, the champion may fall below what it was expected to do; where `relative`, as a
    share of what was expected.
    bias: largest |mean label - mean score| (binary, regression in standard deviations of the label).
    shift: KS distance (numbers, predictions) or total variation (categories) above which a column has shifted.
    alpha: risk over all looks at one champion.
    budget: alarms a `period`; more are held back and told.
    alarms_a_month: false alarms about shifts that may be expected in 30 days in which nothing moves, over all columns; with
    rule "share" the largest share of false ones among them.  quiet: windows without a shift before its alarm is over.
    context: columns, or "hour", "weekday", "hour_of_week", "month", "season", within which shift is judged.
    pages: which shifts page somebody: "harmful" (unless labels or the estimate say that they do no harm), "all", "none".
    joint: effect above which all columns together have shifted (the rank embedding); 0 switches it off.
    sample: rows kept of each window for it and for blame.
    streams: detectors of single values beside the windows, such as DDM on the errors; none by default.
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
    alarms_a_month: float = 1.0
    rule: Rule = "count"
    quiet: int = 7
    context: tuple[str, ...] = ()
    pages: str = "harmful"
    joint: float = 0.1
    sample: int = 200
    streams: tuple[Asked, ...] = ()
    relative: bool = False

    def __post_init__(self) -> None:
        if self.window <= 0 or self.trailing < 1 or not 0 < self.alpha < 0.5 or self.budget < 1:
            raise ConfigError("Impossible monitor settings.", seen=repr(self))
        if not self.alarms_a_month > 0 or self.quiet < 1 or self.sample < 1 or not 0 <= self.joint < 1:
            raise ConfigError("An impossible alert budget.", seen=repr(self), do="give positive numbers, and joint within [0, 1)")
        if self.rule not in ("count", "share"):
            raise ConfigError(f"There is no rule {self.rule!r}.", do=nearest(self.rule, ("count", "share")))
        if self.rule == "share" and self.alarms_a_month >= 1:
            raise ConfigError("A share of false alarms lies below 1.", seen=str(self.alarms_a_month), do="say 0.05, for instance")
        if self.pages not in PAGED:
            raise ConfigError(f"Shifts cannot page {self.pages!r}.", do=nearest(self.pages, PAGED))
        if isinstance(self.context, str):
            raise ConfigError("context is a list of columns.", seen=repr(self.context), do=f"context=[{self.context!r}]")

    def tolerated(self, expected: float | None) -> float:
        """The tolerance in units of the metric. expected: of the champion; None leaves none where it is relative."""
        return self.tolerance * abs(expected or 0.0) if self.relative else self.tolerance

    @property
    def block(self) -> int:
        """What rows go wrong together in: a day, and a window where that is longer or the trailing ones are less than four days."""
        return self.window if self.trailing * self.window < 4 * DAY else max(DAY, self.window)

    @property
    def monthly(self) -> int:
        """Windows in a month."""
        return max(1, MONTH // self.window)
