"""The rows that are kept of a window, as a table again; and the test of all columns together on them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from loudly.core.values import Verdict
from loudly.monitor.eras import APART, PREDICTION
from loudly.shift.rank_embedding import RankReference, fit
from loudly.shift.reservoir import Reservoir, reservoir_of

if TYPE_CHECKING:
    from loudly.shift.plan import Plan

REFERENCE_SAMPLE = 1000
FEWEST = 50
PERMUTATIONS = 99


def table_of(sample: Reservoir | None, plan: Plan) -> pl.DataFrame:
    """Kept rows in the columns of the plan: numbers as they were, categories by name, those the reference does not know as one."""
    values = sample.rows.values if sample is not None else np.zeros((0, len(plan.bins)))
    made = []
    for (name, bins), column in zip(plan.bins.items(), values.T, strict=True):
        if bins.numeric:
            made.append(pl.Series(name, column, dtype=pl.Float64, nan_to_null=True))
            continue
        names = np.array([*bins.categories, "(unseen)"], dtype=object)
        known = np.isfinite(column)
        codes = np.minimum(np.where(known, column, 0).astype(np.int64), len(bins.categories))
        made.append(pl.Series(name, [n if k else None for n, k in zip(names[codes], known, strict=True)], dtype=pl.String))
    return pl.DataFrame(made)


def reference_sample(reference: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    """At most 1,000 rows of the reference, in the same columns."""
    return table_of(reservoir_of(reference, replace(plan, keep=REFERENCE_SAMPLE)), plan)


class Joint:
    """The default test of `loudly.shift` on the rows that are kept of each window."""

    def __init__(self, alpha: float, tolerance: float) -> None:
        self._alpha, self._tolerance = alpha, tolerance
        self._fitted: RankReference | None = None

    def begin(self, reference: pl.DataFrame) -> None:
        """Another reference, as `reference_sample` gives it."""
        self._fitted = fit(*_split(reference)) if reference.height >= FEWEST else None

    def check(self, window: pl.DataFrame) -> Verdict | None:
        """Whether the window has moved; None where there is nothing to compare."""
        if self._fitted is None or window.height < FEWEST:
            return None
        rows, scores = _split(window)
        if scores is not None and self._fitted.score_ranks is None:
            scores = None
        if scores is None and self._fitted.score_ranks is not None:
            return None
        return self._fitted.check(rows, scores, alpha=self._alpha, tolerance=self._tolerance, permutations=PERMUTATIONS)


def _split(table: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray[tuple[int], np.dtype[np.float64]] | None]:
    """Inputs, and scores where all are there."""
    inputs = table.drop([c for c in APART if c in table.columns])
    if PREDICTION not in table.columns or table[PREDICTION].null_count():
        return inputs, None
    return inputs, table[PREDICTION].to_numpy()
