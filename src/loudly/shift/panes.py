"""How panes become windows: by merging them, or by what entered and left since the window before; and how sessions join."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, MutableMapping, Sequence
from functools import reduce

import numpy as np

from loudly.core.seams import Ints
from loudly.errors import ConfigError
from loudly.shift.window_shapes import Sliding
from loudly.shift.window_state import Pane, Silence, Told, V


def cuts(keys: Ints) -> Iterator[Ints]:
    """Indices of the rows of each key, keys in order, rows as they came.

    >>> [c.tolist() for c in cuts(np.array([2, 1, 2]))]
    [[1], [0, 2]]
    """
    order = np.argsort(keys, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)


def session_numbers(at: Ints, gap: int) -> Ints:
    """The session of each row among rows that came together.

    >>> session_numbers(np.array([9, 0, 3]), 5).tolist()
    [1, 0, 0]
    """
    order = np.argsort(at, kind="stable")
    number = np.empty(len(at), dtype=np.int64)
    number[order] = np.cumsum(np.diff(at[order], prepend=at[order[0]]) >= gap)
    return number


def window_of(panes: Sequence[Pane[V]], begins: Sequence[int], start: int, end: int, running: Pane[V] | None) -> V:
    """The merge of a window's panes, or of what has changed since the window before (`running`), where the two overlap.

    Shapes: `begins` are the starts of all panes, in order.
    """
    if running is None or not running.start < start < running.end:
        return reduce(lambda a, b: a.merge(b), (p.value for p in panes[bisect_left(begins, start) : bisect_left(begins, end)]))
    value = running.value
    for pane in panes[bisect_left(begins, running.start) : bisect_left(begins, start)]:
        value = _less(value, pane.value)
    for pane in panes[bisect_left(begins, running.end) : bisect_left(begins, end)]:
        value = value.merge(pane.value)
    return value


def silences(grid: Sliding, panes: Sequence[int], at: int, front: int) -> tuple[Silence, ...]:
    """Stretches of windows with starts in [at, front) that hold none of these panes."""
    found = []
    for start in [*grid.starts(panes, at, front), front]:
        if start > at:
            found.append(Silence(at, start - grid.slide + grid.size))
        at = start + grid.slide
    return tuple(found)


def joined(sessions: MutableMapping[int, Pane[V]], starts: list[int], first: int, end: int) -> list[Pane[V]]:
    """Takes out the sessions that overlap [first, end). `starts` (of all, in order) gets that of the one they will become."""
    low = bisect_left(starts, first)
    if low and sessions[starts[low - 1]].end > first:
        low -= 1
    high = bisect_left(starts, end)
    found = [sessions.pop(s) for s in starts[low:high]]
    starts[low:high] = [min([first, *(p.start for p in found)])]
    return found


def carry(
    told: MutableMapping[int, Told], back: MutableMapping[int, tuple[Told, int]], gone: Sequence[int], whole: Pane[V]
) -> None:
    """Sessions have become one: its revision goes on from theirs, and what was said of those that are gone is taken back."""
    known = {s: told.pop(s) for s in gone if s in told}
    back.update({k: (t, whole.start) for k, (t, into) in back.items() if into in gone})
    back.update({s: (t, whole.start) for s, t in known.items() if s != whole.start and not t.carried})
    if known:
        own = known.get(whole.start)
        revision, at = max(t.revision for t in known.values()), max(t.at for t in known.values())
        told[whole.start] = Told(whole.end, revision, -1, at, carried=own is None or own.carried)


def _less(whole: V, part: V) -> V:
    subtract = getattr(whole, "subtract", None)
    if subtract is None:
        raise ConfigError(
            "These summaries cannot subtract.", seen=type(whole).__name__, do="Leave `subtract` out: panes are merged then."
        )
    left: V = subtract(part)
    return left
