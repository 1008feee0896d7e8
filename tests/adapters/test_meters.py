"""The metrics, held against Prometheus' own linter after every kind of request."""

from __future__ import annotations

import shutil
import subprocess

import pytest

httpx = pytest.importorskip("httpx")

from conftest import SINCE, make_world  # noqa: E402
from live_server import Server, make_live, rows_of  # noqa: E402
from loudly.core.clock import DAY  # noqa: E402


def test_promtool_has_nothing_to_say_about_the_metrics() -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("LOUD: promtool is not installed (apt-get install prometheus); the metrics are not linted")
    table = make_world(days=50)
    rows = rows_of(table, SINCE, SINCE + DAY)[:3]
    with Server(make_live(table)[0]) as server, httpx.Client(base_url=server.url) as client:
        client.post("/predict", json=rows)
        client.post("/feedback", json={"id": rows[0]["id"], "y": True})
        client.post("/predict", json={})
        client.get("/nowhere")
        metrics = client.get("/metrics").text
    done = subprocess.run([tool, "check", "metrics"], input=metrics, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert 'loudly_labels_total{what="joined"} 1.0' in metrics
