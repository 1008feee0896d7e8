"""Which columns have surely moved, over windows and within contexts, and which of that may be said within the alert budget.

A column has moved where, over its last 1, 2, 4, ... windows, its distance to the reference is surely above the tolerance; it
raises an alarm once the e-value of those windows is within the budget (`loudly.shift.budget`). So small effects never page,
however sure; and chance pages at most as often as the budget says, over all columns and windows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from loudly.core.clock import DAY
from loudly.core.seams import Ints
from loudly.core.values import Decision, Evidence, Verdict
from loudly.monitor.answers import HOURS
from loudly.monitor.settings import MONTH, MonitorSettings
from loudly.monitor.strata import Strata
from loudly.shift.bins import Bins
from loudly.shift.budget import AlertBudget, Spent
from loudly.shift.lookback import LENGTHS
from loudly.shift.plan import Plan
from loudly.shift.profile import Profile
from loudly.stats.count_intervals import total_variation_reach
from loudly.stats.dkw import ks_interval
from loudly.stats.multinomial_process import log_e, log_e_ordered

JOINT = "all columns together"
# The joint test has a part of the budget for itself.
JOINT_SHARE = 0.5
STILL = 0.5
# Counts within contexts are large: fewer windows are looked back on.
MOST_WITHIN = 64
FEW = 50


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What is kept of a window: its profile and, where contexts are named, the counts within them."""

    profile: Profile
    within: Mapping[str, Ints] = field(default_factory=dict)

    def merge(self, other: Seen) -> Seen:
        """Both together."""
        within = {name: counts + other.within[name] for name, counts in self.within.items()}
        return Seen(self.profile.merge(other.profile), within)


@dataclass(frozen=True, slots=True)
class Moves:
    """What moved in a window. verdicts: FAIL for each column that did, the farthest first.

    raised: within the budget and new.  cleared: alarms that have been quiet long enough.  unseen: the largest share of rows that
    lie in contexts which the reference never saw, where that left a column without a judgment.
    """

    verdicts: Mapping[str, Verdict]
    raised: tuple[str, ...] = ()
    cleared: tuple[str, ...] = ()
    unseen: float = 0.0


