"""The Ray that everything of ours runs on: the cluster that RAY_ADDRESS names, or a local one."""

from __future__ import annotations

import os

import ray


def start(workers: int) -> None:
    """Joins or starts it, where this process has none yet. workers: processors of a local one; a cluster knows its own."""
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level="ERROR")
    else:
        ray.init(address="local", num_cpus=workers, include_dashboard=False, logging_level="ERROR")
