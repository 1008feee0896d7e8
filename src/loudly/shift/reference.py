"""A fitted reference: what windows are compared with. It keeps bins, counts, an embedding and a sample, never the rows.

reference = Reference.fit(table)
window = reference.profile(rows)
for name, found in reference.distances(window).columns.items(): ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from loudly.core.seams import Ints
from loudly.errors import DataError, nearest
from loudly.shift.bins import BUCKETS, MOST_KNOWN, Bins, bins_of
from loudly.shift.categories import Codes, as_text, codes_of
from loudly.shift.distances import Distances, distances
from loudly.shift.embedding import PAIR_ROWS, Embedding, category_scores, median_bandwidth, number_scores, projections
from loudly.shift.fold import read
from loudly.shift.plan import Plan
from loudly.shift.profile import Profile, profile
from loudly.shift.table import as_table

BINS = 1024
FEATURES = 16
KEEP = 1024
SEED = 0
CATEGORIES = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A plan, the reference's own profile under it, and what had to be said about its columns.

    notes: column -> what is special about it ("constant", "mixed types", "1,000 categories named, 999,000 hashed").
    """

    plan: Plan
    own: Profile
    notes: Mapping[str, tuple[str, ...]]

    @classmethod
    def fit(
        cls,
        table: Any,
        *,
        bins: int = BINS,
        sample: int | None = None,
        ignored: Sequence[str] = (),
        features: int = FEATURES,
        keep: int = KEEP,
        key: str = "",
        weight: str = "",
        categories: int = CATEGORIES,
        distinct: int = 0,
        cells: Sequence[str] = (),
        seed: int = SEED,
    ) -> Reference:
        """Bins of every column and the reference's own counts.

        table: polars, pandas, Arrow, a mapping of columns, or an array (n,) or (n, d).  bins: quantile bins a number column.
        sample: fit bins on so many rows drawn by the seed (None: on all); counts are of all rows always.  features:
        projections of the embedding (0: none).  keep: rows of the reservoir (0: none).  key: a column that identifies rows.

        Raises: DataError for a table without rows or columns.
        Cost: one sort of each column.

        >>> reference = Reference.fit({"x": [1.0, 2.0, 3.0], "c": ["a", "b", "a"]})
        >>> reference.profile({"x": [2.0], "c": ["new"]}).rows
        1
        """
        frame, notes = as_table(table)
        for name in [n for n in (key, weight, *ignored, *cells) if n and n not in frame.columns]:
            raise DataError(f"There is no column {name!r}.", seen=f"{frame.width} columns", do=nearest(name, frame.columns))
        watched = [n for n in frame.columns if n not in (key, weight, *ignored)]
        if not frame.height or not watched:
            raise DataError(
                "A reference needs rows and columns.",
                seen=f"{frame.height} rows, {len(watched)} columns to watch",
                do="Give the rows that the model has learned from.",
            )
        drawn = frame if sample is None or sample >= frame.height else frame.sample(sample, seed=seed)
        made = {n: bins_of(drawn[n], bins, categories) for n in watched}
        projected = _embedding(drawn, made, features, seed) if features else None
        plan = Plan(made, tuple(cells), distinct, projected, keep, key, weight, _spread(drawn, made) if keep and not key else ())
        own = profile(frame, plan)
        told = {n: (*notes.get(n, ()), *_notes(b, own, n, drawn.height, frame.height)) for n, b in made.items()}
        return cls(plan, own, {n: t for n, t in told.items() if t})

    @property
    def rows(self) -> int:
        """Rows of the reference."""
        return self.own.rows

    def profile(self, window: Any) -> Profile:
        """The profile of a window: any table that `fit` takes.

        An empty one gives a profile of no rows, which every judgment answers with UNDECIDED.
        Cost: see `loudly.shift.fold`; about a third of a sort of the same columns at most.
        """
        frame, _ = as_table(window, tuple(self.plan.bins))
        return profile(frame, self.plan)

    def empty(self) -> Profile:
        """No rows: the neutral element of `merge`."""
        return profile(pl.DataFrame(schema=dict.fromkeys(self.plan.bins, pl.Null)), self.plan)

    def distances(self, window: Profile) -> Distances:
        """Every distance of every column from the reference, with bounds on its error and the size of sampling noise."""
        return distances(self.own, window)


def _notes(bins: Bins, own: Profile, name: str, drawn: int, rows: int) -> list[str]:
    told = [f"bins from a sample of {drawn:,} of {rows:,} rows"] if drawn < rows else []
    column = own.column(name)
    if column.missing == column.rows:
        told.append("all missing in the reference")
    elif bins.occupied == 1 and bool(bins.atoms[np.argmax(bins.counts)]):
        told.append("constant in the reference")
    if bins.known is not None:
        named = f"{len(bins.categories):,} categories named, {len(bins.known):,} known by hash in {BUCKETS} buckets"
        told.append(named + ("; rarer ones count as unseen" if len(bins.known) + len(bins.categories) >= MOST_KNOWN else ""))
    return told


def _embedding(table: pl.DataFrame, bins: Mapping[str, Bins], features: int, seed: int) -> Embedding:
    """Places of all bins, a bandwidth by the median heuristic on some rows, projections by the seed."""
    counted = profile(table, Plan(bins))
    some = table if table.height <= PAIR_ROWS else table.sample(PAIR_ROWS, seed=seed)
    scores = []
    for name, b in bins.items():
        column = counted.column(name)
        if b.edges is None or column.sums is None:
            scores.append(category_scores(b.counts))
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                scores.append(number_scores(column.counts, column.sums, b.edges - b.centre))
    steps = np.stack([s.take(_codes(some[n], b), mode="clip") for s, (n, b) in zip(scores, bins.items(), strict=True)])
    bandwidth = median_bandwidth(steps, seed)
    return Embedding(projections(len(bins), features, bandwidth, seed), tuple(scores), bandwidth)


def _codes(values: pl.Series, bins: Bins) -> Codes:
    return bins.search(np.asarray(read(values), dtype=np.float64)) if bins.numeric else codes_of(as_text(values), bins)


def _spread(table: pl.DataFrame, bins: Mapping[str, Bins]) -> tuple[str, ...]:
    """The one or two columns that tell rows apart best; the sample's priorities come from their values."""
    some = table.head(2000)
    kinds: dict[str, Ints | int] = {n: (some[n] if b.numeric else as_text(some[n])).n_unique() for n, b in bins.items()}
    return tuple(sorted(sorted(kinds), key=lambda n: -int(kinds[n]))[:2])
