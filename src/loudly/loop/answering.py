"""The hot path of the wheel: answer and log now, fold a little later.

An answer needs the routing and the model. The log needs the rows within 5 ms: what was answered since it wrote last goes in as one
record. The label book, the monitor and the rollout's counts need them only before somebody looks at them: so they wait here, in
memory, and are folded some hundred at a time: before every tick, before labels are joined, and by `settle` between answers. What is
folded is the same, batch by batch or all at once: counts add, and batches are cut where the time that they carry would be judged
otherwise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import count as counted
from threading import Lock, Thread
from typing import Any

import numpy as np
import polars as pl

from loudly.core.clock import moment, stopwatch
from loudly.core.values import Role, Schema
from loudly.data.pseudonym import pseudonym
from loudly.errors import DataError, RolloutError, WheelAway, one_line
from loudly.labels.book import Arrival
from loudly.loop import traffic
from loudly.loop.counting import late_call
from loudly.loop.host import Host
from loudly.loop.sampling import Notes
from loudly.loop.shadowing import Shadows, Waiting, gathered, shared
from loudly.loop.sides import Sides
from loudly.loop.system import System
from loudly.serve.attempt import Attempt
from loudly.serve.raised import Raised
from loudly.serve.replies import Replies
from loudly.serve.router import Router, Routing
from loudly.serve.rows import Rows, checked, joined, of_table
from loudly.validate.conform import conform

FOLD_ROWS, FOLD_SECONDS, MOST_WAITING = 512, 0.25, 32_768
MOST_FRESH, FRESH_SECONDS = 256, 0.0025
MOST_ROWS = 4096
# One batch in so many, and one in so many seconds, is scored by all arms on the spot and timed, for only calls alike tell which
# arm is slow.
TIMED, TIMED_SECONDS = 16, 0.05


class Fit:
    """Rows of a request as a version's model takes them: in its schema, private columns hidden, side columns joined."""

    def __init__(self, system: System, key: bytes, sides: Sides) -> None:
        self._system, self._key, self._sides = system, key, sides
        self._wide: tuple[Schema, Schema] | None = None
        self._known: tuple[Schema, bool] | None = None

    def rows(self, rows: Rows, routing: Routing) -> Rows:
        """As control takes them. Raises: DataError where the rows do not fit."""
        private, schema = self._system.private, routing.schema
        assert schema is not None
        if rows.schema is not schema:
            fitted = conform(rows.table(), schema, keys=False)
            if fitted.aside.height:  # answers of the others would be taken for theirs
                raise DataError("A row could not be cast.", seen=str(fitted.aside["reason"][0]))
            rows = checked(of_table(fitted.good, schema))
        if private:
            hidden = {name: _hidden(rows.columns[name], self._key) for name in private if name in rows.columns}
            rows = Rows(rows.schema, {**rows.columns, **hidden}, rows.height)
        if self._system.sides or self._sided(schema):
            fitted = self._sides.live(conform(rows.table(), schema, keys=False), schema)
            rows = of_table(fitted.good, self._widened(schema))
        return rows

    def _sided(self, schema: Schema) -> bool:
        """Whether it has side columns, looked up once a schema."""
        if self._known is None or self._known[0] is not schema:
            self._known = (schema, bool(schema.role(Role.SIDE)))
        return self._known[1]

    def _widened(self, schema: Schema) -> Schema:
        """The schema of rows with their side columns: as if they had been sent."""
        if self._wide is None or self._wide[0] is not schema:
            sent = tuple(replace(f, role=Role.INPUT) if f.role is Role.SIDE else f for f in schema.fields)
            self._wide = (schema, Schema(sent))
        return self._wide[1]


