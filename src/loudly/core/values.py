"""The nouns. Frozen values of plain data; how they are drawn is known elsewhere (cli, web)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from loudly.core.canon import Json, canonical, digest


class Task(StrEnum):
    """What kind of answer the model gives."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"


class Decision(StrEnum):
    """The three answers of every judgment."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `kind` is a past tense, `at` is event time in µs, `data` is plain JSON."""

    kind: str
    at: int
    data: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event in the ledger: its position (from 1) and the digest that chains it to all before it."""

    position: int
    event: Event
    chain: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a judgment rests on: a method, an effect with an interval, and n.

    `effect` is in the unit that `unit` names; `low`/`high` bound it at `confidence`. `about` names the column,
    slice or metric. None means that the number could not be told (never that it is zero).
    """

    method: str
    effect: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    about: str = ""
    unit: str = ""
    confidence: float = 0.95
    tolerance: float | None = None
    p_value: float | None = None
    detail: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """PASS, FAIL or UNDECIDED about a subject, with its reason and evidence.

    An UNDECIDED verdict says what is `missing` and when it is `expected_at` (event time, µs).
    """

    decision: Decision
    subject: str
    reason: str
    evidence: tuple[Evidence, ...] = ()
    missing: str = ""
    expected_at: int | None = None

    @property
    def passed(self) -> bool:
        return self.decision is Decision.PASS

    @property
    def failed(self) -> bool:
        return self.decision is Decision.FAIL


def worst(verdicts: tuple[Verdict, ...]) -> Decision:
    """FAIL before UNDECIDED before PASS; no verdicts at all is UNDECIDED."""
    decisions = {v.decision for v in verdicts}
    for decision in (Decision.FAIL, Decision.UNDECIDED, Decision.PASS):
        if decision in decisions:
            return decision
    return Decision.UNDECIDED


class Kind(StrEnum):
    """What a column is."""

    NUMBER = "number"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    CATEGORY = "category"
    TEXT = "text"
    TIME = "time"


def are_categories(kinds: int, rows: int) -> bool:
    """Whether texts of so many kinds in so many rows are categories: a thousand at most, and each in two rows on average."""
    return kinds <= min(1000, max(20, rows // 2))


# Kinds whose values a model may take as numbers, as they are.
NUMERIC = (Kind.NUMBER, Kind.INTEGER, Kind.BOOLEAN)


class Role(StrEnum):
    """What a column is for.

    Private columns are inputs that are pseudonymised before anything is written; side columns are inputs that are joined
    from a side table, so no request sends them; the group names the list that a row is a part of, and no model reads it.
    """

    INPUT = "input"
    LABEL = "label"
    TIME = "time"
    KEY = "key"
    GROUP = "group"
    PRIVATE = "private"
    SIDE = "side"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Field:
    """One column as training saw it. `low`/`high` bound numbers, `values` lists categories in their frozen order."""

    name: str
    kind: Kind
    role: Role = Role.INPUT
    nullable: bool = False
    missing_rate: float = 0.0
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Schema:
    """The frozen columns of a table; its `version` is the digest of all it says."""

    fields: tuple[Field, ...]

    @property
    def version(self) -> str:
        return digest(canonical(plain(self)))[:12]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.fields)

    def field(self, name: str) -> Field | None:
        return next((f for f in self.fields if f.name == name), None)

    def role(self, role: Role) -> tuple[Field, ...]:
        return tuple(f for f in self.fields if f.role is role)

    @property
    def inputs(self) -> tuple[Field, ...]:
        """What the model reads: inputs, private inputs and joined side columns, in order."""
        return tuple(f for f in self.fields if f.role in (Role.INPUT, Role.PRIVATE, Role.SIDE))

    @property
    def sent(self) -> tuple[Field, ...]:
        """What a request carries: key, time, group and inputs, without what is joined on our side."""
        return tuple(f for f in self.fields if f.role not in (Role.LABEL, Role.IGNORED, Role.SIDE))


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a dataset: a Parquet blob."""

    digest: str
    rows: int
    size: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """An immutable, content-addressed version of a table: parts in order, with schema and time range (µs)."""

    name: str
    parts: tuple[Part, ...]
    schema: Schema
    first: int | None = None
    last: int | None = None

    @property
    def digest(self) -> str:
        return digest(canonical(plain(self)))

    @property
    def rows(self) -> int:
        return sum(p.rows for p in self.parts)


@dataclass(frozen=True, slots=True)
class Run:
    """One training: what went in and what came out. `key` is the digest of everything that went in."""

    key: str
    dataset: str
    params: Mapping[str, Json]
    seed: int
    start: str | None
    metrics: Mapping[str, float | None]
    model: str
    format: str
    rows: int


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered model: `flights/3`. `model` is the digest of its bytes, `format` how to load them."""

    name: str
    number: int
    model: str
    format: str
    task: Task
    dataset: str
    schema: str
    run: str
    at: int

    @property
    def ref(self) -> str:
        return f"{self.name}/{self.number}"


@dataclass(frozen=True, slots=True)
class Arm:
    """One version that a strategy can send a unit to."""

    name: str
    version: str


def plain(value: Any) -> Any:
    """A value of ours as plain JSON data (dataclasses to objects, enums to text, tuples to lists).

    >>> plain(Evidence("ks", 0.1))["method"]
    'ks'
    """
    return _listed(asdict(value))


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _listed(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(v) for v in value]
    if isinstance(value, StrEnum):
        return str(value)
    return value


def verdict_of(data: Mapping[str, Any]) -> Verdict:
    """The inverse of `plain` for a Verdict."""
    evidence = tuple(Evidence(**e) for e in data["evidence"])
    return Verdict(**{**data, "decision": Decision(data["decision"]), "evidence": evidence})


def schema_of(data: Mapping[str, Any]) -> Schema:
    """The inverse of `plain` for a Schema."""
    return Schema(
        tuple(
            Field(**{**f, "kind": Kind(f["kind"]), "role": Role(f["role"]), "values": tuple(f["values"])}) for f in data["fields"]
        )
    )


def dataset_of(data: Mapping[str, Any]) -> Dataset:
    """The inverse of `plain` for a Dataset."""
    parts = tuple(Part(**p) for p in data["parts"])
    return Dataset(data["name"], parts, schema_of(data["schema"]), data["first"], data["last"])


def version_of(data: Mapping[str, Any]) -> ModelVersion:
    """The inverse of `plain` for a ModelVersion."""
    return ModelVersion(**{**data, "task": Task(data["task"])})
