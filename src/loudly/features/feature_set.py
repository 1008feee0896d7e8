"""Features: one definition for the training table and for one live row.

A feature is a plain function whose parameter names are input columns or other features (as in Hamilton); it gets polars
Series and returns one of the same length.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import polars as pl

from loudly.core.canon import Json
from loudly.core.seams import Floats
from loudly.core.values import Field, Kind, Role, Schema, are_categories
from loudly.core.whence import asked
from loudly.errors import DataError, UserFileError, nearest

Definition = Callable[..., pl.Series]
ALONE = 20
# Columns that are features as they come are of these roles, and of none of these kinds.
RAW, NOT_RAW = (Role.INPUT, Role.SIDE), (Kind.TEXT, Kind.TIME)


@dataclass(frozen=True, slots=True)
class FrozenFeatures:
    """What a fit has frozen: the columns of the matrix, in order, and the category codes.

    columns: names of the matrix's columns.  codes: category column -> values in code order.
    definitions: the user's functions, in an order in which each finds its parameters.
    raw: the inputs that a raw table has, in order, with their kinds.
    """

    columns: tuple[str, ...]
    codes: Mapping[str, tuple[str, ...]]
    inputs: tuple[str, ...]
    definitions: tuple[Definition, ...]
    raw: Mapping[str, Kind] = field(default_factory=dict)

    def categories_of(self, frame: str) -> tuple[int, ...]:
        """Indices of the categorical columns among these."""
        return tuple(i for i, name in enumerate(self.names_of(frame)) if name in self.codes)

    def frame(self, table: pl.DataFrame) -> pl.DataFrame:
        """The columns of the matrix as float64 (categories as codes), NaN for missing and unseen.

        Raises: DataError if a definition changes the number of rows.
        """
        known = self.derive({name: _column(table, name) for name in self.inputs}, table.height)
        return pl.DataFrame([self.numeric(known[name], name) for name in self.columns])

    def whole(self, table: pl.DataFrame) -> pl.DataFrame:
        """The inputs as they are, texts and times too, and what the definitions make of them. Raises: DataError as `frame`."""
        known = self.derive({name: _column(table, name) for name in self.inputs}, table.height)
        return pl.DataFrame([known[name].alias(name) for name in self.names_of("raw")])

    def names_of(self, frame: str) -> tuple[str, ...]:
        """The columns of what a model gets: a matrix or a table of numbers, or a "raw" table."""
        if frame != "raw":
            return self.columns
        made = tuple(d.__name__ for d in self.definitions)
        return (*(name for name in self.raw if name not in made), *made)

    def derive(self, known: dict[str, pl.Series], height: int) -> dict[str, pl.Series]:
        """The inputs and what the definitions make of them. Raises: DataError as `frame`."""
        for definition in self.definitions:
            made = asked("feature", definition, *(known[name] for name in _parameters(definition)))
            if not isinstance(made, pl.Series) or len(made) != height:
                raise DataError(
                    f"The feature {definition.__name__!r} must return a Series with one value a row.",
                    seen=f"{type(made).__name__} of {len(made) if hasattr(made, '__len__') else '?'} for {height} rows",
                    do="Compute on the Series as a whole: `return income / debt`.",
                )
            known[definition.__name__] = made
        return known

    def matrix(self, table: pl.DataFrame) -> Floats:
        """(n, d) float64, C-contiguous: what the model sees. A row gives the same bytes alone or in a table."""
        made = self.frame(table).to_numpy() if self.columns else np.zeros((table.height, 0))
        return np.ascontiguousarray(made, dtype=np.float64)

    def refuse_skew(self, table: pl.DataFrame) -> None:
        """Holds some rows of the table alone against the same rows together: alone is how they are served.

        Raises: DataError for a definition that makes another value of a row alone (a mean, a rank, the row before).
        """
        some = table.gather_every(max(1, table.height // ALONE)).head(ALONE)
        whole = self.matrix(some)
        for i in range(some.height) if self.definitions else ():
            alone = self.matrix(some[i])[0]
            for place in np.flatnonzero(~np.isclose(alone, whole[i], rtol=1e-9, atol=1e-12, equal_nan=True)):
                raise DataError(
                    f"The feature {self.columns[place]!r} makes another value of a row alone, as rows are served.",
                    seen=f"{alone[place]:g} alone, {whole[i, place]:g} among {some.height} rows",
                    do="Compute each row from itself alone; write means and bounds down as constants, or leave them to the model.",
                )

    def plain(self) -> dict[str, Json]:
        """The frozen state as plain JSON (the functions stay in the user's file)."""
        codes = {name: list(values) for name, values in self.codes.items()}
        return {"columns": list(self.columns), "codes": codes, "inputs": list(self.inputs)}

    def numeric(self, series: pl.Series, name: str) -> pl.Series:
        """A column of the matrix: float64, categories as codes, NaN for missing and unseen."""
        if name in self.codes:
            coded = series.cast(pl.String, strict=False).cast(pl.Enum(self.codes[name]), strict=False)
            numbers = coded.to_physical().cast(pl.Float64)
        else:
            numbers = _as_number(series, name)
        return (numbers.fill_null(float("nan")) if numbers.null_count() else numbers).alias(name)


class FeatureSet:
    """The user's definitions over a schema; `fit` freezes them.

    Raises: UserFileError for a parameter that is neither an input column nor a feature, and for a cycle.
    """

    def __init__(self, definitions: Sequence[Definition], schema: Schema) -> None:
        self.schema = schema
        usable = (Role.INPUT, Role.PRIVATE, Role.SIDE, Role.TIME)
        self._inputs = tuple(f.name for f in schema.fields if f.role in usable)
        self._raw = {f.name: f.kind for f in schema.fields if f.role in RAW}
        self.definitions = _ordered(definitions, self._inputs)

    def fit(self, table: pl.DataFrame) -> FrozenFeatures:
        """Freezes column order and category codes on the training rows. A definition that makes texts of too many kinds to be
        categories is no column of the matrix: a raw table has it."""
        made = {d.__name__ for d in self.definitions}
        raw = [f.name for f in self.schema.fields if f.role in RAW and f.kind not in NOT_RAW]
        raw = [name for name in raw if name not in made]
        loose = FrozenFeatures(tuple(made), {}, self._inputs, self.definitions)
        known = loose.derive({name: _column(table, name) for name in self._inputs}, table.height)
        series = {**{name: _column(table, name) for name in raw}, **{name: known[name] for name in made}}
        made_texts = [name for name in made if known[name].dtype == pl.String]
        texts = {name for name in made_texts if not are_categories(known[name].n_unique(), table.height)}
        columns = (*raw, *(d.__name__ for d in self.definitions if d.__name__ not in texts))
        series = {name: values for name, values in series.items() if name not in texts}
        kinds = {field.name: field.kind for field in self.schema.fields if field.name not in made}
        codes = {name: _values(s) for name, s in series.items() if _is_category(s, kinds.get(name))}
        return FrozenFeatures(columns, codes, self._inputs, self.definitions, self._raw)

    def thaw(self, state: Mapping[str, Any]) -> FrozenFeatures:
        """The inverse of `FrozenFeatures.plain`, with the functions of today's user file."""
        codes = {name: tuple(values) for name, values in state["codes"].items()}
        return FrozenFeatures(tuple(state["columns"]), codes, tuple(state["inputs"]), self.definitions, self._raw)


def unread(definitions: Sequence[Definition], schema: Schema) -> list[Field]:
    """The texts and times among the inputs that no definition reads: no model sees anything of them."""
    read = {name for definition in definitions for name in _parameters(definition)}
    return [f for f in schema.fields if f.role in RAW and f.kind in NOT_RAW and f.name not in read]


@cache
def _parameters(definition: Definition) -> tuple[str, ...]:
    return tuple(inspect.signature(definition).parameters)


def _column(table: pl.DataFrame, name: str) -> pl.Series:
    return table[name] if name in table.columns else pl.Series(name, [None] * table.height, dtype=pl.Float64)


def _is_category(series: pl.Series, kind: Kind | None) -> bool:
    """kind: of a column of the table; of what a definition makes its type tells, whatever column had that name."""
    if kind is not None:
        return kind is Kind.CATEGORY
    return series.dtype in (pl.String, pl.Categorical, pl.Enum)


def _values(series: pl.Series) -> tuple[str, ...]:
    return tuple(series.cast(pl.String).drop_nulls().unique().sort().to_list())


def _as_number(series: pl.Series, name: str) -> pl.Series:
    if series.dtype.is_temporal():
        return series.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64)
    try:
        return series.cast(pl.Float64)
    except pl.exceptions.InvalidOperationError as wrong:
        raise DataError(f"The column {name!r} is not a number.", seen=str(wrong), do="Fix the feed or the feature.") from wrong


def _ordered(definitions: Sequence[Definition], inputs: Sequence[str]) -> tuple[Definition, ...]:
    """Definitions in an order in which each finds its parameters."""
    waiting, known, order = list(definitions), set(inputs), []
    names = {d.__name__ for d in definitions}
    for definition in definitions:
        for parameter in inspect.signature(definition).parameters:
            if parameter not in known | names:
                raise UserFileError(
                    f"The feature {definition.__name__!r} asks for {parameter!r}, which is no column and no feature.",
                    do=nearest(parameter, known | names),
                )
    while waiting:
        ready = [d for d in waiting if set(inspect.signature(d).parameters) - {d.__name__} <= known]
        if not ready:
            circle = ", ".join(d.__name__ for d in waiting)
            raise UserFileError("These features need one another in a circle.", seen=circle, do="Break the circle.")
        order.extend(ready)
        known |= {d.__name__ for d in ready}
        waiting = [d for d in waiting if d not in ready]
    return tuple(order)
