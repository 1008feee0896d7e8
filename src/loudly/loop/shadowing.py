"""Shadows score behind the answers: on a thread of their own, some hundred rows at once, when the clients have their answers.

A shadow costs an answer nothing then, and a model whose call costs as much for 256 rows as for one costs next to nothing.
Answered batches pass through in their order, those that owe no shadow too. A shadow that hangs loses its thread, and the rows
that it holds count as failed; one that cannot keep up is spared rows, which are counted (`shed`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from threading import Condition, Thread
from typing import Any

import numpy as np

from loudly.core.seams import Floats, Ints
from loudly.errors import one_line
from loudly.loop.traffic import all_of
from loudly.serve.replies import Replies, Served
from loudly.serve.rows import Rows, joined

Note = Callable[[list[str]], None]
GROUP_ROWS = 1024
WAIT_SECONDS, IDLE_SECONDS = 0.1, 1.0
PATIENCE_SECONDS = 5.0
MOST_ROWS = 16_384
MOST_STUCK = 4


@dataclass(frozen=True, slots=True)
class Waiting:
    """Answered rows that are not folded yet. kind: those of one kind may be folded together.  at: when, once or row by row.

    pinned: the version that was asked by name, "" where the routing was.  notes: id, traceparent and rows of each request.
    behind: whether they are folded from the log.
    """

    rows: Rows
    replies: Replies
    rollout: int
    at: int | Ints
    kind: tuple[Any, ...]
    pinned: str = ""
    notes: Sequence[tuple[str, str, int]] = ()
    behind: bool = False


class Shadows:
    """Takes answered batches and hands them over, in order, with the scores that they owed. One thread, begun when needed."""

    def __init__(self, hand_over: Callable[[Waiting], None], note: Note) -> None:
        self._hand_over, self._note = hand_over, note
        self._some = Condition()
        self._queue: deque[Waiting] = deque()
        self._at_work: list[Waiting] = []
        self._rows = 0
        self._hurry = False
        self._thread: object = None
        self.stuck = self.shed = 0

    @property
    def busy(self) -> bool:
        """Whether a batch waits, or is being scored."""
        return bool(self._queue or self._at_work)

    def put(self, one: Waiting) -> None:
        """Takes a batch. Where no thread is left that a shadow has not kept, its rows count as failed."""
        if self.stuck >= MOST_STUCK:
            self._hand_over(_failed(one))
            return
        with self._some:
            if self._rows + one.rows.height > MOST_ROWS and one.replies.owed:
                self.shed += one.rows.height
                one = _paid(one)
            self._queue.append(one)
            self._rows += one.rows.height
            if self._thread is None:
                self._thread = mine = object()
                Thread(target=self._work, args=(mine,), name="loudly-shadow", daemon=True).start()
            elif self._rows >= GROUP_ROWS or len(self._queue) == 1:
                self._some.notify_all()

    def drain(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Returns when all that was taken is handed over. What a shadow has not scored by then counts as failed."""
        with self._some:
            self._hurry = True
            self._some.notify_all()
            done = self._some.wait_for(lambda: not self.busy, seconds)
            self._hurry = False
            if done:
                return
            self.stuck += 1
            self._thread = None
            held = [*self._at_work, *self._queue]
            self._at_work, self._rows = [], 0
            self._queue.clear()
            for one in held:
                self._hand_over(_failed(one))

    def _work(self, mine: object) -> None:
        """The thread, until it is given up or has nothing to do."""
        while True:
            with self._some:
                if not self._some.wait_for(lambda: self._queue or self._thread is not mine, IDLE_SECONDS):
                    self._thread = None
                    return
                self._some.wait_for(lambda: self._hurry or self._rows >= GROUP_ROWS or self._thread is not mine, WAIT_SECONDS)
                if self._thread is not mine:
                    return
                taken = self._at_work = _up_to(self._queue, GROUP_ROWS)
                self._rows -= sum(one.rows.height for one in taken)
            scored = with_shadows(taken, self._note)
            with self._some:
                if self._thread is not mine:
                    return
                for one in scored:
                    self._hand_over(one)
                self._at_work = []
                self._some.notify_all()


