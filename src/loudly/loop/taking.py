"""The wheel's half of what outposts answer: their records are logged once, in one order, and folded.

A label waits for every prediction that was acknowledged before it was sent, whichever outpost gave it; so where labels have come,
all spools are read once more before they are folded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

import msgspec
import numpy as np
import polars as pl

from loudly.core.clock import moment
from loudly.errors import DataError, LoudlyError, one_line
from loudly.labels.book import Arrival
from loudly.loop import traffic
from loudly.loop.calls import CALLS, Told
from loudly.loop.counting import late_call
from loudly.loop.live import Live
from loudly.loop.misfits import ASIDES, aside_of
from loudly.loop.records import batches
from loudly.loop.restart import insist
from loudly.loop.traffic import Entry
from loudly.serve.replies import Replies
from loudly.store.segments import Record
from loudly.store.spools import Spools

MOST_TOLD = 10_000
BY_HAND = "by-hand"  # spools of `loudly feedback`, whose sender does not wait for an answer
Outcome = Mapping[str, Any] | LoudlyError


def take(live: Live, records: Sequence[Record]) -> dict[str, Outcome]:
    """Logs and folds records of outposts: predictions first, then labels. Returns by origin what became of the labels.

    Labels that cannot be folded are not logged: they would stand in the way of every restart.
    """
    labels = [record for record in records if record.kind == "labels"]
    rest = _in_order(record for record in records if record.kind != "labels")
    with live.lock:
        _log(live, rest)
        _fold(live, rest)
        told = {record.origin: _label(live, record) for record in labels}
        _log(live, [record for record in labels if not isinstance(told[record.origin], LoudlyError)])
    return told


class Taking:
    """Takes over from spools, each record once; `outcome` tells a worker what became of its labels."""

    def __init__(self, live: Live, spools: Spools) -> None:
        self._live, self._spools, self._lock = live, spools, Lock()
        self._told: dict[str, Outcome] = {}

    def drain(self) -> int:
        """Takes over all there is, and deletes what is safely in the log. Returns how many records there were.

        While the disk refuses the log, or the past is folded, nothing is taken: it waits in the spools, which are bounded.
        """
        with self._lock:
            log, found = self._live.stores.traffic, list[Record]()
            if log is None or log.refused or self._live.past.open:
                return 0
            new = self._spools.read()
            while new:
                found += new
                new = self._spools.read() if any(record.kind == "labels" for record in new) else []
            for where in self._spools.damaged:
                self._live.answering.raised_by_log.note([f"spool {where}: damaged, and its rest is not taken over; it is kept"])
            if found:
                told = take(self._live, found)
                self._say_refused(told)
                self._told.update(told)
                log.flush()
            if not log.refused:
                self._spools.drop()
            for old in list(self._told)[: max(0, len(self._told) - MOST_TOLD)]:
                del self._told[old]
            return len(found)

    def _say_refused(self, told: Mapping[str, Outcome]) -> None:
        for origin, made in told.items():
            if isinstance(made, LoudlyError) and origin.startswith(BY_HAND):
                insist(self._live, "guarantee_weakened", what="labels of a file are not joined", reason=str(made))

    def outcome(self, origin: str) -> Outcome:
        """What became of labels; they are taken over now where they were not yet."""
        if origin not in self._told:
            self.drain()
        return self._told.pop(origin, {})


def _log(live: Live, records: Iterable[Record]) -> None:
    """Of answers that came too late only that they were taken: what they come to is logged when it is counted."""
    if live.stores.traffic is not None:
        nothing = Told(0, 0, moment(live.clock)).to_bytes()
        for record in records:
            kind, payload = (CALLS, nothing) if record.kind == "given_up" else (record.kind, record.payload)
            live.stores.traffic.append(kind, payload, record.origin)


def _in_order(records: Iterable[Record]) -> list[Record]:
    """By the time they were answered at; those of one spool stay in the order in which it was written."""
    newest: dict[str, int] = {}
    timed: list[tuple[int, Record]] = []
    for record in records:
        name = record.origin.rpartition(":")[0]
        newest[name] = max(newest.get(name, 0), _answered_at(record))
        timed.append((newest[name], record))
    return [record for _, record in sorted(timed, key=lambda pair: pair[0])]


def _answered_at(record: Record) -> int:
    if record.kind == ASIDES:
        return aside_of(record.payload).at
    one = traffic.entry(record.payload) if record.kind != "given_up" else None
    return one.at if one is not None else 0


def _fold(live: Live, records: Sequence[Record]) -> None:
    """As answers of our own. Those of a rollout that is over count no more; what cannot be folded is counted, and told."""
    live.answering.fold()
    _given_up(live, [record for record in records if record.kind == "given_up"])
    for record in records if not live.answering.behind else ():
        if record.kind == ASIDES:
            live.asides.folded(aside_of(record.payload))
    for kind, entries, table in batches(live, [record for record in records if record.kind != ASIDES]):
        try:
            _fold_table(live, kind, entries, table)
        except Exception as wrong:  # noqa: BLE001 - whatever it is, the other records are folded, and labels joined
            live.answering.unfolded(table.height, wrong)
    live.counting.log()


def _fold_table(live: Live, kind: str, entries: Sequence[Entry], table: pl.DataFrame) -> None:
    behind = live.answering.behind
    match kind:
        case "predictions":
            if not behind:
                live.fold_answers(table, int(table["_at"][-1]))
            if live.state.rollout is not None and entries and entries[0].rollout == live.state.rollout.started:
                replies = traffic.replies_of(table)
                live.counting.answers(table, replies, tuple(_calls(replies, table[live.system.key].to_list(), entries)))
        case "pinned" if not behind:
            live.pins.predicted(table)


def _calls(replies: Replies, units: list[Any], entries: Sequence[Entry]) -> Iterator[tuple[Replies, list[Any]]]:
    """The replies of a table call by call, as they were given, each with its units."""
    at = 0
    for one in entries:
        answered, failed, seconds = one.calls
        mine = replies.take(np.arange(at, at + one.rows))
        yield replace(mine, answered=answered, failed=failed, seconds=seconds), units[at : at + one.rows]
        at += one.rows


def _given_up(live: Live, records: Sequence[Record]) -> None:
    """Answers that came too late, as failures of the arm that was at work; requests of one attempt are one call."""
    lost: dict[tuple[Any, ...], list[Any]] = {}
    for record in records:
        rollout, arm, attempt, units = msgspec.msgpack.decode(record.payload)
        lost.setdefault((record.origin.rpartition(":")[0], rollout, arm, attempt), []).extend(units)
    for (_, rollout, arm, _), units in lost.items():
        if live.strategy is not None and live.router is not None and live.state.rollout and live.state.rollout.started == rollout:
            live.counting.call(late_call(live.router.routing.names, arm, len(units)), units)


def _label(live: Live, record: Record) -> Outcome:
    try:
        table = traffic.from_bytes(record.payload)
        return outcome_of(live.labelled(table, int(table["_at"][-1])))
    except LoudlyError as wrong:
        return wrong
    except Exception as wrong:  # noqa: BLE001 - whatever a client has sent, the other records are folded
        return DataError("These labels cannot be joined.", seen=one_line(wrong))


def outcome_of(arrival: Arrival) -> dict[str, Any]:
    """What became of labels, in numbers. repeated: of keys that have their label, `changed` of them another: the first counts.

    spooled: safe, and joined later.  unfollowed: of units that are not logged.  strange: set aside, of values that nobody knows.
    """
    repeated = len(arrival.duplicate) + len(arrival.changed)
    told = {"joined": arrival.joined.height, "unknown": len(arrival.unknown), "repeated": repeated}
    rare = {"changed": len(arrival.changed), "spooled": arrival.later, "unfollowed": arrival.unfollowed}
    rare["strange"] = len(arrival.strange)
    return {**told, **{name: count for name, count in rare.items() if count}}