class Answering:
    """Answers rows for a Live and keeps them until they are folded. Many threads may answer; whoever holds the lock folds.

    unlogged, uncounted: rows that could not be logged, or folded.  behind: whether somebody catches up with the log, and folds what
    is answered now from there.
    """

    def __init__(self, live: Host) -> None:
        self._live = live
        self._waiting: deque[Waiting] = deque()
        self.raised, self.raised_by_log, self.raised_by_fold = Raised(), Raised(), Raised()
        self.unlogged = self.uncounted = 0
        self.behind = False
        self.shadows = Shadows(self._take, self.raised.note)
        self._batches, self._timed = counted(), 0.0
        self._lost: deque[tuple[Attempt, list[Any]]] = deque()
        self._rows, self._folding, self._folded = 0, False, 0.0
        self._fresh: deque[Waiting] = deque()
        self._gathering = Lock()
        self._fresh_since = 0.0
        if live.stores.traffic is not None:
            live.stores.traffic.before = self.before_log
        self._fit = Fit(live.system, live.key, live.sides)

    def answer(self, rows: Rows, attempt: Attempt) -> Replies:
        """Answers and logs the rows; requests that were given up meanwhile are left out of the log.

        Raises: RolloutError while there is no champion, NotFound where a version is named that is not loaded, DataError where
        the champion has changed and its schema does not fit.
        """
        rows, units, router = self.prepared(rows, attempt.version)
        replies = router.answer(rows, units, attempt, behind=not self._is_timed())
        self.raised.note(replies.errors)
        kept = still_wanted(rows, replies, attempt)
        if kept is not None:
            self._log(*kept, attempt.version, router.routing.rollout)
        return replies

    def _is_timed(self) -> bool:
        """Whether a shadow is asked on the spot this time."""
        if next(self._batches) % TIMED or (now := stopwatch()) - self._timed < TIMED_SECONDS:
            return False
        self._timed = now
        return True

    def give_up(self, rows: Rows, attempt: Attempt) -> Replies:
        """Answers by the constant fallback, at once, and logs that."""
        rows, units, router = self.prepared(rows, attempt.version)
        replies = router.give_up(rows, units, attempt.scoring)
        self._log(rows, replies, notes_of(attempt), attempt.version, router.routing.rollout)
        return replies

    def lose(self, rows: Rows, attempt: Attempt) -> None:
        """Rows whose answer did not come in time and whose client was told so: the arm that was at work has failed them."""
        units = self._live.stores.sample.followed(rows.column(self._live.system.key))
        if units and not attempt.version:
            self._lost.append((attempt, units))

    def settle(self) -> None:
        """Sees to it that what waits is folded: now and then by a thread beside the answers, or here where that falls behind.

        Where too much waits whoever answers is held back: for a moment, as the lock may be held by somebody slow.
        """
        self.before_log(False)
        if self._rows >= MOST_WAITING:
            self._fold_beside(FOLD_SECONDS)
        elif self._rows >= FOLD_ROWS and not self._folding and stopwatch() - self._folded >= FOLD_SECONDS:
            self._folding = True
            try:
                Thread(target=self._fold_on_thread, name="loudly-fold", daemon=True).start()
            except RuntimeError:  # no room for another thread
                self._fold_on_thread()

    def _fold_on_thread(self) -> None:
        try:
            self._fold_beside()
        finally:
            self._folding, self._folded = False, stopwatch()

    def _fold_beside(self, patience: float = 0.0) -> None:
        """Folds, unless somebody else holds the lock (who then folds) for longer than so many seconds."""
        if self._live.lock.acquire(timeout=patience):
            try:
                self._fold_taken()
            finally:
                self._live.lock.release()

    def fold(self) -> None:
        """Folds all that waits, and that which a shadow has still to score. The caller holds the lock of the Live."""
        self.gather()
        if self.shadows.busy:
            self.shadows.drain()
        self._fold_taken()

    def _fold_taken(self) -> None:
        group: list[Waiting] = []
        height = 0
        while self._waiting:
            one = self._waiting.popleft()
            self._rows -= one.rows.height
            if group and (shared(one) != shared(group[0]) or height + one.rows.height > MOST_ROWS):
                self._try_to_fold(group)
                group, height = [], 0
            group.append(one)
            height += one.rows.height
        if group:
            self._try_to_fold(group)
        if not self._waiting:
            self._rows = 0
        self._live.counting.log()

    def _try_to_fold(self, group: list[Waiting]) -> None:
        """Rows that cannot be folded are counted, and told by the ticker; the others are."""
        try:
            self._fold(group)
        except Exception as wrong:  # noqa: BLE001 - whatever it is, answers go on
            self.unfolded(sum(one.rows.height for one in group), wrong)

    def unfolded(self, rows: int, wrong: Exception) -> None:
        """So many rows could not be folded."""
        self.uncounted += rows
        self.raised_by_fold.note([f"wheel: {one_line(wrong)}"])

    def _fold(self, group: list[Waiting]) -> None:
        live = self._live
        table = joined([w.rows for w in group]).table()
        replies = traffic.all_of([w.replies for w in group])
        at = np.concatenate([np.broadcast_to(w.at, w.rows.height) for w in group])
        logged = traffic.logged(table, replies, group[0].rollout, at)
        if group[0].pinned and not group[0].behind:
            live.pins.predicted(traffic.marked(logged, group[0].pinned))
        elif not group[0].behind:
            live.fold_answers(logged, int(at[-1]))
        if group[0].rollout == _rollout(live):
            calls = [(w.replies, w.rows.column(live.system.key)) for w in group]
            live.counting.answers(table, replies, (*calls, *self._late_calls(replies)))

    def _late_calls(self, replies: Replies) -> list[tuple[Replies, list[Any]]]:
        """Those that came too late, as calls of the arm that was at work; requests of one attempt are one call."""
        lost: dict[Attempt, list[Any]] = {}
        while self._lost:
            attempt, units = self._lost.popleft()
            lost.setdefault(attempt, []).extend(units)
        return [(late_call(replies.names, attempt.scoring, len(units)), units) for attempt, units in lost.items()]

    def prepared(self, rows: Rows, version: str = "") -> tuple[Rows, list[Any], Router]:
        """Rows as a version takes them (pseudonyms, side columns), their units, and who answers, by the routing of now: another
        champion may come meanwhile, and another schema with it. Raises: as `answer`.
        """
        live = self._live
        router = live.pins.of(version)[1] if version else live.router
        if router is None:
            raise RolloutError("Nothing answers yet: there is no champion.", do="Run `loudly train`, then `loudly ship`.")
        router = router.held()
        rows = self._fit.rows(rows, router.routing)
        return rows, rows.column(live.system.key), router

    def _log(self, rows: Rows, replies: Replies, notes: Notes, pinned: str, rollout: int) -> None:
        live = self._live
        part = live.stores.sample.part(rows, replies, notes, live.system.key)
        if part is None:
            return
        rows, replies, notes = part
        now = moment(live.clock)
        kind = (id(rows.schema), rollout, replies.versions, replies.answer.ndim, pinned, *live.watch.cell(now))
        if first := not self._fresh:
            self._fresh_since = stopwatch()
        self._fresh.append(Waiting(rows, replies, rollout, now, kind, pinned, notes))
        if first and live.stores.traffic is not None:
            live.stores.traffic.stir()

    def log(self, kind: str, make: Callable[[], bytes]) -> tuple[int, bool]:
        """Logs what is made, behind all that was answered before it. Returns its sequence, 0 without one, and what `behind` was."""
        log = self._live.stores.traffic
        with self._gathering:
            self._gather()
            return log.append(kind, make()) if log is not None else 0, self.behind

    def keep(self, labels: pl.DataFrame, sequence: int) -> Arrival:
        """Labels that are folded from the log, which are on disk when this returns. Raises: WheelAway where they are not."""
        log = self._live.stores.traffic
        assert log is not None
        log.flush()
        if not sequence or log.refused:
            raise WheelAway("The disk does not take the labels.", seen=log.refused, do="Send them again later.")
        return self._live.book.later(labels)

    def before_log(self, whole: bool) -> None:
        """The same where all is wanted, or it is old enough or much: whoever answers does it, or else the thread of the log."""
        waiting = len(self._fresh)
        if waiting and (whole or waiting >= MOST_FRESH or stopwatch() - self._fresh_since >= FRESH_SECONDS):
            self.gather()

    def gather(self) -> None:
        """Logs what was answered since the last time, and hands it on; calls that count as one are one record.

        What cannot be logged is counted (`unlogged`, in rows) and told by the ticker; all else is logged.
        """
        with self._gathering:
            self._gather()

    def caught_up(self) -> int:
        """Answers are folded from memory from here on. Returns the last record of the log before. The caller holds the lock."""
        log = self._live.stores.traffic
        with self._gathering:
            self._gather()
            self.behind = False
            return log.sequence if log is not None else 0

    def _gather(self) -> None:
        fresh = [self._fresh.popleft() for _ in range(len(self._fresh))]
        try:
            fresh = gathered(fresh)
        except Exception as wrong:  # noqa: BLE001 - whatever it is, each is logged by itself
            self.raised_by_log.note([f"traffic log: answers are logged one by one: {one_line(wrong)}"])
        for one in fresh:
            try:
                self._keep(replace(one, behind=self.behind))
            except Exception as wrong:  # noqa: BLE001 - whatever it is, the other answers are logged
                self.unlogged += one.rows.height
                self.raised_by_log.note([f"traffic log: {one_line(wrong)}"])

    def _keep(self, one: Waiting) -> None:
        log = self._live.stores.traffic
        if log is not None:
            payload = traffic.compact(one.rows, one.replies, one.rollout, one.at, one.notes, one.pinned)
            taken = log.append("pinned" if one.pinned else "predictions", payload)
            self.uncounted += one.rows.height if one.behind and not taken else 0
        if one.replies.owed or self.shadows.busy:
            self.shadows.put(one)
        else:
            self._take(one)

    def _take(self, one: Waiting) -> None:
        self._rows += one.rows.height
        self._waiting.append(one)


