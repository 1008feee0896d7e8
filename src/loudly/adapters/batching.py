"""Adaptive batching without a timer: idle, run at once; busy, collect; on finish take what has come.

One thread asks the model; the event loop collects. A request waits for its answer until its deadline and no longer: a model that
hangs loses its thread to a new one, and what it says later is neither sent nor logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Protocol

from loudly.core.clock import stopwatch
from loudly.serve.attempt import Attempt
from loudly.serve.front import Answered, Front
from loudly.serve.rows import Rows, joined

LOG = logging.getLogger("loudly.serve")
MOST_STUCK = 8
LOOKS = 20
MOMENT_SECONDS = 0.001


class Full(Exception):
    """No room in the queue. `seconds`: when to come again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Late(Exception):
    """The deadline has passed. `attempt`: the batch that was under way, if any, for the log of a fallback."""

    def __init__(self, attempt: Attempt | None) -> None:
        super().__init__("no answer in time")
        self.attempt = attempt


class Seat(Protocol):
    """Where an answer goes, as a future takes it; who has it already, or does not want it any more, is done."""

    def done(self) -> bool: ...

    def set_result(self, found: tuple[Answered, int], /) -> None: ...

    def set_exception(self, wrong: Exception, /) -> None: ...


class Work:
    """A request that waits: its rows, who asked, until when, and where its answer goes."""

    __slots__ = ("deadline", "note", "rows", "seat")

    def __init__(self, rows: Rows, note: tuple[str, str], deadline: float, seat: Seat) -> None:
        self.rows, self.note, self.deadline, self.seat = rows, note, deadline, seat


class Batch:
    """Requests that are answered together."""

    __slots__ = ("attempt", "begun", "works")

    def __init__(self, works: Sequence[Work], begun: float, version: str) -> None:
        self.works, self.begun = works, begun
        self.attempt = Attempt(tuple(w.rows.height for w in works), tuple(w.note for w in works), version)


class Batchers:
    """A batcher for each version that is asked by name, so that one that hangs or is slow holds nobody else up."""

    def __init__(self, make: Callable[[str], Batcher]) -> None:
        self._make = make
        self._known: dict[str, Batcher] = {}

    def of(self, version: str, loaded: Sequence[str]) -> Batcher:
        """The batcher of a version; those of versions that are not loaded any more are let go once nothing waits there."""
        for gone in [v for v, b in self._known.items() if v not in loaded and not b.busy]:
            self._known.pop(gone).stop()
        if version not in self._known:
            self._known[version] = self._make(version)
        return self._known[version]

    def all(self) -> tuple[Batcher, ...]:
        """Those there are."""
        return tuple(self._known.values())


