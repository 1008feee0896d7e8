"""Batches over Parquet: the rows of files through the very path that serves, row group by row group, in bounded memory.

A piece is one row group; scoring a piece gives small Arrow tables in one schema, whatever ran it (this process, Ray Data), and
whoever runs them writes these in the order of the pieces. A row that a server would refuse is set aside with its reason.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import polars as pl

from loudly.core.late import late
from loudly.core.seams import ModelFormat
from loudly.core.values import Schema
from loudly.data.pseudonym import pseudonymise
from loudly.errors import DataError
from loudly.loop.serving import Ready, make_ready
from loudly.loop.sides import Sides
from loudly.loop.system import System
from loudly.serve.replies import Served
from loudly.serve.request import expectation
from loudly.serve.router import Router, Routing
from loudly.validate.conform import conform

pa, pq = late("pyarrow"), late("pyarrow.parquet")

ROWS = 16_384
ANSWERED: dict[str, Any] = {"key": pl.String, "prediction": pl.List(pl.Float64), "version": pl.String, "fallback": pl.Boolean}
ASIDE: dict[str, Any] = {"file": pl.String, "number": pl.Int64, "reason": pl.String, "row": pl.String}
SCORED: dict[str, Any] = {"file": pl.String, "_row": pl.Int64, **ANSWERED, "reason": pl.String, "row": pl.String}
# The metadata of a file of answers that names the classes.
NAMED = "loudly.classes"
ArrowTable: TypeAlias = Any  # pyarrow's
MakeFormats = Callable[[], Sequence[ModelFormat]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Piece:
    """One row group of a file. first: the number of its first row in the file; rows: how many it has."""

    path: str
    group: int
    first: int
    rows: int


@dataclass(frozen=True, slots=True)
class Work:
    """All that scoring needs, as plain bytes and functions: it can go to another process.

    artefact: the bundle of the version.  key: of the pseudonyms.
    """

    system: System
    version: str
    artefact: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a batch. files: what was written.  fallbacks: rows that the model could not answer.

    classes: of several classes, what each score of a prediction is of.
    """

    version: str
    rows: int
    aside: int
    fallbacks: int
    files: tuple[str, ...]
    classes: tuple[str, ...] = ()


class RunPieces(Protocol):
    """Where a batch runs: gives the scored tables in the order of the pieces, some at a time."""

    def __call__(self, work: Work, formats: MakeFormats, pieces: Sequence[Piece], workers: int) -> Iterator[ArrowTable]: ...


class Scorer:
    """Answers tables by one version, through the router, without logging."""

    def __init__(self, work: Work, formats: Sequence[ModelFormat]) -> None:
        self.ready: Ready = make_ready(work.artefact, work.system.features, formats, vouched=True)
        self._system, self._key = work.system, work.key
        self._sides = Sides(work.system, work.key)
        self._router = Router(Routing(Served(work.version, self.ready.predict)))

    def piece(self, piece: Piece) -> Iterator[ArrowTable]:
        """The rows of a row group, scored some thousands at a time."""
        schema = self.ready.schema
        with pq.ParquetFile(piece.path) as file:
            sent = [f.name for f in schema.sent if f.name in file.schema_arrow.names]
            at = piece.first
            for batch in file.iter_batches(ROWS, row_groups=[piece.group], columns=sent):
                table = pl.DataFrame(pl.from_arrow(batch))
                yield self.table(table, piece.path, at)
                at += table.height

    def table(self, table: pl.DataFrame, path: str = "", first: int = 0) -> ArrowTable:
        """Scores a table. Shapes: (n, columns) -> (n, answer columns), in order; `reason` is null where a row was answered."""
        schema, key = self.ready.schema, self._system.key
        # pseudonyms come first: no private value is written, whether its row is answered or set aside
        table = pseudonymise(table, self._system.private, self._key)
        table = table.with_columns(
            pl.int_range(first, first + pl.len(), dtype=pl.Int64).alias("_row"), _refused=_refused(table, schema)
        )
        good = table.filter(pl.col("_refused").is_null()).drop("_refused")
        bad = table.filter(pl.col("_refused").is_not_null()).with_columns(reason="_refused").drop("_refused")
        fitted = conform(good, schema)
        numbers = good["_row"].to_numpy()
        numbers = numbers[~np.isin(numbers, fitted.aside["_row"].to_numpy())]
        kept = self._sides.live(fitted, schema).good
        replies = self._router.answer(kept, kept[key].to_list())
        answer = replies.answer if replies.answer.ndim == 2 else replies.answer.reshape(kept.height, 1)
        answered = pl.DataFrame(
            {
                "_row": numbers,
                "key": kept[key].cast(pl.String),
                "prediction": pl.Series(answer, dtype=pl.Array(pl.Float64, answer.shape[1])).cast(pl.List(pl.Float64)),
                "version": pl.repeat(replies.versions[0], kept.height, dtype=pl.String, eager=True),
                "fallback": pl.Series(replies.fallback, dtype=pl.Boolean),
            }
        )
        asides = [_aside(rows, key) for rows in (bad, fitted.aside) if rows.height]
        made = pl.concat([pl.DataFrame(schema=SCORED), answered, *asides], how="diagonal").sort("_row")
        return made.with_columns(file=pl.lit(path)).to_arrow()


