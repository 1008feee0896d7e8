"""What is logged of an answer: the row, who answered with which propensity, and what every arm scored.

Tables are logged as Arrow IPC. The answers of the hot path are logged as MessagePack, a tenth of the size and of the cost for
one row, and so are labels; `from_bytes` reads both into the same table.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl

from loudly.core.seams import Floats, Ints
from loudly.core.values import Field, Kind, Schema
from loudly.errors import DataError
from loudly.serve.replies import Replies, Served, arm_names
from loudly.serve.router import tried
from loudly.serve.rows import Rows, asked, series

MAGIC, MAGIC_OF_LABELS = b"loud1", b"labels1"
PLAIN = {str(kind): kind for kind in (pl.String, pl.Boolean, pl.Int64, pl.Int32, pl.Float64)}
# What a compact record holds of each row before the scores of the arms.
OWN = ("arm", "propensity", "answer", "fallback")
ENCODER = msgspec.msgpack.Encoder()
SCORES = ("_answer", "_control", "_candidate")


def logged(rows: pl.DataFrame, replies: Replies, rollout: int, at: int | Ints) -> pl.DataFrame:
    """The rows with `_arm`, `_propensity`, `_answer`, `_fallback`, `_rollout`, `_at` (when, µs) and `_<arm>` scores.

    `_arm` is an index into `arm_names`; which version that was, the event at the position `_rollout` of the ledger says.
    Where only a share of the units takes part in the rollout, `_share` says which did then, and rows of the others are not of it.
    """
    part: dict[str, Any] = {"_rollout": pl.lit(rollout, pl.Int64)}
    if replies.share is not None:
        part = {"_rollout": pl.Series(np.where(replies.share > 0, rollout, 0)), "_share": pl.Series(replies.share)}
    return rows.with_columns(
        pl.Series("_arm", replies.arm, dtype=pl.Int8),
        pl.Series("_propensity", replies.propensity),
        _scores("_answer", replies.answer),
        pl.Series("_fallback", replies.fallback),
        pl.lit(at, pl.Int64).alias("_at") if isinstance(at, int) else pl.Series("_at", at, dtype=pl.Int64),
        *(_scores(f"_{arm}", score) for arm, score in replies.scores.items()),
        **part,
    )


def alike(rows: pl.DataFrame, classes: int) -> pl.DataFrame:
    """Logged rows of several classes with every score as wide as the classes, whoever has scored or failed: so batches join.

    A number (the constant fallback, or NaN of an arm that did not score) stands for each class.
    """
    flat = [name for name, kind in rows.schema.items() if name.startswith(SCORES) and kind == pl.Float64]
    return rows.with_columns(_scores(name, np.repeat(column(rows, name)[:, None], classes, axis=1)) for name in flat)


def column(rows: pl.DataFrame, name: str) -> Floats:
    """A column of scores as (n,) or (n, k)."""
    return np.asarray(rows[name].to_numpy(), dtype=np.float64)


def rescored(rows: pl.DataFrame, arm: str, served: Served, note: Callable[[list[str]], None]) -> pl.DataFrame:
    """Logged rows with the scores of an arm where they were missing; those at which the model raises stay so, and that is noted."""
    scores = column(rows, f"_{arm}").copy()
    lacking = np.asarray(~np.isfinite(scores.reshape(rows.height, -1)).all(axis=1))
    if not lacking.any():
        return rows
    errors: list[str] = []
    made = tried(served, rows.filter(lacking), errors)
    if made is not None and made.size != scores[lacking].size:
        errors, made = [f"{served.version}: scores of another shape: {made.shape}"], None
    if made is not None:
        scores[lacking] = made.reshape(scores[lacking].shape)
    left = int((~np.isfinite(scores.reshape(rows.height, -1)).all(axis=1)).sum())
    note([f"{said} ({left:,} logged rows stay without its scores)" for said in errors])
    return rows.with_columns(_scores(f"_{arm}", scores))


def to_bytes(rows: pl.DataFrame) -> bytes:
    """A batch as Arrow IPC."""
    buffer = io.BytesIO()
    rows.write_ipc_stream(buffer)
    return buffer.getvalue()


def compact(
    rows: Rows,
    replies: Replies,
    rollout: int,
    at: int | Ints,
    notes: Sequence[tuple[str, str, int]] = (),
    pinned: str = "",
    calls: bool = False,
) -> bytes:
    """The same as `to_bytes(logged(...))` would keep, without a table. notes: request id, traceparent and rows of each request.

    pinned: the version that was asked by name, whose table says so in `_version`.  calls: with what a rollout counts of it.
    Cost: some 5 µs a row.
    """
    scores = [score.tolist() for score in replies.scores.values()]
    own = [replies.arm.tolist(), replies.propensity.tolist(), replies.answer.tolist(), replies.fallback.tolist(), *scores]
    more: dict[str, Any] = {"pinned": pinned} if pinned else {}
    if not isinstance(at, int):
        more["ats"] = at.tolist()
        at = more["ats"][-1]
    if replies.share is not None:
        more["share"] = replies.share.tolist()
    if calls:
        more["calls"] = (replies.answered, replies.failed, replies.seconds)
    return MAGIC + ENCODER.encode([_head(rows.schema), list(rows.columns.values()), own, rollout, at, notes, more])


@dataclass(frozen=True, slots=True)
class Entry:
    """A compact record, taken apart. Entries of one `kind` make one table. calls: rows answered and failed, seconds, by arm.

    at: when its last row was answered.  ats: row by row, where that is not the same.  share: as in `Replies`.
    """

    kind: tuple[Any, ...]
    columns: list[list[Any]]
    own: list[list[Any]]
    at: int
    pinned: str = ""
    calls: tuple[Mapping[str, int], Mapping[str, int], Mapping[str, float]] = ({}, {}, {})
    ats: Sequence[int] = ()
    share: Sequence[float] | None = None

    @property
    def rollout(self) -> int:
        return int(self.kind[1])

    @property
    def rows(self) -> int:
        return len(self.own[0])

    def column(self, name: str) -> list[Any]:
        """The values of a column of the rows. Raises: DataError where there is none."""
        return self.columns[_place(self.kind[0], name)]


def entry(data: bytes) -> Entry | None:
    """A compact record; None for a table."""
    if not data.startswith(MAGIC):
        return None
    head, columns, own, rollout, at, _, *rest = msgspec.msgpack.decode(data[len(MAGIC) :])
    wide = bool(own[2]) and isinstance(own[2][0], list)
    more = rest[0] if rest else {}
    kind = (tuple(map(tuple, head)), rollout, wide, len(own) - len(OWN))
    calls = more.get("calls", ({}, {}, {}))
    return Entry(kind, columns, own, at, more.get("pinned", ""), calls, more.get("ats", ()), more.get("share"))


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of one call, taken apart. kinds: name and type of each column, in the order of `columns`.  at: when they came."""

    kinds: tuple[tuple[str, pl.DataType], ...]
    columns: list[list[Any]]
    at: int

    @property
    def rows(self) -> int:
        return len(self.columns[0])

    def column(self, name: str) -> list[Any]:
        """The values of a column. Raises: DataError where there is none."""
        return self.columns[_place(self.kinds, name)]


