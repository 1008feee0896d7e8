"""Open Inference Protocol v2: by hand, by the real Triton client, and what it must refuse."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

httpx = pytest.importorskip("httpx")

from conftest import SINCE, make_world  # noqa: E402
from live_server import Server, make_live, rows_of  # noqa: E402
from loudly.core.clock import DAY  # noqa: E402
from loudly.serve.replies import Served  # noqa: E402

INFER = "/v2/models/world/infer"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return rows_of(make_world(days=50), SINCE, SINCE + DAY)[:7]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(make_live(make_world(days=50))[0]) as running:
        yield running


def tensors(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kinds = {"id": "BYTES", "at": "BYTES", "x1": "FP64", "x2": "FP64", "group": "BYTES"}
    return [{"name": n, "datatype": k, "shape": [len(rows), 1], "data": [r[n] for r in rows]} for n, k in kinds.items()]


def expected(server: Server, rows: list[dict[str, Any]]) -> list[float]:
    return [a["prediction"] for a in httpx.post(f"{server.url}/predict", json=rows).json()["answers"]]


def test_health_and_metadata(server: Server) -> None:
    get = lambda path: httpx.get(f"{server.url}{path}")  # noqa: E731
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/world/ready", "/v2/models/world/versions/1/ready"):
        assert get(path).status_code == 200, path
    assert get("/v2").json()["extensions"] == ["binary_tensor_data", "model_repository"]
    model = get("/v2/models/world").json()
    assert {i["name"]: i["datatype"] for i in model["inputs"]} == {t["name"]: t["datatype"] for t in tensors([])}
    assert model["versions"] == ["1"]
    assert get("/v2/models/world/versions/1").json() == model
    assert get("/v2/models/other").status_code == 404
    assert "2" in get("/v2/models/world/versions/2").json()["error"]


def test_json_tensors(server: Server, rows: list[dict[str, Any]]) -> None:
    answer = httpx.post(f"{server.url}{INFER}", json={"id": "q", "inputs": tensors(rows)}).json()
    outputs = {o["name"]: o["data"] for o in answer["outputs"]}
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("q", "world", "1")
    assert outputs["prediction"] == expected(server, rows)
    assert outputs["version"] == ["world/1"] * len(rows)
    named = {"inputs": tensors(rows), "outputs": [{"name": "fallback"}]}
    only = httpx.post(f"{server.url}/v2/models/world/versions/1/infer", json=named).json()["outputs"]
    assert [(o["name"], o["data"]) for o in only] == [("fallback", [False] * len(rows))]


@pytest.mark.parametrize("binary", [False, True])
def test_a_fallback_is_marked_whatever_outputs_are_asked_for(rows: list[dict[str, Any]], binary: bool) -> None:
    """Who asked for the prediction alone was given the constant as if it were the model's."""
    live = make_live(make_world(days=50))[0]
    asked = {"inputs": tensors(rows), "outputs": [{"name": "prediction", "parameters": {"binary_data": binary}}]}
    with Server(live) as running:
        sound = httpx.post(f"{running.url}{INFER}", json=asked)
        assert live.router is not None
        unsound = Served("world/1", lambda table: np.full(table.height, np.nan))
        live.router.swap(replace(live.router.routing, control=unsound, fallback=0.25))
        marked = httpx.post(f"{running.url}{INFER}", json=asked)
    heads = [
        json.loads(a.content[: int(a.headers.get("inference-header-content-length", len(a.content)))]) for a in (sound, marked)
    ]
    assert [head.get("parameters") for head in heads] == [None, {"fallback": True}]
    assert [o["name"] for o in heads[1]["outputs"]] == ["prediction"]


def test_the_triton_client_in_json_and_in_binary(server: Server, rows: list[dict[str, Any]]) -> None:
    triton = pytest.importorskip(
        "tritonclient.http", reason="LOUD: tritonclient is not installed; Triton's own client is not tried"
    )
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("world")
        assert client.get_model_metadata("world")["platform"] == "loudly"
        for binary in (True, False):
            inputs = []
            for tensor in tensors(rows):
                made = triton.InferInput(tensor["name"], tensor["shape"], tensor["datatype"])
                dtype = np.float64 if tensor["datatype"] == "FP64" else np.object_
                made.set_data_from_numpy(np.array(tensor["data"], dtype=dtype).reshape(-1, 1), binary_data=binary)
                inputs.append(made)
            outputs = [triton.InferRequestedOutput(n, binary_data=binary) for n in ("prediction", "version", "fallback")]
            found = client.infer("world", inputs, outputs=outputs, request_id="t")
            assert found.as_numpy("prediction").tolist() == expected(server, rows)
            assert [str(v if isinstance(v, str) else v.decode()) for v in found.as_numpy("version")] == ["world/1"] * len(rows)
            assert not found.as_numpy("fallback").any()
        with pytest.raises(triton.InferenceServerException, match="no input"):
            client.infer("world", [triton.InferInput("x3", [1], "FP64").set_data_from_numpy(np.zeros(1))])


