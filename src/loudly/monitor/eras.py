"""Windows of event time, each in the bins of the champion that answered when it began: late rows correct it in those, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import polars as pl

from loudly.core.clock import HOUR
from loudly.core.seams import Ints
from loudly.monitor.answers import HOURS, said
from loudly.monitor.settings import MonitorSettings
from loudly.monitor.shifts import Seen
from loudly.monitor.strata import Strata
from loudly.shift.event_time import FOREVER, Batch
from loudly.shift.plan import Plan
from loudly.shift.profile import profile
from loudly.shift.window_shapes import Tumbling
from loudly.shift.window_state import Spoken, State
from loudly.shift.windows import Windows


@dataclass(slots=True)
class Era:
    """The windows from `turn` on, under one reference."""

    turn: int
    plan: Plan
    strata: Strata | None
    windows: Windows[Seen]
    state: State[Seen]


class Eras:
    """The windows of the champion and of those before it, as long as late rows may correct them."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._eras: list[Era] = []

    @property
    def begun(self) -> bool:
        """Whether there is a reference."""
        return bool(self._eras)

    def begin(self, plan: Plan, strata: Strata | None, now: int) -> None:
        """Another reference: it holds from the next window on; one that is under way keeps the bins it began with."""
        size = self._settings.window
        turn = -(-now // size) * size if self._eras else -FOREVER
        # The clock that is handed in says when windows close, so the rows' times move no watermark: any disorder is in order.
        windows = Windows(Tumbling(size), partial(_seen, plan, strata), disorder=FOREVER, lateness=self._settings.lateness)
        self._eras = [e for e in self._eras if e.turn < turn] + [Era(turn, plan, strata, windows, windows.init())]

    def fold(self, table: pl.DataFrame, at: Ints, now: int) -> tuple[int, int]:
        """Rows, by their event time. Returns how many came too late for any window, and how many have no time."""
        starts = at // self._settings.window * self._settings.window
        table = table.with_columns(pl.Series(HOURS, (at - starts) // HOUR))
        which = np.searchsorted([e.turn for e in self._eras[1:]], starts, side="right")
        late = timeless = 0
        for number, era in enumerate(self._eras):
            mine = which == number
            if not mine.any():
                continue
            rows = table if mine.all() else table.filter(pl.Series(mine))
            # What another champion says of a row is nothing that this reference knows.
            rows = rows if era is self._eras[-1] else rows.drop([name for name in rows.columns if said(name)])
            era.state, step = era.windows.fold(era.state, Batch(rows, at[mine]), now)
            late += sum(one.rows for one in step.too_late)
            timeless += step.timeless
        return late, timeless

    def close(self, now: int) -> Sequence[tuple[Era, Spoken[Seen]]]:
        """The windows that have ended by `now`, and those that late rows have changed; eras that are over are forgotten."""
        said: list[tuple[Era, Spoken[Seen]]] = []
        for era in self._eras:
            era.state, step = era.windows.advance(era.state, now)
            said += [(era, s) for s in step.spoken if s.value is not None]
        open_still = [e for e, later in pairwise(self._eras) if later.turn + self._settings.lateness > now]
        self._eras = open_still + self._eras[-1:]
        return sorted(said, key=lambda one: (one[1].revision > 0, one[1].start))


def _seen(plan: Plan, strata: Strata | None, rows: pl.DataFrame) -> Seen:
    return Seen(profile(rows, plan), strata.counts(rows, plan) if strata is not None else {})
