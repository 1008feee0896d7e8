"""Bodies to rows and answers to bodies, by msgspec Structs made from the frozen schema.

What a Struct takes is right by its types. Whatever it refuses is read again by the standard library and checked field by field,
so that a refusal names all that is wrong, and nothing is refused that the schema allows (NaN, a number beyond float64).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import msgspec
from msgspec.structs import astuple

from loudly.core.values import Field, Kind, Role, Schema
from loudly.errors import LoudlyError
from loudly.serve.front import Answered
from loudly.serve.request import Problem, check, misfit
from loudly.serve.rows import Rows, asked, has_keys, microseconds, rows_of

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63) + 1, le=2**63 - 1)]
PYTHON: dict[Kind, Any] = {
    Kind.NUMBER: float,
    Kind.INTEGER: Int64,
    Kind.BOOLEAN: bool,
    Kind.CATEGORY: str,
    Kind.TEXT: str,
    Kind.TIME: str,
}
ENCODER = msgspec.json.Encoder()
MOST_PROBLEMS = 1000
SHOWN = 10


class Answer(msgspec.Struct, gc=False):
    """The answer to a row, as JSON has it."""

    prediction: Any
    version: str
    arm: str
    propensity: float
    fallback: bool


class Answers(msgspec.Struct, gc=False, omit_defaults=True):
    """The body that answers a request. classes: of several, what the scores of a prediction are of."""

    schema_version: str
    answers: list[Answer]
    classes: Sequence[str] = ()


class Refused(Exception):
    """A request that gets an answer other than 200: status and body, as FastAPI's clients know them.

    challenge: how a key is asked for, where that is what lacks.  rows: that do not fit the schema, and `why`.
    """

    def __init__(
        self,
        status: int,
        content: Any,
        retry_after: float | None = None,
        *,
        allow: str = "",
        challenge: bytes = b"Bearer",
        rows: int = 1,
        why: str = "the body is no rows",
    ) -> None:
        super().__init__(status)
        self.status, self.content, self.retry_after, self.allow = status, content, retry_after, allow
        self.challenge, self.rows, self.why = challenge, rows, why


class Codec:
    """Reads requests of one schema. Made once a schema; `most_rows` bounds a request."""

    def __init__(self, schema: Schema, most_rows: int) -> None:
        self.schema, self.most_rows = schema, most_rows
        self.version = schema.version
        self.fields = asked(schema)
        self._names = tuple(f.name for f in self.fields)
        rename = {f"f{i}": name for i, name in enumerate(self._names)}
        one = msgspec.defstruct("Row", [_member(i, f) for i, f in enumerate(self.fields)], rename=rename, gc=False, kw_only=True)
        many = msgspec.defstruct("Columns", [_column(i, f) for i, f in enumerate(self.fields)], rename=rename, kw_only=True)
        self._one: Any = msgspec.json.Decoder(one)
        self._many: Any = msgspec.json.Decoder(list[one])  # type: ignore[valid-type]
        self._columns: Any = msgspec.json.Decoder(msgspec.defstruct("Body", [("columns", many)]))
        self._keyed = not any(f.nullable for f in self.fields if f.role in (Role.KEY, Role.TIME))
        self._times = tuple(i for i, f in enumerate(self.fields) if f.kind is Kind.TIME)

    def read(self, body: bytes) -> Rows:
        """A row, a list of rows, or {"columns": {name: values}}. Raises: Refused."""
        rows = self._quickly(body)
        return rows if rows is not None else self._slowly(body)

    def _quickly(self, body: bytes) -> Rows | None:
        """The rows, where the types alone say that all is well."""
        try:
            if body[:1] == b"[":
                return self._of_structs(self._many.decode(body))
            if body[:11] == b'{"columns":':
                return self._of_columns(astuple(self._columns.decode(body).columns))
            return self._of_structs((self._one.decode(body),))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None

    def _of_structs(self, structs: Sequence[Any]) -> Rows | None:
        if not 0 < len(structs) <= self.most_rows:
            return None
        records: list[Any] = [list(astuple(one)) for one in structs]
        for i in self._times:
            for record in records:
                if record[i] is not None:
                    record[i] = microseconds(record[i])
        return self._with_keys(Rows(self.schema, None, len(records), records))

    def _of_columns(self, columns: Sequence[Any]) -> Rows | None:
        lengths = {len(values) for values in columns if values is not None}
        if len(lengths) != 1 or not 0 < (height := lengths.pop()) <= self.most_rows:
            return None
        whole = [[None] * height if values is None else values for values in columns]
        for i in self._times:
            whole[i] = [None if v is None else microseconds(v) for v in whole[i]]
        return self._with_keys(Rows(self.schema, dict(zip(self._names, whole, strict=True)), height))

    def _with_keys(self, rows: Rows) -> Rows | None:
        return rows if self._keyed or has_keys(rows) else None

    def _slowly(self, body: bytes) -> Rows:
        given = objects(body, self.most_rows, self._spread)
        problems = check(given, self.schema)
        if problems:
            raise Refused(422, unfit(problems[:MOST_PROBLEMS], self.version), rows=len(given), why=misfit(problems[0]))
        try:
            return rows_of(given, self.schema)
        except (LoudlyError, OverflowError) as wrong:
            raise Refused(422, {"detail": str(wrong)}, rows=len(given)) from wrong

    def _spread(self, given: Mapping[str, Any]) -> list[Any]:
        """An object as rows: itself, or what its columns hold. Raises: Refused for columns of unequal length."""
        columns = given.get("columns")
        name, held = next(iter(given.items()), ("", None))
        if len(given) == 1 and isinstance(held, list) and name not in self._names:
            wanted = f'a row, a list of rows, or {{"columns": {{name: values}}}}; seen an object with a list under {name[:40]!r}'
            raise Refused(422, one_problem(["body"], wanted, "rows"))
        if len(given) != 1 or not isinstance(columns, dict) or "columns" in self._names:
            return [given]
        known = {name: columns[name] for name in self._names if name in columns}
        if not known or not all(isinstance(values, list) for values in known.values()):
            raise Refused(422, one_problem(["body", "columns"], "an object of lists, one for each column", "columns"))
        lengths = {name: len(values) for name, values in known.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {n}" for name, n in list(lengths.items())[:SHOWN])
            raise Refused(422, one_problem(["body", "columns"], f"columns of one length, seen {told}", "columns"))
        return [dict(zip(known, values, strict=True)) for values in zip(*known.values(), strict=True)]


def objects(body: bytes, most_rows: int, spread: Callable[[Mapping[str, Any]], list[Any]] = lambda one: [one]) -> list[Any]:
    """A body as a list of objects; `spread` makes rows of a body that is one object. Raises: Refused."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as wrong:
        raise Refused(422, one_problem(["body"], f"no JSON: {wrong}", "json_invalid")) from wrong
    rows = given if isinstance(given, list) else spread(given) if isinstance(given, dict) else []
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise Refused(422, one_problem(["body"], "an object, or a list of objects", "rows"))
    if len(rows) > most_rows:
        raise Refused(413, {"detail": f"a request may have {most_rows:,} rows at most"})
    return rows


