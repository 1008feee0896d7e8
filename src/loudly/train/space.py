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


def lies_in(params: Mapping[str, Json], space: Mapping[str, Range | Choice]) -> bool:
    """Whether each named value is one that the space allows; a point need not name all.

    >>> space = read_space({"depth": (2, 9), "kind": ["a", "b"]})
    >>> lies_in({"depth": 4}, space), lies_in({"depth": 4.5}, space), lies_in({"kind": "c"}, space)
    (True, False, False)
    """
    return all(name in space and _allows(space[name], value) for name, value in params.items())


def _allows(entry: Range | Choice, value: Json) -> bool:
    match entry:
        case Choice(options):
            return value in options
        case Range(low, high, _, whole):
            number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            return number and low <= value <= high  # type: ignore[operator]


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
