"""Sources of rows that know their offsets: a table, Parquet files, the records of a traffic log."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from loudly.errors import DataError
from loudly.shift.event_time import Batch, batch_of, event_times

ROWS = 100_000
RECORDS = 1_000


class TableSource:
    """A table (of any maker) as it stands, read in batches of `rows`; the offset is the number of the row.

    >>> source = TableSource(pl.DataFrame({"at": [1, 2, 3]}), "at", rows=2)
    >>> [b.at.tolist() for b in source.read({})], [b.at.tolist() for b in source.read({"table": 1})]
    ([[1, 2], [3]], [[2, 3]])
    """

    def __init__(self, table: Any, time: str, *, naive: str | None = None, rows: int = ROWS, source: str = "table") -> None:
        self._whole = batch_of(table, time, naive=naive, source=source)
        self._rows = rows

    def read(self, offsets: Mapping[str, int]) -> Iterator[Batch]:
        whole = self._whole
        assert whole.offsets is not None
        for i in range(offsets.get(whole.source, 0), whole.rows.height, self._rows):
            cut = slice(i, i + self._rows)
            yield Batch(whole.rows[cut], whole.at[cut], whole.source, whole.offsets[cut])

    def commit(self, offsets: Mapping[str, int]) -> None:
        """A table keeps no account of its readers."""


class ParquetSource:
    """Parquet files under a path or glob, in order of name; offsets are row numbers within each file.

    Files that come later are read at the next `read`, wherever their names sort. A file must not change once read.
    Raises: DataError where no file matches, or a file has become shorter than what was folded of it.
    """

    def __init__(
        self, pattern: Path | str, time: str, *, naive: str | None = None, rows: int = ROWS, source: str = "parquet"
    ) -> None:
        self._pattern, self._time, self._naive, self._rows, self._source = str(pattern), time, naive, rows, source

    def read(self, offsets: Mapping[str, int]) -> Iterator[Batch]:
        paths = sorted(glob.glob(self._pattern)) if glob.has_magic(self._pattern) else [self._pattern]
        if not paths or not all(Path(p).is_file() for p in paths):
            raise DataError("There is no such file.", seen=self._pattern, do="Give a path or a glob that matches Parquet files.")
        for path in paths:
            yield from self._file(path, offsets.get(f"{self._source}/{path}", 0))

    def commit(self, offsets: Mapping[str, int]) -> None:
        """Files keep no account of their readers."""

    def _file(self, path: str, begin: int) -> Iterator[Batch]:
        scan = pl.scan_parquet(path)
        height = int(scan.select(pl.len()).collect().item())
        if begin > height:
            raise DataError(
                f"{path} has become shorter.",
                seen=f"{height:,} rows, {begin:,} folded",
                do="Put corrected rows into a new file; files that were read must not change.",
            )
        for i in range(begin, height, self._rows):
            table = scan.slice(i, self._rows).collect()
            yield batch_of(table, self._time, naive=self._naive, source=self._source, first=i, part=path)


class Logged(Protocol):
    """A record of a log: its sequence, its kind and its payload (`loudly.store.segments.Record` is one)."""

    @property
    def sequence(self) -> int: ...

    @property
    def kind(self) -> str: ...

    @property
    def payload(self) -> bytes: ...


class RecordSource:
    """Records of a traffic log, of one kind; the offset is the sequence, which all rows of a record share.

    records: the records after a sequence, e.g. `functools.partial(read_segments, root)`.  decode: payload -> rows.
    batch: records that are folded together.
    """

    def __init__(
        self,
        records: Callable[[int], Iterable[Logged]],
        decode: Callable[[bytes], pl.DataFrame],
        time: str,
        *,
        kind: str,
        naive: str | None = None,
        batch: int = RECORDS,
        source: str = "segments",
    ) -> None:
        self._records, self._decode, self._time, self._kind = records, decode, time, kind
        self._naive, self._batch, self._source = naive, batch, source

    def read(self, offsets: Mapping[str, int]) -> Iterator[Batch]:
        found = (r for r in self._records(offsets.get(self._source, 1) - 1) if r.kind == self._kind)
        while records := list(islice(found, self._batch)):
            tables = [self._decode(r.payload) for r in records]
            numbers = np.repeat(np.array([r.sequence for r in records], dtype=np.int64), [t.height for t in tables])
            rows = pl.concat(tables, how="diagonal_relaxed")
            if rows.height:
                yield Batch(rows, event_times(rows[self._time], self._naive), self._source, numbers)

    def commit(self, offsets: Mapping[str, int]) -> None:
        """A traffic log keeps no account of its readers."""
