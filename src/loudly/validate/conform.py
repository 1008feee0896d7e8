"""Rows held against the frozen schema: what fits goes on, what does not is set aside with its reason."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from loudly.core.values import NUMERIC, Field, Kind, Role, Schema

DTYPES: dict[Kind, pl.DataType | type[pl.DataType]] = {
    Kind.NUMBER: pl.Float64,
    Kind.INTEGER: pl.Int64,
    Kind.BOOLEAN: pl.Boolean,
    Kind.CATEGORY: pl.String,
    Kind.TEXT: pl.String,
    Kind.TIME: pl.Datetime("us"),
}
ALWAYS = (Role.KEY, Role.TIME)
# Polars casts 1.5 to 1, and to true.
WHOLE = (Kind.INTEGER, Kind.BOOLEAN)


@dataclass(frozen=True, slots=True)
class Conformed:
    """good: rows in the schema's types. aside: the others, as they came, with a `reason`. absent: columns not sent."""

    good: pl.DataFrame
    aside: pl.DataFrame
    absent: tuple[str, ...]


def conform(table: pl.DataFrame, schema: Schema, *, keys: bool = True) -> Conformed:
    """Casts where nothing is lost; a value that does not fit, or a key or time that is missing, sets its row aside.

    keys: whether a row without key or time is set aside (a batch scored elsewhere has no need of them).
    A column that is not sent becomes missing, and is named: judging that is the monitor's work, not a reason to refuse.
    """
    columns, reasons, absent = [], [], []
    for field in schema.fields:
        if field.role in (Role.LABEL, Role.IGNORED):
            continue
        if field.name not in table.columns:
            absent.append(field.name)
            columns.append(pl.Series(field.name, [None] * table.height, dtype=DTYPES[field.kind]))
            if keys and field.role in ALWAYS:
                reasons.append(pl.Series("reason", [f"{field.name} is missing"] * table.height))
            continue
        cast, wrong = _cast(table[field.name], field, keys)
        columns.append(cast)
        if wrong is not None:
            reasons.append(wrong)
    good = pl.DataFrame(columns)
    if not reasons:
        return Conformed(good, table.clear(), tuple(absent))
    why = pl.DataFrame([r.alias(str(i)) for i, r in enumerate(reasons)]).select(
        pl.concat_str(pl.all(), separator="; ", ignore_nulls=True).alias("reason")
    )["reason"]
    bad = why != ""
    return Conformed(good.filter(~bad), table.with_columns(reason=why).filter(bad), tuple(absent))


def _read(series: pl.Series, field: Field) -> pl.Series:
    """The series as polars reads it in the schema's type; missing where it has another meaning, or polars knows no way."""
    series = series.cast(pl.String) if series.dtype in (pl.Categorical, pl.Enum) else series
    wanted, kind = DTYPES[field.kind], series.dtype
    other = kind.is_nested() or (kind.is_numeric() and field.kind is Kind.TIME) or (kind.is_temporal() and field.kind in NUMERIC)
    try:
        return pl.Series(series.name, [None] * len(series), dtype=wanted) if other else series.cast(wanted, strict=False)
    except pl.exceptions.PolarsError:
        return pl.Series(series.name, [None] * len(series), dtype=wanted)


def _cast(series: pl.Series, field: Field, keys: bool) -> tuple[pl.Series, pl.Series | None]:
    """The series in the schema's type, and a reason for each row that does not fit (null where it does)."""
    wanted = DTYPES[field.kind]
    if series.dtype == wanted:
        made = series
    elif series.dtype == pl.String and field.kind is Kind.TIME:
        made = series.str.to_datetime(time_unit="us", strict=False, time_zone="UTC").dt.replace_time_zone(None)
    elif isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone:
        made = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None).cast(wanted)
    else:
        made = _read(series, field)
    lost = made.is_null() & series.is_not_null()
    if field.kind in WHOLE and series.dtype.is_numeric():
        lost |= (made.cast(series.dtype) != series).fill_null(False)
    if keys and field.role in ALWAYS:
        lost |= made.is_null()
    if not lost.any():
        return made, None
    text = pl.Series("reason", [f"{field.name} is no {field.kind.value}"])
    return made, pl.select(pl.when(lost).then(text).otherwise(None)).to_series()
