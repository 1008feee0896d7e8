"""Work on a Ray cluster, or on a local Ray where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import ray

A = TypeVar("A")
B = TypeVar("B")


class RayExecutor:
    """One Ray task an item; results in the order of the items."""

    def __init__(self, workers: int = 2) -> None:
        if not ray.is_initialized():
            ray.init(num_cpus=workers, include_dashboard=False, logging_level="ERROR")

    def map(self, work: Callable[[A], B], items: Iterable[A]) -> list[B]:
        remote = ray.remote(work)
        return list(ray.get([remote.remote(item) for item in items]))
