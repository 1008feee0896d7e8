"""Every error loudly raises, in one tree.

LoudlyError
├── UserFileError            the user's Python file: a wrong name, type or policy
├── ConfigError              loudly.toml: an unknown key, a bad value
├── ExtraMissing             a feature needs a library that is not installed
├── DataError                a table that cannot be used at all (bad *rows* are a Verdict, not an error)
│   ├── StreamRefused        a stream holds what its detector cannot take: NaN, values out of bounds
│   └── DatasetCorrupt       stored bytes do not have the digest they were stored under
├── StoreError
│   ├── StaleWriter          somebody else appended first; re-read and decide again
│   ├── LedgerCorrupt        the hash chain does not hold
│   ├── LedgerDiverged       a resumed run decided otherwise than the run it resumes
│   ├── SegmentUnreadable    a traffic segment is damaged; what could be saved is named
│   ├── DiskFull             no room; nothing acknowledged was lost
│   └── NotFound             no blob, version or segment of that name
├── ClockError               time went backwards further than allowed
├── TrainingError            the user's train function failed or returned no model
├── ModelError               a model cannot be stored, loaded or queried
│   └── UntrustedModel       loading would execute code that the ledger does not vouch for
├── ExecutorError            work that cannot travel to a worker, or a worker that ended in the middle of it
├── WheelAway                the one process that decides cannot be reached just now
├── RolloutError             an impossible rollout: one is running, an unknown version
├── Conflict                 what is asked for does not fit what is true now: too many versions, one that is in use
└── ReplayError              history that cannot be replayed

Each message says what happened, what was seen and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class LoudlyError(Exception):
    """Base of every error raised by loudly.

    Args:
        what: what happened, one sentence.
        seen: the value or state that was met, if any.
        do: what the reader can do about it.
    """

    def __init__(self, what: str, *, seen: str = "", do: str = "") -> None:
        self.what, self.seen, self.do = what, seen, do
        parts = [what]
        if seen:
            parts.append(f"Seen: {seen}")
        if do:
            parts.append(f"Do: {do}")
        super().__init__("\n  ".join(parts))

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross processes as what they are, however their kind is made."""
        return _again, (type(self), self.args), self.__dict__


class UserFileError(LoudlyError): ...


class ConfigError(LoudlyError): ...


class ExtraMissing(LoudlyError):
    """A feature needs an optional library."""

    def __init__(self, feature: str, extra: str, library: str) -> None:
        super().__init__(
            f"{feature} needs {library}, which is not installed.",
            do=f"pip install 'loudly[{extra}]'",
        )
        self.extra = extra


class DataError(LoudlyError): ...


class StreamRefused(DataError): ...


class DatasetCorrupt(DataError): ...


class StoreError(LoudlyError): ...


class StaleWriter(StoreError): ...


class LedgerCorrupt(StoreError): ...


class LedgerDiverged(StoreError): ...


class SegmentUnreadable(StoreError): ...


class DiskFull(StoreError): ...


class NotFound(StoreError): ...


class ClockError(LoudlyError):
    """latest: the newest time that the clock has told (µs)."""

    def __init__(self, what: str, *, seen: str, do: str, latest: int) -> None:
        super().__init__(what, seen=seen, do=do)
        self.latest = latest


class TrainingError(LoudlyError): ...


class ModelError(LoudlyError): ...


class UntrustedModel(ModelError): ...


class ExecutorError(LoudlyError): ...


class WheelAway(LoudlyError): ...


class RolloutError(LoudlyError): ...


class Conflict(LoudlyError): ...


class ReplayError(LoudlyError): ...


def one_line(wrong: BaseException, most: int = 300) -> str:
    """Kind and message of any error, in one line of bounded length: for logs, events and errors of ours that name it.

    >>> one_line(ValueError("Input X contains NaN.\\n  See the manual."))
    'ValueError: Input X contains NaN. See the manual.'
    """
    told = " ".join(f"{type(wrong).__name__}: {wrong}".split())
    return told if len(told) <= most else f"{told[: most - 1]}…"


def _again(kind: type[LoudlyError], args: tuple[str, ...]) -> LoudlyError:
    return kind.__new__(kind, *args)


def nearest(name: str, choices: Iterable[str]) -> str:
    """A hint that names the nearest valid choice.

    >>> nearest("roc_auk", ["roc_auc", "f1"])
    "did you mean 'roc_auc'? Valid: f1, roc_auc"
    >>> nearest("zzz", ["b", "a"])
    'valid: a, b'
    """
    options = sorted(str(c) for c in choices)
    close = get_close_matches(name, options, n=1)
    listed = ", ".join(options)
    return f"did you mean {close[0]!r}? Valid: {listed}" if close else f"valid: {listed}"
