"""The side tables of a wheel: read once, read again by a server when they are due, joined to every row that comes in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from threading import Lock

import polars as pl

from loudly.core.clock import span
from loudly.core.values import Event, Role, Schema
from loudly.data.pseudonym import pseudonymise
from loudly.data.read import read_table
from loudly.errors import UserFileError, one_line
from loudly.features.side import Side, SideIndex, index_side
from loudly.loop.system import System
from loudly.validate.conform import Conformed

ABSENT = "a column that no side table gives any more"


class Sides:
    """Joins the side tables of a system. What found no side row is counted until it is reported."""

    def __init__(self, system: System, key: bytes) -> None:
        self._system, self._key = system, key
        self._lock = Lock()
        self._indices: tuple[SideIndex, ...] | None = None
        self._read_at: dict[str, int] = {}
        self._rows: Counter[str] = Counter()
        self._missing: Counter[str] = Counter()
        self._failed: dict[str, str] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """The names that the joins add. Cost: the first use reads the tables."""
        return tuple(name for index in self._ready() for name in index.columns)

    def train(self, table: pl.DataFrame) -> pl.DataFrame:
        """The training table with the side columns.

        Raises: UserFileError where the table, or another side table, has a column of the same name.
        """
        for index in self._ready():
            self._refuse_unsent(index.side)
            for name in index.columns:
                if name in table.columns:
                    raise UserFileError(
                        f"The side table {index.side.name!r} brings {name!r}, which is there already.", do="Rename one of the two."
                    )
            table, missing = index.join(table, self._system.time)
            self._count(index.side.name, table.height, missing)
        return table

    def live(self, fitted: Conformed, schema: Schema) -> Conformed:
        """Rows of traffic that fit the schema, with the side columns in the schema's types."""
        expected = {f.name for f in schema.role(Role.SIDE)}
        if not (self._system.sides or expected):
            return fitted
        rows, types = fitted.good, fitted.good.schema
        for index in self._ready():
            rows, missing = index.join(rows, self._system.time)
            self._count(index.side.name, rows.height, missing)
        for name in sorted(expected - set(self.columns)):
            self._count(f"{name}: {ABSENT}", rows.height, rows.height)
        cast = [pl.col(name).cast(types[name], strict=False) for name in self.columns if name in types]
        return replace(fitted, good=rows.with_columns(cast), absent=tuple(n for n in fitted.absent if n not in expected))

    def refresh(self, now: int) -> None:
        """Reads again what is due. A table that cannot be read stays as it was, and that is said."""
        for side in self._system.sides:
            if self._indices is None or now - self._read_at.setdefault(side.name, now) < side.refresh:
                continue
            self._read_at[side.name] = now
            try:
                index = self._index(side)
            except Exception as wrong:  # noqa: BLE001 - the user's function may raise anything; the server goes on and says so
                self._failed[side.name] = one_line(wrong)
                continue
            with self._lock:
                self._indices = tuple(index if i.side.name == side.name else i for i in self._indices)

    def report(self, now: int) -> tuple[Event, ...]:
        """One LOUD event for each side table that rows were missing of, or that could not be read, since the last report."""
        with self._lock:
            told = [self._told(name) for name in self._rows if self._missing[name]]
            told += [(name, f"it could not be read again ({why}); rows see it as it was") for name, why in self._failed.items()]
            self._rows.clear()
            self._missing.clear()
            self._failed.clear()
        return tuple(Event("guarantee_weakened", now, {"what": f"side table {name}", "reason": why}) for name, why in told)

    def _refuse_unsent(self, side: Side) -> None:
        for name in side.by:
            if name == self._system.label or name in self._system.ignored:
                raise UserFileError(
                    f"The side table {side.name!r} is joined by {name!r}, which no request carries.",
                    do="Take it out of ignored=[...], or join by an input.",
                )

    def _told(self, name: str) -> tuple[str, str]:
        by_name: Mapping[str, Side] = {s.name: s for s in self._system.sides}
        limit = f" within {span(by_name[name].within)}" if name in by_name else ""
        return name, f"{self._missing[name]:,} of {self._rows[name]:,} rows found no row{limit}; their values are missing"

    def _count(self, name: str, rows: int, missing: int) -> None:
        with self._lock:
            self._rows[name] += rows
            self._missing[name] += missing

    def _ready(self) -> tuple[SideIndex, ...]:
        if self._indices is None:
            made = tuple(self._index(side) for side in self._system.sides)
            with self._lock:
                self._indices = made
        return self._indices

    def _index(self, side: Side) -> SideIndex:
        return index_side(side, pseudonymise(read_table(side.read()), self._system.private, self._key))
