"""Where independent work runs on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


class Here:
    """One after another, in this process."""

    def map(self, work: Callable[[A], B], items: Iterable[A]) -> list[B]:
        return [work(item) for item in items]


class Processes:
    """Several processes; `work` and the items must pickle. An error in one is raised here."""

    def __init__(self, count: int = 2) -> None:
        self.count = count

    def map(self, work: Callable[[A], B], items: Iterable[A]) -> list[B]:
        with ProcessPoolExecutor(self.count, mp_context=get_context("spawn")) as pool:
            return list(pool.map(work, items))

    def each(self, work: Callable[[A], B], items: Iterable[A]) -> Iterator[tuple[A, B]]:
        """Items with their results, in the order in which they are done."""
        with ProcessPoolExecutor(self.count, mp_context=get_context("spawn")) as pool:
            waiting = {pool.submit(work, item): item for item in items}
            for done in as_completed(waiting):
                yield waiting[done], done.result()