def _place(kinds: Sequence[tuple[str, Any]], name: str) -> int:
    names = [known for known, _ in kinds]
    if name not in names:
        raise DataError(f"Logged rows have no column {name!r}.", seen=", ".join(names), do="Name the column as when they came.")
    return names.index(name)


def labels_to_bytes(labels: pl.DataFrame, at: int) -> bytes:
    """Labels that came at once. Types that MessagePack does not know go as a table."""
    kinds = [(name, str(kind)) for name, kind in labels.schema.items()]
    if not all(kind in PLAIN for _, kind in kinds):
        return to_bytes(labels.with_columns(_at=pl.lit(at, pl.Int64)))
    return MAGIC_OF_LABELS + ENCODER.encode([kinds, [column.to_list() for column in labels], at])


def labels_of(data: bytes) -> Labels:
    """A record of labels, whichever way it was logged."""
    if data.startswith(MAGIC_OF_LABELS):
        kinds, columns, at = msgspec.msgpack.decode(data[len(MAGIC_OF_LABELS) :])
        return Labels(tuple((name, PLAIN[kind]()) for name, kind in kinds), columns, at)
    table = pl.read_ipc_stream(io.BytesIO(data))
    told = table.drop("_at")
    at = int(table["_at"][-1]) if table.height else 0
    return Labels(tuple(told.schema.items()), [column.to_list() for column in told], at)


def table_of_labels(calls: Sequence[Labels]) -> pl.DataFrame:
    """Labels of calls of the same columns as one table, with `_at`; those of several say in `_call` of which."""
    columns = zip(*(call.columns for call in calls), strict=True)
    parts = zip(calls[0].kinds, columns, strict=True)
    rows = [pl.Series(name, [value for part in found for value in part], dtype=kind) for (name, kind), found in parts]
    sizes = [call.rows for call in calls]
    rows.append(pl.Series("_at", np.repeat([call.at for call in calls], sizes), dtype=pl.Int64))
    return pl.DataFrame([*rows, pl.Series("_call", np.repeat(np.arange(len(calls)), sizes))] if len(calls) > 1 else rows)


