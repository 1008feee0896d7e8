"""Records of the traffic log as tables: what comes to the same is folded together, for a table costs more than its rows.

Answers of one cell of time are one table. Labels come one a call, between answers: those of a cell wait behind its answers, and are
one table too. Nobody is to see the difference: so answers to a key whose label waits end the wait, as does the time at which a
rollout learns; and the rows of a table of several calls say which (`_call`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import polars as pl

from loudly.core.clock import HOUR
from loudly.loop import traffic
from loudly.loop.host import Host
from loudly.store.segments import Record

MOST_ROWS = 4096
ANSWERS, LABELS = ("predictions", "pinned"), "labels"
KINDS = (*ANSWERS, LABELS)
Batched = tuple[str, list[traffic.Entry], pl.DataFrame]


def batches(live: Host, records: Iterable[Record]) -> Iterator[Batched]:
    """Records as tables, with kind and entries of compact answers. A record of another kind ends what waits, and is empty."""
    waiting = Batch(live)
    for record in records:
        if record.kind == LABELS:
            labels = traffic.labels_of(record.payload)
            if not waiting.has_room_for_labels(labels):
                yield from waiting.told()
            waiting.labelled(labels)
        elif record.kind in ANSWERS:
            one = traffic.entry(record.payload)
            if one is None or not waiting.has_room_for(record.kind, one):
                yield from waiting.told()
            if one is None:
                yield record.kind, [], traffic.from_bytes(record.payload)
            else:
                waiting.answered(record.kind, one)
        else:
            yield from waiting.told()
            yield record.kind, [], pl.DataFrame()
    yield from waiting.told()


class Batch:
    """Answers of one kind and one cell of time, and the labels that came among them."""

    def __init__(self, live: Host) -> None:
        self._live, self._key = live, live.system.key
        self._kind = ""
        self._entries: list[traffic.Entry] = []
        self._labels: list[traffic.Labels] = []
        self._keys: set[str] = set()
        self._cell: tuple[int, int] | None = None

    def has_room_for(self, kind: str, one: traffic.Entry) -> bool:
        """Whether an entry may be folded with those that wait, before the labels that do."""
        if self._cell not in (None, self._live.watch.cell(one.at)):
            return False
        if self._entries:
            first = self._entries[0]
            alike = (kind, one.kind, one.pinned) == (self._kind, first.kind, first.pinned)
            if not alike or len(self._entries) * max(1, first.rows) >= MOST_ROWS:
                return False
        return not self._keys or self._keys.isdisjoint(map(str, one.column(self._key)))

    def answered(self, kind: str, one: traffic.Entry) -> None:
        """Takes an entry."""
        self._kind, self._cell = kind, self._live.watch.cell(one.at)
        self._entries.append(one)

    def has_room_for_labels(self, labels: traffic.Labels) -> bool:
        """Whether labels may be folded with those that wait, after the answers that do."""
        if self._cell not in (None, self._live.watch.cell(labels.at)):
            return False
        if self._labels and _alike(labels) != _alike(self._labels[0]):
            return False
        return len(self._keys) + labels.rows <= MOST_ROWS

    def labelled(self, labels: traffic.Labels) -> None:
        """Takes labels."""
        self._cell = self._live.watch.cell(labels.at)
        self._labels.append(labels)
        self._keys.update(map(str, labels.column(self._key)))

    def told(self) -> Iterator[Batched]:
        """All that waits, as tables; nothing waits afterwards."""
        entries, labels = self._entries, self._labels
        self._entries, self._labels, self._keys, self._cell = [], [], set(), None
        if entries:
            yield self._kind, entries, traffic.table_of(entries)
        if labels:
            yield LABELS, [], traffic.table_of_labels(labels)


def _alike(labels: traffic.Labels) -> tuple[object, int]:
    """What labels of one table have in common; a rollout learns by the hour where no time is told."""
    return labels.kinds, labels.at // HOUR
