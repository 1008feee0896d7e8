"""EDDM: alarms when a model's errors follow one another more closely than they once did.

Source: Baena-García et al. 2006, "Early drift detection method". As in river, the largest distance may be set once more than
`warm_up` values have been seen, and alarms need more than `warm_up` errors (the paper: 30 errors for both). Known of the
method: the ratio is held against a fixed 0.9 whatever the number of errors, so false alarms are frequent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loudly.core.seams import Floats, Ints
from loudly.shift.streams.stream import Missing, arrived, carried, counted, first_true, follow, placed, require, zeros_and_ones


@dataclass(frozen=True, slots=True)
class EddmState:
    """n, errors, last: values, errors, and the number of the last error since the last alarm.

    total, squares: of the distances between errors.  largest: mean + 2 deviations at its largest.  warning: now.
    """

    n: int = 0
    errors: int = 0
    last: int = 0
    total: float = 0.0
    squares: float = 0.0
    largest: float = -1.0
    warning: bool = False
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Eddm:
    """Errors that come closer together. After an alarm everything begins anew.

    warm_up: errors before it may alarm.  warn, alarm: share of the largest distance below which it warns and alarms.
    Shapes: values (n,), 0 for right and 1 for wrong.  Raises: StreamRefused.  Cost: O(n + errors).

    >>> detector = Eddm()
    >>> u = np.random.default_rng(0).random(3000)
    >>> _, alarms = detector.update(detector.init(), (u < np.repeat([0.1, 0.5], 1500)).astype(float))
    >>> bool(((1500 < alarms) & (alarms < 1700)).any())
    True
    """

    warm_up: int = 30
    warn: float = 0.95
    alarm: float = 0.9
    missing: Missing = "refuse"

    def __post_init__(self) -> None:
        require(self.warm_up >= 1 and 0 < self.alarm <= self.warn, self)

    def init(self) -> EddmState:
        """Nothing seen."""
        return EddmState()

    def restore(self, data: Mapping[str, Any]) -> EddmState:
        """The inverse of `plain`."""
        return EddmState(**data)

    def update(self, state: EddmState, values: Floats) -> tuple[EddmState, Ints]:
        """The state after a batch, and where it alarmed."""
        taken, where = arrived(values, self.missing)
        zeros_and_ones(taken)
        state, alarms = follow(self._step, state, taken)
        return counted(state, len(values) - len(taken)), placed(alarms, where)

    def _step(self, state: EddmState, values: Floats) -> tuple[EddmState, int, bool]:
        at = np.flatnonzero(values)
        if not len(at):
            return replace(state, n=state.n + len(values)), len(values), False
        numbers = at + (state.n + 1)
        distances = np.diff(numbers, prepend=state.last).astype(np.float64)
        totals, squares = carried(state.total, distances)[1:], carried(state.squares, distances * distances)[1:]
        errors = np.arange(state.errors + 1, state.errors + len(at) + 1)
        reach = np.where(numbers > self.warm_up, _reach(totals, squares, errors), -1.0)
        largest = np.maximum(np.maximum.accumulate(reach), state.largest)
        judged = errors > self.warm_up
        found = first_true(judged & (reach < self.alarm * largest))
        if found is not None:
            return EddmState(skipped=state.skipped), int(at[found]) + 1, True
        warning = bool(judged[-1] and reach[-1] < self.warn * largest[-1])
        ends = int(errors[-1]), int(numbers[-1]), float(totals[-1]), float(squares[-1]), float(largest[-1])
        return EddmState(state.n + len(values), *ends, warning, state.skipped), len(values), False


def _reach(totals: Floats, squares: Floats, errors: Ints) -> Floats:
    """Mean + 2 deviations of the distances so far; the deviation of a single one is 0."""
    spread = np.maximum(0.0, squares - totals * totals / errors)
    found: Floats = totals / errors + 2 * np.sqrt(spread / np.maximum(1, errors - 1))
    return found
