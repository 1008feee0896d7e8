"""The rows that are kept of a window, as a table again; and the test of all columns together on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from loudly.core.values import Verdict
from loudly.monitor.answers import PREDICTION, apart
from loudly.shift.plan import Plan
from loudly.shift.rank_embedding import FAMILIES, LEAST_ALPHA, RankReference, fit
from loudly.shift.reservoir import Reservoir, joined, reservoir_of

REFERENCE_SAMPLE = 1000
FEWEST = 50
PERMUTATIONS, MOST_PERMUTATIONS = 199, 9_999


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


def reference_sample(reference: pl.DataFrame, plan: Plan) -> Reservoir:
    """At most 1,000 rows of the reference."""
    return reservoir_of(reference, replace(plan, keep=REFERENCE_SAMPLE))


class Joint:
    """The default test of `loudly.shift` on the rows that are kept of each window.

    A category stands as the share that its value has in the reference: one number a column, so the test stays cheap.
    level: the smallest p-value that the alert budget asks for.  reaches: whether the permutations are enough for it.
    """

    def __init__(self, alpha: float, tolerance: float, level: float) -> None:
        self._alpha, self._tolerance = max(alpha, LEAST_ALPHA), tolerance
        # The least of five p-values, calibrated, must be able to reach the level of the budget.
        wanted = math.ceil(len(FAMILIES) / level)
        self._permutations = min(MOST_PERMUTATIONS, max(PERMUTATIONS, wanted))
        self.reaches = wanted <= MOST_PERMUTATIONS
        self._plan = Plan({})
        self._reference: Reservoir | None = None
        self._fitted: RankReference | None = None

    def begin(self, reference: Reservoir, plan: Plan) -> None:
        """Another reference, as `reference_sample` gives it; it is fitted when a window is first held against it."""
        self._plan, self._reference, self._fitted = plan, reference, None

    def check(self, samples: Sequence[Reservoir]) -> Verdict | None:
        """Whether windows have moved, taken together; None where there is nothing to compare."""
        if not samples:
            return None
        if self._reference is not None:
            held, score = self._split(self._reference)
            self._fitted = fit(held, score) if held.height >= FEWEST else None
            self._reference = None
        if self._fitted is None:
            return None
        rows, scores = self._split(joined(samples))
        if rows.height < FEWEST or (scores is None) != (self._fitted.score_ranks is None):
            return None
        return self._fitted.check(rows, scores, alpha=self._alpha, tolerance=self._tolerance, permutations=self._permutations)

    def _split(self, sample: Reservoir) -> tuple[pl.DataFrame, Any]:
        """Inputs as numbers, and scores. Rows without one are left out, where any has one: that they came is told as a share.

        Scores of several classes are no part of it: moved one by one to the shape of held-out ones, they do not sum to one.
        """
        values, scores, inputs = sample.rows.values, None, {}
        if PREDICTION in self._plan.bins:
            score = values[:, list(self._plan.bins).index(PREDICTION)]
            sound = np.isfinite(score)
            if sound.any():
                values, scores = values[sound], score[sound]
        for (name, bins), column in zip(self._plan.bins.items(), values.T, strict=True):
            if bins.numeric and not apart(name):
                inputs[name] = column
            elif not bins.numeric:
                share = np.append(bins.counts / max(1, int(bins.counts.sum())), np.nan)
                inputs[f"how common {name} is"] = share[np.nan_to_num(column, nan=bins.size).astype(np.int64)]
        return pl.DataFrame(inputs), scores
