"""Work on a Ray cluster, or on a local Ray where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import ray

from loudly.adapters.ray_start import start
from loudly.errors import ExecutorError
from loudly.store.travel import opened, pack, work_on

A = TypeVar("A")
B = TypeVar("B")


class RayExecutor:
    """One Ray task an item, which asks for one processor. Ray is started, or joined, at the first map and stays.

    Where a worker or its machine dies the task is tried once more.
    """

    def __init__(self, workers: int = 2) -> None:
        self.workers = workers

    def map(self, work: Callable[[A], B], items: Iterable[A]) -> list[B]:
        start(self.workers)
        done, shared = ray.remote(max_retries=1)(work_on), ray.put(pack(work))
        waiting: list[Any] = [done.remote(shared, pack(item)) for item in items]
        try:
            return [opened(made) for made in ray.get(waiting)]
        except ray.exceptions.RayError as wrong:
            seen = next(iter(str(wrong).splitlines()), "")
            do = "Mostly memory is lacking, or loudly or what your file imports is not installed there: `ray logs` tells."
            raise ExecutorError(
                "A worker of Ray ended in the middle of its work.", seen=f"{type(wrong).__name__}: {seen}", do=do
            ) from wrong
        except KeyboardInterrupt:
            for one in waiting:
                ray.cancel(one, force=True)
            raise

    def close(self) -> None:
        """Others of this process may be using Ray; it ends with the process."""
