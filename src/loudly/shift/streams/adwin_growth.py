"""ADWIN's window at many checks to come, in closed form: which buckets it holds if nothing is dropped, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from loudly.shift.streams.adwin_window import AdwinState

if TYPE_CHECKING:
    from loudly.core.seams import Floats, Ints


@dataclass(frozen=True, slots=True)
class Growth:
    """The window at each of m checks to come, if nothing is dropped.

    widths: (m,).  now: (2, m) sums and squares.  counts, merged: (sizes, m) buckets of each size, and pairs that merged.
    flat: (2, k) ends of all buckets there ever were, size after size; `offsets` (sizes,) says where each size begins.
    """

    widths: Floats
    now: Floats
    counts: Ints
    merged: Ints
    flat: Floats
    offsets: Ints

    def window(self, check: int, before: AdwinState, centre: float) -> AdwinState:
        """The window at a check."""
        counts, firsts = self.counts[:, check], self.offsets + 2 * self.merged[:, check]
        slots = np.arange(counts.max())
        held = (firsts[:, None] + slots)[slots < counts[:, None]]
        kept = len(counts) - int((counts[::-1] > 0).argmax())
        sums, squares = self.flat[:, held].tolist()
        now = (float(self.now[0, check]), float(self.now[1, check]))
        return AdwinState(centre, tuple(counts[:kept].tolist()), tuple(sums), tuple(squares), before.start, now, (), before.skipped)


def grow(state: AdwinState, values: Floats, clock: int, most: int) -> Growth:
    """Adds centred values, a multiple of `clock`, and merges buckets as ADWIN2 does: two of `most` + 1 become one.

    The pairs merged at a size arrive at the next; so each size ever held its first buckets and every second end of the size
    below, in order.
    """
    n = len(values)
    held = _reached(state.counts, n, most)
    offsets = [0, *accumulate(first + more for first, more in held)]
    merged = np.zeros((len(held), n // clock), dtype=np.int64)
    came = np.arange(clock, n + 1, clock)
    flat = np.zeros((2, offsets[-1] + most))
    ends, before, known = _summed(state, values), np.array((state.sums, state.squares)), 0
    fresh = ends[:, 1:]
    for size, (first, more) in enumerate(held):
        at = offsets[size]
        if not more:
            flat[:, at : offsets[-1]] = before[:, known:]
            break
        flat[:, at : at + first] = before[:, known : known + first]
        flat[:, at + first : at + first + more] = fresh
        pairs = np.add(merged[size - 1] if size else came, first - most + 1, out=merged[size])
        pairs >>= 1
        if first < most - 1:
            np.maximum(pairs, 0, out=pairs)
        fresh = flat[:, at + 1 : at + 2 * int(pairs[-1]) : 2]
        known += first
    counts = np.array([first for first, _ in held])[:, None] - 2 * merged
    counts[0] += came
    counts[1:] += merged[:-1]
    width = sum(c << size for size, c in enumerate(state.counts))
    return Growth((width + came).astype(np.float64), ends[:, clock::clock], counts, merged, flat, np.array(offsets[:-1]))


def _reached(counts: tuple[int, ...], n: int, most: int) -> list[tuple[int, int]]:
    """For each size: buckets held before, and how many arrive when n values do."""
    found: list[tuple[int, int]] = []
    while len(found) < len(counts) or n:
        count = counts[len(found)] if len(found) < len(counts) else 0
        found.append((count, n))
        n = max(0, (count + n - most + 1) >> 1)
    return found


def _summed(state: AdwinState, values: Floats) -> Floats:
    """Sums and squares (2, n + 1), from those of now on."""
    ends = np.empty((2, len(values) + 1))
    ends[:, 0] = state.now
    ends[0, 1:] = values
    np.multiply(values, values, out=ends[1, 1:])
    found: Floats = np.add.accumulate(ends, axis=1, out=ends)
    return found
