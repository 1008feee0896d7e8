"""A restarted wheel answers first: its past is folded behind the answers, on a thread, and what comes meanwhile after it.

While that goes on answers and labels are only logged, so nothing piles up in memory; the thread reads the log on to its live end.
There it takes the lock, says where the log ends for it (`Answering.caught_up`), and folds the rest: what is answered after that
record is folded from memory, as ever. So every record is folded once, in the order of the log, and a thread that is stopped or
killed anywhere has changed nothing on disk: the next start begins again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

from loudly.core.clock import stopwatch
from loudly.errors import one_line
from loudly.loop.host import Host
from loudly.loop.restart import Folding, watch_again
from loudly.loop.stores import Traffic
from loudly.store.segments import newest_first

# It works for so long and then rests, so that others get the lock, and answers the interpreter.
WORK_SECONDS, REST_SECONDS = 0.01, 0.002
ROUND_SECONDS, FEW_RECORDS = 0.05, 256
STOP_SECONDS = 30.0


class CatchUp:
    """Folds the log of a Live behind its answers. From its making on they are only logged; it is made before the first.

    taken: is told how far the spools of workers were taken over.  progress: is told the bytes read, and of how many.
    ended: is called on the thread when all is folded (`Past.open` is false), or cannot be (`Past.wrong` says why).
    """

    def __init__(
        self,
        live: Host,
        log: Traffic,
        folder: Path,
        taken: dict[str, int],
        progress: Callable[[int, int], None] = lambda done, of: None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        live.past.open = live.answering.behind = True
        self._live, self._log, self._ended = live, log, ended
        self._before, self._folder = log.sequence, folder
        self._folding = Folding(live, folder, taken, self._look)
        self._progress, self._rested = progress, 0.0
        self._stop, self._over, self._on = Event(), Event(), Event()
        self._on.set()

    def start(self) -> None:
        """Begins; a log without a record needs no thread."""
        watch_again(self._live)
        if self._before:
            Thread(target=self._run, name="loudly-catch-up", daemon=True).start()
        else:
            self._run()

    def wait(self, seconds: float) -> bool:
        """Whether it is over within so many seconds."""
        return self._over.wait(seconds)

    def pause(self) -> None:
        """Leaves the processors to others until `go_on`, unless the past is folded already."""
        self._on.clear()

    def go_on(self) -> None:
        """Ends a pause."""
        self._on.set()

    def stop(self) -> None:
        """Ends after the batch under way; what is not folded by then the next start folds."""
        self._stop.set()
        self._on.set()
        self._over.wait(STOP_SECONDS)

    def _run(self) -> None:
        try:
            ended = self._past() and self._present() and self._take_over()
        except Exception as wrong:  # noqa: BLE001 - whatever it is, answers go on
            self._live.past.wrong = one_line(wrong)
            ended = True
        try:
            if ended:
                self._ended()
        finally:
            self._over.set()

    def _past(self) -> bool:
        """What was logged before the restart, of which the ledger knows what it has led to. Each step: False if told to stop."""
        self._live.counting.resume(newest_first(self._folder))
        if not self._fold(self._before, again=True):
            return False
        with self._live.lock:
            self._folding.told_before()
        return True

    def _present(self) -> bool:
        """What was logged since, on to the end of the log as long as that runs away; windows are left to the next tick."""
        last = -FEW_RECORDS
        while self._log.refused or self._folding.last - last >= FEW_RECORDS:
            last = self._folding.last
            if not self._fold() or self._stop.wait(ROUND_SECONDS):
                return False
        return True

    def _take_over(self) -> bool:
        """The rest, under the lock; from then on what is answered is folded from memory.

        Not while the disk refuses the log: what is not on disk cannot be folded from there, and the others wait for the lock.
        """
        with self._live.lock:
            self._log.flush()
            if not self._log.refused:
                return self._rest()
        return self._present() and self._take_over()

    def _rest(self) -> bool:
        live = self._live
        newest = live.answering.caught_up()
        try:
            while self._folding.last < newest:
                self._log.flush()
                if not self._fold(newest) or self._stop.wait(REST_SECONDS):
                    return False
            live.past.open = False
        finally:
            live.answering.behind = live.past.open
        live.counting.caught_up()
        return True

    def _fold(self, upto: float = math.inf, *, again: bool = False) -> bool:
        for kind, found in self._folding.read(upto):
            if again:
                self._on.wait()
            if again and self._folding.passes(found):
                self._live.watch.feed.look_back()  # judging asks for it; it may take long, so without the lock
            with self._live.lock:
                self._folding.fold(kind, found, again=again)
            self._look(self._live.past.read, self._live.past.size)
            if self._stop.is_set():
                break
        return not self._stop.is_set()

    def _look(self, done: int, of: int) -> None:
        """Rests, where that is due: on the way through the records of a table, too."""
        if stopwatch() - self._rested > WORK_SECONDS:
            self._progress(done, of)
            self._stop.wait(REST_SECONDS)
            self._rested = stopwatch()
