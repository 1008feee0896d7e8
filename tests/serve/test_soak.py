"""The soak of `benchmarks/soak.py` in short: good and bad clients for twelve seconds, no 5xx, memory within its bound."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client")
pytest.importorskip("uvicorn")

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_twelve_seconds_of_good_and_bad_clients() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("LOUD: no /proc here; the memory of the server cannot be followed")
    done = subprocess.run([sys.executable, str(SOAK), "--minutes", "0.2"], capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    for kind in ("one row", "many rows", "labels", "deep", "half a body, waits"):
        assert kind in done.stdout
