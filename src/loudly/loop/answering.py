"""The hot path of the wheel: answer and log now, fold a little later.

An answer needs the routing and the model; the label book, the monitor and the rollout's counts need the same rows only before
somebody looks at them. So answered rows wait here, in memory (they are in the traffic log already), and are folded some hundred
at a time: before every tick, before labels are joined, and by `settle` between answers. What is folded is the same, batch by
batch or all at once: counts add, and batches are cut where the time that they carry would be judged otherwise.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from loudly.data.pseudonym import pseudonym
from loudly.errors import RolloutError
from loudly.loop import traffic
from loudly.serve.attempt import Attempt
from loudly.serve.router import Replies, Router
from loudly.serve.rows import Rows, checked, joined, of_table
from loudly.validate.conform import conform

if TYPE_CHECKING:
    from loudly.loop.live import Live

FOLD_ROWS = 512
MOST_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Waiting:
    """An answered batch that is not folded yet. kind: batches of one kind may be folded together."""

    rows: Rows
    replies: Replies
    rollout: int
    at: int
    kind: tuple[Any, ...]


class Answering:
    """Answers rows for a Live and keeps them until they are folded. Many threads may answer; whoever holds the lock folds."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._waiting: deque[Waiting] = deque()
        self._lost: deque[tuple[str, int]] = deque()
        self._rows = 0

    def answer(self, rows: Rows, attempt: Attempt) -> Replies:
        """Answers and logs the rows; requests that were given up meanwhile are left out of the log.

        Raises: RolloutError while there is no champion, DataError where the champion has changed and its schema does not fit.
        """
        rows, units, router = self._ready(rows)
        replies = router.answer(rows, units, attempt)
        late = attempt.close()
        if not late:
            self._log(rows, replies, attempt, range(len(attempt.sizes)))
        elif len(late) < len(attempt.sizes):
            kept = _rows_of(attempt, set(range(len(attempt.sizes))) - set(late))
            mask = np.isin(np.arange(rows.height), kept)
            whole = [i for i in range(len(attempt.sizes)) if i not in late]
            self._log(rows.filter(mask), replies.take(kept), attempt, whole)
        return replies

    def give_up(self, rows: Rows, attempt: Attempt) -> Replies:
        """Answers by the constant fallback, at once, and logs that."""
        rows, units, router = self._ready(rows)
        replies = router.give_up(units, attempt.scoring)
        self._log(rows, replies, attempt, range(len(attempt.sizes)))
        return replies

    def lose(self, rows: Rows, attempt: Attempt) -> None:
        """Rows whose answer did not come in time and whose client was told so: the arm that was at work has failed them."""
        self._lost.append((attempt.scoring, rows.height))

    def settle(self) -> None:
        """Folds what waits where that is worth it and nobody else holds the lock."""
        if self._rows >= FOLD_ROWS and self._live.lock.acquire(blocking=False):
            try:
                self.fold()
            finally:
                self._live.lock.release()

    def fold(self) -> None:
        """Folds all that waits. The caller holds the lock of the Live."""
        group: list[Waiting] = []
        height = 0
        while self._waiting:
            one = self._waiting.popleft()
            self._rows -= one.rows.height
            if group and (one.kind != group[0].kind or height + one.rows.height > MOST_ROWS):
                self._fold(group)
                group, height = [], 0
            group.append(one)
            height += one.rows.height
        if group:
            self._fold(group)
        if not self._waiting:
            self._rows = 0

    def _fold(self, group: list[Waiting]) -> None:
        live = self._live
        table = joined([w.rows for w in group]).table()
        replies = traffic.all_of([w.replies for w in group])
        at = np.repeat([w.at for w in group], [w.rows.height for w in group])
        live.fold_answers(traffic.logged(table, replies, group[0].rollout, at), group[-1].at)
        if group[0].rollout == _rollout(live):
            live.count(table, self._with_lost(replies))

    def _with_lost(self, replies: Replies) -> Replies:
        """The counts with those that came too late: beside answers of their time, so that shares of the arms are told apart."""
        answered, failed = dict(replies.answered), dict(replies.failed)
        while self._lost:
            arm, rows = self._lost.popleft()
            answered[arm] = answered.get(arm, 0) + rows
            failed[arm] = failed.get(arm, 0) + rows
        return replace(replies, answered=answered, failed=failed)

    def _ready(self, rows: Rows) -> tuple[Rows, list[Any], Router]:
        live = self._live
        router, champion = live.router, live.state.champion
        if router is None or champion is None:
            raise RolloutError("Nothing answers yet: there is no champion.", do="Run `loudly train`, then `loudly ship`.")
        schema = live.ready[champion].schema
        if rows.schema is not schema:
            rows = checked(of_table(conform(rows.table(), schema, keys=False).good, schema))
        if live.system.private:
            hidden = {name: _hidden(rows.columns[name], live.key) for name in live.system.private if name in rows.columns}
            rows = Rows(rows.schema, {**rows.columns, **hidden}, rows.height)
        return rows, list(rows.columns[live.system.key]), router

    def _log(self, rows: Rows, replies: Replies, attempt: Attempt, kept: Any) -> None:
        live = self._live
        now, rollout = live.clock.now(), _rollout(live)
        if live.stores.traffic is not None:
            notes = [(*attempt.notes[i], attempt.sizes[i]) for i in kept] if attempt.notes else ()
            live.stores.traffic.append("predictions", traffic.compact(rows, replies, rollout, now, notes))
        kind = (id(rows.schema), rollout, replies.versions, replies.answer.ndim, *live.watch.cell(now))
        self._rows += rows.height
        self._waiting.append(Waiting(rows, replies, rollout, now, kind))


def _rollout(live: Live) -> int:
    return live.state.rollout.started if live.state.rollout is not None else 0


def _rows_of(attempt: Attempt, kept: set[int]) -> Any:
    ends = np.cumsum(attempt.sizes)
    spans = [np.arange(ends[i] - attempt.sizes[i], ends[i]) for i in sorted(kept)]
    return np.concatenate(spans) if spans else np.zeros(0, dtype=np.int64)


def _hidden(values: Any, key: bytes) -> list[str | None]:
    return [None if v is None else pseudonym(v, key) for v in values]
