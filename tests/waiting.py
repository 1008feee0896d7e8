"""Waiting for what another thread or process does: polled, with patience for a busy machine, and named where it does not come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
PATIENCE = 240.0


def until(holds: Callable[[], Any], what: str) -> Any:
    """What `holds` gives as soon as it is true; a server that does not answer yet is waited for, too."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if made := holds():
                return made
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"it did not come: {what}")
