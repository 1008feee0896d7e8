"""The matrix straight from the columns of a request: the same bytes as `FrozenFeatures.matrix`, without a table.

Columns that go into the matrix as they are become numbers here; only what the user's definitions ask for becomes a Series.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from loudly.core.values import Kind
from loudly.features.feature_set import FrozenFeatures

if TYPE_CHECKING:
    from loudly.core.seams import Floats

NAN = float("nan")
NUMBERS = (Kind.NUMBER, Kind.INTEGER, Kind.BOOLEAN)
WORDS = (Kind.CATEGORY, Kind.TEXT)
Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Quick:
    """A plan for one set of frozen features and one set of column kinds.

    numbers, words: index in the matrix and name of the columns taken as they are; words with their codes.
    needed: columns that definitions take, as Series.  made: index in the matrix and name of what they make.
    pick: takes the matrix's row out of a row as it was sent, where the matrix is numbers as they are and nothing else.
    """

    frozen: FrozenFeatures
    numbers: tuple[tuple[int, str], ...]
    words: tuple[tuple[int, str, Mapping[str, float]], ...]
    needed: tuple[str, ...]
    made: tuple[tuple[int, str], ...]
    pick: Callable[[Sequence[Any]], Sequence[Any]] | None = None

    def matrix(self, columns: Columns, height: int, series: Callable[[str], pl.Series]) -> Floats:
        """(n, d) float64, C-contiguous. `series`: a column of the request as the table has it."""
        X = np.empty((height, len(self.frozen.columns)))
        if len(self.numbers) == len(self.frozen.columns):
            X.T[:] = [columns[name] for _, name in self.numbers]
            return X
        for i, name in self.numbers:
            X[:, i] = columns[name]
        for i, name, codes in self.words:
            X[:, i] = [codes.get(value, NAN) for value in columns[name]]
        if self.made:
            found = self.frozen.derive({name: series(name) for name in self.needed}, height)
            for i, name in self.made:
                X[:, i] = self.frozen.numeric(found[name], name).to_numpy()
        return X


def quick(frozen: FrozenFeatures, kinds: Mapping[str, Kind]) -> Quick | None:
    """The plan for requests with these columns, in their order; None where the matrix needs a table: a column is not sent, or of
    another kind.
    """
    own = {d.__name__ for d in frozen.definitions}
    numbers, words, made = [], [], []
    for i, name in enumerate(frozen.columns):
        kind = kinds.get(name)
        if name in own:
            made.append((i, name))
        elif name in frozen.codes and kind in WORDS:
            words.append((i, name, {value: float(code) for code, value in enumerate(frozen.codes[name])}))
        elif name not in frozen.codes and kind in NUMBERS:
            numbers.append((i, name))
        else:
            return None
    wanted = {p for d in frozen.definitions for p in inspect.signature(d).parameters}
    needed = tuple(name for name in frozen.inputs if name in wanted)
    if any(name not in kinds for name in needed):
        return None
    order = list(kinds)
    plain = len(numbers) == len(frozen.columns) > 1
    pick = itemgetter(*(order.index(name) for _, name in numbers)) if plain else None
    return Quick(frozen, tuple(numbers), tuple(words), needed, tuple(made), pick)
