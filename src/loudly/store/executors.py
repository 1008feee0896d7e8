"""Where independent work runs on this machine."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from threading import Lock, Thread
from typing import Any, TypeVar

from loudly.core.late import late
from loudly.errors import ExecutorError
from loudly.store.travel import opened, pack, work_on

loky: Any = late("joblib.externals.loky")
trackers: Any = late("multiprocessing.resource_tracker")

A = TypeVar("A")
B = TypeVar("B")

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
IDLE_SECONDS = 300.0
WATCH_SECONDS = 1.0
LOOK_UP_SECONDS = 0.2  # Polars lets a wait go on that Ctrl-C has interrupted


class Here:
    """One after another, in this process."""

    workers = 1

    def map(self, work: Callable[[A], B], items: Iterable[A]) -> list[B]:
        return [work(item) for item in items]

    def close(self) -> None:
        """There is nothing to give back."""


class Processes:
    """Several processes, which share the cores. They stay from one map to the next, until they had nothing to do for five minutes.

    They are loky's: unlike those of the standard library they do not run the script again that has started them, so one
    without `if __name__ == "__main__"` works, and a notebook.
    """

    def __init__(self, workers: int = 2) -> None:
        self.workers = workers
        self._pool: Any = None
        self._lock = Lock()

    def map(self, work: Callable[[A], B], items: Iterable[A]) -> list[B]:
        with self._sent(work, list(items)) as waiting:
            return [opened(_awaited([one]).pop().result()) for one in waiting]

    def each(self, work: Callable[[A], B], items: Iterable[A]) -> Iterator[tuple[A, B]]:
        """Items with their results, in the order in which they are done."""
        with self._sent(work, items := list(items)) as waiting:
            item_of = dict(zip(waiting, items, strict=True))
            left = set(waiting)
            while left:
                for done in _awaited(left):
                    left.discard(done)
                    yield item_of[done], opened(done.result())

    def close(self) -> None:
        """Ends the workers at once; who waits for work of theirs is told."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, kill_workers=True)

    @contextmanager
    def _sent(self, work: Callable[[A], B], items: list[A]) -> Iterator[list[Future[bytes]]]:
        """The items at work. What has not begun when one fails never does; whoever is interrupted waits for nobody."""
        waiting: list[Future[bytes]] = []
        try:
            waiting = self._submitted(pack(work), [pack(item) for item in items])
            yield waiting
        except loky.process_executor.ShutdownExecutorError as wrong:
            raise ExecutorError("The workers were given back in the middle of their work.") from wrong
        except BrokenProcessPool as wrong:
            self.close()
            told = [line for line in str(wrong).splitlines() if "exit codes" in line]
            raise ExecutorError(
                "A worker process ended in the middle of its work.",
                seen=told[0] if told else type(wrong).__name__,
                do="-9 is mostly a lack of memory: fewer rows, or fewer [executor] workers. What it wrote is on standard error.",
            ) from wrong
        except Exception:
            for one in waiting:
                one.cancel()
            raise
        except BaseException:
            self.close()
            raise

    def _submitted(self, work: bytes, items: list[bytes]) -> list[Future[bytes]]:
        try:
            return self._begun(work, items)
        except BrokenProcessPool:  # somebody has killed a worker that had nothing to do
            self.close()
            return self._begun(work, items)

    def _begun(self, work: bytes, items: list[bytes]) -> list[Future[bytes]]:
        pool = self._open()
        with _ctrl_c_later():
            return [pool.submit(work_on, work, item) for item in items]

    def _open(self) -> Any:
        with self._lock:
            if self._pool is None:
                # A worker that has grown is replaced when it is done, which is no news.
                warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
                # Threads of libraries are counted when these are loaded, so the environment says how many, where it does not yet.
                each = str(max(1, (os.cpu_count() or 1) // self.workers))
                threads = {name: each for name in THREADS if name not in os.environ}
                begin = {"initializer": _begin, "initargs": (os.getpid(),)}
                self._pool = loky.ProcessPoolExecutor(self.workers, timeout=IDLE_SECONDS, env=threads, **begin)
            return self._pool


def _awaited(waiting: Iterable[Future[bytes]]) -> set[Future[bytes]]:
    """Those that are done, at least one."""
    done: set[Future[bytes]] = set()
    while not done:
        done = wait(waiting, LOOK_UP_SECONDS, FIRST_COMPLETED).done
    return done


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Processes that begin meanwhile do not hear it until they know that it is not meant for them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    trackers.ensure_running()  # else it is begun with the first worker, and unblocks
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int) -> None:
    """In the worker: Ctrl-C is the parent's to answer, and a worker ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)