def with_shadows(batches: Sequence[Waiting], note: Note) -> list[Waiting]:
    """The batches with the scores that they owed; those of one kind and one routing become one, unless a shadow failed there."""
    scored: list[Waiting] = []
    for _, alike in groupby(batches, key=_shadows_of):
        group = list(alike)
        owed, parts = group[0].replies.owed, [one.rows for one in group]
        whole = _one_of(group) if owed and len(group) > 1 else group[0]
        found = {name: _scores(served, whole.rows, parts, note) for name, served in owed.items()}
        told = whole
        for name, score in found.items():
            told = _with(told, name, score)
        if owed and not any(told.replies.failed[name] for name in owed):
            scored.append(_paid(told))
            continue
        ends = np.cumsum([part.height for part in parts])[:-1]
        pieces = {name: [None] * len(group) if score is None else np.split(score, ends) for name, score in found.items()}
        for i, one in enumerate(group):
            for name in owed:
                one = _with(one, name, pieces[name][i])
            scored.append(_paid(one))
    return scored


def gathered(fresh: Sequence[Waiting]) -> list[Waiting]:
    """Batches, those that follow each other and may be logged, scored by shadows and counted as one being one."""
    found: list[Waiting] = []
    for _, alike in groupby(fresh, key=lambda one: _shadows_of(one) if _plain(one) else id(one)):
        group = list(alike)
        notes = [note for one in group for note in one.notes]
        found.append(replace(_one_of(group), notes=notes) if len(group) > 1 else group[0])
    return found


def _plain(one: Waiting) -> bool:
    """Whether a rollout counts nothing of the call but its rows: there is none, or shadows have still to score it."""
    replies = one.replies
    return not (replies.seconds or replies.errors) and bool(replies.owed or not one.rollout)


def _one_of(group: Sequence[Waiting]) -> Waiting:
    heights = [one.rows.height for one in group]
    at = np.concatenate([np.full(n, one.at) if isinstance(one.at, int) else one.at for one, n in zip(group, heights, strict=True)])
    rows, replies = joined([one.rows for one in group]), all_of([one.replies for one in group])
    return replace(group[0], rows=rows, replies=replace(replies, owed=group[0].replies.owed), at=at)


def shared(one: Waiting) -> tuple[Any, ...]:
    """What batches must share to be folded together."""
    return *one.kind, one.behind


def _shadows_of(one: Waiting) -> tuple[Any, ...]:
    """What batches must share to be scored together."""
    return *shared(one), *((name, id(served)) for name, served in one.replies.owed.items())


def _scores(served: Served, rows: Rows, parts: Sequence[Rows], note: Note) -> Floats | None:
    """Scores of the rows; where the model raises on all of them together, each part is asked by itself."""
    try:
        return served.score(rows)
    except Exception as wrong:  # noqa: BLE001 - a model may raise anything
        if len(parts) == 1:
            note([f"{served.version}: {one_line(wrong)}"])
            return None
    found = [_scores(served, part, [part], note) for part in parts]
    shape = next((score.shape[1:] for score in found if score is not None), ())
    blank = [np.full((part.height, *shape), np.nan) for part in parts]
    return np.concatenate([n if s is None or s.shape[1:] != shape else s for s, n in zip(found, blank, strict=True)])


def _with(one: Waiting, name: str, score: Floats | None) -> Waiting:
    """The batch with the scores of one arm: missing where it failed or gave another shape than control."""
    replies, n = one.replies, one.rows.height
    if score is None or score.shape != replies.answer.shape:
        score = np.full(replies.answer.shape, np.nan)
    lacking = n - int(np.isfinite(score.reshape(n, -1)).all(axis=1).sum())
    counts = {**replies.answered, name: n}, {**replies.failed, name: lacking}
    return replace(one, replies=replace(replies, scores={**replies.scores, name: score}, answered=counts[0], failed=counts[1]))


def _failed(one: Waiting) -> Waiting:
    for name in one.replies.owed:
        one = _with(one, name, None)
    return _paid(one)


def _paid(one: Waiting) -> Waiting:
    if not one.replies.owed:
        return one
    return replace(one, replies=replace(one.replies, owed={}))


def _up_to(queue: deque[Waiting], rows: int) -> list[Waiting]:
    taken: list[Waiting] = []
    while queue and rows > 0:
        taken.append(queue.popleft())
        rows -= taken[-1].rows.height
    return taken
