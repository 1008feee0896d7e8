"""Time, handed in. This is the only module of loudly that reads the wall clock.

Event time is an integer: microseconds since 1970-01-01 UTC (polars' and Arrow's `timestamp[us]`).
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

from loudly.core.seams import Clock
from loudly.errors import ClockError, ConfigError

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY

_UNITS = {"us": 1, "ms": 1000, "s": SECOND, "m": MINUTE, "min": MINUTE, "h": HOUR, "d": DAY, "w": WEEK}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|m|h|d|w)\s*")


def duration(text: str | int | timedelta) -> int:
    """A length of time in microseconds.

    Raises: ConfigError for a text that is no duration.

    >>> duration("1d") == 24 * duration("1h")
    True
    >>> duration("1d 12h") // duration("1h")
    36
    """
    match text:
        case timedelta():
            return round(text.total_seconds() * SECOND)
        case int():
            return text
        case str():
            pass
    total, position = 0.0, 0
    while position < len(text):
        found = _DURATION.match(text, position)
        if found is None:
            break
        total += float(found[1]) * _UNITS[found[2]]
        position = found.end()
    if position == 0 or position < len(text):
        raise ConfigError("This is not a duration.", seen=repr(text), do="Write e.g. '90s', '15m', '6h', '1d', '2w'.")
    return round(total)


def is_duration(text: str) -> bool:
    """Whether `duration` takes it."""
    try:
        duration(text)
    except ConfigError:
        return False
    return True


def span(us: int) -> str:
    """A duration for people: the inverse of `duration` up to rounding.

    >>> span(duration("36h")), span(duration("90s"))
    ('1d 12h', '1m 30s')
    """
    if us < 0:
        return "-" + span(-us)
    parts = []
    for name, size in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)):
        count, us = divmod(us, size)
        if count:
            parts.append(f"{count}{name}")
    return " ".join(parts[:2]) or ("0s" if us == 0 else f"{us}us")


def instant(when: str | datetime | int) -> int:
    """Event time of an ISO text or datetime; a naive one is taken as UTC.

    Raises: ConfigError for a text that is no time.

    >>> instant("2013-03-01") == instant("2013-03-01T00:00:00+00:00")
    True
    """
    if isinstance(when, int):
        return when
    try:
        moment = datetime.fromisoformat(when) if isinstance(when, str) else when
    except ValueError as wrong:
        do = "Write e.g. '2026-03-01' or '2026-03-01T06:30:00'."
        raise ConfigError("This is not a time.", seen=repr(when), do=do) from wrong
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * SECOND)


def iso(at: int) -> str:
    """ISO text of an event time, seconds shown only where there are any.

    >>> iso(instant("2013-03-01")), iso(instant("2013-03-01T06:30:05"))
    ('2013-03-01', '2013-03-01 06:30:05')
    """
    moment = datetime.fromtimestamp(at / SECOND, UTC)
    if at % DAY == 0:
        return moment.strftime("%Y-%m-%d")
    return moment.strftime("%Y-%m-%d %H:%M" if at % MINUTE == 0 else "%Y-%m-%d %H:%M:%S")


def moment(clock: Clock) -> int:
    """The time, for what goes on whatever the clock does: the newest that it has told, where it jumped back."""
    try:
        return clock.now()
    except ClockError as back:
        return back.latest


class WallClock:
    """The time of the machine. It may jump back by at most `tolerance`; further back is an error."""

    def __init__(self, tolerance: int = 5 * MINUTE) -> None:
        self._latest = 0
        self._tolerance = tolerance

    def now(self) -> int:
        read = time.time_ns() // 1000
        if read < self._latest - self._tolerance:
            raise ClockError(
                "The machine's clock jumped back.",
                seen=f"{iso(read)} after {iso(self._latest)}",
                do="Check the time service; loudly stands still rather than judge windows twice.",
                latest=self._latest,
            )
        self._latest = max(self._latest, read)
        return self._latest


class DataClock:
    """Time told by the data: it stands still until somebody advances it, and never goes back."""

    def __init__(self, start: int = 0) -> None:
        self._now = start

    def now(self) -> int:
        return self._now

    def advance(self, to: int) -> None:
        """Moves time forward; an earlier `to` raises ClockError."""
        if to < self._now:
            raise ClockError(
                "Event time went backwards.",
                seen=f"{iso(to)} after {iso(self._now)}",
                do="Push history in the order of its time column (sort it), or send late rows as late rows.",
                latest=self._now,
            )
        self._now = to


def stopwatch() -> float:
    """Seconds of a monotonic clock, for measuring our own cost; never written to the ledger."""
    return time.perf_counter()
