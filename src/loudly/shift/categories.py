"""The bins of category values: names by a perfect hash of their bytes, the known rest by its hash, all else unseen.

Polars keeps a text of up to 12 bytes as two words (its length and its bytes). Where all named categories are that short, a row
is coded by multiplications of its words and one comparison with the category found there (both words mixed into one: a text
never seen is taken for a category with a chance of 2⁻⁶⁴); longer ones go through an Enum.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loudly.core.seams import Ints
from loudly.shift.hashing import GOLDEN, text_hash

Words = NDArray[np.uint64]
Codes = NDArray[np.int64] | NDArray[np.int32]

SHORT = 12
# Fewer texts go through an Enum: their words are reached by pyarrow, whose import takes longer than it saves.
FEW = 4096
TRIES = 64
# Slots that are counted by themselves, and only then put to their categories.
SLOTS = 4096
# Rows at a time: what is computed of them stays near the processor.
PIECE = 8192


class CategoryBins(Protocol):
    """What is asked of the bins of a column of categories; `bins.Bins` says what each is."""

    @property
    def size(self) -> int: ...

    @property
    def categories(self) -> tuple[str, ...]: ...

    @property
    def buckets(self) -> int: ...

    @property
    def known(self) -> Words | None: ...


def as_text(values: pl.Series) -> pl.Series:
    """Values as text (an Enum stays); what has no text of its own (nested values, bytes, objects) by its representation."""
    if values.dtype == pl.String or isinstance(values.dtype, pl.Enum):
        return values
    if not (values.dtype.is_nested() or values.dtype in (pl.Object, pl.Binary)):
        with suppress(pl.exceptions.PolarsError):  # types that others have made, such as pandas' periods
            return values.cast(pl.String)
    return pl.Series(values.name, [None if v is None else str(v) for v in values.to_list()], dtype=pl.String)


def codes_of(values: pl.Series, bins: CategoryBins, out: Codes | None = None, few: int = FEW) -> Codes:
    """The bin of each text: a named category, a bucket of a known one, or the last for unseen; missing is `size`.

    A column of type Enum is looked up by its codes; other types must have been made text. Shapes: out (n,), if it is given.
    few: texts that go through an Enum; none where they were picked out of many.
    """
    codes = np.empty(len(values), dtype=np.int64) if out is None else out
    if isinstance(values.dtype, pl.Enum):
        table = np.r_[codes_of(values.dtype.categories, bins), bins.size]
        physical = values.to_physical()
        if values.null_count():
            physical = physical.cast(pl.Int64).fill_null(len(table) - 1)
        codes[:] = table[physical.to_numpy()]
        return codes
    size = bins.size
    _named(values, bins.categories, size - 1, codes, few)
    if values.null_count():
        codes[values.is_null().to_numpy()] = size
    if bins.known is not None:
        at = np.flatnonzero(codes == size - 1)
        if len(at):
            codes[at] = _hashed(values.gather(at), bins)
    return codes


def _named(text: pl.Series, categories: tuple[str, ...], unseen: int, codes: Codes, few: int) -> None:
    """Named categories by their place, all else as unseen."""
    names = names_of(categories) if categories and len(text) >= few else None
    words = views(text) if names is not None else None
    if names is not None and words is not None:
        whole, slot = np.empty(PIECE, dtype=np.uint64), np.empty(PIECE, dtype=np.int64)
        for at in range(0, len(words), PIECE):
            part = words[at : at + PIECE]
            slots_of(part, names, whole[: len(part)], slot[: len(part)])
            found = names.codes.take(slot[: len(part)], mode="wrap")
            codes[at : at + PIECE] = found if unseen == len(categories) else np.where(found == len(categories), unseen, found)
    elif not categories:
        codes[:] = unseen
    else:
        named = text.cast(_enum(categories), strict=False).to_physical()
        codes[:] = (named.cast(pl.Int64).fill_null(unseen) if named.null_count() else named).to_numpy()


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """A perfect hash of k categories: slot -> the words of the one that may lie there, mixed into one.

    codes: slot -> place of the category; then two slots of no text's own, for unseen (k) and missing ones (k + 1).
    slots (k + 2,): its inverse.
    """

    wholes: Words
    codes: Ints
    slots: Ints
    odd: np.uint64
    shift: np.uint64


def slots_of(words: Words, names: Names, whole: Words, slot: Ints) -> None:
    """The slot of each text into `slot`; where another category lies there, the one for unseen texts.

    Shapes: words (n, 2), whole, slot (n,).
    """
    np.multiply(words[:, 1], GOLDEN, out=whole)
    np.bitwise_xor(whole, words[:, 0], out=whole)
    where = slot.view(np.uint64)
    np.multiply(whole, names.odd, out=where)
    np.right_shift(where, names.shift, out=where)
    # No slot is outside: "wrap" only says that nothing need be looked after.
    other = names.wholes.take(slot, mode="wrap") != whole
    if other.any():
        slot[other] = len(names.wholes)


def named_slots(text: pl.Series, bins: CategoryBins, whole: Words, slot: Ints) -> Names | None:
    """The slot of each text into `slot`; None where there is no hash of few slots, or where unnamed categories are known, too."""
    if bins.known is not None or not bins.categories or len(text) < FEW or text.dtype != pl.String:
        return None
    names = names_of(bins.categories)
    words = views(text) if names is not None and len(names.wholes) <= SLOTS else None
    if names is None or words is None:
        return None
    slots_of(words, names, whole, slot)
    if text.null_count():
        slot[text.is_null().to_numpy()] = len(names.wholes) + 1
    return names


@lru_cache(maxsize=1024)
def names_of(categories: tuple[str, ...]) -> Names | None:
    """A multiplier under which no two categories meet; None where a category is long or none was found."""
    words = views(pl.Series(categories, dtype=pl.String))
    if words is None or max(len(c.encode()) for c in categories) > SHORT:
        return None
    bits = min(18, max(8, 2 * len(categories).bit_length()))
    shift, rng, whole = np.uint64(64 - bits), np.random.default_rng(0), words[:, 1] * GOLDEN ^ words[:, 0]
    for _ in range(TRIES):
        odd = rng.integers(2**64, dtype=np.uint64) | np.uint64(1)
        slots = (whole * odd) >> shift
        if len(np.unique(slots)) == len(slots):
            codes = np.zeros(1 << bits, dtype=np.int64)
            codes[slots] = np.arange(len(slots))
            rest = np.arange(2)
            every = np.r_[slots.astype(np.int64), (1 << bits) + rest]
            return Names(whole[codes], np.r_[codes, len(slots) + rest], every, odd, shift)
    return None


def views(text: pl.Series) -> Words | None:
    """(n, 2) the words of each text as Polars keeps it: exact for texts of up to 12 bytes; None where it keeps them otherwise.

    A text that is missing has words of its own making.
    """
    made: Any = text.to_arrow(compat_level=pl.CompatLevel.newest())
    buffer = made.buffers()[1] if str(made.type) == "string_view" else None
    if buffer is None:
        return None
    return np.frombuffer(buffer, dtype=np.uint64).reshape(-1, 2)[made.offset : made.offset + len(made)]


def _hashed(text: pl.Series, bins: CategoryBins) -> Ints:
    """Buckets of known but unnamed categories; the last bin for those never seen."""
    assert bins.known is not None
    found = text_hash(text)
    at = np.minimum(np.searchsorted(bins.known, found), len(bins.known) - 1)
    bucket = len(bins.categories) + (found % np.uint64(bins.buckets)).astype(np.int64)
    return np.where(bins.known[at] == found, bucket, bins.size - 1)


@lru_cache(maxsize=1024)
def _enum(categories: tuple[str, ...]) -> pl.Enum:
    return pl.Enum(categories)
