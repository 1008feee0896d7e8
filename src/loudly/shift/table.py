"""Any table as polars: polars, pandas, Arrow, a mapping of columns, a numpy array."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from loudly.errors import DataError


def as_table(data: Any, names: Sequence[str] = ()) -> tuple[pl.DataFrame, dict[str, tuple[str, ...]]]:
    """Any table as polars, and notes about columns that needed care. `names`: of an array's columns, where known.

    What an array masks is missing; an array of objects is taken as its values are.
    Raises: DataError for what is no table, and for one in which two columns have the same name.

    >>> as_table(np.zeros((2, 3)))[0].columns
    ['column_0', 'column_1', 'column_2']
    """
    if isinstance(data, pl.DataFrame):
        return data, {}
    if isinstance(data, pl.Series):
        return data.to_frame(data.name or "column_0"), {}
    if isinstance(data, pl.LazyFrame):
        return data.collect(), {}
    if isinstance(data, np.ndarray):
        return _from_array(data, names)
    if isinstance(data, Mapping):
        _apart([str(k) for k in data])
        return _from_columns({str(k): v for k, v in data.items()})
    kind = type(data).__module__.partition(".")[0]
    if kind == "pandas":
        whole = data.to_frame() if not hasattr(data, "columns") else data
        _apart([str(c) for c in whole.columns])
        return _from_columns({str(c): whole.iloc[:, i] for i, c in enumerate(whole.columns)})
    if hasattr(data, "__arrow_c_stream__") or kind == "pyarrow":
        _apart(getattr(data, "column_names", []))
        made = pl.from_arrow(data)
        return (made if isinstance(made, pl.DataFrame) else made.to_frame("column_0")), {}
    raise DataError(
        "This is no table.", seen=type(data).__name__, do="Give polars, pandas, Arrow, a mapping of columns or a numpy array."
    )


def _apart(names: Sequence[str]) -> None:
    """Raises: DataError where two columns have the same name: one of them would be lost without a word."""
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise DataError("Two columns have the same name.", seen=", ".join(twice), do="Rename or drop one of them.")


def _from_array(data: Any, names: Sequence[str]) -> tuple[pl.DataFrame, dict[str, tuple[str, ...]]]:
    if data.dtype.names:
        return _from_columns({n: data[n] for n in data.dtype.names})
    if data.ndim not in (1, 2):
        raise DataError("An array must have one or two dimensions.", seen=f"shape {data.shape}", do="Flatten to (rows, columns).")
    wide = data[:, None] if data.ndim == 1 else data
    known = names if len(names) == wide.shape[1] else [f"column_{j}" for j in range(wide.shape[1])]
    return _from_columns({n: wide[:, j] for j, n in enumerate(known)})


def _from_columns(columns: Mapping[str, Any]) -> tuple[pl.DataFrame, dict[str, tuple[str, ...]]]:
    made: dict[str, pl.Series] = {}
    notes: dict[str, tuple[str, ...]] = {}
    for name, values in columns.items():
        series = _series(name, values)
        if series is None:
            series = pl.Series(name, [None if _lost(v) else str(v) for v in values], dtype=pl.String)
            notes[name] = ("mixed types: taken as text",)
        made[name] = series
    return pl.DataFrame(made), notes


def _series(name: str, values: Any) -> pl.Series | None:
    """A column in the type it has; None for one of several types."""
    if isinstance(values, np.ndarray):
        values = values.tolist() if values.dtype == object or np.ma.isMaskedArray(values) else np.ascontiguousarray(values)
    try:
        made = pl.Series(name, values, strict=True) if isinstance(values, list | tuple) else pl.Series(name, values)
    except (TypeError, pl.exceptions.PolarsError, ValueError, OverflowError):
        return None
    if made.dtype == pl.Object:
        return None
    return made


def _lost(value: Any) -> bool:
    return value is None or value != value
