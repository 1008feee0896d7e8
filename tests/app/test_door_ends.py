"""A worker whose disk refuses its spool says at its end what is lost with it, not only that it waits."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource")
CHILD = """
import resource, sys
from pathlib import Path
from conftest import make_app, make_world
from loudly.app.door import Door
from loudly.app.verbs import memory_stores
from loudly.app.worker import SpoolLine
from loudly.store.segments import SegmentWriter

folder, most = Path(sys.argv[1]), int(sys.argv[2])
spool = SegmentWriter(folder / "spool", through=True)
system, line = make_app(make_world(days=2)).system, SpoolLine(spool, folder, (), b"key")
door = Door(system, memory_stores("world"), b"key", line, "worker 1", 1.0)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
for _ in range(50):
    spool.append("predictions", b"x" * 1000)
door.stop()
"""


@pytest.mark.parametrize(("most", "lost"), [(10_000, True), (1_000_000, False)])
def test_what_waited_in_memory_is_said_to_be_lost(tmp_path: Path, most: int, lost: bool) -> None:
    """A real disk, whose files may not grow beyond so many bytes."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    child = [sys.executable, "-c", CHILD, str(tmp_path), str(most)]
    done = subprocess.run(child, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = r"LOUD world: worker 1: what waits in memory for the spool is lost with this process: (OSError|short write)"
    assert bool(re.search(told, done.stderr)) is lost
