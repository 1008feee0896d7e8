"""How much likelier each reference row is in the window: a density ratio by a classifier that tells the two apart.

Out-of-fold probabilities of gradient-boosted trees, recalibrated, become weights; the effective sample size says how many
reference rows are left to speak for the window, and the out-of-fold AUC says how far the two are apart.

Source: Sugiyama, Suzuki & Kanamori 2012 ch. 4 (probabilistic classification); Kong 1992 (effective sample size).
Cost: three fits of 60 small trees to both tables together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from loudly.core.late import late
from loudly.core.seams import Floats, Ints
from loudly.errors import DataError
from loudly.shift.categories import as_text
from loudly.shift.estimate.calibrate import calibrate
from loudly.shift.table import as_table
from loudly.stats.auc import auc

# A table of any maker, whose columns are known by name, or an array, whose columns are known by their place.
Inputs = Any

sklearn = late("sklearn")

FOLDS = 3
MOST_ROWS = 50_000
TREES = {"max_iter": 60, "max_leaf_nodes": 15, "min_samples_leaf": 30, "l2_regularization": 1.0, "early_stopping": False}
MOST_CATEGORIES = 1000


@dataclass(frozen=True, slots=True)
class Columns:
    """The input columns of a reference and how they become numbers. `categories`: column -> value -> code."""

    names: tuple[str, ...]
    categories: Mapping[str, Mapping[str, int]]

    def array(self, inputs: Inputs, rows: int | None = None) -> Floats:
        """(n, d) numbers; missing is NaN, a category not seen before has a code of its own, infinities stay at the rim.

        rows: how many there must be.
        Raises: DataError where a column is gone, or the width or the number of rows is another.
        """
        made = self._array(inputs)
        if rows is not None and len(made) != rows:
            raise DataError("Scores and inputs differ in length.", seen=f"{rows:,} and {len(made):,} rows")
        return made

    def _array(self, inputs: Inputs) -> Floats:
        table = _named(inputs)
        if table is None:
            made = np.asarray(inputs, dtype=np.float64)
            made = made[:, None] if made.ndim == 1 else made
            if made.ndim != 2 or made.shape[1] != len(self.names):
                raise DataError("The inputs have another width than the reference.", seen=f"{made.shape}, not {len(self.names)}")
            return _rimmed(made)
        gone = [n for n in self.names if n not in table.columns]
        if gone:
            raise DataError("Input columns are gone.", seen=", ".join(gone), do="give the columns of the reference")
        return _rimmed(np.stack([self._column(table[n]) for n in self.names], axis=1))

    def _column(self, values: pl.Series) -> Floats:
        codes = self.categories.get(values.name)
        if codes is None:
            return values.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
        text = as_text(values).cast(pl.String)
        if not codes:
            return np.zeros(len(text))
        made = text.replace_strict(codes, default=len(codes), return_dtype=pl.Float64).to_numpy().copy()
        made[text.is_null().to_numpy()] = np.nan
        return np.asarray(made, dtype=np.float64)


def columns_of(inputs: Inputs) -> Columns:
    """What a reference's inputs are.

    >>> columns_of(pl.DataFrame({"x": [1.0, 2.0], "c": ["b", "a"]})).array(pl.DataFrame({"x": [3.0], "c": ["new"]})).tolist()
    [[3.0, 2.0]]
    """
    table = _named(inputs)
    if table is None:
        made = np.asarray(inputs)
        return Columns(tuple(f"x{i}" for i in range(1 if made.ndim == 1 else made.shape[1])), {})
    worded = [s for s in table.get_columns() if not (s.dtype.is_numeric() or s.dtype == pl.Boolean)]
    return Columns(tuple(table.columns), {s.name: _codes(s) for s in worded})


def _named(inputs: Inputs) -> pl.DataFrame | None:
    """A table by the names of its columns; None for an array, which has none."""
    return None if isinstance(inputs, np.ndarray | list | tuple) else as_table(inputs)[0]


def _codes(values: pl.Series) -> dict[str, int]:
    ranked = as_text(values).cast(pl.String).drop_nulls().value_counts(sort=True).head(MOST_CATEGORIES)
    return {value: i for i, value in enumerate(sorted(ranked[values.name].to_list()))}


def _rimmed(X: Floats) -> Floats:
    return np.where(np.isinf(X), np.sign(X) * 1e300, X)


@dataclass(frozen=True, slots=True)
class Density:
    """What a classifier learned about the difference of two tables.

    weight: (n,) of the reference's rows, mean 1.  window: (m,) the same ratio at the window's rows.  ess: effective number
    of reference rows that are like the window.  auc, error: out-of-fold AUC of window against reference (0.5: no difference
    found) and its error.
    """

    weight: Floats
    window: Floats
    ess: float
    auc: float
    error: float


def density(reference: Floats, window: Floats, weight: Floats | None = None, *, seed: int = 0) -> Density:
    """The density ratio of window to reference. Shapes: (n, d), (m, d), (n,) weights of the reference (for mixtures).

    Raises: DataError where a table has fewer than 20 rows.

    >>> rng = np.random.default_rng(0)
    >>> found = density(rng.normal(0, 1, (2000, 1)), rng.normal(1, 1, (2000, 1)))
    >>> found.ess < 1500 and found.auc > 0.7
    True
    """
    if min(len(reference), len(window)) < 20:
        raise DataError("Too few rows to tell two tables apart.", seen=f"{len(reference)} and {len(window)}", do="give at least 20")
    X = np.concatenate([reference, window])
    from_window = np.concatenate([np.zeros(len(reference)), np.ones(len(window))])
    mass = np.ones(len(X))
    if weight is not None:
        mass[: len(reference)] = weight * len(reference) / weight.sum()
    chance = out_of_fold(X, from_window, mass, seed=seed)
    odds = chance / (1 - chance) * len(reference) / len(window)
    given = odds[: len(reference)]
    mean = float(np.average(given, weights=mass[: len(reference)]))
    scaled = given / mean
    total = scaled * mass[: len(reference)]
    kept = _drawn(mass[: len(reference)], seed)
    found = auc(
        np.concatenate([np.zeros(len(kept)), np.ones(len(window))]), np.concatenate([chance[kept], chance[len(reference) :]])
    )
    # A ratio averages 1 over the reference, or less by what of the window lies where the reference has no row.
    ess = min(1.0, mean) * float(total.sum() ** 2 / (total**2).sum())
    return Density(scaled, odds[len(reference) :], ess, found.value, found.error)


def out_of_fold(X: Floats, label: Floats, weight: Floats, *, seed: int = 0) -> Floats:
    """(n,) P(label = 1) by trees that have not seen the row, recalibrated by Platt so that no difference gives a constant.

    One thread: the fits are small, and threads that wait for a busy machine cost ten times what they save.
    """
    fold = folds(len(X), FOLDS, seed)
    raw = np.zeros(len(X))
    alike = np.ptp(weight) == 0  # the trees take weights when they bin, at several times the cost
    make = sklearn.ensemble.HistGradientBoostingClassifier  # imported here: limits are for threads of libraries that are there
    with threadpool_limits(1, user_api="openmp"):
        for number in range(FOLDS):
            rest = np.flatnonzero(fold != number)[:MOST_ROWS]
            trees = make(**TREES, random_state=seed)
            trees.fit(X[rest], label[rest], sample_weight=None if alike else weight[rest])
            raw[fold == number] = trees.predict_proba(X[fold == number])[:, 1]
    if np.ptp(raw) < 1e-9:
        return np.full(len(raw), np.average(label, weights=weight))
    return np.clip(calibrate(raw, label, weight, method="platt", replicates=0)(raw), 1e-4, 1 - 1e-4)


def folds(n: int, count: int, seed: int) -> Ints:
    """(n,) a fold for each row, of equal sizes, by chance."""
    return np.asarray(np.random.default_rng(seed).permutation(np.arange(n) % count))


def _drawn(mass: Floats, seed: int) -> Sequence[int] | Ints:
    """Rows drawn by their weight; all of them once where weights are equal."""
    if np.ptp(mass) == 0:
        return np.arange(len(mass))
    return np.random.default_rng(seed).choice(len(mass), len(mass), p=mass / mass.sum())
