"""What the arms have answered: a version that scores, and the replies of a batch, row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl

from loudly.core.seams import Floats, Ints
from loudly.errors import ModelError
from loudly.serve.rows import Rows

CONTROL, CANDIDATE = "control", "candidate"
NOTHING: Mapping[str, int] = {CONTROL: 0, CANDIDATE: 0}


@cache
def arm_names(count: int) -> tuple[str, ...]:
    """What the arms of a rollout are called, control first. They are two at least, for that is how answers are logged.

    >>> arm_names(1), arm_names(4)
    (('control', 'candidate'), ('control', 'candidate', 'candidate2', 'candidate3'))
    """
    return (CONTROL, CANDIDATE, *(f"{CANDIDATE}{i}" for i in range(2, count)))


@dataclass(frozen=True, slots=True)
class Served:
    """A version ready to answer: rows of the frozen schema in, scores out. quick: the same without a table, where it can."""

    version: str
    predict: Callable[[pl.DataFrame], Floats]
    quick: Callable[[Rows], Floats] | None = None

    def score(self, rows: pl.DataFrame | Rows) -> Floats:
        """Scores (n,) or (n, k). Raises: ModelError for another shape, and whatever the model raises."""
        if not isinstance(rows, Rows):
            made = self.predict(rows)
        else:
            made = self.quick(rows) if self.quick is not None else self.predict(rows.table())
        made = np.asarray(made, dtype=np.float64)
        if made.ndim not in (1, 2) or len(made) != rows.height:
            raise ModelError("The model gave answers of a wrong shape.", seen=f"{made.shape} for {rows.height} rows")
        return made


@dataclass(frozen=True, slots=True)
class Replies:
    """Answers of a batch, row by row.

    answer: (n,) or (n, k).  arm: (n,) index into `names`.  propensity: (n,).  fallback: (n,) True where the arm that should
    have answered could not.  scores: arm -> answers of every arm, NaN where it did not score.  versions: of the arms.
    failed, answered: counts by arm, of rows.  errors: what was raised, for the log.  seconds: arm -> what its call took,
    where a timer runs.  owed: arm -> who must still score all of the rows.  share: (n,) as assigned, None where all take part.
    """

    answer: Floats
    arm: Ints
    propensity: Floats
    fallback: Any
    scores: Mapping[str, Floats]
    versions: tuple[str, ...]
    answered: Mapping[str, int]
    failed: Mapping[str, int]
    errors: tuple[str, ...]
    seconds: Mapping[str, float]
    owed: Mapping[str, Served] = field(default_factory=dict)
    share: Floats | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arms."""
        return arm_names(len(self.versions))

    def take(self, kept: Ints) -> Replies:
        """The replies of some of the rows; the counts stay."""
        scores = {name: score[kept] for name, score in self.scores.items()}
        return replace(
            self,
            answer=self.answer[kept],
            arm=self.arm[kept],
            propensity=self.propensity[kept],
            fallback=self.fallback[kept],
            scores=scores,
            share=None if self.share is None else self.share[kept],
        )

    def asked(self) -> dict[str, Any]:
        """Arm -> (n,) rows that it was asked for."""
        n, found = len(self.arm), dict[str, Any]()
        for index, name in enumerate(self.scores):
            count = self.answered.get(name, 0)
            found[name] = np.full(n, count > 0) if count in (0, n) else self.arm == index
        return found

    def lacking(self, asked: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Arm -> (n,) rows that it was asked for and did not answer. asked: as told, where it is at hand."""
        return {name: mine & ~finite(self.scores[name]) for name, mine in (asked or self.asked()).items()}

    def part(self, kept: Ints) -> Replies:
        """The replies of some of the rows, and the counts of these."""
        asked = self.asked()
        answered, failed = ({name: int(mine[kept].sum()) for name, mine in of.items()} for of in (asked, self.lacking(asked)))
        return replace(self.take(kept), answered=answered, failed=failed)


def finite(score: Floats) -> Any:
    """(n,) which rows an arm has answered. Shapes: score (n,) or (n, k)."""
    return np.isfinite(score) if score.ndim == 1 else np.isfinite(score).all(axis=1)
