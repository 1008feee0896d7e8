"""Rows of a request as columns in the schema's types: what the hot path carries instead of a table.

A table of polars is made only where somebody asks for one (a feature of the user's, a slice, the monitor): making it costs more
than all the rest of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

import numpy as np
import polars as pl

from loudly.core.seams import Floats
from loudly.core.values import NUMERIC, Field, Kind, Role, Schema
from loudly.errors import DataError

DTYPES: dict[Kind, Any] = {
    Kind.NUMBER: pl.Float64,
    Kind.INTEGER: pl.Int64,
    Kind.BOOLEAN: pl.Boolean,
    Kind.CATEGORY: pl.String,
    Kind.TEXT: pl.String,
    Kind.TIME: pl.Int64,
}
EPOCH, MICROSECOND = datetime(1970, 1, 1), timedelta(microseconds=1)  # noqa: DTZ001 - event times are naive UTC
MOST_SCHEMAS = 64
ALWAYS = (Role.KEY, Role.TIME)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request of a schema carries. numbers: places of the fields in `NUMERIC`; `pick` takes them out of a record."""

    schema: Schema
    fields: tuple[Field, ...]
    names: tuple[str, ...]
    version: str
    numbers: Mapping[str, int]
    pick: Callable[[Sequence[Any]], Any]


_ASKED: dict[int, Asked] = {}


class Rows:
    """Rows in the types of a schema, None for missing, times as µs. Held as records, as columns, or as both.

    records: (height,) tuples in the order of `asked(schema)`.  columns: name -> (height,) values, in the same order.
    """

    __slots__ = ("_columns", "_numbers", "_records", "height", "schema")

    def __init__(
        self,
        schema: Schema,
        columns: Mapping[str, Sequence[Any]] | None,
        height: int,
        records: Sequence[Sequence[Any]] | None = None,
    ) -> None:
        assert columns is not None or records is not None
        self.schema, self.height, self._columns, self._records = schema, height, columns, records
        self._numbers: Floats | None = None

    @property
    def columns(self) -> Mapping[str, Sequence[Any]]:
        if self._columns is None:
            assert self._records is not None
            self._columns = dict(zip(_known(self.schema).names, zip(*self._records, strict=True), strict=True))
        return self._columns

    @property
    def records(self) -> Sequence[Sequence[Any]]:
        if self._records is None:
            self._records = list(zip(*self.columns.values(), strict=True))
        return self._records

    @property
    def numbers(self) -> Floats:
        """(height, k) float64: the fields in `NUMERIC`, NaN for missing. Made once: models, shadows and the monitor share it."""
        if self._numbers is None:
            known = _known(self.schema)
            if self._records is not None:
                made = np.array([known.pick(record) for record in self._records], dtype=np.float64)
            else:
                made = np.array([self.columns[name] for name in known.numbers], dtype=np.float64).T
            self._numbers = _fixed(made.reshape(self.height, len(known.numbers)))
        return self._numbers

    def column(self, name: str) -> list[Any]:
        """The values of one column."""
        if self._columns is not None or self._records is None:
            return list(self.columns[name])
        at = _known(self.schema).names.index(name)
        return [record[at] for record in self._records]

    def table(self) -> pl.DataFrame:
        """The same as a table that conforms to the schema. Cost: about 4 µs a column, and 20 ns a value that is no known number."""
        return pl.DataFrame([self._series(f) for f in asked(self.schema)])

    def series(self, name: str) -> pl.Series:
        """One column as the table has it."""
        known = _known(self.schema)
        return self._series(known.fields[known.names.index(name)])

    def _series(self, field: Field) -> pl.Series:
        if field.kind is Kind.NUMBER and self._numbers is not None:
            values = np.ascontiguousarray(self._numbers[:, _known(self.schema).numbers[field.name]])
            if not np.isnan(values).any():
                return pl.Series(field.name, values)
        return series(field, self.column(field.name))

    def filter(self, wanted: Any) -> Rows:
        """The rows where the mask (height,) is true."""
        kept = [self.records[i] for i in np.flatnonzero(wanted).tolist()]
        return Rows(self.schema, None, len(kept), kept) if kept else Rows(self.schema, dict.fromkeys(self.columns, ()), 0)


