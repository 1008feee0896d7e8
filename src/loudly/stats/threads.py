"""One thread for a call of a model: a server has a thread for each request already, and more only wait for one another.

Two OpenMP threads on a busy machine of two cores made one row of histogram boosting 20 to 35 times slower (barriers). Long passes
of numpy, which let go of Python's lock, are another matter: `together`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

T = TypeVar("T")
# Rows of a pass of numpy from which on two threads are worth it: sleeping where the lock is taken costs 50 µs.
LONG = 2**16


def together(works: Sequence[Callable[[], T]]) -> list[T]:
    """What each of some works gives: side by side, the first in this thread; one after the other where there is one core.

    Cost: 100 µs. Raises: what a work raises, once all have ended.

    >>> together([lambda: 1, lambda: 2])
    [1, 2]
    """
    if len(works) < 2 or _cores() < 2:
        return [work() for work in works]
    with ThreadPoolExecutor(len(works) - 1, "loudly-together") as pool:
        others = [pool.submit(work) for work in works[1:]]
        first = works[0]()
    return [first, *(other.result() for other in others)]


def _cores() -> int:
    """Cores that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class OneThread:
    """Holds the thread pools that are loaded to one thread while a call runs, and gives them back after.

    OpenMP keeps its setting for each thread, so calls do not meet. A BLAS keeps one for the process: the first call in lowers it
    and the last one out restores it.

    later: the call itself may import libraries that have pools; they are looked for again where a module was imported since.

    Cost: about 10 µs a call; a look takes 10 ms.
    """

    def __init__(self, *, later: bool = False) -> None:
        self._later = later
        self._modules, self._pools = _found()

    @contextmanager
    def held(self) -> Iterator[None]:
        """One thread from here to the end of the block."""
        if self._later and len(sys.modules) != self._modules:
            self._modules, self._pools = _found()
        openmp, blas = self._pools
        before = [pool.get_num_threads() for pool in openmp]
        for pool in openmp:
            pool.set_num_threads(1)
        _BLAS.enter(blas)
        try:
            yield
        finally:
            _BLAS.leave()
            for pool, n in zip(openmp, before, strict=True):
                pool.set_num_threads(n)


def _found() -> tuple[int, tuple[list[Any], list[Any]]]:
    """How many modules there are, and the pools that came with them: of OpenMP, of BLAS."""
    modules, found = len(sys.modules), ThreadpoolController()
    return modules, (found.select(user_api="openmp").lib_controllers, found.select(user_api="blas").lib_controllers)


class _Shared:
    """How many calls are inside, and what the BLAS libraries had before the first."""

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._before: dict[str, tuple[Any, int]] = {}

    def enter(self, pools: list[Any]) -> None:
        with self._lock:
            self._inside += 1
            for pool in pools:
                if pool.filepath not in self._before:
                    self._before[pool.filepath] = (pool, pool.get_num_threads())
                    _set(pool, 1)

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for pool, n in self._before.values():
                    _set(pool, n)
                self._before = {}


def _set(pool: Any, n: int) -> None:
    """threadpoolctl lets the thread that came first set OpenBLAS and no other, in silence; here the lock stands for that."""
    release = getattr(pool, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)
    pool.set_num_threads(n)
    if release is not None:
        release(force=True)


_BLAS = _Shared()
