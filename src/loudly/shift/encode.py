"""Tables as numbers: one matrix per table, in the columns the reference has fixed.

Numbers stay, booleans become 0 and 1, categories become one column each for the 30 most common and one for all unseen; missing
and infinite cells are NaN, told apart from values. Free text, images and times are no categories: they are left out and named,
unless `embed` names a representation that makes columns of them (`loudly.shift.represent.text`, `.image`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from loudly.core.seams import Floats
from loudly.errors import DataError, nearest
from loudly.shift.table import as_table

MOST_CATEGORIES = 30
FREE_TEXT = 0.5  # share of values that differ from each other, above which text is no category
MANY = 1_000


@dataclass(frozen=True, slots=True)
class Encoding:
    """names: of the columns as given.  categories: of each, empty for numbers.  left_out: columns that cannot be compared.

    outputs: name of each column of the matrix, as `carrier=UA` or `temp`.  embedded: representation and width of each column that
    has one.  notes: what needed care in the reference, as "note: free text, left out: ...".
    """

    names: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]
    left_out: tuple[str, ...]
    embedded: Mapping[str, tuple[Callable[[Any], Floats], int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def given(self) -> tuple[str, ...]:
        """All columns of the reference, those that are left out included."""
        return (*self.names, *self.left_out)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the matrix's columns."""
        return tuple(o for name, values in zip(self.names, self.categories, strict=True) for o in self._named(name, values))

    def __call__(self, table: Any) -> Floats:
        """The matrix of a table. Shape: (n, len(outputs)), NaN for missing.

        Raises: DataError for columns that are gone, or that hold text where the reference held numbers.
        """
        frame = as_table(table)[0]
        gone = [n for n in self.names if n not in frame.columns]
        if gone:
            raise DataError("Columns of the reference are gone.", seen=", ".join(gone), do="A gone column is a broken feed.")
        parts = [self._column(frame[n], values) for n, values in zip(self.names, self.categories, strict=True)]
        return np.concatenate(parts, axis=1) if parts else np.zeros((frame.height, 0))

    def _named(self, name: str, values: tuple[str, ...]) -> list[str]:
        if name in self.embedded:
            return [f"{name}~{i}" for i in range(self.embedded[name][1])]
        return [f"{name}={v}" for v in values] + [f"{name}=(unseen)"] if values else [name]

    def _column(self, series: pl.Series, values: tuple[str, ...]) -> Floats:
        if series.name not in self.embedded:
            return _encoded(series, values)
        represent, width = self.embedded[series.name]
        return _embedded(series, represent, width)


def encoding_of(table: Any, embed: Mapping[str, Callable[[Any], Floats]] | None = None) -> Encoding:
    """What a reference says of its columns. embed: column -> representation of its values, (n,) texts or (n, ...) arrays to (n, k).

    Raises: DataError for a representation of a column that is not there, or that does not give one row for each value.

    >>> encoding_of(pl.DataFrame({"x": [1.0, 2.0], "c": ["a", "b"]})).outputs
    ('x', 'c=a', 'c=b', 'c=(unseen)')
    """
    frame, told = as_table(table)
    for name in embed or {}:
        if name not in frame.columns:
            raise DataError(f"There is no column {name!r} to embed.", do=nearest(name, frame.columns))
    names, categories, left_out, embedded = [], [], [], {}
    notes = spoken(told)
    for series in frame.iter_columns():
        name, why = series.name, ""
        values: tuple[str, ...] = ()
        if embed and name in embed:
            embedded[name] = (embed[name], _embedded(series.drop_nulls().head(2), embed[name]).shape[1])
        elif series.dtype in (pl.String, pl.Categorical, pl.Enum):
            values, why = _categories(series)
        elif not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
            why = f"{series.dtype}, left out: no number and no category"
        if "left out" in why:
            left_out.append(name)
        else:
            names.append(name)
            categories.append(values)
        notes += [f"{name}: {why}"] if why else []
    return Encoding(tuple(names), tuple(categories), tuple(left_out), embedded, tuple(notes))


def spoken(notes: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Notes about columns as lines."""
    return [f"{name}: {note}" for name, all_of_it in notes.items() for note in all_of_it]


def _categories(series: pl.Series) -> tuple[tuple[str, ...], str]:
    """The most common values, and what there is to say of them; free text has none."""
    known = series.cast(pl.String).drop_nulls()
    distinct = known.n_unique()
    if distinct > MOST_CATEGORIES and distinct > FREE_TEXT * len(known):
        do = f"give embed={{{series.name!r}: ...}} a representation (`loudly.shift.represent.text`)"
        return (), f"free text or a key, left out: {distinct:,} of {len(known):,} values differ; {do}"
    common = known.value_counts(sort=True).head(MOST_CATEGORIES)[series.name].to_list()
    why = f"{distinct:,} categories: the {MOST_CATEGORIES} most common are told apart" if distinct > MANY else ""
    return tuple(sorted(common)) or ("(none)",), why


def _embedded(series: pl.Series, represent: Callable[[Any], Floats], width: int = 0) -> Floats:
    """(n, k), NaN where the value is missing."""
    known = ~series.is_null().to_numpy()
    there = series.drop_nulls()
    if not len(there):
        return np.full((len(series), width), np.nan)
    values = there.to_list() if series.dtype == pl.String else _arrays(there)
    made = np.asarray(represent(values), dtype=np.float64)
    if made.ndim != 2 or len(made) != len(values) or (width and made.shape[1] != width):
        raise DataError(
            f"The representation of {series.name} does not give one row for each value.", seen=f"{made.shape} for {len(values)}"
        )
    out = np.full((len(series), made.shape[1]), np.nan)
    out[known] = made
    return out


def _arrays(series: pl.Series) -> Any:
    return series.to_numpy() if series.dtype == pl.Array else np.array(series.to_list())


def _encoded(series: pl.Series, values: tuple[str, ...]) -> Floats:
    if not values:
        if not (series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null)):
            raise DataError(
                f"{series.name} held numbers in the reference.", seen=str(series.dtype), do="A changed type is a broken feed."
            )
        numbers = series.cast(pl.Float64).to_numpy()
        return np.where(np.isfinite(numbers), numbers, np.nan)[:, None]
    if series.dtype.is_nested():
        seen = str(series.dtype)
        raise DataError(f"{series.name} held categories in the reference.", seen=seen, do="A changed type is a broken feed.")
    text = series.cast(pl.String)
    gone = text.is_null().to_numpy()
    columns = [(text == v).fill_null(value=False).to_numpy() for v in values]
    unseen = ~(np.any(columns, axis=0) | gone)
    out = np.stack([*columns, unseen], axis=1).astype(np.float64)
    out[gone] = np.nan
    return out
