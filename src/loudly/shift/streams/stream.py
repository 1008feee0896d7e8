"""What every change detector over a stream of single values shares: which values it takes, how a batch is walked, chance.

A detector is frozen settings with `init() -> state`, `update(state, values) -> (state, alarms)` and `restore(plain data)
-> state`. `alarms` are the indices within the batch at which it alarmed. Cumulative sums are carried over from batch to
batch and never begun anew, so every split of a stream gives the same alarms and the same state, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np

from loudly.core.seams import Floats, Ints
from loudly.errors import ConfigError, StreamRefused


class Counting(Protocol):
    """A state that counts what was left out."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def skipped(self) -> int: ...


S = TypeVar("S")
K = TypeVar("K", bound=Counting)
Missing = Literal["refuse", "skip"]
Step = Callable[[S, "Floats"], tuple[S, int, bool]]

LONGEST_BLOCK = 8192
# Of larger values no variance can be told in float64.
LARGEST = 1e150
STRETCH = 256


class StreamDetector(Protocol):
    """A change detector over a stream. The state is a frozen value that `core.values.plain` makes JSON of."""

    def init(self) -> Any: ...

    def update(self, state: Any, values: Floats) -> tuple[Any, Ints]: ...

    def restore(self, data: Mapping[str, Any]) -> Any: ...


def require(possible: bool, settings: object) -> None:
    """Raises: ConfigError unless the settings are possible."""
    if not possible:
        raise ConfigError(f"Impossible settings of {type(settings).__name__}.", seen=repr(settings))


def arrived(values: Floats, missing: Missing, low: float | None = None, high: float | None = None) -> tuple[Floats, Ints | None]:
    """The values a detector takes, and where they stood in the batch (None: all were taken).

    NaN and infinity are refused, or left out of the stream where `missing` is "skip"; the caller counts them. A promise then
    is about the values that came: not if they go missing because of what they would have been.
    Raises: StreamRefused for NaN or infinity that may not be skipped, for values beyond 1e150 (their squares leave float64,
    and no variance would be known), for a value outside [low, high], for more than one dimension, for what is no number.

    >>> arrived(np.array([1.0, np.nan, 2.0]), "skip")
    (array([1., 2.]), array([0, 2]))
    """
    try:
        values = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as wrong:
        raise StreamRefused("A stream detector takes numbers.", seen=str(wrong), do="keep one state a numeric column") from wrong
    if values.ndim != 1:
        raise StreamRefused("A stream detector takes one column.", seen=f"shape {values.shape}", do="keep one state a column")
    where = None
    # Quicker than to ask each, and what is not finite makes it so.
    if not _squares(values) <= LARGEST**2:
        sound = np.isfinite(values)
        if missing == "refuse" and not sound.all():
            at = int(np.argmin(sound))
            raise StreamRefused(
                "A stream holds a value that is not a number.", seen=f"{values[at]} at row {at}", do='missing="skip" leaves it out'
            )
        where = None if sound.all() else np.flatnonzero(sound)
        values = values[sound]
        if np.abs(values).max(initial=0.0) > LARGEST:
            raise StreamRefused("A stream holds values too large to square.", seen=f"{np.abs(values).max()}", do="scale the values")
    _bounded(values, low, high)
    return values, where


def _squares(values: Floats) -> float:
    with np.errstate(over="ignore"):
        return float(values.dot(values))


def _bounded(values: Floats, low: float | None, high: float | None) -> None:
    if low is None or high is None or not len(values):
        return
    least, most = values.min(), values.max()
    if least < low or most > high:
        raise StreamRefused(
            "A stream leaves the bounds that its detector's guarantee rests on.",
            seen=f"{least if least < low else most} outside [{low}, {high}]",
            do="scale the values, or clip them and say so",
        )


def zeros_and_ones(values: Floats) -> None:
    """Raises: StreamRefused unless every value is 0 or 1."""
    odd = first_true((values != 0) & (values != 1))
    if odd is not None:
        raise StreamRefused("This detector takes errors: 0 for right, 1 for wrong.", seen=f"{values[odd]} at value {odd}")


def follow(step: Step[S], state: S, values: Floats, longest: int = LONGEST_BLOCK) -> tuple[S, list[int]]:
    """Walks a batch in blocks. A step takes values up to and including its first alarm and says how many it took.

    Blocks shrink after an alarm and grow again while nothing happens, so that little is computed twice.
    """
    alarms: list[int] = []
    at, block, shortest = 0, longest, longest // 8
    while at < len(values):
        state, taken, alarm = step(state, values[at : at + block])
        at += taken
        if alarm:
            alarms.append(at - 1)
        block = shortest if alarm else min(2 * block, longest)
    return state, alarms


def counted(state: K, skipped: int) -> K:
    """The state with values that were left out counted."""
    return replace(state, skipped=state.skipped + skipped) if skipped else state


def placed(alarms: list[int], where: Ints | None) -> Ints:
    """Alarms among the values taken as indices of the batch."""
    found = np.array(alarms, dtype=np.int64)
    return found if where is None else where[found].astype(np.int64)


def carried(first: float, values: Floats) -> Floats:
    """Cumulative sums (n + 1,) that begin with what was carried over.

    >>> carried(1.0, np.array([2.0, 3.0]))
    array([1., 3., 6.])
    """
    return np.add.accumulate(np.concatenate(((first,), values)))


def tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data with its lists as tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}


def first_true(mask: Any) -> int | None:
    """Index of the first True, None where there is none."""
    at = int(mask.argmax()) if len(mask) else 0
    return at if len(mask) and mask[at] else None


def first_climb(sums: Floats, low: float, threshold: float) -> int | None:
    """The first index at which the sums stand more than `threshold` above their lowest so far (`low` before them).

    Stretches whose whole range is too small are passed over unseen.

    >>> first_climb(np.array([0.0, -2.0, 1.0, 2.0]), 0.0, 3.5)
    3
    """
    starts = np.arange(0, len(sums), STRETCH)
    lows, highs = np.minimum.reduceat(sums, starts), np.maximum.reduceat(sums, starts)
    before = np.minimum.accumulate(np.concatenate(((low,), lows)))
    for stretch in np.flatnonzero(highs - before[1:] > threshold).tolist():
        part = sums[stretch * STRETCH : (stretch + 1) * STRETCH]
        lowest = np.minimum(np.minimum.accumulate(part), before[stretch])
        at = first_true(part - lowest > threshold)
        if at is not None:
            return int(stretch * STRETCH + at)
    return None


def uniforms(seed: int, first: int, rows: int, width: int) -> Floats:
    """Numbers in [0, 1), (rows, width): row i belongs to position `first + i` of the stream, whatever the batches were.

    Source: Salmon et al. 2011, counter-based Philox.

    >>> bool((uniforms(7, 0, 5, 3)[2:] == uniforms(7, 2, 3, 3)).all())
    True
    """
    counters = -(-width // 4)
    rng = np.random.Generator(np.random.Philox(key=seed).advance(first * counters))
    return rng.random((rows, 4 * counters))[:, :width]