def asked(schema: Schema) -> tuple[Field, ...]:
    """The fields that a request carries, looked up once a schema."""
    return _known(schema).fields


def places_of_numbers(schema: Schema) -> Mapping[str, int]:
    """Field -> its column in `Rows.numbers`."""
    return _known(schema).numbers


def version_of(schema: Schema) -> str:
    """The schema's version, looked up once a schema."""
    return _known(schema).version


def _known(schema: Schema) -> Asked:
    known = _ASKED.get(id(schema))
    if known is None or known.schema is not schema:
        if len(_ASKED) >= MOST_SCHEMAS:
            _ASKED.clear()
        sent = schema.sent
        places = [i for i, f in enumerate(sent) if f.kind in NUMERIC]
        pick = itemgetter(*places) if places else lambda record: ()
        numbers = {sent[place].name: i for i, place in enumerate(places)}
        known = _ASKED[id(schema)] = Asked(schema, sent, tuple(f.name for f in sent), schema.version, numbers, pick)
    return known


def _fixed(values: Floats) -> Floats:
    """Nobody may write into what many share."""
    values.flags.writeable = False
    return values


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of one schema, one after the other."""
    if len(parts) == 1:
        return parts[0]
    records = [record for part in parts for record in part.records]
    whole = Rows(parts[0].schema, None, len(records), records)
    if all(part._numbers is not None for part in parts):
        whole._numbers = _fixed(np.concatenate([part.numbers for part in parts]))
    return whole


def series(field: Field, values: Sequence[Any]) -> pl.Series:
    """A column of `Rows` as polars has it."""
    made = pl.Series(field.name, values, dtype=DTYPES[field.kind])
    return made.cast(pl.Datetime("us")) if field.kind is Kind.TIME else made


def microseconds(text: str) -> int:
    """An ISO 8601 text as event time; one without a zone is UTC. Raises: ValueError, also where UTC has no such year.

    >>> microseconds("1970-01-01T00:00:01+00:00"), microseconds("1970-01-01")
    (1000000, 0)
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        try:
            moment = moment.astimezone(UTC).replace(tzinfo=None)
        except OverflowError as wrong:
            raise ValueError(f"in UTC {text} is before the year 1 or after 9999") from wrong
    return (moment - EPOCH) // MICROSECOND


def rows_of(given: Sequence[Mapping[str, Any]], schema: Schema) -> Rows:
    """Objects that `request.check` has passed, in the schema's types; unknown fields are left out.

    Raises: DataError for a row without key or time.
    """
    columns = {f.name: [_typed(f, row.get(f.name)) for row in given] for f in asked(schema)}
    return checked(Rows(schema, columns, len(given)))


def checked(rows: Rows) -> Rows:
    """The rows, unless one has no key or no time. Raises: DataError."""
    if not has_keys(rows):
        raise DataError("A row could not be cast.", seen="its key or its time is missing")
    return rows


def has_keys(rows: Rows) -> bool:
    """Whether every row has a key and a time."""
    return not any(f.role in ALWAYS and None in rows.columns[f.name] for f in rows.schema.fields)


def of_table(table: pl.DataFrame, schema: Schema) -> Rows:
    """A conformed table as columns."""
    columns = {f.name: (table[f.name].dt.epoch("us") if f.kind is Kind.TIME else table[f.name]).to_list() for f in asked(schema)}
    return Rows(schema, columns, table.height)


def _typed(field: Field, value: Any) -> Any:
    if value is None:
        return None
    match field.kind:
        case Kind.NUMBER:
            return float(value)
        case Kind.TIME:
            return microseconds(value)
        case _:
            return value
