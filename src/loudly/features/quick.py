"""The matrix straight from the numbers and columns of a request: the same bytes as `FrozenFeatures.matrix`, without a table.

Columns that go into the matrix as they are become numbers here; only what the user's definitions ask for becomes a Series.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from loudly.core.seams import Floats
from loudly.core.values import NUMERIC, Kind
from loudly.features.feature_set import FrozenFeatures

NAN = float("nan")
WORDS = (Kind.CATEGORY, Kind.TEXT)


@dataclass(frozen=True, slots=True)
class Quick:
    """A plan for one set of frozen features and one set of column kinds.

    numbers, words: index in the matrix and name of the columns taken as they are; words with their codes.
    needed: columns that definitions take, as Series.  made: index in the matrix and name of what they make.
    """

    frozen: FrozenFeatures
    numbers: tuple[tuple[int, str], ...]
    words: tuple[tuple[int, str, Mapping[str, float]], ...]
    needed: tuple[str, ...]
    made: tuple[tuple[int, str], ...]

    def matrix(self, numbers: Floats, column: Callable[[str], Sequence[Any]], series: Callable[[str], pl.Series]) -> Floats:
        """(n, d) float64, C-contiguous. numbers: (n, k) float64 of `self.numbers`, in their order, NaN for missing.

        column, series: a column of the request by name, as it was sent and as a table has it.
        """
        if len(self.numbers) == len(self.frozen.columns):
            return numbers
        X = np.empty((len(numbers), len(self.frozen.columns)))
        X[:, [i for i, _ in self.numbers]] = numbers
        for i, name, codes in self.words:
            X[:, i] = [codes.get(value, NAN) for value in column(name)]
        if self.made:
            found = self.frozen.derive({name: series(name) for name in self.needed}, len(numbers))
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
        elif name not in frozen.codes and kind in NUMERIC:
            numbers.append((i, name))
        else:
            return None
    wanted = {p for d in frozen.definitions for p in inspect.signature(d).parameters}
    needed = tuple(name for name in frozen.inputs if name in wanted)
    if any(name not in kinds for name in needed):
        return None
    return Quick(frozen, tuple(numbers), tuple(words), needed, tuple(made))