class Shifts:
    """The windows of one champion, at most 512 (64 with contexts), and what has been spent of the budget."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._plan: Plan | None = None
        self._strata: Strata | None = None
        self._windows: dict[int, Seen] = {}
        self._spent = self._joint = Spent()
        self._columns: tuple[str, ...] = ()

    def begin(self, plan: Plan, strata: Strata | None) -> None:
        """Another reference: all is forgotten."""
        self._plan, self._strata, self._windows = plan, strata, {}
        self._spent = self._joint = Spent()
        self._columns = tuple(n for n, b in plan.bins.items() if n != HOURS and b.size > 1 and b.counts.sum() > 0)
        if strata is not None:
            self._columns = tuple(n for n in self._columns if n in strata.held)

    @property
    def columns(self) -> tuple[str, ...]:
        """What is judged."""
        return self._columns

    @property
    def windows(self) -> Mapping[int, Seen]:
        """The windows of this champion, by their start: their counts, and of the newest the rows that were kept."""
        return self._windows

    def judge(self, start: int, seen: Seen, joint: Verdict | None = None, *, again: bool = False) -> Moves:
        """A closed window; `again` for one that late rows have changed: it is judged, and spends nothing."""
        assert self._plan is not None
        self._keep(start, seen)
        recent = [self._windows[s] for s in sorted(s for s in self._windows if s <= start)]
        lengths = [n for n in LENGTHS if n <= len(recent)]
        found, told, unseen = {}, {}, 0.0
        for name in self._columns:
            verdict, value = self._column(name, recent, lengths)
            told[name] = value
            if verdict is not None and verdict.failed:
                found[name] = verdict
            elif verdict is not None:
                unseen = max(unseen, float(str(verdict.evidence[0].detail.get("unseen", 0.0))))
        verdicts = dict(sorted(found.items(), key=lambda kv: -(kv[1].evidence[0].effect or 0.0)))
        if joint is not None and joint.failed:
            verdicts[JOINT] = joint
        if again:
            return Moves(verdicts, unseen=unseen)
        return replace(self._spend(start, told, joint), verdicts=verdicts, unseen=unseen)

    def _keep(self, start: int, seen: Seen) -> None:
        """Counts for as long as is looked back, rows for as long as somebody may be told what is to blame."""
        self._windows[start] = Seen(replace(seen.profile, far={}, distinct={}, cells={}), seen.within)
        starts = sorted(self._windows)
        for old in starts[: -MOST_WITHIN if self._strata is not None else -LENGTHS[-1]]:
            del self._windows[old]
        for old in starts[-4 * self._settings.trailing - 1 : -4 * self._settings.trailing]:
            if old in self._windows:
                self._windows[old] = Seen(self._windows[old].profile.thinned(), self._windows[old].within)

    def _spend(self, start: int, told: Mapping[str, float], joint: Verdict | None) -> Moves:
        number = start // self._settings.window
        both = self._settings.joint > 0 and self._strata is None
        budget = self._budget(len(self._columns), 1 - JOINT_SHARE if both else 1.0)
        self._spent, alert = budget.update(self._spent, number, told, self._spent.reference)
        if not both:
            return Moves({}, alert.raised, alert.cleared)
        if joint is None:
            return Moves({}, alert.raised, alert.cleared)
        own = joint_budget(self._settings)
        self._joint, other = own.update(self._joint, start // stretch(self._settings), {JOINT: _of_p(joint, own)}, "")
        return Moves({}, (*alert.raised, *other.raised), (*alert.cleared, *other.cleared))

    def _budget(self, columns: int, share: float) -> AlertBudget:
        s = self._settings
        return AlertBudget(s.alarms_a_month * share, max(1, columns), s.monthly, s.quiet, s.rule)

    # -- one column --------------------------------------------------------------------------------------------------

    def _column(self, name: str, recent: list[Seen], lengths: list[int]) -> tuple[Verdict | None, float]:
        """The verdict over the stretch that shows it best, and a lower bound of the log e-value over all of them."""
        assert self._plan is not None
        bins, alpha = self._plan.bins[name], self._settings.alpha / (len(self._columns) * len(LENGTHS))
        if self._strata is not None:
            best = self._within(self._strata, name, recent, lengths, alpha)
        else:
            best = self._plainly(bins, name, recent, lengths, alpha)
        if best is None:
            return None, -math.inf
        evidence, told = best
        if evidence.effect is None or evidence.low is None or evidence.high is None:
            return Verdict(Decision.UNDECIDED, f"shift of {name}", "contexts that are new", (evidence,), "a reference"), math.nan
        if evidence.low <= self._settings.shift:
            return None, -math.inf
        inside = f" within {', '.join(self._settings.context)}" if self._settings.context else ""
        reason = (
            f"{name}: {evidence.unit} {evidence.effect:.3f} [{evidence.low:.3f}, {evidence.high:.3f}]{inside}, "
            f"tolerance {self._settings.shift:g}, {evidence.n:,} rows"
        )
        return Verdict(Decision.FAIL, f"shift of {name}", reason, (evidence,)), told

    def _plainly(
        self, bins: Bins, name: str, recent: list[Seen], lengths: list[int], alpha: float
    ) -> tuple[Evidence, float] | None:
        seen = np.stack([w.profile.counts(name) for w in recent[-lengths[-1] :]])
        sums = np.stack([seen[-n:].sum(axis=0) for n in lengths])
        rows = sums.sum(axis=1)
        if rows[-1] == 0:
            return None
        gaps = _distances(bins, sums)
        # A shift that is over does not stand because long stretches remember it.
        if rows[0] >= FEW and gaps[0] <= STILL * self._settings.shift:
            return None
        m, k = int(bins.counts.sum()), bins.size
        spans = []
        for effect, n, counts in zip(gaps.tolist(), rows.tolist(), sums, strict=True):
            if effect > self._settings.shift:
                low, high = _interval(bins, effect, m, n, alpha)
                spans.append((low, high, effect, n, counts))
        if not spans:
            return None
        low, high, effect, n, counts = max(spans, key=lambda s: s[0])
        unit = "KS distance" if bins.numeric else "total variation"
        method = "KS from bin counts" if bins.numeric else "total variation from counts"
        detail = {"bins": k, "reference_n": m}
        evidence = Evidence(method, effect, low, high, n, name, unit, 1 - alpha, self._settings.shift, detail=detail)
        return evidence, self._value(name, bins, counts, len(lengths)) if low > self._settings.shift else -math.inf

    def _value(self, name: str, bins: Bins, counts: Ints, lengths: int) -> float:
        """The mean of e-values is at least one of them over their number; cuts are tried where bins fall short."""
        level = self._budget(len(self._columns), 1 - JOINT_SHARE).log_threshold
        if name in self._spent.standing and self._settings.rule == "count":
            return level  # it is not raised again: what stands need not be as sure as what is new
        whole = float(log_e(bins.counts, counts)) - math.log(2 * lengths)
        if whole >= level or not bins.numeric or self._settings.rule == "share":
            return whole
        return float(log_e_ordered(bins.counts, counts)) - math.log(lengths)

    def _within(
        self, strata: Strata, name: str, recent: list[Seen], lengths: list[int], alpha: float
    ) -> tuple[Evidence, float] | None:
        assert self._plan is not None
        numeric = self._plan.bins[name].numeric
        seen = np.stack([w.within[name] for w in recent[-lengths[-1] :]])
        newest = strata.judge(name, seen[-1], numeric, alpha)
        if newest.effect is None:
            return newest, math.nan
        if newest.n >= FEW and newest.effect <= STILL * self._settings.shift:
            return None
        found = [(strata.judge(name, sums, numeric, alpha), sums) for sums in (seen[-n:].sum(axis=0) for n in lengths)]
        known = [(e, s) for e, s in found if e.low is not None]
        if not known:
            return None
        evidence, sums = max(known, key=lambda f: f[0].low or 0.0)
        if (evidence.low or 0.0) <= self._settings.shift:
            return None
        return replace(evidence, tolerance=self._settings.shift), strata.log_e(name, sums, numeric) - math.log(len(lengths))


def stretch(settings: MonitorSettings) -> int:
    """How much event time the test of all columns together takes at once: a window, or a day of shorter ones."""
    return max(settings.window, DAY)


def joint_budget(settings: MonitorSettings) -> AlertBudget:
    """What the test of all columns together may spend."""
    windows = max(1, MONTH // stretch(settings))
    return AlertBudget(settings.alarms_a_month * JOINT_SHARE, 1, windows, settings.quiet, settings.rule)


def _distances(bins: Bins, sums: Ints) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(lengths,) KS distance (numbers) or total variation (categories) of sums (lengths, bins) to the reference."""
    rows = np.maximum(1, sums.sum(axis=1, keepdims=True))
    gaps = sums / rows - bins.counts / bins.counts.sum()
    if bins.numeric:
        return np.asarray(np.abs(np.cumsum(gaps, axis=1)).max(axis=1))
    return np.asarray(np.abs(gaps).sum(axis=1) / 2)


def _interval(bins: Bins, effect: float, m: int, n: int, alpha: float) -> tuple[float, float]:
    if bins.numeric:
        return ks_interval(effect, m, n, alpha, 1 / bins.size + 1 / m)
    below, above = total_variation_reach(bins.size, m, n, alpha)
    return max(0.0, effect - below), min(1.0, effect + above)


def _of_p(joint: Verdict, budget: AlertBudget) -> float:
    """The log e-value of a p-value: all or nothing at the level of the budget; for a share, one over twice its root."""
    p = joint.evidence[0].p_value if joint.evidence else None
    if p is None:
        return math.nan
    if not joint.failed:
        return -math.inf
    if budget.rule == "share":
        return -0.5 * math.log(p) - math.log(2)
    return budget.log_threshold if p <= budget.level else -math.inf
