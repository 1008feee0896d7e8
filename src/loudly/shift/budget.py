"""An alert budget: over many columns and many windows at most so many false alarms a period are expected.

Every column of every window brings an e-value (its expectation is at most 1 where nothing moved). An alarm at
columns·windows/budget or more makes the expected number of false (column, window) alarms of a period at most the budget, by
Markov and linearity: under any dependence of columns, overlapping windows and repeated looks. A cause that stays is raised
once; it may be raised again after it has been quiet for the cooldown. A new champion changes the reference: all is forgotten.

With `rule="share"` the promise is another: of the alarms of a period at most that share is false (e-LOND over windows, e-BH
over the columns of a window, under any dependence). It finds more where much moves, and less where one thing does.

Source: Wang & Ramdas 2022 (e-BH); Xu & Ramdas 2024 (e-LOND).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from loudly.errors import ConfigError
from loudly.stats.online_fdr import e_bh, saffron_weight

Rule = Literal["count", "share"]


@dataclass(frozen=True, slots=True)
class Alert:
    """What one window has to say: causes raised now, and causes that have been quiet long enough to be cleared."""

    window: int
    raised: tuple[str, ...] = ()
    cleared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spent:
    """The state of a budget: plain, resumable. standing: cause -> (window it was raised in, window it was last seen in)."""

    reference: str = ""
    standing: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    tests: int = 0
    found: int = 0
    period: int = 0

    def plain(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "standing": {cause: list(times) for cause, times in self.standing.items()}}


def spent_of(data: Mapping[str, Any]) -> Spent:
    """The inverse of `Spent.plain`."""
    return Spent(**{**data, "standing": {cause: (int(a), int(b)) for cause, (a, b) in data["standing"].items()}})


@dataclass(frozen=True, slots=True)
class AlertBudget:
    """false_alarms: a period's budget (with rule "share": the share of false ones).  columns: causes judged in each window.
    windows: windows in a period.  cooldown: windows a cause must be quiet before it may be raised again.

    >>> budget = AlertBudget(false_alarms=1, columns=50, windows=8760)
    >>> state, alert = budget.update(budget.init("m/1"), 0, {"temp": 14.0, "wind": 3.0}, "m/1")
    >>> alert.raised
    ('temp',)
    >>> budget.update(state, 1, {"temp": 20.0}, "m/1")[1].raised
    ()
    """

    false_alarms: float
    columns: int
    windows: int
    cooldown: int = 24
    rule: Rule = "count"

    def __post_init__(self) -> None:
        if not self.false_alarms > 0 or self.columns < 1 or self.windows < 1:
            raise ConfigError(
                "An alert budget needs something to spend and something to spend it on.",
                seen=f"false_alarms={self.false_alarms}, columns={self.columns}, windows={self.windows}",
                do="give all three positive numbers",
            )
        if self.rule == "share" and self.false_alarms >= 1:
            raise ConfigError("A share of false alarms lies below 1.", seen=str(self.false_alarms), do="say 0.05, for instance")

    @property
    def log_threshold(self) -> float:
        """What the logarithm of a single e-value must reach (rule "count")."""
        return math.log(self.columns * self.windows / self.false_alarms)

    @property
    def level(self) -> float:
        """What a single p-value must not exceed for the same promise (rule "count")."""
        return self.false_alarms / (self.columns * self.windows)

    def init(self, reference: str) -> Spent:
        """Nothing spent, against this reference."""
        return Spent(reference)

    def update(self, state: Spent, window: int, log_e: Mapping[str, float], reference: str) -> tuple[Spent, Alert]:
        """The state after the e-values (logarithms, by cause) of a window, and what is to be said.

        NaN is "cannot tell": it neither raises nor clears. Another reference than before clears all and starts anew.
        """
        cleared: tuple[str, ...] = ()
        if reference != state.reference:
            cleared, state = tuple(sorted(state.standing)), Spent(reference)
        state, over = self._over(state, window, log_e)
        standing = dict(state.standing)
        raised = tuple(sorted(c for c in over if c not in standing))
        for cause in over:
            standing[cause] = (standing.get(cause, (window, window))[0], window)
        quiet = [c for c, (_, last) in standing.items() if window - last >= self.cooldown and not math.isnan(log_e.get(c, 0.0))]
        for cause in quiet:
            del standing[cause]
        return replace(state, standing=standing), Alert(window, raised, (*cleared, *sorted(quiet)))

    def _over(self, state: Spent, window: int, log_e: Mapping[str, float]) -> tuple[Spent, tuple[str, ...]]:
        if self.rule == "count":
            return state, tuple(c for c, value in log_e.items() if value >= self.log_threshold)
        period = window // self.windows
        if period != state.period:
            state = replace(state, tests=0, found=0, period=period)
        hits = e_bh(list(log_e.values()), self.false_alarms * saffron_weight(state.tests + 1), before=state.found)
        over = tuple(c for c, hit in zip(log_e, hits, strict=True) if hit)
        return replace(state, tests=state.tests + 1, found=state.found + len(over)), over
