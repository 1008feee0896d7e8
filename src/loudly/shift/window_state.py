"""What windows know and say, as plain values; the state as bytes and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Generic, Protocol, Self, TypeVar

from loudly.core.canon import Json, canonical
from loudly.core.clock import iso
from loudly.errors import ConfigError, DatasetCorrupt
from loudly.shift.event_time import BEGINNING

MAGIC = b"loudly windows 1\n"


class Mergeable(Protocol):
    """A summary of rows; `merge` commutes and associates. One that may `subtract` too forms a group."""

    def merge(self, other: Self) -> Self: ...


V = TypeVar("V", bound=Mergeable)


@dataclass(frozen=True, slots=True)
class Codec(Generic[V]):
    """A summary as bytes and back."""

    dump: Callable[[V], bytes]
    load: Callable[[bytes], V]


class Timing(StrEnum):
    """Before the window's end, at its end, or as a correction by late rows."""

    EARLY = "early"
    ON_TIME = "on time"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class Spoken(Generic[V]):
    """What a window says: its rows in [start, end), for the `revision`-th time (from 0).

    `value` None takes back a session that late rows have joined to the one that starts at `into`.
    """

    start: int
    end: int
    revision: int
    timing: Timing
    rows: int
    value: V | None
    into: int | None = None


@dataclass(frozen=True, slots=True)
class TooLate:
    """Rows that came after windows in [start, end) had said their last; `kept` where later windows still took them.

    first, last: event times of the earliest and latest of these rows.
    """

    source: str
    rows: int
    first: int
    last: int
    start: int
    end: int
    kept: bool

    @property
    def told(self) -> str:
        """For people.

        >>> TooLate("table", 2, 0, 5_000_000, 0, 60_000_000, False).told
        '2 rows of table (1970-01-01 to 1970-01-01 00:00:05) came too late for the windows from 1970-01-01 to 1970-01-01 00:01'
        """
        late = f"{self.rows:,} rows of {self.source} ({iso(self.first)} to {iso(self.last)})"
        return f"{late} came too late for the windows from {iso(self.start)} to {iso(self.end)}"


@dataclass(frozen=True, slots=True)
class Silence:
    """Whole windows in [start, end) that closed without a row."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Step(Generic[V]):
    """What one update had to say. timeless: rows without an event time; repeated: rows that had been folded before."""

    spoken: tuple[Spoken[V], ...] = ()
    silent: tuple[Silence, ...] = ()
    too_late: tuple[TooLate, ...] = ()
    timeless: int = 0
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class Pane(Generic[V]):
    """A stretch of rows that windows are made of: a pane of the grid, a session, or a count under way."""

    start: int
    end: int
    rows: int
    value: V

    def merge(self, other: Pane[V]) -> Pane[V]:
        """Both stretches together."""
        start, end = min(self.start, other.start), max(self.end, other.end)
        return Pane(start, end, self.rows + other.rows, self.value.merge(other.value))


@dataclass(frozen=True, slots=True)
class Told:
    """What a window said last: its end, revision, rows (-1: changed since), and the watermark then.

    carried: said by sessions that have become part of this one, not under its own start.
    """

    end: int
    revision: int
    rows: int
    at: int
    carried: bool = False


@dataclass(frozen=True, slots=True)
class State(Generic[V]):
    """All that windows know. Its size is bounded by what lateness keeps open, and by one number a source (or part).

    closed: the watermark up to which windows have spoken.  front: start of the first window that has not closed yet.
    marks: the watermark of each source.  offsets: the next row of each source (or part) that has not been folded.
    taken_back: spoken sessions that were joined to another, and which.  too_late, timeless, repeated: rows of each source
    since the beginning.  running: the last window's merge, kept where windows subtract.  stirred: late rows have changed
    windows that have spoken.
    """

    panes: Mapping[int, Pane[V]] = field(default_factory=dict)
    told: Mapping[int, Told] = field(default_factory=dict)
    closed: int = BEGINNING
    front: int | None = None
    marks: Mapping[str, int] = field(default_factory=dict)
    offsets: Mapping[str, int] = field(default_factory=dict)
    taken_back: Mapping[int, tuple[Told, int]] = field(default_factory=dict)
    too_late: Mapping[str, int] = field(default_factory=dict)
    timeless: Mapping[str, int] = field(default_factory=dict)
    repeated: Mapping[str, int] = field(default_factory=dict)
    running: Pane[V] | None = None
    stirred: bool = False


def pack(state: State[V], codec: Codec[V], about: Mapping[str, Json]) -> bytes:
    """The state as bytes: a line of magic, a JSON header, the summaries one after another. `about` says whose it is."""
    panes = [(key, state.panes[key]) for key in sorted(state.panes)]
    if state.running is not None:
        panes.append((-1, state.running))
    blobs = [codec.dump(p.value) for _, p in panes]
    header: dict[str, Json] = {
        "about": about,
        "panes": [[key, p.start, p.end, p.rows, len(b)] for (key, p), b in zip(panes, blobs, strict=True)],
        "running": state.running is not None,
        "told": {str(start): asdict(t) for start, t in state.told.items()},
        "taken_back": {str(start): [asdict(t), into] for start, (t, into) in state.taken_back.items()},
        "closed": state.closed,
        "front": state.front,
        "stirred": state.stirred,
        **{name: dict(getattr(state, name)) for name in COUNTS},
    }
    text = canonical(header)
    return MAGIC + len(text).to_bytes(8, "big") + text + b"".join(blobs)


def unpack(data: bytes, codec: Codec[V], about: Mapping[str, Json]) -> State[V]:
    """The inverse of `pack`.

    Raises: DatasetCorrupt for bytes that are no state; ConfigError where the state is that of other windows.
    """
    begin = len(MAGIC) + 8
    if not data.startswith(MAGIC) or len(data) < begin:
        raise DatasetCorrupt("This is no state of windows.", seen=repr(data[:20]), do="Restore a backup, or begin anew.")
    at = begin + int.from_bytes(data[len(MAGIC) : begin], "big")
    header = json.loads(data[begin:at])
    if header["about"] != json.loads(canonical(about)):
        raise ConfigError(
            "The checkpoint belongs to other windows.",
            seen=f"{header['about']}, not {dict(about)}",
            do="Restore the settings it was written under, or begin with another checkpoint.",
        )
    panes: dict[int, Pane[V]] = {}
    running: Pane[V] | None = None
    for i, (key, start, end, rows, size) in enumerate(header["panes"]):
        pane = Pane(start, end, rows, codec.load(data[at : at + size]))
        at += size
        if header["running"] and i == len(header["panes"]) - 1:
            running = pane
        else:
            panes[key] = pane
    return State(
        panes,
        {int(start): Told(**t) for start, t in header["told"].items()},
        header["closed"],
        header["front"],
        taken_back={int(start): (Told(**t), into) for start, (t, into) in header["taken_back"].items()},
        running=running,
        stirred=header["stirred"],
        **{name: header[name] for name in COUNTS},
    )


COUNTS = ("marks", "offsets", "too_late", "timeless", "repeated")
