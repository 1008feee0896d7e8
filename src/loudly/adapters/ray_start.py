"""The Ray that everything of ours runs on: the cluster that RAY_ADDRESS names, or a local one."""

from __future__ import annotations

import os

import ray

from loudly.errors import ExecutorError


def start(workers: int) -> None:
    """Joins or starts it, where this process has none yet. workers: processors of a local one; a cluster knows its own.

    Raises: ExecutorError where that cluster cannot be joined.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        ray.init(address="local", num_cpus=workers, include_dashboard=False, logging_level="ERROR")
        return
    try:
        ray.init(address, logging_level="ERROR")
    except ConnectionError as wrong:
        do = "Set RAY_ADDRESS to a cluster that runs, and RAY_AUTH_MODE=token where it asks for one."
        raise ExecutorError("Ray cannot be joined.", seen=f"RAY_ADDRESS={address}: {wrong}", do=do) from wrong
