"""Tables as numbers: one matrix per table, in the columns the reference has fixed.

Numbers stay, booleans become 0 and 1, categories become one column each for the 30 most common and one for all unseen; missing
and infinite cells are NaN, told apart from values. Times and columns of other types are left out and named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from loudly.errors import DataError
from loudly.shift.table import as_table

if TYPE_CHECKING:
    from loudly.core.seams import Floats

MOST_CATEGORIES = 30


@dataclass(frozen=True, slots=True)
class Encoding:
    """names: of the columns as given.  categories: of each, empty for numbers.  left_out: columns that cannot be compared.

    outputs: name of each column of the matrix, as `carrier=UA` or `temp`.
    """

    names: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]
    left_out: tuple[str, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(
            output
            for name, values in zip(self.names, self.categories, strict=True)
            for output in ([f"{name}={v}" for v in values] + [f"{name}=(unseen)"] if values else [name])
        )

    def __call__(self, table: Any) -> Floats:
        """The matrix of a table. Shape: (n, len(outputs)), NaN for missing.

        Raises: DataError for columns that are gone, or that hold text where the reference held numbers.
        """
        frame = as_table(table)[0]
        gone = [n for n in self.names if n not in frame.columns]
        if gone:
            raise DataError("Columns of the reference are gone.", seen=", ".join(gone), do="A gone column is a broken feed.")
        parts = [_encoded(frame[n], values) for n, values in zip(self.names, self.categories, strict=True)]
        return np.concatenate(parts, axis=1) if parts else np.zeros((frame.height, 0))


def encoding_of(table: Any) -> Encoding:
    """What a reference says of its columns.

    >>> encoding_of(pl.DataFrame({"x": [1.0, 2.0], "c": ["a", "b"]})).outputs
    ('x', 'c=a', 'c=b', 'c=(unseen)')
    """
    frame = as_table(table)[0]
    names, categories, left_out = [], [], []
    for series in frame.iter_columns():
        if series.dtype.is_numeric() or series.dtype == pl.Boolean:
            names.append(series.name)
            categories.append(())
        elif series.dtype in (pl.String, pl.Categorical, pl.Enum):
            common = series.cast(pl.String).drop_nulls().value_counts(sort=True).head(MOST_CATEGORIES)
            names.append(series.name)
            categories.append(tuple(sorted(common[series.name].to_list())) or ("(none)",))
        else:
            left_out.append(series.name)
    return Encoding(tuple(names), tuple(categories), tuple(left_out))


def _encoded(series: pl.Series, values: tuple[str, ...]) -> Floats:
    if not values:
        if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
            raise DataError(
                f"{series.name} held numbers in the reference.", seen=str(series.dtype), do="A changed type is a broken feed."
            )
        numbers = series.cast(pl.Float64).to_numpy()
        return np.where(np.isfinite(numbers), numbers, np.nan)[:, None]
    text = series.cast(pl.String)
    gone = text.is_null().to_numpy()
    columns = [(text == v).fill_null(value=False).to_numpy() for v in values]
    unseen = ~(np.any(columns, axis=0) | gone)
    out = np.stack([*columns, unseen], axis=1).astype(np.float64)
    out[gone] = np.nan
    return out
