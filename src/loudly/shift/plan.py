"""What a reference asks to be counted of a window, and where each count lies in one vector of integers.

All counts and sums of a profile are one int64 vector, so that merging is one addition and subtracting one subtraction:

    rows | features of the embedding | for each column: HEAD | counts of its bins | sums of its bins (numbers only)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from loudly.core.seams import Ints
from loudly.shift.bins import Bins, Lookup, lookup_of
from loudly.shift.embedding import Embedding

# What stands before the counts of a column.
NULLS, NANS, LOWS, HIGHS, MISTYPED, ABSENT, SQUARES = range(7)
HEAD = 7
# Sums are integers in units of 2**(exponent - 18), squares of 2**(2 (exponent - 18)).
BITS = 18
# More rows could overflow a sum; squares are watched from FULL rows on.
MOST_ROWS, FULL = 2**40, 2**26


@dataclass(frozen=True, slots=True)
class Place:
    """Where a column's numbers lie in the vector."""

    head: int
    counts: int
    sums: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Columns and their bins, and what else is kept of a window.

    cells: category columns within which missing values are counted.  distinct: how many values of a number column are
    told apart (0: none).  keep: rows of the reservoir (0: none), by the column `key` or by content, weighted by `weight`.
    """

    bins: Mapping[str, Bins]
    cells: tuple[str, ...] = ()
    distinct: int = 0
    embedding: Embedding | None = None
    keep: int = 0
    key: str = ""
    weight: str = ""
    spread: tuple[str, ...] = ()
    places: Mapping[str, Place] = field(init=False)
    size: int = field(init=False)
    fingerprint: str = field(init=False)
    tables: dict[str, Lookup] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        places, at = {}, 1 + (self.embedding.size if self.embedding else 0)
        for name, bins in self.bins.items():
            sums = at + HEAD + bins.size
            end = sums + (bins.size if bins.numeric else 0)
            places[name] = Place(at, at + HEAD, sums, end)
            at = end
        object.__setattr__(self, "places", places)
        object.__setattr__(self, "size", at)
        object.__setattr__(self, "fingerprint", self._fingerprint())

    def __reduce__(self) -> tuple[type[Plan], tuple[object, ...]]:
        """Without its tables: they are made where they are needed."""
        return Plan, (self.bins, self.cells, self.distinct, self.embedding, self.keep, self.key, self.weight, self.spread)

    def _fingerprint(self) -> str:
        """16 hexadecimal digits of all that decides where a row is counted."""
        made = hashlib.sha256(repr((self.cells, self.distinct, self.keep, self.key, self.weight, self.spread)).encode())
        for name, b in self.bins.items():
            made.update(repr((name, b.categories, b.centre, b.exponent, b.buckets, b.size)).encode())
            for array in (b.edges, b.known):
                made.update(b"-" if array is None else array.tobytes())
        if self.embedding is not None:
            made.update(self.embedding.weights.tobytes())
            for scores in self.embedding.scores:
                made.update(scores.tobytes())
        return made.hexdigest()[:16]

    def lookup(self, name: str) -> Lookup:
        """The table of a number column, made when first asked for."""
        found = self.tables.get(name)
        if found is None:
            scores = self.embedding.scores[list(self.bins).index(name)] if self.embedding else None
            found = self.tables[name] = lookup_of(self.bins[name], scores)
        return found

    def zero(self) -> Ints:
        """No rows."""
        return np.zeros(self.size, dtype=np.int64)
