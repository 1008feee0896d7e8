"""KSWIN: a Kolmogorov-Smirnov test, at every value, of the newest values against as many drawn from the window before them.

Source: Raab, Heusinger & Schleif 2020, "Reactive soft prototype computing for concept drift streams", Neurocomputing. As
river, and other than the paper: the test is the exact one (p ≤ alpha) instead of the asymptotic bound sqrt(-ln alpha / r),
and the distance must exceed `least`. After an alarm the newest values stay, as in the paper; river empties the window at the
next value (and begins its random numbers anew), which `restart=True` does too. `alpha` is for one value: over a stream of
overlapping windows the tests add up, so there is no bound on false alarms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from loudly.core.seams import Floats, Ints
from loudly.shift.streams.stream import Missing, arrived, counted, first_true, follow, placed, require, uniforms

BLOCK = 1024


@dataclass(frozen=True, slots=True)
class KswinState:
    """window: the latest values.  seen: values so far, which place the random numbers."""

    window: tuple[float, ...] = ()
    seen: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Kswin:
    """Any change of the distribution, within a window of a fixed size.

    alpha: of one test.  window: values kept.  newest: how many of them are tested.  least: distance that counts.
    seed: of the draws from the window.  restart: whether an alarm empties the window.
    Shapes: values (n,).  Raises: StreamRefused.  Cost: O(n · window), a few µs a value.

    >>> detector = Kswin(alpha=0.0001)
    >>> rng = np.random.default_rng(0)
    >>> _, alarms = detector.update(detector.init(), np.concatenate([rng.normal(0, 1, 500), rng.normal(3, 1, 500)]))
    >>> bool(len(alarms) and 500 < alarms[0] < 530)
    True
    """

    alpha: float = 0.005
    window: int = 100
    newest: int = 30
    least: float = 0.1
    seed: int = 0
    restart: bool = False
    missing: Missing = "refuse"

    def __post_init__(self) -> None:
        require(0 < self.alpha < 1 and 2 <= self.newest <= self.window // 2 and self.seed >= 0 and 0 <= self.least < 1, self)

    def init(self) -> KswinState:
        """An empty window."""
        return KswinState()

    def restore(self, data: Mapping[str, Any]) -> KswinState:
        """The inverse of `plain`."""
        return KswinState(tuple(data["window"]), int(data["seen"]), int(data["skipped"]))

    def update(self, state: KswinState, values: Floats) -> tuple[KswinState, Ints]:
        """The state after a batch, and where it alarmed."""
        taken, where = arrived(values, self.missing)
        state, alarms = follow(self._step, state, taken, BLOCK)
        return counted(state, len(values) - len(taken)), placed(alarms, where)

    def _step(self, state: KswinState, values: Floats) -> tuple[KswinState, int, bool]:
        held = state.window if len(state.window) < self.window else state.window[1:]
        whole = np.concatenate((held, values))
        if len(whole) < self.window:
            return KswinState(tuple(whole.tolist()), state.seen + len(values), state.skipped), len(values), False
        untested = self.window - 1 - len(held)
        windows = sliding_window_view(whole, self.window)
        at = first_true(self._gaps(windows, state.seen + untested) >= least_gap(self.newest, self.alpha, self.least))
        if at is None:
            kept = tuple(whole[-self.window :].tolist())
            return KswinState(kept, state.seen + len(values), state.skipped), len(values), False
        kept = () if self.restart else tuple(windows[at, -self.newest :].tolist())
        taken = untested + at + 1
        return KswinState(kept, state.seen + taken, state.skipped), taken, True

    def _gaps(self, windows: Floats, first: int) -> Ints:
        """The distance of each window's newest values from as many drawn out of the rest, times `newest`."""
        rest = self.window - self.newest
        keys = uniforms(self.seed, first, len(windows), rest)
        drawn = np.argpartition(keys, self.newest - 1, axis=1)[:, : self.newest]
        both = np.concatenate((np.take_along_axis(windows, drawn, axis=1), windows[:, rest:]), axis=1)
        order = np.argsort(both, axis=1, kind="stable")
        gaps = np.abs(np.cumsum(np.where(order < self.newest, 1, -1), axis=1))
        ranked = np.take_along_axis(both, order, axis=1)
        gaps[:, :-1][ranked[:, 1:] == ranked[:, :-1]] = 0
        found: Ints = gaps.max(axis=1).astype(np.int64)
        return found


@cache
def least_gap(n: int, alpha: float, least: float = 0.0) -> int:
    """The smallest n · D at which two samples of n differ: exact p ≤ alpha, and D > least (n + 1: none does).

    Source: Gnedenko & Korolyuk 1951.

    >>> least_gap(30, 0.005)
    14
    """
    for gap in range(1, n + 1):
        terms = ((-1) ** (k - 1) * math.comb(2 * n, n - k * gap) for k in range(1, n // gap + 1))
        if 2 * sum(terms) / math.comb(2 * n, n) <= alpha and gap / n > least:
            return gap
    return n + 1
