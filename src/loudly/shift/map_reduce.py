"""A summary made where the rows are and merged as bytes: the two steps of a reduce on any machine, and both of them here."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Protocol

import polars as pl

from loudly.errors import DataError
from loudly.shift.window_state import Codec, V

Made = dict[Hashable, bytes]


class Reduce(Protocol):
    """Where summaries are made and merged: here, or on Ray. The bytes are the same where the summary's merge is exact."""

    def __call__(
        self, tables: Iterable[pl.DataFrame], make: Callable[[pl.DataFrame], V], codec: Codec[V], by: str = ""
    ) -> Made: ...


def mapped(table: pl.DataFrame, make: Callable[[pl.DataFrame], V], codec: Codec[V], by: str = "") -> Made:
    """The map step: the summary of a table as bytes, one for each value of the column `by` ("" : one, under None).

    Raises: DataError where there is no column `by`.
    """
    if not by:
        return {None: codec.dump(make(table))} if table.height else {}
    if by not in table.columns:
        raise DataError(f"There is no column {by!r} to reduce by.", seen=", ".join(table.columns), do="Name one of these.")
    parts = table.partition_by(by, as_dict=True, maintain_order=True)
    return {key: codec.dump(make(rows)) for (key,), rows in parts.items()}


def merged(one: bytes, other: bytes, codec: Codec[V]) -> bytes:
    """The reduce step: two summaries as bytes become one."""
    return codec.dump(codec.load(one).merge(codec.load(other)))


def here(tables: Iterable[pl.DataFrame], make: Callable[[pl.DataFrame], V], codec: Codec[V], by: str = "") -> Made:
    """Both steps in this process.

    >>> import json
    >>> class Rows:
    ...     def __init__(self, n): self.n = n
    ...     def merge(self, other): return Rows(self.n + other.n)
    >>> codec = Codec(lambda r: json.dumps(r.n).encode(), lambda b: Rows(json.loads(b)))
    >>> tables = [pl.DataFrame({"day": [1, 1, 2]}), pl.DataFrame({"day": [2, 3]})]
    >>> here(tables, lambda t: Rows(t.height), codec, by="day")
    {1: b'2', 2: b'2', 3: b'1'}
    """
    whole: Made = {}
    for table in tables:
        for key, made in mapped(table, make, codec, by).items():
            whole[key] = merged(whole[key], made, codec) if key in whole else made
    return whole
