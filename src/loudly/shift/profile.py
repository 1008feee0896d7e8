"""A window as a mergeable summary of bounded size: counts in reference-defined bins, missing values, moments, an embedding.

Merging is addition of integers, so windows, slices, late rows, threads and machines combine in any order to the same bytes;
and counts subtract, so a window slides by what enters and what leaves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loudly.core.seams import Floats, Ints
from loudly.errors import DataError
from loudly.shift.bins import Bins, bins_of
from loudly.shift.categories import as_text
from loudly.shift.fold import SQUARED, Far, added, fold, read
from loudly.shift.plan import (
    ABSENT,
    BITS,
    FULL,
    HIGHS,
    LOWS,
    MISTYPED,
    MOST_ROWS,
    NANS,
    NULLS,
    SQUARES,
    Plan,
)
from loudly.shift.reservoir import Reservoir, joined, reservoir_of
from loudly.stats.confidence_sequence import Running

Mask = NDArray[np.bool_]
Group = tuple[tuple[str, ...], Ints, Ints]
Distinct = Mapping[float, int] | None
Cells = Mapping[str, tuple[int, int]]

__all__ = ["Bins", "Column", "Profile", "bins_of", "profile"]

MOST_DISTINCT = 4096
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A column of a window.

    rows: of the window.  missing: null, NaN or of a type that is no number; of them `nans` were NaN and `mistyped` had
    another type.  infinite: of them `lows` were -inf.  absent: rows of tables that had no such column.  counts: (k,) per bin.
    sums: (k,) per bin, of x - centre.  moments: of finite numbers.  distinct: value to count, None once too many.
    cells: missing and infinite values within cells of category columns: (rows, so many of them).
    """

    rows: int
    missing: int
    nans: int
    mistyped: int
    absent: int
    infinite: int
    lows: int
    counts: Ints
    sums: Floats | None
    moments: Running
    distinct: Distinct
    cells: Cells

    @property
    def sound(self) -> int:
        """Values that lie in a bin."""
        return self.rows - self.missing - self.infinite


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """All columns of a window: an element of a commutative monoid, and of a group but for the reservoir.

    vector: see `Plan`.  far: exact sums of values far outside the reference.  distinct, cells: by column, where the plan asks.
    added: columns the reference does not know, with the rows of the tables that had them.  sample: None after `subtract`.
    """

    plan: Plan
    vector: Ints
    far: Far = field(default_factory=dict)
    distinct: Mapping[str, Distinct] = field(default_factory=dict)
    cells: Mapping[str, Cells] = field(default_factory=dict)
    added: Mapping[str, int] = field(default_factory=dict)
    sample: Reservoir | None = None

    @property
    def rows(self) -> int:
        """Rows of the window."""
        return int(self.vector[0])

    @property
    def embedding(self) -> Ints:
        """(2D,) sums of the random features, in units of 2**-10; empty where the plan has none."""
        size = self.plan.embedding.size if self.plan.embedding else 0
        return self.vector[1 : 1 + size]

    @property
    def columns(self) -> Mapping[str, Column]:
        """Every column of the reference."""
        return {name: self.column(name) for name in self.plan.bins}

    def counts(self, name: str) -> Ints:
        """(k,) counts of a column, per bin."""
        place = self.plan.places[name]
        return self.vector[place.counts : place.sums]

    def column(self, name: str) -> Column:
        """One column."""
        bins, place, v = self.plan.bins[name], self.plan.places[name], self.vector
        head = [int(x) for x in v[place.head : place.counts]]
        sums = _sums(bins, v[place.sums : place.end], self.far.get(name, {})) if bins.numeric else None
        return Column(
            rows=self.rows,
            missing=head[NULLS] + head[NANS],
            nans=head[NANS],
            mistyped=head[MISTYPED],
            absent=head[ABSENT],
            infinite=head[LOWS] + head[HIGHS],
            lows=head[LOWS],
            counts=v[place.counts : place.sums],
            sums=sums,
            moments=self._moments(name, head),
            distinct=self.distinct.get(name, {}),
            cells=self.cells.get(name, {}),
        )

    def _moments(self, name: str, head: Sequence[int]) -> Running:
        """n, mean and squared deviations from exact integers; rounded once, at the end."""
        bins, place = self.plan.bins[name], self.plan.places[name]
        n = int(self.vector[place.counts : place.sums].sum()) if bins.numeric else 0
        if n == 0:
            return Running()
        far = self.far.get(name, {})
        squares = far.get(SQUARED, 0)
        total = int(self.vector[place.sums : place.end].sum()) + sum(far.values()) - squares
        # In units of 2**(2 (exponent - 18)): the squared deviations of n values are squares - total² / n, never negative.
        spread = (head[SQUARES] + squares) * n - total * total
        mean = bins.centre + _scaled(total, n, bins.exponent - BITS)
        return Running(n, mean, _scaled(spread, n, 2 * (bins.exponent - BITS)))

    def merge(self, other: Profile) -> Profile:
        """Both windows together: commutative and associative, to the byte."""
        self._same(other)
        if self.rows + other.rows > FULL:
            self._fits(other)
        sample = self.sample.merge(other.sample) if self.sample and other.sample else None
        return self._besides(other, self.vector + other.vector, sample)

    def _besides(self, other: Profile, vector: Ints, sample: Reservoir | None = None) -> Profile:
        """The sum of all that is neither in the vector nor in the sample."""
        alike = partial(_distinct_sum, self.plan.distinct)
        return Profile(
            self.plan,
            vector,
            added(self.far, other.far) if other.far else self.far,
            _each(self.distinct, other.distinct, alike) if self.plan.distinct else self.distinct,
            _each(self.cells, other.cells, _cells_sum) if self.plan.cells else self.cells,
            _counted(self.added, other.added) if other.added else self.added,
            sample,
        )

    def subtract(self, other: Profile) -> Profile:
        """This window without the rows of another that is part of it. A reservoir cannot forget rows: it is dropped."""
        self._same(other)
        left = _counted(self.added, other.added, -1)
        distinct = {
            k: None if v is None or other.distinct.get(k) is None else _distinct_sum(self.plan.distinct, v, other.distinct[k], -1)
            for k, v in self.distinct.items()
        }
        cells = {k: _cells_sum(v, other.cells.get(k, {}), -1) for k, v in self.cells.items()}
        return Profile(self.plan, self.vector - other.vector, added(self.far, other.far, -1), distinct, cells, left, None)

    def _same(self, other: Profile) -> None:
        if self.plan is not other.plan and self.plan.fingerprint != other.plan.fingerprint:
            raise DataError(
                "Profiles of different references cannot be combined: their bins differ.",
                seen=f"references {self.plan.fingerprint} and {other.plan.fingerprint}",
                do="Profile both windows with one fitted Reference.",
            )

    def _fits(self, other: Profile) -> None:
        """Only far beyond 67 million rows can the squares of a column leave 64 bits."""
        at = [p.head + SQUARES for p in self.plan.places.values()]
        most = max((int(self.vector[i]) + int(other.vector[i]) for i in at), default=0)
        if most >= 2**63 or self.rows + other.rows > MOST_ROWS:
            raise DataError(
                "Together these profiles would overflow their sums.",
                seen=f"{self.rows:,} + {other.rows:,} rows",
                do="Close windows earlier, or keep one profile a day.",
            )

    def thinned(self) -> Profile:
        """Without the reservoir: counts and the embedding alone."""
        return replace(self, sample=None)


