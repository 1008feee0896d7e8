"""Shifts ranked by what they do to the metric, not by how large they are.

For each column alone, the labelled reference is weighted so that this column is distributed as in the window (post-stratified
on its bins) and the metric is taken again: the change is that column's impact, if P(label, score | column) has stayed. A large
shift of a column that the errors do not depend on changes nothing; a small one toward hard rows does. Columns that move
together share the blame, and an effect of two columns jointly is seen only as far as each one shows it alone.

Source: Budhathoki et al. 2021 and Zhang et al. 2023 ("Why did the model fail?", one coordinate of the attribution at a time);
interval by the delta method: influence functions centred within bins (Deville 1999) and the window's multinomial shares.
Cost: O(n log n) a column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from loudly.core.canon import Json, finite
from loudly.core.seams import Floats, Ints
from loudly.core.values import Evidence
from loudly.errors import ConfigError, DataError, nearest
from loudly.shift.estimate.density import Columns, Inputs, columns_of
from loudly.shift.estimate.expected import BETTER, Expected, expected
from loudly.shift.estimate.labelled import FEWEST, labelled
from loudly.stats.divergence import js

METHOD = "impact: the reference weighted to the window's share of one column"
ASSUMES = "P(label, score | column) as in the reference, one column at a time"
BINS = 20
LOUD_UNCOVERED = 0.05
ERRORS = {"mae": -1, "mse": -1}


@dataclass(frozen=True, slots=True)
class Impact:
    """A labelled reference. X: (n, d) inputs; losses: (n,) for regression, else scores and labels as probabilities."""

    metric: str
    columns: Columns
    X: Floats
    score: Floats
    onehot: Floats
    losses: Floats | None
    confidence: float = 0.95

    @classmethod
    def fit(
        cls, score: ArrayLike, truth: ArrayLike, inputs: Inputs, *, metric: str = "roc_auc", confidence: float = 0.95
    ) -> Impact:
        """From reference scores (or predictions, for "mae" and "mse"), labels and inputs.

        Raises: DataError for a reference that cannot teach, ConfigError for an unknown metric.

        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(0, 1, (4000, 2))
        >>> y = X[:, 0] + np.exp(X[:, 1]) * rng.normal(0, 1, 4000)
        >>> found = Impact.fit(X[:, 0], y, X, metric="mae").rank(X + np.array([2.0, 0.3]))
        >>> [e.about for e in found]
        ['x1', 'x0']
        """
        columns = columns_of(inputs)
        if metric in ERRORS:
            f, y = np.asarray(score, dtype=np.float64), np.asarray(truth, dtype=np.float64)
            kept = np.isfinite(f) & np.isfinite(y)
            if kept.sum() < FEWEST:
                raise DataError(
                    f"{kept.sum()} rows with prediction and truth cannot be learned from.", do=f"give at least {FEWEST}"
                )
            gap = np.abs(f - y)[kept]
            losses = gap if metric == "mae" else gap**2
            return cls(metric, columns, columns.array(inputs, len(kept))[kept], f[kept], y[kept], losses, confidence)
        if metric not in BETTER:
            raise ConfigError(f"No impact is defined on the metric {metric!r}.", do=nearest(metric, [*BETTER, *ERRORS]))
        given = labelled(score, truth)
        return cls(metric, columns, columns.array(inputs, len(given.kept))[given.kept], given.score, given.onehot, None, confidence)

    def rank(self, inputs: Inputs) -> tuple[Evidence, ...]:
        """One Evidence a column, the surely most harmful first. `effect` is the change of the metric, with its interval.

        An empty window has no impact to tell: each effect is None and the detail says what is missing.
        """
        X = self.columns.array(inputs)
        before = self._measure(np.ones(len(self.X)))
        found = [self._column(i, name, X, before) for i, name in enumerate(self.columns.names)]
        return tuple(sorted(found, key=lambda e: _order(e, self.better)))

    @property
    def better(self) -> int:
        """+1 where more of the metric is better, -1 where less is."""
        return BETTER.get(self.metric, -1)

    def _measure(self, weight: Floats) -> Expected:
        if self.losses is None:
            return expected(self.metric, self.score, self.onehot, weight)
        value = float(np.average(self.losses, weights=weight))
        return Expected(value, weight * (self.losses - value) / weight.sum(), np.zeros(0))

    def _column(self, at: int, name: str, X: Floats, before: Expected) -> Evidence:
        if not len(X):
            return _untold(name, self.metric, 0, "rows in the window")
        mine, theirs = binned(self.X[:, at], X[:, at], set_apart=name in self.columns.categories)
        ours, seen = (np.bincount(b, minlength=1 + max(mine.max(), theirs.max())) for b in (mine, theirs))
        uncovered = float(seen[ours == 0].sum() / len(X))
        share = np.where(ours > 0, seen, 0) / max(1, int(seen[ours > 0].sum()))
        if uncovered == 1.0:
            return _untold(name, self.metric, len(X), "reference rows with any of the window's values")
        ratio = np.divide(share * len(mine), ours, out=np.zeros(len(ours)), where=ours > 0)
        after = self._measure(ratio[mine])
        effect, reach = after.value - before.value, float(scipy.special.ndtri(0.5 + self.confidence / 2))
        reach *= _error(before, after, mine, ours, share, len(X))
        detail: dict[str, Json] = {"assumes": ASSUMES, "shift": js(ours, seen), "uncovered": uncovered, "before": before.value}
        beyond = 0.0 if name in self.columns.categories else _beyond(self.X[:, at], X[:, at])
        if uncovered + beyond > LOUD_UNCOVERED:
            detail["loud"] = f"LOUD: {uncovered + beyond:.0%} of the window has values of {name} that the reference never had"
        return Evidence(
            METHOD, finite(effect), finite(effect - reach), finite(effect + reach), len(X), name, self.metric, self.confidence,
            detail=detail,
        )  # fmt: skip


def binned(reference: Floats, window: Floats, *, set_apart: bool = False) -> tuple[Ints, Ints]:
    """The bin of each value: quantile bins of the reference, missing values apart; categories each their own.

    >>> [b.tolist() for b in binned(np.array([0.0, 0.0, 1.0]), np.array([1.0, np.nan]))]
    [[0, 0, 1], [1, 2]]
    """
    known = reference[np.isfinite(reference)]
    if set_apart:
        edges = np.unique(np.concatenate([known, window[np.isfinite(window)]])) if len(known) else np.zeros(0)
    else:
        edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:], method="lower")) if len(known) else np.zeros(0)
        edges = edges[:-1]
    apart = len(edges) + 1
    mine, theirs = (np.where(np.isfinite(v), np.searchsorted(edges, v, side="left"), apart) for v in (reference, window))
    return mine.astype(np.int64), theirs.astype(np.int64)


def _error(before: Expected, after: Expected, mine: Ints, ours: Ints, share: Floats, n: int) -> float:
    """Of the difference: rows of the reference within bins (their shares are the window's), and the window's shares."""
    size = np.maximum(ours, 1)
    within = after.influence - (np.bincount(mine, weights=after.influence, minlength=len(ours)) / size)[mine]
    rows = float(((within - before.influence) ** 2).sum())
    pull = np.bincount(mine, weights=after.influence, minlength=len(ours)) / np.where(share > 0, share, 1.0)
    multinomial = float((share * pull**2).sum() - (share * pull).sum() ** 2) / n
    return float(np.sqrt(rows + max(0.0, multinomial)))


def _beyond(reference: Floats, window: Floats) -> float:
    """Share of the window outside the reference's range."""
    known = reference[np.isfinite(reference)]
    return float(((window < known.min()) | (window > known.max())).mean()) if len(known) else 0.0


def _order(found: Evidence, better: int) -> tuple[float, float]:
    if found.effect is None or found.low is None or found.high is None:
        return 1.0, 0.0
    best, harm = (found.high if better > 0 else found.low), -better * found.effect
    return -max(0.0, -better * best), -harm


def _untold(name: str, metric: str, n: int, missing: str) -> Evidence:
    return Evidence(METHOD, None, n=n, about=name, unit=metric, detail={"assumes": ASSUMES, "missing": missing})
