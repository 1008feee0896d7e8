"""A client that openapi-python-client writes from the document: it knows nothing of the server but that."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")

import own_environment  # noqa: E402
from live_server import Server  # noqa: E402

SCRIPT = """
import datetime, json, sys
from world.api.default import feedback_post, predict_post, ready_get, v2_model_get
from world.client import Client
from world.models import Columns, Label, Refusal, Row

client, rows = Client(base_url=sys.argv[1]), [Row.from_dict(row) for row in json.loads(sys.argv[2])]
assert isinstance(rows[0].at, datetime.datetime)
assert ready_get.sync(client=client).ready is True
many = predict_post.sync(client=client, body=rows)
one = predict_post.sync(client=client, body=rows[0])
assert one.answers == many.answers[:1] and one.answers[0].fallback is False
columns = {name: [row.to_dict()[name] for row in rows] for name in rows[0].to_dict()}
assert predict_post.sync(client=client, body=Columns.from_dict({"columns": columns})) == many
told = feedback_post.sync(client=client, body=[Label(id=row.id, y=True) for row in rows])
wrong = Row.from_dict({**rows[0].to_dict(), "x1": 1.0})
wrong.x1 = "high"
refused = predict_post.sync_detailed(client=client, body=wrong)
assert refused.status_code == 422 and isinstance(refused.parsed, Refusal)
assert refused.parsed.detail[0].loc == ["body", 0, "x1"]
inputs = [tensor.name for tensor in v2_model_get.sync(client=client).inputs]
print(json.dumps({"predictions": [a.prediction for a in many.answers], "joined": told.joined, "inputs": inputs}))
"""


@pytest.mark.slow
@pytest.mark.newest
@pytest.mark.timeout(700)
def test_a_generated_client_asks_and_sends_labels(server: Server, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    python, sent = own_environment.python_with(tmp_path / "venv", "openapi-python-client"), rows[:3]
    (tmp_path / "openapi.json").write_bytes(httpx.get(f"{server.url}/openapi.json").content)
    (tmp_path / "config.yaml").write_text("post_hooks: []\n")
    command = [str(python), "-m", "openapi_python_client", "generate", "--path", "openapi.json", "--config", "config.yaml"]
    command += ["--meta", "none", "--output-path", "world", "--fail-on-warning"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(own_environment.run(python, SCRIPT, server.url, json.dumps(sent), cwd=tmp_path))
    answered = httpx.post(f"{server.url}/predict", json=sent).json()["answers"]
    assert told["predictions"] == [a["prediction"] for a in answered]
    assert told["joined"] == 7, "the rows were asked about in rows, columns and one alone, and its label meets every answer"
    assert told["inputs"] == ["id", "at", "x1", "x2", "group"]
