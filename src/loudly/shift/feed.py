"""Is the feed broken? A bug upstream told apart from a world that moves.

A season moves slowly and along the lattice of known values; a feed breaks at once: a column is gone, missing values jump
in one slice, units change, a value sticks. Each window is held against the good windows before it, and only good windows
teach. Measured on a year of hourly weather: no false alarm, each planted break named on its first day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from loudly.core.seams import Floats
from loudly.core.values import Decision, Evidence, Verdict
from loudly.shift.profile import Column, Profile
from loudly.shift.units import unit_change

FEWEST_ROWS = 50
FEWEST_WINDOWS = 14
GONE = 0.95
JUMP = 0.20
# A column that is missing more often than not comes and goes by itself.
MOSTLY = 0.5
STUCK_ROWS = 200
STUCK_KINDS = 5
MOST_KNOWN = 4096


@dataclass(slots=True)
class ColumnHistory:
    """What good windows have shown of a column. missing: shares of its values that were missing or infinite."""

    missing: list[float] = field(default_factory=list)
    cells: dict[str, list[float]] = field(default_factory=dict)
    kinds: list[int] = field(default_factory=list)
    known: set[float] | None = field(default_factory=set)
    _sorted: Floats | None = None

    @property
    def lattice(self) -> Floats:
        """The known values, sorted."""
        known = self.known or set()
        if self._sorted is None or len(self._sorted) != len(known):
            self._sorted = np.array(sorted(known))
        return self._sorted

    def learn(self, column: Column) -> None:
        """One good window more."""
        if column.rows >= FEWEST_ROWS:
            self.missing.append(_lost(column) / column.rows)
            for name, (rows, lost) in column.cells.items():
                if rows >= FEWEST_ROWS:
                    self.cells.setdefault(name, []).append(lost / rows)
        if column.distinct is None or self.known is None:
            self.known = None
        else:
            if column.distinct:
                self.kinds.append(len(column.distinct))
            self.known |= column.distinct.keys()
            if len(self.known) > MOST_KNOWN:
                self.known = None


@dataclass(frozen=True, slots=True)
class Break:
    """A broken column: `cause` names it for good ("temp units")."""

    column: str
    cause: str
    verdict: Verdict


class FeedJudge:
    """Holds the histories of all columns and judges windows by them; columns that are `apart` come from no feed."""

    def __init__(self, apart: Callable[[str], bool] = lambda _: False) -> None:
        self.history: dict[str, ColumnHistory] = {}
        self._apart = apart
        self._before: Iterator[Profile] = iter(())

    def begin(self, before: Iterable[Profile]) -> None:
        """Good windows of the past. They are made, and teach, when somebody looks back: at the latest when a window comes."""
        self._before = iter(before)

    def look_back(self) -> None:
        """Learns from the windows of the past, where that has not been done."""
        for good in self._before:
            self._teach(good)

    def learn(self, window: Profile) -> None:
        """A good window teaches what is normal."""
        self.look_back()
        self._teach(window)

    def judge(self, window: Profile) -> tuple[Break, ...]:
        """The broken columns of a window; a window of fewer than 50 rows cannot tell and breaks nothing."""
        if window.rows < FEWEST_ROWS:
            return ()
        self.look_back()
        found = (self._column(name, column) for name, column in self._fed(window))
        return tuple(b for b in found if b is not None)

    def _teach(self, window: Profile) -> None:
        for name, column in self._fed(window):
            self.history.setdefault(name, ColumnHistory()).learn(column)

    def _fed(self, window: Profile) -> Iterator[tuple[str, Column]]:
        return ((name, column) for name, column in window.columns.items() if not self._apart(name))

    def _column(self, name: str, column: Column) -> Break | None:
        past = self.history.get(name)
        if past is None:
            return None
        return _gone(name, column, past) or _jumped(name, column, past) or _units(name, column, past) or _stuck(name, column, past)


def _lost(column: Column) -> int:
    """Values that say nothing: missing ones, and infinities (what a division by an upstream zero leaves)."""
    return column.rows - column.sound


def _how(column: Column) -> str:
    return "missing" if not column.infinite else "missing or infinite" if column.missing else "infinite"


def _gone(name: str, column: Column, past: ColumnHistory) -> Break | None:
    share = _lost(column) / column.rows
    if share < GONE or not past.missing or max(past.missing) >= GONE or float(np.median(past.missing)) > MOSTLY:
        return None
    return _break(name, "gone", f"{name} is {_how(column)} in {share:.0%} of {column.rows:,} rows", share, column.rows)


def _jumped(name: str, column: Column, past: ColumnHistory) -> Break | None:
    """The cell whose missing share exceeds the 99th percentile of its own past the most."""
    worst: tuple[float, str, float, int] | None = None
    whole = {"all rows": (column.rows, _lost(column)), **column.cells}
    for cell, (rows, lost) in whole.items():
        before = past.missing if cell == "all rows" else past.cells.get(cell, [])
        if rows < FEWEST_ROWS or len(before) < FEWEST_WINDOWS or max(before) >= GONE:
            continue
        usual = float(np.quantile(before, 0.99))
        if usual > JUMP:
            continue
        excess = lost / rows - usual
        if excess > JUMP and (worst is None or excess > worst[0]):
            worst = (excess, cell, lost / rows, rows)
    if worst is None:
        return None
    excess, cell, share, rows = worst
    return _break(
        name, f"nulls in {cell}", f"{name} is {_how(column)} in {share:.0%} of {cell}, {excess:.0%} above its usual", share, rows
    )


def _units(name: str, column: Column, past: ColumnHistory) -> Break | None:
    if past.known is None or not past.known or not column.distinct or len(past.missing) < FEWEST_WINDOWS:
        return None
    change = unit_change(column.distinct, past.lattice)
    if change is None:
        return None
    familiar, before = 1 - change.left, 1 - change.unknown
    told = f"{name} changed units: {change.conversion} explains {familiar:.0%} of its values, {before:.0%} were known"
    return _break(name, f"units {change.conversion}", told, change.unknown - change.left, change.n)


def _stuck(name: str, column: Column, past: ColumnHistory) -> Break | None:
    sound = column.sound
    if not column.distinct or len(column.distinct) > 1 or sound < STUCK_ROWS or len(past.kinds) < FEWEST_WINDOWS:
        return None
    if min(past.kinds) < STUCK_KINDS:
        return None
    value = next(iter(column.distinct))
    return _break(name, "stuck", f"{name} is {value:g} in all {sound:,} rows", 1.0, sound)


def _break(column: str, cause: str, reason: str, effect: float, n: int) -> Break:
    evidence = Evidence(f"feed: {cause}", effect, n=n, about=column)
    return Break(column, f"{column} {cause}", Verdict(Decision.FAIL, f"feed of {column}", reason, (evidence,)))


def known_columns(history: Mapping[str, ColumnHistory]) -> tuple[str, ...]:
    """Columns that have been seen in good windows."""
    return tuple(history)
