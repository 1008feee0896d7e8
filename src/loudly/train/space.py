"""What a search may vary, as plain data: (low, high), (low, high, "log"), or a list of choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loudly.core.canon import Json
from loudly.errors import UserFileError


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from low to high; integers where both ends are."""

    low: float
    high: float
    log: bool
    whole: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these."""

    options: tuple[Json, ...]


def read_space(space: Mapping[str, Json]) -> dict[str, Range | Choice]:
    """The space as values. Raises: UserFileError for an entry that is neither.

    >>> read_space({"depth": (2, 9)})["depth"]
    Range(low=2, high=9, log=False, whole=True)
    """
    return {name: _entry(name, entry) for name, entry in space.items()}


def _entry(name: str, entry: Json) -> Range | Choice:
    if isinstance(entry, list) and entry:
        return Choice(tuple(entry))
    if isinstance(entry, Sequence) and not isinstance(entry, str) and len(entry) in (2, 3):
        low, high = entry[0], entry[1]
        log = len(entry) == 3 and entry[2] == "log"
        numbers = isinstance(low, int | float) and isinstance(high, int | float)
        if numbers and low < high and (not log or low > 0) and (len(entry) == 2 or log):  # type: ignore[operator]
            return Range(low, high, log, isinstance(low, int) and isinstance(high, int))  # type: ignore[arg-type]
    raise UserFileError(f"tune[{name!r}] is no space.", seen=repr(entry), do='(low, high), (low, high, "log") or a list of choices')
