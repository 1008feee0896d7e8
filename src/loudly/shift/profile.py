"""A window as a mergeable summary of bounded size: counts in reference-defined bins, missing values, moments.

Merging is addition, so windows, slices, late rows, threads and machines combine in any order to the same counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from loudly.stats.confidence_sequence import Running

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from loudly.core.seams import Floats, Ints

    Mask = NDArray[np.bool_]
    Group = tuple[tuple[str, ...], Ints, Ints]

MOST_BINS = 64
MOST_CATEGORIES = 1000
MOST_DISTINCT = 4096


@dataclass(frozen=True, slots=True)
class Bins:
    """What the reference says about a column: upper edges of quantile bins, or categories; and its own counts."""

    name: str
    edges: Floats | None
    categories: tuple[str, ...]
    counts: Ints

    @property
    def size(self) -> int:
        """Bins, the one for unseen categories included."""
        return len(self.counts)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a window. `distinct` maps values to counts until there are more than 4,096 (then None)."""

    rows: int
    missing: int
    infinite: int
    counts: Ints
    moments: Running
    distinct: Mapping[float, int] | None
    cells: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def merge(self, other: Column) -> Column:
        """Both stretches together."""
        cells = dict(self.cells)
        for name, (rows, missing) in other.cells.items():
            before = cells.get(name, (0, 0))
            cells[name] = (before[0] + rows, before[1] + missing)
        return Column(
            self.rows + other.rows,
            self.missing + other.missing,
            self.infinite + other.infinite,
            self.counts + other.counts,
            self.moments.merge(other.moments),
            _merged(self.distinct, other.distinct),
            cells,
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """All columns of a window."""

    rows: int
    columns: Mapping[str, Column]

    def merge(self, other: Profile) -> Profile:
        """Both windows together: commutative and associative in every count."""
        names = {**self.columns, **other.columns}
        return Profile(self.rows + other.rows, {n: _both(self.columns.get(n), other.columns.get(n)) for n in names})


def bins_of(values: pl.Series) -> Bins:
    """Quantile bins of a numeric column (ties collapse, so an atom is its own bin), or the categories of another."""
    if values.dtype.is_numeric() or values.dtype == pl.Boolean:
        numbers = values.cast(pl.Float64).drop_nulls().to_numpy()
        numbers = numbers[np.isfinite(numbers)]
        if not len(numbers):
            return Bins(values.name, np.zeros(0), (), np.zeros(1, dtype=np.int64))
        edges = np.unique(np.quantile(numbers, np.linspace(0, 1, MOST_BINS + 1)[1:-1], method="lower"))
        counts = np.bincount(np.searchsorted(edges, numbers, side="left"), minlength=len(edges) + 1)
        return Bins(values.name, edges, (), counts.astype(np.int64))
    text = values.cast(pl.String).drop_nulls()
    ranked = text.value_counts(sort=True).head(MOST_CATEGORIES)
    categories = tuple(sorted(ranked[values.name].to_list()))
    return Bins(values.name, None, categories, _category_counts(text, categories))


def profile(table: pl.DataFrame, bins: Mapping[str, Bins], cells: Sequence[str] = ()) -> Profile:
    """The summary of a table in the reference's bins. `cells`: category columns within which missing values are counted."""
    groups = tuple(_grouped(table[c]) for c in cells if c in table.columns)
    return Profile(table.height, {name: _column(table, name, b, groups) for name, b in bins.items()})


def _grouped(series: pl.Series) -> Group:
    """Cell names and the cell of each row."""
    text = series.cast(pl.String).fill_null("?")
    values = text.unique().sort()
    where = {value: i for i, value in enumerate(values.to_list())}
    codes = _codes(text, where, 0)
    return tuple(f"{series.name}={v}" for v in where), codes, np.bincount(codes, minlength=len(where))


def _column(table: pl.DataFrame, name: str, bins: Bins, groups: Sequence[Group]) -> Column:
    if name not in table.columns:
        gone = np.ones(table.height, dtype=bool)
        counts = np.zeros(bins.size, dtype=np.int64)
        return Column(table.height, table.height, 0, counts, Running(), {}, _cells(gone, groups))
    values = table[name]
    if bins.edges is None:
        text = values.cast(pl.String)
        gone = text.is_null().to_numpy()
        counts = _category_counts(text.drop_nulls(), bins.categories)
        return Column(table.height, int(gone.sum()), 0, counts, Running(), {}, _cells(gone, groups))
    numbers = values.cast(pl.Float64, strict=False).to_numpy()
    infinite = np.isinf(numbers)
    gone = np.isnan(numbers)
    sound = numbers[~(gone | infinite)]
    counts = np.bincount(np.searchsorted(bins.edges, sound, side="left"), minlength=bins.size).astype(np.int64)
    return Column(
        table.height, int(gone.sum()), int(infinite.sum()), counts, Running().add(sound), _distinct(sound), _cells(gone, groups)
    )


def _cells(gone: Mask, groups: Sequence[Group]) -> dict[str, tuple[int, int]]:
    made: dict[str, tuple[int, int]] = {}
    for names, codes, rows in groups:
        lost = np.bincount(codes[gone], minlength=len(names))
        made.update({n: (int(r), int(m)) for n, r, m in zip(names, rows, lost, strict=True)})
    return made


def _category_counts(text: pl.Series, categories: Sequence[str]) -> Ints:
    """Counts of each category, and of all unseen ones last."""
    where = {value: i for i, value in enumerate(categories)}
    return np.bincount(_codes(text, where, len(categories)), minlength=len(categories) + 1).astype(np.int64)


def _codes(text: pl.Series, where: Mapping[str, int], unseen: int) -> Ints:
    """The code of each text; an empty map or series is no error."""
    if not where or text.is_empty():
        return np.full(len(text), unseen, dtype=np.int64)
    return text.replace_strict(where, default=unseen, return_dtype=pl.Int64).to_numpy()


def _distinct(sound: Floats) -> dict[float, int] | None:
    values, counts = np.unique(sound, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True)) if len(values) <= MOST_DISTINCT else None


def _merged(a: Mapping[float, int] | None, b: Mapping[float, int] | None) -> Mapping[float, int] | None:
    if a is None or b is None:
        return None
    both = dict(a)
    for value, count in b.items():
        both[value] = both.get(value, 0) + count
    return both if len(both) <= MOST_DISTINCT else None


def _both(a: Column | None, b: Column | None) -> Column:
    if a is None or b is None:
        found = a or b
        assert found is not None
        return found
    return a.merge(b)