def profile(table: pl.DataFrame, bins: Mapping[str, Bins] | Plan, cells: Sequence[str] = ()) -> Profile:
    """The summary of a table in the reference's bins. `cells`: category columns within which missing values are counted.

    Given bare bins, up to 4,096 distinct values a column are kept as well; a Plan says itself what it wants.
    """
    plan = bins if isinstance(bins, Plan) else Plan(bins, tuple(cells), MOST_DISTINCT)
    vector, far = fold(table, plan)
    distinct = {n: _distinct(table, n, plan) for n, b in plan.bins.items() if b.numeric} if plan.distinct else {}
    new = {n: table.height for n in table.columns if n not in plan.bins and n not in (plan.key, plan.weight)}
    sample = reservoir_of(table, plan) if plan.keep else None
    return Profile(plan, vector, far, distinct, _cells(table, plan) if plan.cells else {}, new, sample)


def total(profiles: Sequence[Profile]) -> Profile:
    """Many windows as one: what folding them with `merge` gives, to the byte, in one pass over their counts.

    Raises: DataError for none at all (a Reference makes the empty profile), or for profiles of different references.
    """
    if not profiles:
        raise DataError("Nothing to merge.", seen="no profiles", do="Begin with `Reference.empty()`.")
    first, vector = profiles[0], profiles[0].vector.copy()
    made = replace(first, sample=None)
    for other in profiles[1:]:
        made._same(other)
        if vector[0] + other.vector[0] > FULL:
            replace(made, vector=vector)._fits(other)
        np.add(vector, other.vector, out=vector)
        if other.far or other.distinct or other.cells or other.added:
            made = made._besides(other, vector)
    kept = [p.sample for p in profiles if p.sample is not None]
    return replace(made, vector=vector, sample=joined(kept) if len(kept) == len(profiles) else None)


