"""Where independent work runs on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


class Here:
    """One after another, in this process."""

    def map(self, work: Callable[[A], B], items: Iterable[A]) -> list[B]:
        return [work(item) for item in items]


class Processes:
    """Several processes, which share the cores; `work` and the items must pickle. An error in one is raised here."""

    def __init__(self, count: int = 2) -> None:
        self.count = count

    def map(self, work: Callable[[A], B], items: Iterable[A]) -> list[B]:
        with self._pool() as pool:
            return list(pool.map(work, items))

    def each(self, work: Callable[[A], B], items: Iterable[A]) -> Iterator[tuple[A, B]]:
        """Items with their results, in the order in which they are done."""
        with self._pool() as pool:
            waiting = {pool.submit(work, item): item for item in items}
            for done in as_completed(waiting):
                yield waiting[done], done.result()

    @contextmanager
    def _pool(self) -> Iterator[ProcessPoolExecutor]:
        """Threads of libraries are counted when these are loaded, so the environment says how many, where it does not already."""
        each = str(max(1, (os.cpu_count() or 1) // self.count))
        ours = {name: each for name in THREADS if name not in os.environ}
        os.environ.update(ours)
        try:
            with ProcessPoolExecutor(self.count, mp_context=get_context("spawn")) as pool:
                yield pool
        finally:
            for name in ours:
                os.environ.pop(name, None)
