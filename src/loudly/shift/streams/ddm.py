"""DDM: alarms when a model's error rate has risen well above the lowest that it had.

Source: Gama, Medas, Castillo & Rodrigues 2004, "Learning with drift detection". As in river, the comparison is strict and
begins one value after `warm_up` (the paper: "at least", from 30 on). Known of the method, in the paper and in river: after a
warm-up without any error the first error alarms, because the lowest deviation is then 0; and looking at every value gives no
bound on false alarms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loudly.core.seams import Floats, Ints
from loudly.shift.streams.stream import Missing, arrived, carried, counted, first_true, follow, placed, require, zeros_and_ones


@dataclass(frozen=True, slots=True)
class DdmState:
    """n, errors: since the last alarm.  rate, deviation: where their sum was lowest (None: warming up).  warning: now."""

    n: int = 0
    errors: float = 0.0
    rate: float | None = None
    deviation: float | None = None
    warning: bool = False
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Ddm:
    """A rise of an error rate. After an alarm everything begins anew.

    warm_up: values before it may alarm.  warn, alarm: in deviations above the lowest rate.
    Shapes: values (n,), 0 for right and 1 for wrong.  Raises: StreamRefused.  Cost: O(n), about a dozen passes.

    >>> detector = Ddm()
    >>> _, alarms = detector.update(detector.init(), np.tile([0.0, 0.0, 0.0, 1.0], 100))
    >>> alarms
    array([], dtype=int64)
    """

    warm_up: int = 30
    warn: float = 2.0
    alarm: float = 3.0
    missing: Missing = "refuse"

    def __post_init__(self) -> None:
        require(self.warm_up >= 1 and 0 < self.warn <= self.alarm, self)

    def init(self) -> DdmState:
        """Nothing seen."""
        return DdmState()

    def restore(self, data: Mapping[str, Any]) -> DdmState:
        """The inverse of `plain`."""
        return DdmState(**data)

    def update(self, state: DdmState, values: Floats) -> tuple[DdmState, Ints]:
        """The state after a batch, and where it alarmed."""
        taken, where = arrived(values, self.missing)
        zeros_and_ones(taken)
        state, alarms = follow(self._step, state, taken)
        return counted(state, len(values) - len(taken)), placed(alarms, where)

    def _step(self, state: DdmState, values: Floats) -> tuple[DdmState, int, bool]:
        waiting = min(len(values), max(0, self.warm_up - state.n))
        if waiting:
            errors = state.errors + float(values[:waiting].sum())
            return replace(state, n=state.n + waiting, errors=errors), waiting, False
        n = np.arange(state.n + 1, state.n + len(values) + 1, dtype=np.float64)
        summed = carried(state.errors, values)[1:]
        rates = summed / n
        deviations = np.sqrt(rates * (1 - rates) / n)
        now = rates + deviations
        lowest, spread = _where_lowest(rates, deviations, now, state.rate, state.deviation)
        at = first_true(now > lowest + self.alarm * spread)
        if at is not None:
            return DdmState(skipped=state.skipped), at + 1, True
        warning = bool(now[-1] > lowest[-1] + self.warn * spread[-1])
        found = float(summed[-1]), float(lowest[-1]), float(spread[-1])
        return DdmState(state.n + len(values), *found, warning, state.skipped), len(values), False


def _where_lowest(
    rates: Floats, deviations: Floats, now: Floats, rate: float | None, deviation: float | None
) -> tuple[Floats, Floats]:
    """Rate and deviation at the latest lowest point of their sum, the one carried over included."""
    if rate is None or deviation is None:
        rate, deviation = float(rates[0]), float(deviations[0])
    sums = np.concatenate(((rate + deviation,), now))
    best = np.minimum.accumulate(sums)
    index = np.maximum.accumulate(np.where(sums == best, np.arange(len(sums)), 0))[1:]
    return np.concatenate(((rate,), rates))[index], np.concatenate(((deviation,), deviations))[index]
