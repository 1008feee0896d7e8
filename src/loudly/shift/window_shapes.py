"""The shapes of windows: tumbling, sliding, sessions, counts; and when an open one may speak. Durations in µs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loudly.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Sliding:
    """Windows of `size`, one every `slide`, the first at `origin`; each is the merge of panes that windows share.

    Raises: ConfigError where rows would fall between windows, or a length is not positive.

    >>> hourly = Sliding(24, 6)
    >>> list(hourly.windows_of(7)), hourly.pane
    ([-12, -6, 0, 6], 6)
    """

    size: int
    slide: int
    origin: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.slide <= self.size:
            raise ConfigError(
                "Impossible windows.", seen=repr(self), do="Take 0 < slide <= size, or rows fall between the windows."
            )

    @property
    def pane(self) -> int:
        """Length of the stretches that windows are merged from."""
        return math.gcd(self.size, self.slide)

    def pane_of(self, at: int) -> int:
        """Start of the pane of an event time."""
        return (at - self.origin) // self.pane * self.pane + self.origin

    def windows_of(self, at: int) -> range:
        """Starts of the windows that hold an event time, in order."""
        last = (at - self.origin) // self.slide * self.slide + self.origin
        first = last - (self.size - 1 - (at - last)) // self.slide * self.slide
        return range(first, last + 1, self.slide)

    def first_open(self, watermark: int) -> int:
        """Start of the first window that ends after a watermark.

        >>> Sliding(24, 6).first_open(24), Sliding(24, 6).first_open(23)
        (6, 0)
        """
        return ((watermark - self.size - self.origin) // self.slide + 1) * self.slide + self.origin

    def starts(self, panes: Sequence[int], low: int, high: int) -> Iterator[int]:
        """Starts in [low, high) of the windows that hold any of these panes (in order), each once; `low` is a start."""
        for pane in panes:
            held = self.windows_of(pane)
            yield from range(max(held.start, low), min(held.stop, high), self.slide)
            low = max(low, held[-1] + self.slide)
            if low >= high:
                return


@dataclass(frozen=True, slots=True)
class Tumbling:
    """Windows of `size`, one after another from `origin`: sliding by their own size."""

    size: int
    origin: int = 0

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise ConfigError("Impossible windows.", seen=repr(self), do="Take a size above 0 µs.")

    @property
    def grid(self) -> Sliding:
        """The same windows, said as sliding ones."""
        return Sliding(self.size, self.size, self.origin)


@dataclass(frozen=True, slots=True)
class Session:
    """Rows less than `gap` apart belong together; a session ends `gap` after its last row."""

    gap: int

    def __post_init__(self) -> None:
        if self.gap <= 0:
            raise ConfigError("Impossible sessions.", seen=repr(self), do="Take a gap above 0 µs.")


@dataclass(frozen=True, slots=True)
class Count:
    """Exactly `rows` rows each, in order of arrival (so nothing is late); the last may be short when the stream ends."""

    rows: int

    def __post_init__(self) -> None:
        if self.rows <= 0:
            raise ConfigError("Impossible windows.", seen=repr(self), do="Take at least one row.")


@dataclass(frozen=True, slots=True)
class Trigger:
    """When an open window speaks before its end: after `rows` new rows, or each time the watermark has moved by `every`."""

    rows: int | None = None
    every: int | None = None

    def __post_init__(self) -> None:
        if (self.rows is not None and self.rows <= 0) or (self.every is not None and self.every <= 0):
            raise ConfigError("An impossible trigger.", seen=repr(self), do="Take numbers above 0, or None.")

    def fires(self, rows: int, waited: int) -> bool:
        """Whether so many new rows, or so long a wait, are enough."""
        return (self.rows is not None and rows >= self.rows) or (self.every is not None and waited >= self.every)


Shape = Tumbling | Sliding | Session | Count
