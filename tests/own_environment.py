"""A client's own virtual environment: for clients whose pins do not go together with ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def python_with(folder: Path, *packages: str) -> Path:
    """The Python of a new environment that holds the packages; skips, aloud, where they cannot be installed."""
    python = folder / "bin" / "python"
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    made = (
        [[uv, "venv", "--quiet", "--python", sys.executable, str(folder)]] if uv else [[sys.executable, "-m", "venv", str(folder)]]
    )
    install = [uv, "pip", "install", "--quiet", "--python", str(python)] if uv else [str(python), "-m", "pip", "install", "--quiet"]
    for command in (*made, [*install, *packages]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
            pytest.skip(f"LOUD: {', '.join(packages)} cannot be installed here; that client is not tried: {last[:200]}")
    return python


def run(python: Path, script: str, *given: str, cwd: Path) -> str:
    """What a script prints under a Python of its own."""
    done = subprocess.run([str(python), "-c", script, *given], cwd=cwd, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
