"""Requests against the frozen schema: what a field must be, told to clients and checked before a model sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loudly.core.values import Field, Kind, Schema
from loudly.serve.rows import microseconds

JSON_TYPES = {
    Kind.NUMBER: "number",
    Kind.INTEGER: "integer",
    Kind.BOOLEAN: "boolean",
    Kind.CATEGORY: "string",
    Kind.TEXT: "string",
    Kind.TIME: "string",
}
SHOWN_VALUES = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a request: where, what was expected, what was seen."""

    row: int
    field: str
    expected: str
    seen: str


def misfit(problem: Problem) -> str:
    """Why a row does not fit, without a value of it.

    >>> misfit(Problem(0, "temp", "number or null (training saw 10 to 100)", "'warm'"))
    'temp is no number'
    """
    lacks = problem.seen in ("null", "nothing")
    return f"{problem.field} is missing" if lacks else f"{problem.field} is no {problem.expected.split()[0]}"


def expectation(field: Field) -> str:
    """What a field must be, in words.

    >>> expectation(Field("temp", Kind.NUMBER, nullable=True, low=10.0, high=100.0))
    'number or null (training saw 10 to 100)'
    """
    text = JSON_TYPES[field.kind] + (" of ISO 8601" if field.kind is Kind.TIME else "") + (" or null" if field.nullable else "")
    if field.low is not None and field.high is not None:
        text += f" (training saw {field.low:g} to {field.high:g})"
    elif 0 < len(field.values) <= SHOWN_VALUES:
        text += f" (training saw {', '.join(field.values)})"
    return text


def check(rows: Sequence[Mapping[str, Any]], schema: Schema) -> tuple[Problem, ...]:
    """What is wrong with rows of a request. Values outside what training saw are no fault: the monitor judges those."""
    fields = schema.sent
    return tuple(p for i, row in enumerate(rows) for f in fields if (p := _problem(i, row, f)) is not None)


def json_schema(schema: Schema, example: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of one row, with a real row as its example, where there is one to show."""
    fields = schema.sent
    properties = {f.name: _property(f) for f in fields}
    required = [f.name for f in fields if not f.nullable]
    shown = {"example": dict(example)} if example else {}
    return {"type": "object", "title": "Row", "properties": properties, "required": required, **shown}


def _property(field: Field) -> dict[str, Any]:
    kind = JSON_TYPES[field.kind]
    made: dict[str, Any] = {"type": [kind, "null"] if field.nullable else kind, "description": expectation(field)}
    if field.kind is Kind.TIME:
        made["format"] = "date-time"
    return made


def _problem(row: int, given: Mapping[str, Any], field: Field) -> Problem | None:
    value = given.get(field.name)
    if value is None:
        if field.nullable:
            return None
        seen = "null" if field.name in given else "nothing"
        return Problem(row, field.name, expectation(field), seen)
    return None if fits(value, field.kind) else Problem(row, field.name, expectation(field), repr(value)[:80])


def fits(value: Any, kind: Kind) -> bool:
    """Whether a value of JSON is one of this kind."""
    match kind:
        case Kind.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case Kind.INTEGER:
            return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
        case Kind.BOOLEAN:
            return isinstance(value, bool)
        case Kind.TIME:
            return _is_time(value)
        case _:
            return isinstance(value, str) and _is_text(value)


def _is_text(value: str) -> bool:
    """Half of a surrogate pair is no text: it can neither be stored nor sent."""
    return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)


def _is_time(value: Any) -> bool:
    try:
        microseconds(value)
    except (TypeError, ValueError):
        return False
    return True