def table_of(entries: Sequence[Entry]) -> pl.DataFrame:
    """Entries of one kind as the table that would have been logged."""
    head, rollout, _, arms = entries[0].kind
    columns = (
        entries[0].columns
        if len(entries) == 1
        else [[v for c in cs for v in c] for cs in zip(*(e.columns for e in entries), strict=True)]
    )
    own = (
        entries[0].own if len(entries) == 1 else [[v for c in cs for v in c] for cs in zip(*(e.own for e in entries), strict=True)]
    )
    rows = pl.DataFrame([series(Field(n, Kind(k)), values) for (n, k), values in zip(head, columns, strict=True)])
    arm, propensity, answer, fallback, *scores = own
    replies = Replies(
        np.asarray(answer, dtype=np.float64),
        np.asarray(arm, dtype=np.int64),
        np.asarray(propensity, dtype=np.float64),
        np.asarray(fallback, dtype=bool),
        {name: np.asarray(score, dtype=np.float64) for name, score in zip(arm_names(arms), scores, strict=True)},
        ("",) * arms,
        {},
        {},
        (),
        {},
        share=_shares([(e.share, e.rows) for e in entries]),
    )
    made = logged(rows, replies, rollout, np.concatenate([e.ats or [e.at] * e.rows for e in entries]).astype(np.int64))
    return marked(made, entries[0].pinned)


def replies_of(table: pl.DataFrame) -> Replies:
    """The replies that a logged table tells of; what a rollout counts of them is not in it."""
    arms = [name for name in arm_names(len(table.columns)) if f"_{name}" in table.columns]
    scores = {arm: column(table, f"_{arm}") for arm in arms}
    fallback, propensity = table["_fallback"].to_numpy(), table["_propensity"].to_numpy()
    arm = table["_arm"].to_numpy().astype(np.int64)
    return Replies(column(table, "_answer"), arm, propensity, fallback, scores, ("",) * len(scores), {}, {}, (), {})


def marked(rows: pl.DataFrame, pinned: str) -> pl.DataFrame:
    """Logged rows that a version answered by its name, with that in `_version`; others as they are."""
    return rows.with_columns(pl.lit(pinned).alias("_version")) if pinned else rows


def from_bytes(data: bytes) -> pl.DataFrame:
    """The inverse of `to_bytes`, of `compact` and of `labels_to_bytes`."""
    if data.startswith(MAGIC_OF_LABELS):
        return table_of_labels([labels_of(data)])
    one = entry(data)
    return table_of([one]) if one is not None else pl.read_ipc_stream(io.BytesIO(data))


def notes_of(data: bytes) -> tuple[tuple[str, str, int], ...]:
    """Request id, traceparent and rows of each request in a record; empty for a table."""
    if not data.startswith(MAGIC):
        return ()
    return tuple((i, t, n) for i, t, n in msgspec.msgpack.decode(data[len(MAGIC) :])[5])


def all_of(replies: Sequence[Replies]) -> Replies:
    """Replies of one routing, one after the other; counts are added."""
    if len(replies) == 1:
        return replies[0]
    scores = {arm: np.concatenate([r.scores[arm] for r in replies]) for arm in replies[0].names}
    return Replies(
        np.concatenate([r.answer for r in replies]),
        np.concatenate([r.arm for r in replies]),
        np.concatenate([r.propensity for r in replies]),
        np.concatenate([r.fallback for r in replies]),
        scores,
        replies[0].versions,
        _added(replies[0].names, [r.answered for r in replies]),
        _added(replies[0].names, [r.failed for r in replies]),
        tuple(e for r in replies for e in r.errors),
        {},
        share=_shares([(r.share, len(r.arm)) for r in replies]),
    )


_KNOWN: dict[int, tuple[Schema, msgspec.Raw]] = {}


def _head(schema: Schema) -> msgspec.Raw:
    """Names and kinds of the columns, encoded once a schema."""
    known = _KNOWN.get(id(schema))
    if known is None or known[0] is not schema:
        if len(_KNOWN) > 64:
            _KNOWN.clear()
        made = msgspec.Raw(ENCODER.encode([(f.name, f.kind.value) for f in asked(schema)]))
        _KNOWN[id(schema)] = known = (schema, made)
    return known[1]


def _shares(told: Sequence[tuple[Any, int]]) -> Floats | None:
    """The shares of batches, one after the other; None where in all of them all units took part. told: shares or None, and rows."""
    if all(share is None for share, _ in told):
        return None
    return np.concatenate([np.ones(rows) if share is None else np.asarray(share) for share, rows in told])


def _added(arms: Sequence[str], counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {arm: sum(c.get(arm, 0) for c in counts) for arm in arms}


def _scores(name: str, values: Any) -> pl.Series:
    if values.ndim == 1:
        return pl.Series(name, values, dtype=pl.Float64)
    return pl.Series(name, values, dtype=pl.Array(pl.Float64, values.shape[1]))
