"""KServe's own InferenceClient over REST and, where `grpc` is at hand, over gRPC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")

import own_environment  # noqa: E402
from live_server import Server  # noqa: E402

SCRIPT = """
import asyncio, json, sys
import numpy as np
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceRESTClient, RESTConfig

url, rows = sys.argv[1], json.loads(sys.argv[2])
KINDS = {"id": "BYTES", "at": "BYTES", "x1": "FP64", "x2": "FP64", "group": "BYTES"}


def request(binary):
    inputs = []
    for name, kind in KINDS.items():
        values = np.array([[row[name]] for row in rows], dtype=object if kind == "BYTES" else np.float64)
        made = InferInput(name, [len(rows), 1], kind)
        made.set_data_from_numpy(values, binary_data=binary)
        inputs.append(made)
    return InferRequest(model_name="world", request_id="mine", infer_inputs=inputs)


async def main():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, "world")
    told = {}
    for binary in (False, True):
        answer = await client.infer(url, request(binary), model_name="world")
        assert (answer.id, answer.model_name) == ("mine", "world")
        found = {output.name: output.as_numpy().tolist() for output in answer.outputs}
        assert found["fallback"] == [False] * len(rows)
        told[str(binary)] = found["prediction"]
    await client.close()
    print(json.dumps(told))


asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.newest
@pytest.mark.timeout(900)
def test_health_and_inference(server: Server, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    python = own_environment.python_with(tmp_path / "venv", "kserve")
    told = json.loads(own_environment.run(python, SCRIPT, server.url, json.dumps(rows[:4]), cwd=tmp_path).splitlines()[-1])
    answers = httpx.post(f"{server.url}/predict", json=rows[:4]).json()["answers"]
    expected = [a["prediction"] for a in answers]
    assert told == {"False": expected, "True": expected}
