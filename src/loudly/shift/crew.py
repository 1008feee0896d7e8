"""A few threads for the columns of a large table; none for a small one, and none where the house holds libraries to one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from threadpoolctl import ThreadpoolController

A = TypeVar("A")
B = TypeVar("B")

# Of fewer rows a pass is so short that threads hand Python's lock to and fro; more threads than MOST wait for it.
LARGE, MOST = 50_000, 4
BLAS = ThreadpoolController().select(user_api="blas")


@dataclass(frozen=True, slots=True)
class Crew:
    """Threads, and where work for them waits; no pool where there is but one thread: the caller's."""

    threads: int
    pool: ThreadPoolExecutor | None

    def map(self, work: Callable[[A], B], items: Iterable[A]) -> list[B]:
        """The results of all items, in their order."""
        return list(map(work, items) if self.pool is None else self.pool.map(work, items))

    def begin(self, work: Callable[[], B]) -> Callable[[], B]:
        """Begins work beside what comes next; what is returned waits for its result. Alone, the work is done then."""
        return work if self.pool is None else self.pool.submit(work).result


@contextmanager
def crew_for(rows: int, threads: int | None = None) -> Iterator[Crew]:
    """Threads for a table of so many rows: as many as a BLAS may have now, MOST at most, or as many as are given."""
    n = threads or (1 if rows < LARGE else min(MOST, blas_threads()))
    if n == 1:
        yield Crew(1, None)
        return
    with ThreadPoolExecutor(n) as pool:
        yield Crew(n, pool)


def blas_threads() -> int:
    """How many threads numpy's BLAS may have now: all cores, unless the environment or a caller holds it to fewer."""
    return max((int(pool.num_threads) for pool in BLAS.lib_controllers), default=1)
