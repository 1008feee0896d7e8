"""Records of what a rollout was told besides labels, as they stand in the traffic log."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from loudly.loop.traffic import ENCODER

CALLS = "calls"
# Of one call of the arms: rows answered by arm; the unit that failed, as a pseudonym, and its arm; seconds by arm.
Call = tuple[dict[str, int], tuple[str, str] | None, dict[str, float]]
# A call, a time (µs) or a state.
Entry = Call | int | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """A record of the log. at: when it was logged, µs."""

    rollout: int
    stage: int
    at: int
    entries: tuple[Entry, ...] = ()

    def to_bytes(self) -> bytes:
        """As it is logged."""
        return ENCODER.encode((self.rollout, self.stage, self.at, self.entries))

    @property
    def tells_time(self) -> bool:
        """Whether a rollout learns by it from the labels that came before."""
        return any(isinstance(entry, int) for entry in self.entries)

    def without(self, subject: str, nobody: str) -> Told:
        """The same with another name for a subject, and without states, which know hashes of units; what it counts stays."""
        kept = (_renamed(entry, subject, nobody) for entry in self.entries if not isinstance(entry, dict))
        return replace(self, entries=tuple(kept))


def told_of(data: bytes) -> Told:
    """The inverse of `Told.to_bytes`."""
    rollout, stage, at, entries = msgspec.msgpack.decode(data)
    return Told(rollout, stage, at, tuple(_entry(entry) for entry in entries))


def _entry(entry: Any) -> Entry:
    if not isinstance(entry, list):
        return entry  # type: ignore[no-any-return]
    answered, failed, seconds = entry
    return answered, None if failed is None else (failed[0], failed[1]), seconds


def _renamed(entry: Entry, subject: str, nobody: str) -> Entry:
    if isinstance(entry, tuple) and entry[1] is not None and entry[1][0] == subject:
        return entry[0], (nobody, entry[1][1]), entry[2]
    return entry