def notes_of(attempt: Attempt) -> Notes:
    """Request id, traceparent and rows of each request, for the log."""
    return [(*note, size) for note, size in zip(attempt.notes, attempt.sizes, strict=True)] if attempt.notes else []


def still_wanted(rows: Rows, replies: Replies, attempt: Attempt) -> tuple[Rows, Replies, Notes] | None:
    """Ends the attempt: what is to be logged of it, without the requests that were given up; None where all were."""
    late, notes = attempt.close(), notes_of(attempt)
    if not late:
        return rows, replies, notes
    if len(late) == len(attempt.sizes):
        return None
    kept = _rows_of(attempt, set(range(len(attempt.sizes))) - set(late))
    mask = np.isin(np.arange(rows.height), kept)
    return rows.filter(mask), replies.take(kept), [note for i, note in enumerate(notes) if i not in late]


def _rollout(live: Host) -> int:
    return live.state.rollout.started if live.state.rollout is not None else 0


def _rows_of(attempt: Attempt, kept: set[int]) -> Any:
    ends = np.cumsum(attempt.sizes)
    spans = [np.arange(ends[i] - attempt.sizes[i], ends[i]) for i in sorted(kept)]
    return np.concatenate(spans) if spans else np.zeros(0, dtype=np.int64)


def _hidden(values: Any, key: bytes) -> list[str | None]:
    return [None if v is None else pseudonym(v, key) for v in values]