def pieces_of(where: str) -> tuple[Piece, ...]:
    """The row groups of a file, a glob or a folder of Parquet, in the order of names.

    Raises: DataError where there is none, or a file is no Parquet.
    """
    path = Path(where)
    paths = sorted(path.rglob("*.parquet")) if path.is_dir() else [Path(p) for p in sorted(glob.glob(where))]
    paths = [path] if not paths and path.exists() and not path.is_dir() else paths
    if not paths:
        raise DataError("There is no Parquet file.", seen=where, do="Give a file, a glob or a folder.")
    return tuple(piece for p in paths for piece in _groups(p))


def check_target(pieces: Sequence[Piece], out: Path) -> None:
    """Raises: DataError where the answers would be written over the rows."""
    read = {Path(piece.path).resolve() for piece in pieces}
    for target in (out, _beside(out)):
        if target.resolve() in read:
            raise DataError("The answers would replace rows that are read.", seen=str(target), do="Name another file with -o.")


def check_columns(pieces: Sequence[Piece], schema: Schema) -> None:
    """Raises: DataError for a file without a column that no row may lack: every row of it would be set aside."""
    for path in dict.fromkeys(piece.path for piece in pieces):
        there = set(pq.read_schema(path).names)
        gone = [f.name for f in schema.sent if not f.nullable and f.name not in there]
        if gone:
            raise DataError(f"{path} lacks columns of the schema {schema.version}.", seen=", ".join(gone), do="Add them.")


def write(
    tables: Iterable[ArrowTable],
    out: Path,
    version: str,
    *,
    classes: tuple[str, ...] = (),
    total: int,
    progress: Progress | None = None,
) -> Done:
    """Writes scored tables: answers to `out`, rows set aside to `out` with `.aside` in its name; whole files or none.

    classes: of several classes, which the scores are of: a prediction is then a list, and the file's metadata name them.
    """
    beside = _beside(out)
    drafts = {out: out.with_suffix(".draft"), beside: beside.with_suffix(".draft")}
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = aside = fallbacks = 0
    answer = pl.col("prediction") if classes else pl.col("prediction").list.first()
    columns = [pl.col("key"), answer, pl.col("version"), pl.col("fallback")]
    good_as = pl.DataFrame(schema=SCORED).select(columns).to_arrow().schema
    good_as = good_as.with_metadata({NAMED: json.dumps(classes)}) if classes else good_as
    bad_as = pl.DataFrame(schema=ASIDE).to_arrow().schema
    try:
        with pq.ParquetWriter(drafts[out], good_as) as answers, pq.ParquetWriter(drafts[beside], bad_as) as others:
            for table in tables:
                made = pl.DataFrame(pl.from_arrow(table))
                good, bad = made.filter(pl.col("reason").is_null()), made.filter(pl.col("reason").is_not_null())
                if good.height:
                    answers.write_table(good.select(columns).to_arrow().cast(good_as))
                if bad.height:
                    others.write_table(bad.rename({"_row": "number"}).select(*ASIDE).to_arrow().cast(bad_as))
                rows, aside, fallbacks = rows + good.height, aside + bad.height, fallbacks + int(good["fallback"].sum())
                if progress is not None:
                    progress(rows + aside, total)
        drafts[out].replace(out)
        if aside:
            drafts[beside].replace(beside)
        else:
            beside.unlink(missing_ok=True)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
    return Done(version, rows, aside, fallbacks, (str(out), str(beside)) if aside else (str(out),), classes)


def _beside(out: Path) -> Path:
    """Where the rows set aside go."""
    return out.with_suffix(f".aside{out.suffix}")


def run_here(work: Work, formats: MakeFormats, pieces: Sequence[Piece], workers: int = 1) -> Iterator[ArrowTable]:
    """Runs the pieces one after another in this process."""
    scorer = Scorer(work, formats())
    for piece in pieces:
        yield from scorer.piece(piece)


def _groups(path: Path) -> list[Piece]:
    try:
        with pq.ParquetFile(path) as file:
            meta, first, made = file.metadata, 0, []
            for group in range(meta.num_row_groups):
                count = meta.row_group(group).num_rows
                made.append(Piece(str(path), group, first, count))
                first += count
            return made
    except pa.ArrowInvalid as wrong:
        raise DataError("This is no Parquet file.", seen=f"{path}: {wrong}", do="Give Parquet files only.") from wrong


def _refused(table: pl.DataFrame, schema: Schema) -> pl.Series:
    """Why a server would refuse a row, null where it would not: a field that may not be missing is."""
    why = [
        pl.when(pl.col(f.name).is_null()).then(pl.lit(f"{f.name}: expected {expectation(f)}, saw null"))
        for f in schema.sent
        if not f.nullable and f.name in table.columns
    ]
    if not why:
        return pl.repeat(None, table.height, dtype=pl.String, eager=True)
    said = table.select(pl.concat_str(why, separator="; ", ignore_nulls=True).alias("reason"))["reason"]
    return said.replace("", None)


def _aside(rows: pl.DataFrame, key: str) -> pl.DataFrame:
    """Rows set aside as text: they need not have one schema."""
    texts = [json.dumps(row, default=str, sort_keys=True) for row in rows.drop("_row", "reason").to_dicts()]
    keys = rows[key].cast(pl.String) if key in rows.columns else pl.repeat(None, rows.height, dtype=pl.String, eager=True)
    return pl.DataFrame(
        {"_row": rows["_row"], "key": keys, "reason": rows["reason"], "row": texts},
        schema={"_row": pl.Int64, "key": pl.String, "reason": pl.String, "row": pl.String},
    )
