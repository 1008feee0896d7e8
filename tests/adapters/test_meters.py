"""The metrics, held against Prometheus' own linter after every kind of request."""

from __future__ import annotations

import shutil
import subprocess

import pytest

httpx = pytest.importorskip("httpx")

from conftest import SINCE, make_world  # noqa: E402
from live_server import Server, make_live, rows_of  # noqa: E402
from loudly.adapters.meters import Meters  # noqa: E402
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


def test_the_figures_of_a_page_are_those_of_the_metrics() -> None:
    meters = Meters()
    for _ in range(98):
        meters.request("/predict", 200, 0.0004)
    meters.request("/predict", 200, 0.2)
    meters.request("/predict", 503, 0.2)
    meters.request("/status", 200, 9.0)
    meters.labels.labels("joined").inc(3)
    meters.fallbacks.inc(2)
    told = meters.figures(waiting=0, stuck=1, batches=4)
    assert told["requests"] == [("/predict", "200", 99), ("/predict", "503", 1), ("/status", "200", 1)]
    assert (told["labels"], told["fallbacks"], told["stuck"]) == ([("joined", 3)], 2, 1)
    assert (told["p50"], told["p99"]) == (0.0005, 0.25), "the hundredth is among the slow ones, up to the bound of its bucket"
    assert meters.figures(0, 0, 4)["requests"] == told["requests"], "looking changes nothing"
    assert Meters().figures(0, 0, 0)["p99"] is None
