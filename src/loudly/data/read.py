"""A table from wherever the user keeps it."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from loudly.core.late import late
from loudly.errors import DataError, nearest

pa = late("pyarrow")

# Texts are typed by all of their rows: a column of whole numbers may have its first fraction in the last one.
READERS: dict[str, Callable[[str], pl.LazyFrame]] = {
    ".csv": partial(pl.scan_csv, try_parse_dates=True, infer_schema_length=None),
    ".parquet": pl.scan_parquet,
    ".pq": pl.scan_parquet,
    ".arrow": pl.scan_ipc,
    ".ipc": pl.scan_ipc,
    ".jsonl": partial(pl.scan_ndjson, infer_schema_length=None),
    ".ndjson": partial(pl.scan_ndjson, infer_schema_length=None),
}


@dataclass(frozen=True, slots=True)
class Sql:
    """A query over a database: a DB-API connection (sqlite3, psycopg, duckdb) and the text."""

    connection: Any
    query: str


def sql(connection: Any, query: str) -> Sql:
    """An SQL source for `@app.data`."""
    return Sql(connection, query)


def read_table(source: object) -> pl.DataFrame:
    """The table of a source: polars, pandas, Arrow, a dict of columns, a path or glob, or `sql(connection, query)`.

    Times become microseconds in UTC without a zone; keys of any type become text where they are joined. What pandas calls
    missing, NaN among it, is null.
    A column that is empty in one file has the type that it has in the others; whole numbers and fractions are one type.
    Raises: DataError for a source of no known kind, a file that is not there, of an unknown ending or that cannot be read, files of
    one table with other columns or types, a pandas table whose columns have no one type.
    """
    match source:
        case pl.DataFrame():
            table = source
        case pl.LazyFrame():
            table = source.collect()
        case str() | Path():
            table = _read_files(str(source))
        case Sql(connection, query):
            table = pl.read_database(query, connection)
        case pa.Table() | dict():
            table = pl.DataFrame(source)
        case _:
            table = _from_pandas(source)
    return _in_utc(table)


def _read_files(pattern: str) -> pl.DataFrame:
    paths = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]
    if not paths or not all(Path(p).exists() for p in paths):
        raise DataError("There is no such file.", seen=pattern, do="Give a path or a glob that matches files.")
    ending = Path(paths[0]).suffix.lower()
    if ending not in READERS:
        raise DataError(f"Files ending in {ending!r} are not read.", do=nearest(ending, READERS))
    frames = {path: _read_file(path, READERS[ending]) for path in paths}
    return frames[paths[0]] if len(paths) == 1 else _together(frames)


def _read_file(path: str, read: Callable[[str], pl.LazyFrame]) -> pl.DataFrame:
    try:
        table = read(path).collect()
        if path.lower().endswith(".csv"):
            _refuse_two_readings(path, table)
    except pl.exceptions.PolarsError as wrong:
        raise DataError(f"{path} cannot be read.", seen=str(wrong).splitlines()[0], do="Mend the file, or leave it out.") from wrong
    return table


def _refuse_two_readings(path: str, table: pl.DataFrame) -> None:
    """02/01/2026 is read as the second of January, and nobody would know where a file means the first of February.

    Raises: DataError for times that do not begin with their year, none of which has a day after the 12th.
    """
    dates = [series.name for series in table if series.dtype in (pl.Date, pl.Datetime) and not _decided(series)]
    if not dates:
        return
    written = pl.scan_csv(path, infer_schema=False).select(pl.col(dates).drop_nulls().first()).collect()
    for name, text in written.row(0, named=True).items():
        if not re.match(r"\d{4}", text.strip()):
            seen = f"{text!r} and others in {path}, all of them with days and months up to 12"
            do = "Write ISO 8601 (2026-01-31), or read the file in @app.data and parse the column with its format."
            raise DataError(f"The dates of the column {name!r} can be read in two ways.", seen=seen, do=do)


def _decided(times: pl.Series) -> bool:
    """Whether a day after the 12th says which number is the day; nothing is to be said of no times."""
    return times.null_count() == len(times) or bool((times.dt.day() > 12).any())


def _together(frames: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Files as one table: the columns of the first, whatever their order in the others."""
    (first, one), *others = frames.items()
    for path, other in others:
        gone, new = ([c for c in a.columns if c not in b.columns] for a, b in ((one, other), (other, one)))
        if gone or new:
            seen = f"{path} " + " and ".join(f"{what} {', '.join(c)}" for what, c in (("lacks", gone), ("also has", new)) if c)
            do = "Give files that have the same columns, or return one table."
            raise DataError(f"Files of one table have the columns of the first, {first}.", seen=seen, do=do)
    empty = {path: [s.name for s in frame if s.dtype == pl.String and s.null_count() == len(s)] for path, frame in frames.items()}
    typed = [frame.select(one.columns).with_columns(pl.lit(None).alias(c) for c in empty[path]) for path, frame in frames.items()]
    try:
        table = pl.concat(typed, how="vertical_relaxed")
    except pl.exceptions.PolarsError as wrong:
        do = "Write the column with one type, or return one table."
        raise DataError("Files of one table have columns of other types.", seen=str(wrong).splitlines()[0], do=do) from wrong
    return table.with_columns(pl.col(pl.Null).cast(pl.String))


def _from_pandas(source: object) -> pl.DataFrame:
    if type(source).__module__.split(".")[0] != "pandas" or not hasattr(source, "columns"):
        raise DataError(
            "@app.data gave no table.",
            seen=type(source).__name__,
            do="Return polars, pandas, Arrow, a path, a glob, or loudly.data.read.sql(connection, query).",
        )
    try:
        return pl.from_pandas(source)
    except (ValueError, TypeError, AttributeError, pl.exceptions.PolarsError) as wrong:  # Arrow's are of these kinds, too
        do = "Return a DataFrame whose columns have one name and one type each."
        raise DataError("The pandas table cannot be read.", seen=str(wrong), do=do) from wrong


def _in_utc(table: pl.DataFrame) -> pl.DataFrame:
    made = []
    for name, dtype in table.schema.items():
        if isinstance(dtype, pl.Datetime):
            column = pl.col(name).dt.convert_time_zone("UTC").dt.replace_time_zone(None) if dtype.time_zone else pl.col(name)
            made.append(column.cast(pl.Datetime("us")))
        elif dtype == pl.Date:
            made.append(pl.col(name).cast(pl.Datetime("us")))
    return table.with_columns(made) if made else table
