"""Rows from a Kafka topic: partitions are sources of their own, and offsets are committed with the checkpoint only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from confluent_kafka import OFFSET_BEGINNING, TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, Message, TopicPartition

from loudly.core.clock import stopwatch
from loudly.core.seams import Ints
from loudly.errors import DataError, NotFound, StoreError
from loudly.shift.event_time import NO_TIME, Batch, event_times

MESSAGES = 10_000
WAIT = 0.1  # seconds until a batch that is not full is taken as it is
FIXED = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
}
GONE = (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that is no row: where it stands, and why."""

    partition: int
    offset: int
    reason: str


def json_row(value: bytes) -> dict[str, Any]:
    """A row of a message that holds a JSON object.

    >>> json_row(b'{"x": 1}')
    {'x': 1}
    """
    row = json.loads(value)
    if not isinstance(row, dict):
        raise DataError("A message is no JSON object.", seen=type(row).__name__)
    return row


def _of_texts(column: pl.Series, naive: str | None) -> Ints:
    """Event times of texts, with a zone or (where `naive` says which is meant) without.

    A text that is no time is a row without one: it is counted, and the rows behind it come through.
    """
    zoned = event_times(column.str.to_datetime("%+", time_unit="us", strict=False))
    plain = column.str.replace(" ", "T").str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
    local = np.full(len(column), NO_TIME) if plain.is_null().all() else event_times(plain, naive)
    return np.where(zoned == NO_TIME, local, zoned)


class KafkaSource:
    """A topic, read by assignment (no group rebalances): each partition from the checkpoint's offset, or from its beginning.

    time: the column of event time; "" takes the timestamp of the message.  naive: zone of times without one.
    decode: message -> row; what it refuses is counted in `unreadable` and the last hundred are named in `refused`.
    patience: seconds of silence before the end of every partition that make an error.
    `read` ends where every partition has been read to its end; call it again for what has come since. Offsets start where
    the checkpoint says; `commit` writes them to the group too, so that lag can be watched.

    Raises: NotFound for a topic that is not there; StoreError where the cluster cannot be read, or where rows were deleted
    before they were folded (the gap is named, never skipped).
    """

    def __init__(
        self,
        topic: str,
        settings: Mapping[str, Any],
        *,
        time: str = "",
        naive: str | None = None,
        decode: Callable[[bytes], Mapping[str, Any]] = json_row,
        schema: Mapping[str, Any] | None = None,
        batch: int = MESSAGES,
        patience: float = 10.0,
    ) -> None:
        self.topic, self._time, self._naive = topic, time, naive
        self._decode, self._schema, self._batch, self._patience = decode, schema, batch, patience
        self.unreadable = 0
        self.refused: list[Unreadable] = []
        self._counted: dict[int, int] = {}  # the newest of each partition: behind the last row they are read again
        self._consumer = Consumer({"group.id": "loudly", **settings, **FIXED})

    @property
    def partitions(self) -> tuple[str, ...]:
        """The sources of this topic, for `Windows.sources`: one a partition."""
        return tuple(self._place(p) for p in self._numbers())

    def read(self, offsets: Mapping[str, int]) -> Iterator[Batch]:
        open_ends = set(self._numbers())
        self._consumer.assign([TopicPartition(self.topic, p, offsets.get(self._place(p), OFFSET_BEGINNING)) for p in open_ends])
        heard = stopwatch()
        while open_ends:
            found = self._consumer.consume(self._batch, timeout=WAIT)
            heard = stopwatch() if found else heard
            for message in found:
                partition = int(message.partition() or 0)
                if self._at_end(message):
                    open_ends.discard(partition)
                else:
                    open_ends.add(partition)
            yield from self._batches([m for m in found if m.error() is None])
            if stopwatch() - heard > self._patience:
                raise self._quiet(open_ends)

    def commit(self, offsets: Mapping[str, int]) -> None:
        places = {self._place(p): p for p in self._numbers()}
        known = [TopicPartition(self.topic, places[name], at) for name, at in offsets.items() if name in places]
        if not known:
            return
        try:
            self._consumer.commit(offsets=known, asynchronous=False)
        except KafkaException as wrong:
            raise self._named(wrong.args[0]) from wrong

    def close(self) -> None:
        """Leaves the cluster."""
        self._consumer.close()

    def _batches(self, messages: Sequence[Message]) -> Iterator[Batch]:
        for partition in sorted({int(m.partition() or 0) for m in messages}):
            read = [(m, self._row(m)) for m in messages if m.partition() == partition]
            rows = [(m, row) for m, row in read if row is not None]
            if rows:
                table = pl.DataFrame([row for _, row in rows], schema=self._schema, infer_schema_length=None)
                numbers = np.array([m.offset() for m, _ in rows], dtype=np.int64)
                yield Batch(table, self._times(table, [m for m, _ in rows]), self._place(partition), numbers)

    def _times(self, table: pl.DataFrame, messages: Sequence[Message]) -> Any:
        if not self._time:
            stamps = [m.timestamp() for m in messages]
            return np.array([NO_TIME if kind == TIMESTAMP_NOT_AVAILABLE else at * 1000 for kind, at in stamps], dtype=np.int64)
        if self._time not in table.columns:
            raise DataError(f"The rows have no time {self._time!r}.", seen=", ".join(table.columns), do="Name their event time.")
        column = table[self._time]
        if column.dtype != pl.String:
            return event_times(column, self._naive)
        return _of_texts(column, self._naive)

    def _row(self, message: Message) -> Mapping[str, Any] | None:
        try:
            value = message.value()
            if value is None:
                raise DataError("A message has no value.", seen="a tombstone")
            return self._decode(value)
        except (ValueError, DataError) as wrong:
            found = Unreadable(int(message.partition() or 0), int(message.offset() or 0), str(wrong).splitlines()[0])
            if found.offset > self._counted.get(found.partition, -1):
                self._counted[found.partition] = found.offset
                self.unreadable += 1
                self.refused = [*self.refused[-99:], found]
            return None

    def _at_end(self, message: Message) -> bool:
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise self._named(error)
        return error is not None

    def _quiet(self, partitions: set[int]) -> StoreError:
        return StoreError(
            f"The topic {self.topic!r} has gone quiet before its end.",
            seen=f"nothing for {self._patience:g} s from partitions {sorted(partitions)}",
            do="See whether their leaders answer; reading goes on from the checkpoint.",
        )

    def _numbers(self) -> list[int]:
        try:
            found = self._consumer.list_topics(self.topic, timeout=self._patience).topics[self.topic]
        except KafkaException as wrong:
            raise self._named(wrong.args[0]) from wrong
        if found.error is not None or not found.partitions:
            raise NotFound(f"There is no topic {self.topic!r}.", seen=str(found.error), do="Create it, or correct its name.")
        return sorted(found.partitions)

    def _place(self, partition: int) -> str:
        return f"{self.topic}/{partition}"

    def _named(self, error: KafkaError) -> StoreError:
        if error.code() in GONE:
            return StoreError(
                f"Rows of {self.topic!r} were deleted before they were folded.",
                seen=error.str(),
                do="Raise the topic's retention; to go on without them, begin another checkpoint.",
            )
        return StoreError(
            f"The topic {self.topic!r} cannot be read.",
            seen=error.str(),
            do="See whether the brokers answer; reading goes on where it stood.",
        )
