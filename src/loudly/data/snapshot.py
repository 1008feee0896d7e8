"""Immutable, content-addressed versions of tables: Parquet parts under their digest, named by a manifest."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace

import polars as pl

from loudly.core.seams import Blobs
from loudly.core.values import Dataset, Part, Schema
from loudly.errors import DataError

PART_ROWS = 262_144


def snapshot(table: pl.DataFrame, blobs: Blobs, name: str, schema: Schema, time: str | None = None) -> Dataset:
    """Stores a table and names it: the same rows give the same digest.

    Cost: one compressed write of the table.  Raises: DataError for a table without columns.
    """
    if not table.columns:
        raise DataError(f"The table {name!r} has no columns.", do="Check what @app.data returns.")
    return Dataset(name, _store(table, blobs), schema, *_range(table, time))


def extend(dataset: Dataset, table: pl.DataFrame, blobs: Blobs, time: str | None = None) -> Dataset:
    """A new version with the rows of `table` added as new parts; what is stored already is not written again."""
    if table.is_empty():
        return dataset
    first, last = _range(table, time)
    firsts = [t for t in (dataset.first, first) if t is not None]
    lasts = [t for t in (dataset.last, last) if t is not None]
    return replace(
        dataset,
        parts=(*dataset.parts, *_store(table, blobs)),
        first=min(firsts, default=None),
        last=max(lasts, default=None),
    )


def load(dataset: Dataset, blobs: Blobs, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The rows of a version, in the order of its parts.

    Raises: DatasetCorrupt where stored bytes do not have their digest, NotFound where they are gone.
    """
    picked = list(columns) if columns is not None else None
    frames = []
    for part in dataset.parts:
        with blobs.open(part.digest) as stream:
            frames.append(pl.read_parquet(io.BytesIO(stream.read()), columns=picked))
    return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()


def without(dataset: Dataset, blobs: Blobs, gone: Callable[[pl.DataFrame], pl.Series]) -> Dataset:
    """A new version without some rows: parts that hold none of them are shared, the others are written anew.

    gone: table (n, columns) -> (n,) booleans. The old parts stay, for the old versions name them.
    Cost: reads every part, writes those that change.
    """
    parts: list[Part] = []
    for part in dataset.parts:
        table = _open(part, blobs)
        kept = table.filter(~gone(table))
        parts.extend((part,) if kept.height == table.height else _store(kept, blobs))
    return replace(dataset, parts=tuple(parts))


def holding(dataset: Dataset, blobs: Blobs, gone: Callable[[pl.DataFrame], pl.Series]) -> tuple[Part, ...]:
    """The parts of a version that hold such rows."""
    return tuple(part for part in dataset.parts if gone(_open(part, blobs)).any())


def _open(part: Part, blobs: Blobs) -> pl.DataFrame:
    with blobs.open(part.digest) as stream:
        return pl.read_parquet(io.BytesIO(stream.read()))


def _store(table: pl.DataFrame, blobs: Blobs) -> tuple[Part, ...]:
    parts = []
    for piece in table.iter_slices(PART_ROWS):
        buffer = io.BytesIO()
        piece.write_parquet(buffer, compression="zstd", compression_level=1, statistics=False)
        data = buffer.getvalue()
        parts.append(Part(blobs.put(data), piece.height, len(data)))
    return tuple(parts)


def _range(table: pl.DataFrame, time: str | None) -> tuple[int | None, int | None]:
    if time is None or table.is_empty():
        return None, None
    at = table[time].dt.epoch("us")
    low, high = at.min(), at.max()
    return (int(low), int(high)) if isinstance(low, int) and isinstance(high, int) else (None, None)
