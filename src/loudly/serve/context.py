"""What a strategy that chooses by context sees of a row: numeric columns, standardised by what was known when the rollout began.

The statistics are part of the ledger's record of the stage, so a restarted server and a replay see the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from loudly.core.seams import Floats
from loudly.core.values import NUMERIC, Schema
from loudly.errors import ConfigError, DataError, nearest
from loudly.serve.rows import Rows


@dataclass(frozen=True, slots=True)
class Context:
    """Columns with their mean and spread. constant: a 1 goes before them, for models that need an intercept."""

    columns: tuple[str, ...]
    means: tuple[float, ...]
    spreads: tuple[float, ...]
    constant: bool

    @property
    def features(self) -> int:
        """How wide it is."""
        return len(self.columns) + self.constant

    def of(self, table: pl.DataFrame | Rows) -> Floats:
        """(n, features), NaN for what a row does not have. It never raises.

        >>> context = Context(("age",), (40.0,), (10.0,), True)
        >>> context.of(pl.DataFrame({"age": [50, None]})).tolist()
        [[1.0, 1.0], [1.0, nan]]
        """
        each = zip(self.columns, self.means, self.spreads, strict=True)
        made = [(_numbers(table, name) - mean) / spread for name, mean, spread in each]
        return np.column_stack([np.ones(table.height), *made] if self.constant else made)

    def plain(self) -> dict[str, Any]:
        """As plain JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


def context_of(data: Mapping[str, Any]) -> Context:
    """The inverse of `Context.plain`."""
    means, spreads = (tuple(float(v) for v in data[name]) for name in ("means", "spreads"))
    return Context(tuple(data["columns"]), means, spreads, bool(data["constant"]))


def check_columns(columns: Sequence[str], schema: Schema) -> None:
    """Raises: ConfigError for a column that no request carries as a number."""
    known = [f.name for f in schema.inputs if f.kind in NUMERIC]
    for name in columns:
        if name not in known:
            raise ConfigError(f"A rollout cannot go by {name!r}: it is no numeric input.", do=nearest(name, known))


def fitted(columns: Sequence[str], schema: Schema, rows: pl.DataFrame, *, constant: bool) -> Context:
    """The context of a rollout that begins now. rows: what the columns are standardised by.

    Raises: ConfigError as `check_columns`, DataError where there are no rows.
    """
    check_columns(columns, schema)
    if rows.is_empty():
        raise DataError("There are no rows to standardise a context by.", do="Run `loudly train` first.")
    values = [_numbers(rows, name) for name in columns]
    known = [v[np.isfinite(v)] for v in values]
    means = tuple(float(v.mean()) if len(v) else 0.0 for v in known)
    spreads = tuple(float(v.std()) or 1.0 if len(v) else 1.0 for v in known)
    return Context(tuple(columns), means, spreads, constant)


def _numbers(table: pl.DataFrame | Rows, name: str) -> Floats:
    """A column as floats, NaN where a value is missing or no number, or the column is not there."""
    if isinstance(table, Rows):
        values = table.columns.get(name, (None,) * table.height)
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    if name not in table.columns:
        return np.full(table.height, np.nan)
    return np.asarray(table[name].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy(), dtype=np.float64)
