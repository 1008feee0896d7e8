"""The frozen schema of a table: what training saw, against which every later row is held."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from loudly.core.values import Field, Kind, Role, Schema, are_categories
from loudly.errors import DataError, UserFileError, nearest

ISO = r"^\d{4}-\d{2}-\d{2}"


def infer_schema(
    table: pl.DataFrame,
    *,
    label: str,
    time: str,
    key: str,
    private: Sequence[str] = (),
    ignored: Sequence[str] = (),
    side: Sequence[str] = (),
    group: str = "",
) -> Schema:
    """Kinds, roles, missing rates, ranges and category values of a table, in the order of its columns.

    side: columns that were joined from side tables.  group: the column that names the list of a row; "" for none.

    Raises: UserFileError for a named column that is not there (with the nearest), DataError for a table that is empty,
    whose time column holds no times, or whose columns have no plain values or names that are taken.
    """
    if not table.columns:
        raise DataError("The table has no columns.", do="Check what @app.data returns.")
    grouped = (("group", group),) if group else ()
    for what, name in (("label", label), ("time", time), ("key", key), *grouped, *(("private", p) for p in private)):
        if name not in table.columns:
            raise UserFileError(f"The {what} column {name!r} is not in the table.", do=nearest(name, table.columns))
    if table.is_empty():
        raise DataError("The table has no rows.", do="Check what @app.data returns.")
    if table[time].dtype not in (pl.Datetime, pl.Date):
        raise DataError(f"The time column {time!r} holds no times.", **_no_times(table[time]))
    if taken := [name for name in table.columns if name.startswith("_") and name not in ignored]:
        told = f"The column {taken[0]!r} begins with an underscore, as do those in which it is logged how a row was answered."
        raise DataError(told, seen=", ".join(taken), do="Rename it, or ignore it.")
    for column in table.iter_columns():
        if column.dtype == pl.Object or (_not_plain(column.dtype) and column.name not in ignored):
            raise DataError(
                f"The column {column.name!r} holds no plain values.",
                seen=_seen(column),
                do="Give it one type: numbers, texts, booleans or times; or leave it out of the table.",
            )
    roles = {
        **dict.fromkeys(ignored, Role.IGNORED),
        **dict.fromkeys(private, Role.PRIVATE),
        **dict.fromkeys((s for s in side if s not in ignored), Role.SIDE),
        **({group: Role.GROUP} if group else {}),
        label: Role.LABEL,
        time: Role.TIME,
        key: Role.KEY,
    }
    return Schema(tuple(_field(table[name], roles.get(name, Role.INPUT)) for name in table.columns))


def _no_times(column: pl.Series) -> dict[str, str]:
    """What stands in a column that was to hold times, and how it is made one of times."""
    if column.dtype.is_numeric():
        seen, do = f"{column.dtype}, e.g. {column.drop_nulls().first()!r}", 'pl.from_epoch(column, time_unit="s") (or "ms", "us")'
        return {"seen": seen, "do": f"Say what it counts: {do}."}
    if column.dtype != pl.String:
        return {"seen": str(column.dtype), "do": "Give a column of dates or times."}
    texts = column.drop_nulls()
    wrong = texts.filter(texts.str.strip_chars().str.contains(ISO).not_())
    if 0 < len(wrong) < len(texts):
        told = ", ".join(map(repr, wrong.unique(maintain_order=True).head(3)))
        seen = f"{len(wrong):,} of {len(texts):,} texts are no ISO 8601 times: {told}"
        return {"seen": seen, "do": "Mend them, or leave these rows out."}
    return {
        "seen": f"texts, e.g. {texts.first()!r}",
        "do": 'Parse it: pl.col(...).str.to_datetime("%d.%m.%Y %H:%M"), in your format.',
    }


def _seen(column: pl.Series) -> str:
    """What stands in a column that cannot be used."""
    if column.dtype != pl.Object:
        return str(column.dtype)
    kinds = dict.fromkeys(type(value).__name__ for value in column.to_list() if value is not None)
    return f"values of the types {', '.join(kinds)}"


def refuse_odd_numbers(table: pl.DataFrame, label: str, ignored: Sequence[str] = ()) -> None:
    """A table that somebody has made holds no infinite numbers and no NaN for a label. Traffic may: the monitor counts them.

    Raises: DataError, naming the column.
    """
    for column in table.drop(ignored, strict=False):
        if unbounded := _infinite(column):
            raise DataError(
                f"The column {column.name!r} holds infinite numbers.",
                seen=f"{unbounded:,} of {len(column):,} rows",
                do="Leave them empty, for missing, or bound them; or ignore the column.",
            )
    if label in table.columns and (nans := _nans(table[label])):
        raise DataError(
            f"The label column {label!r} holds NaN.",
            seen=f"{nans:,} of {table.height:,} rows",
            do=f"Say null where there is no label: pl.col({label!r}).fill_nan(None).",
        )


def _not_plain(dtype: pl.DataType) -> bool:
    """Lists and structs, lengths and hours of time, and what only pandas knows (periods, intervals)."""
    return dtype.is_nested() or dtype in (pl.Duration, pl.Time) or type(dtype).__name__ == "Extension"


def _infinite(column: pl.Series) -> int:
    """How many of its numbers are infinite."""
    return int(column.is_infinite().sum()) if column.dtype.is_float() else 0


def _nans(column: pl.Series) -> int:
    """How many of its numbers are NaN."""
    return int(column.is_nan().sum()) if column.dtype.is_float() else 0


def _field(series: pl.Series, role: Role) -> Field:
    kind = _kind(series)
    missing = (series.null_count() + _nans(series)) / len(series)
    low = high = None
    if kind in (Kind.NUMBER, Kind.INTEGER):
        numbers = series.cast(pl.Float64)
        numbers = numbers.filter(numbers.is_finite())  # an ignored column may hold others, and traffic
        low, high = _float(numbers.min()), _float(numbers.max())
    values: tuple[str, ...] = ()
    if kind is Kind.CATEGORY:
        values = tuple(series.cast(pl.String).drop_nulls().unique().sort().to_list())
    return Field(series.name, kind, role, missing > 0, missing, low, high, values)


def _kind(series: pl.Series) -> Kind:
    dtype = series.dtype
    if dtype.is_temporal():
        return Kind.TIME
    if dtype == pl.Boolean:
        return Kind.BOOLEAN
    if dtype.is_integer():
        return Kind.INTEGER
    if dtype.is_numeric():
        return Kind.NUMBER
    if dtype == pl.Null:
        return Kind.NUMBER
    if dtype.is_nested():
        return Kind.TEXT
    return Kind.CATEGORY if are_categories(series.n_unique(), len(series)) else Kind.TEXT


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