def unfit(problems: Sequence[Problem], version: str) -> dict[str, Any]:
    """The body of a 422 as FastAPI's clients know it, naming field, expectation and schema version."""
    detail = [
        {"loc": ["body", p.row, p.field], "msg": f"expected {p.expected}", "type": "schema", **asdict(p), "schema_version": version}
        for p in problems
    ]
    return {"detail": detail}


def one_problem(loc: list[Any], message: str, kind: str) -> dict[str, Any]:
    """The body of a 422 about the request as a whole."""
    return {"detail": [{"loc": loc, "msg": message, "type": kind}]}


def answers(version: str, answered: Answered, first: int, last: int, classes: Sequence[str] = ()) -> bytes:
    """The body that answers rows `first` to `last` of a batch; a number that JSON has no word for is null.

    classes: of predictions of several.
    """
    columns: Any = (answered.predictions, answered.versions, answered.arms, answered.propensities, answered.fallbacks)
    if last - first == 1:
        return ENCODER.encode(Answers(version, [Answer(*[c[first] for c in columns])], classes))
    span = slice(first, last)
    return ENCODER.encode(Answers(version, list(map(Answer, *(c[span] for c in columns))), classes))


def _member(index: int, field: Field) -> Any:
    kind = PYTHON[field.kind]
    return (f"f{index}", kind | None, None) if field.nullable else (f"f{index}", kind)


def _column(index: int, field: Field) -> Any:
    kind: Any = PYTHON[field.kind]
    return (f"f{index}", list[kind | None] | None, None) if field.nullable else (f"f{index}", list[kind])