def _sums(bins: Bins, sums: Ints, far: Mapping[int, int]) -> Floats:
    made = np.ldexp(sums.astype(np.float64), bins.exponent - BITS)
    for where, value in far.items():
        if where != SQUARED:
            made[where] = _scaled(int(sums[where]) + value, 1, bins.exponent - BITS)
    return made


def _scaled(whole: int, n: int, power: int) -> float:
    """whole / n · 2**power, rounded once; infinite where float64 ends."""
    try:
        return (whole << power) / n if power >= 0 else whole / (n << -power)
    except OverflowError:
        return math.inf if whole > 0 else -math.inf


def _grouped(series: pl.Series) -> Group:
    """Cell names and the cell of each row."""
    text = as_text(series).cast(pl.String).fill_null("?")
    values = tuple(text.unique().sort().to_list())
    where = {v: i for i, v in enumerate(values)}
    codes = text.replace_strict(where, return_dtype=pl.Int64).to_numpy() if values else np.zeros(0, dtype=np.int64)
    return tuple(f"{series.name}={v}" for v in values), codes, np.bincount(codes, minlength=len(values))


def _cells(table: pl.DataFrame, plan: Plan) -> dict[str, Cells]:
    """Missing and infinite values of every column within the cells."""
    groups = [_grouped(table[c]) for c in plan.cells if c in table.columns]
    made: dict[str, Cells] = {}
    for name, bins in plan.bins.items():
        gone = _gone(table, name, bins)
        own: dict[str, tuple[int, int]] = {}
        for names, codes, rows in groups:
            lost = np.bincount(codes[gone], minlength=len(names))
            own.update({n: (int(r), int(m)) for n, r, m in zip(names, rows, lost, strict=True)})
        made[name] = own
    return made


def _gone(table: pl.DataFrame, name: str, bins: Bins) -> Mask:
    if name not in table.columns:
        return np.ones(table.height, dtype=bool)
    if not bins.numeric:
        return table[name].is_null().to_numpy()
    gone: Mask = ~np.isfinite(read(table[name]))
    return gone


def _distinct(table: pl.DataFrame, name: str, plan: Plan) -> Distinct:
    if name not in table.columns:
        return {}
    numbers = np.asarray(read(table[name]), dtype=np.float64)
    values, counts = np.unique(numbers[np.isfinite(numbers)], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True)) if len(values) <= plan.distinct else None


def _each(a: Mapping[str, V], b: Mapping[str, V], both: Callable[[V, V], V]) -> dict[str, V]:
    made = dict(a)
    for name, value in b.items():
        made[name] = both(made[name], value) if name in made else value
    return made


def _distinct_sum(most: int, a: Distinct, b: Distinct, sign: int = 1) -> Distinct:
    if a is None or b is None:
        return None
    both = _counted(a, b, sign)
    return both if len(both) <= most else None


def _cells_sum(a: Cells, b: Cells, sign: int = 1) -> Cells:
    both = dict(a)
    for name, (rows, missing) in b.items():
        before = both.get(name, (0, 0))
        both[name] = (before[0] + sign * rows, before[1] + sign * missing)
    return {k: v for k, v in both.items() if v != (0, 0)} if sign < 0 else both


def _counted(a: Mapping[K, int], b: Mapping[K, int], sign: int = 1) -> dict[K, int]:
    both = dict(a)
    for value, count in b.items():
        both[value] = both.get(value, 0) + sign * count
    return both if sign > 0 else {k: n for k, n in both.items() if n}