def changed(tensor: dict[str, Any], **what: Any) -> dict[str, Any]:
    return {**tensor, **what}


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda t: t[:-1], "group"),
        (lambda t: [*t, changed(t[0], name="x3")], "no input 'x3'"),
        (lambda t: [*t, changed(t[2], data=[0.0] * 7)], "'x1' is given twice"),
        (lambda t: [changed(t[0], datatype="FP65"), *t[1:]], "datatype"),
        (lambda t: [changed(t[0], shape=[7, 2]), *t[1:]], "shape"),
        (lambda t: [changed(t[0], shape=[-1]), *t[1:]], "shape"),
        (lambda t: [changed(t[0], shape=[3]), *t[1:]], "3 values"),
        (lambda t: [changed(t[0], shape=[6], data=t[0]["data"][:6]), *t[1:]], "same number of rows"),
        (lambda t: [*t[:2], changed(t[2], data=["high"] * 7), *t[3:]], "x1"),
        (lambda t: [*t[:2], changed(t[2], parameters={"binary_data_size": 56}), *t[3:]], "bytes are left"),
        (lambda t: [changed(t[0], shape="\ud800"), *t[1:]], "seen '\\ud800'"),
        (lambda t: [changed(t[0], parameters={"binary_data_size": "\ud800"}), *t[1:]], "binary_data_size is '\\ud800'"),
        (lambda t: ["x"], "an object with a name"),
        (lambda t: {}, "inputs"),
    ],
)
def test_broken_requests_are_refused_by_name(server: Server, rows: list[dict[str, Any]], spoil: Any, told: str) -> None:
    answer = httpx.post(f"{server.url}{INFER}", content=json.dumps({"inputs": spoil(tensors(rows))}))
    assert answer.status_code == 400
    assert told in answer.json()["error"]


@pytest.mark.parametrize(
    "said",
    [
        {"outputs": [{"name": {}}]},
        {"outputs": 3},
        {"outputs": [{"name": "arm", "parameters": 3}]},
        {"parameters": []},
        {"id": False},
        {"id": "\ud800"},
    ],
)
def test_what_is_no_request_beside_its_inputs_is_refused(server: Server, rows: list[dict[str, Any]], said: dict[str, Any]) -> None:
    body = json.dumps({"inputs": tensors(rows), **said})
    assert httpx.post(f"{server.url}{INFER}", content=body).status_code == 400


@pytest.mark.parametrize("length", ["-1", "x", "99999", "²"])
def test_a_length_that_cannot_be_is_refused(server: Server, length: str) -> None:
    sent = {"Inference-Header-Content-Length": length.encode("utf-8")}
    assert httpx.post(f"{server.url}{INFER}", content=b"{}", headers=sent).status_code == 400


def test_binary_tensors_that_lie_about_their_size_are_refused(server: Server, rows: list[dict[str, Any]]) -> None:
    wanted = tensors(rows)
    raw = struct.pack("<7d", *(r["x1"] for r in rows))
    for size, tail, told in ((56, raw[:-8], "bytes are left"), (48, raw[:48], "56 bytes"), (56, raw + b"x", "belong to no tensor")):
        wanted[2] = {"name": "x1", "datatype": "FP64", "shape": [7], "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": wanted}).encode()
        answer = httpx.post(
            f"{server.url}{INFER}", content=head + tail, headers={"Inference-Header-Content-Length": str(len(head))}
        )
        assert answer.status_code == 400
        assert told in answer.json()["error"]
    wanted[2]["parameters"] = {"binary_data_size": 56}
    head = json.dumps({"inputs": wanted}).encode()
    answer = httpx.post(f"{server.url}{INFER}", content=head + raw, headers={"Inference-Header-Content-Length": str(len(head))})
    assert answer.json()["outputs"][0]["data"] == expected(server, rows)
