"""What the champion says of each row, as columns of a window: its score, or the score of each class (black-box shift detection).

Source: Rabanser, Günnemann & Lipton 2019 (univariate BBSDs); Lipton, Wang & Smola 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from loudly.core.seams import Floats
from loudly.core.values import Schema, Task
from loudly.stats.held_out import Quantiles, as_held_out

# Columns of a window that come from no feed: what the champion said of each row, and the hour within the window it is of.
PREDICTION, HOURS = "(prediction)", "(hour of the window)"
OF_CLASS = "(prediction of "
# Of more classes those are watched that the champion gives the highest scores: each is a column more in every window.
MOST_CLASSES = 10


def apart(column: str) -> bool:
    """Whether a column of a window comes from no feed."""
    return column == HOURS or said(column)


def said(column: str) -> bool:
    """Whether a column is what the champion said."""
    return column == PREDICTION or column.startswith(OF_CLASS)


class Answering(Protocol):
    """What the watch must know of a champion."""

    @property
    def schema(self) -> Schema: ...

    @property
    def task(self) -> Task: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    def predict(self, table: pl.DataFrame) -> Floats: ...


@dataclass(frozen=True, slots=True)
class Answers:
    """The columns that a champion's answers make. at: which of its scores each is.  width: how many scores a row has."""

    names: tuple[str, ...] = ()
    at: tuple[int, ...] = ()
    width: int = 1

    @classmethod
    def of(cls, score: Floats, classes: Sequence[str]) -> Answers:
        """Those of a champion. score: of the rows of its reference, (n,) or (n, k)."""
        if score.ndim == 1:
            return cls((PREDICTION,), (0,))
        at = np.sort(np.argsort(-np.nan_to_num(score).mean(axis=0), kind="stable")[:MOST_CLASSES]).tolist()
        return cls(tuple(f"{OF_CLASS}{classes[i]})" for i in at), tuple(at), score.shape[1])

    def columns(self, score: Floats, usual: Sequence[Quantiles] = ()) -> list[pl.Series]:
        """Scores (n,) or (n, k) as columns; of a champion with other classes, who still answered, they are missing.

        usual: how held-out scores of each lie beside those of seen rows, which these are.
        """
        scores = score[:, None] if score.ndim == 1 else score
        if scores.shape[1] != self.width:
            scores = np.full((len(scores), self.width), np.nan)
        return [
            pl.Series(name, as_held_out(scores[:, i], usual[i]) if usual else scores[:, i])
            for name, i in zip(self.names, self.at, strict=True)
        ]