class Batcher:
    """Collects requests on an event loop and answers them on a thread.

    most_rows: of a batch (a request with more runs alone).  most_waiting: rows in the queue.  deadline: seconds of a request.
    inline: no thread; for a model of some microseconds that never hangs.  version: who is asked; "" leaves it to the routing.
    """

    def __init__(
        self, front: Front, most_rows: int, most_waiting: int, deadline: float, inline: bool = False, version: str = ""
    ) -> None:
        self._inline, self._version = inline, version
        self._front, self._most_rows, self._most_waiting, self._deadline = front, most_rows, most_waiting, deadline
        self._waiting: deque[Work] = deque()
        self._waiting_rows = 0
        self._running: Batch | None = None
        self._due = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbox: SimpleQueue[Batch | None] | None = None
        self._stuck = 0
        self._watch: asyncio.TimerHandle | None = None
        self._seconds_a_row = 0.001
        self.batches = 0

    @property
    def waiting(self) -> int:
        """Rows in the queue."""
        return self._waiting_rows

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._waiting) or self._running is not None or self._due

    @property
    def stuck(self) -> int:
        """Threads that a model has not given back."""
        return self._stuck

    @property
    def dead(self) -> bool:
        """Whether nothing can be answered: the model has kept all the threads it may have."""
        return self._stuck >= MOST_STUCK

    def submit(self, rows: Rows, note: tuple[str, str] = ("", "")) -> asyncio.Future[tuple[Answered, int]]:
        """Queues a request; the future gives the batch's answers and where the request's own begin.

        note: request id and traceparent.  Raises: Full.  The future raises Late, and what the front raises.
        """
        future: asyncio.Future[tuple[Answered, int]] = asyncio.get_running_loop().create_future()
        self.take(rows, note, future)
        return future

    def take(self, rows: Rows, note: tuple[str, str], seat: Seat) -> None:
        """The same for whoever is told without waiting for it. Raises: Full."""
        if self._waiting_rows and self._waiting_rows + rows.height > self._most_waiting:
            raise Full(min(60.0, max(0.1, self._waiting_rows * self._seconds_a_row)))
        loop = self._loop if self._loop is not None and not self._loop.is_closed() else self._begin()
        self._waiting.append(Work(rows, note, stopwatch() + self._deadline, seat))
        self._waiting_rows += rows.height
        if self._running is None and not self._due:
            self._due = True
            loop.call_soon(self._next)

    def stop(self) -> None:
        """Lets the thread go; call it when nothing waits any more."""
        if self._inbox is not None:
            self._inbox.put(None)
        if self._watch is not None:
            self._watch.cancel()
        self._loop, self._inbox, self._watch = None, None, None

    def _begin(self) -> asyncio.AbstractEventLoop:
        self._loop = loop = asyncio.get_running_loop()
        self._inbox, self._running, self._due = None, None, False
        self._watch = loop.call_later(self._deadline / LOOKS, self._look)
        return loop

    def _next(self) -> None:
        """Hands the next batch to the thread, if it is free."""
        self._due = False
        if self._running is not None or self._loop is None or self.dead:
            return
        if self._inline:
            self._here(self._loop)
            return
        works = self._taken()
        if not works:
            return
        if self._inbox is None:
            self._inbox = SimpleQueue()
            Thread(target=self._work, args=(self._inbox, self._loop), name="loudly-predict", daemon=True).start()
        self._running = Batch(works, stopwatch(), self._version)
        self.batches += 1
        self._inbox.put(self._running)

    def _taken(self) -> list[Work]:
        """Who is answered together next, out of the queue."""
        works: list[Work] = []
        height = 0
        while self._waiting:
            work = self._waiting[0]
            if works and (height + work.rows.height > self._most_rows or work.rows.schema is not works[0].rows.schema):
                break
            self._waiting.popleft()
            self._waiting_rows -= work.rows.height
            if not work.seat.done():
                works.append(work)
                height += work.rows.height
        return works

    def _here(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answers on the event loop itself, batch after batch for a moment; then others have their turn on it."""
        begun = stopwatch()
        while works := self._taken():
            batch = Batch(works, stopwatch(), self._version)
            self.batches += 1
            self._tell(batch, *self._ask(batch))
            if stopwatch() - begun > MOMENT_SECONDS:
                break
        loop.call_soon(self._settle)
        if self._waiting and not self._due:
            self._due = True
            loop.call_soon(self._next)

    def _ask(self, batch: Batch) -> tuple[Answered | None, Exception | None]:
        try:
            return self._front.answer(joined([w.rows for w in batch.works]), batch.attempt), None
        except Exception as raised:  # noqa: BLE001 - whoever waits is told; the server goes on
            return None, raised

    def _settle(self) -> None:
        try:
            self._front.settle()
        except Exception:
            LOG.exception("LOUD the wheel could not fold what it has answered")

    def _work(self, inbox: SimpleQueue[Batch | None], loop: asyncio.AbstractEventLoop) -> None:
        """The thread: answers batch after batch, and folds in between."""
        while (batch := inbox.get()) is not None:
            answered, wrong = self._ask(batch)
            if loop.is_closed():
                return
            loop.call_soon_threadsafe(self._done, batch, answered, wrong)
            self._settle()

    def _done(self, batch: Batch, answered: Answered | None, wrong: Exception | None) -> None:
        """On the loop: the next batch begins, and the answers of this one are told."""
        if batch is self._running:
            self._running = None
        else:
            self._stuck -= 1
        self._next()
        self._tell(batch, answered, wrong)

    def _tell(self, batch: Batch, answered: Answered | None, wrong: Exception | None) -> None:
        """The answers go to who waits for them."""
        at = 0
        for work in batch.works:
            if not work.seat.done():
                if wrong is not None:
                    work.seat.set_exception(wrong)
                elif answered is not None:
                    work.seat.set_result((answered, at))
            at += work.rows.height
        spent = stopwatch() - batch.begun
        self._seconds_a_row += 0.1 * (spent / max(1, at) - self._seconds_a_row)

    def _look(self) -> None:
        """Every twentieth of a deadline: gives up requests whose time is over, and the thread of a batch that hangs."""
        if self._loop is None:
            return
        now = stopwatch()
        while self._waiting and (self._waiting[0].deadline <= now or self._waiting[0].seat.done()):
            work = self._waiting.popleft()
            self._waiting_rows -= work.rows.height
            if not work.seat.done():
                work.seat.set_exception(Late(None))
        if self._running is not None:
            self._give_up(self._running, now)
        self._watch = self._loop.call_later(self._deadline / LOOKS, self._look)

    def _give_up(self, batch: Batch, now: float) -> None:
        for index, work in enumerate(batch.works):
            if work.deadline <= now and not work.seat.done() and batch.attempt.leave(index):
                work.seat.set_exception(Late(batch.attempt))
        if all(work.seat.done() for work in batch.works):
            if self._inbox is not None:
                self._inbox.put(None)
            self._running, self._inbox = None, None
            self._stuck += 1
            self._next()
