"""gRPC beside HTTP: by Triton's own client and by bare messages, with the same answers, keys, refusals and log."""

from __future__ import annotations

import contextlib
import importlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

httpx = pytest.importorskip("httpx")
grpc = pytest.importorskip("grpc", reason="LOUD: grpcio is not installed; gRPC is not tested")
pytest.importorskip("google.protobuf", reason="LOUD: protobuf is not installed; gRPC is not tested")

from command_line import ROW, Project, free_port  # noqa: E402
from conftest import SINCE  # noqa: E402
from live_server import Server, make_live, rows_of  # noqa: E402
from loudly.adapters.grpc_messages import MESSAGES, SERVICE, kind  # noqa: E402
from loudly.adapters.grpc_server import _answer  # noqa: E402
from loudly.config import ServerConfig  # noqa: E402
from loudly.core.clock import DAY  # noqa: E402

KINDS = {"id": "BYTES", "at": "BYTES", "x1": "FP64", "x2": "FP64", "group": "BYTES"}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def rows(table: pl.DataFrame) -> list[dict[str, Any]]:
    return rows_of(table, SINCE, SINCE + DAY)[:7]


@contextlib.contextmanager
def served(table: pl.DataFrame, **settings: Any) -> Iterator[Server]:
    with Server(make_live(table)[0], ServerConfig(grpc_port=free_port(), **settings)) as running:
        yield running


@pytest.fixture(scope="module")
def server(table: pl.DataFrame) -> Iterator[Server]:
    with served(table) as running:
        yield running


def address(server: Server) -> str:
    return f"127.0.0.1:{server.settings.grpc_port}"


def call(server: Server, name: str, /, *metadata: tuple[str, str], **fields: Any) -> Any:
    """A call by bare messages."""
    with grpc.insecure_channel(address(server)) as channel:
        ask = channel.unary_unary(
            f"/{SERVICE}/{name}", kind(f"{name}Request").SerializeToString, kind(f"{name}Response").FromString
        )
        return ask(kind(f"{name}Request")(**fields), metadata=metadata, timeout=20)


def refused(server: Server, name: str, /, *metadata: tuple[str, str], **fields: Any) -> tuple[Any, str]:
    with pytest.raises(grpc.RpcError) as wrong:
        call(server, name, *metadata, **fields)
    return wrong.value.code(), wrong.value.details()


def typed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def contents(name: str) -> dict[str, Any]:
        values = [row[name] for row in rows]
        return {"bytes_contents": [v.encode() for v in values]} if KINDS[name] == "BYTES" else {"fp64_contents": values}

    return [{"name": n, "datatype": k, "shape": [len(rows), 1], "contents": contents(n)} for n, k in KINDS.items()]


def answers(server: Server, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.post(f"{server.url}/predict", json=rows).json()["answers"]
    return found


@pytest.mark.filterwarnings("ignore")  # Triton's client warns about its own generated code
def test_tritons_client(server: Server, rows: list[dict[str, Any]]) -> None:
    triton = pytest.importorskip("tritonclient.grpc", reason="LOUD: tritonclient is not installed; its gRPC client is not tried")
    expected = answers(server, rows)
    with triton.InferenceServerClient(address(server)) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("world")
        assert client.is_model_ready("world", "1")
        assert client.get_server_metadata().name == "loudly"
        model = client.get_model_metadata("world")
        assert {i.name: i.datatype for i in model.inputs} == KINDS
        assert list(model.versions) == ["1"]
        inputs = []
        for name, datatype in KINDS.items():
            made = triton.InferInput(name, [len(rows), 1], datatype)
            dtype = np.float64 if datatype == "FP64" else np.object_
            made.set_data_from_numpy(np.array([r[name] for r in rows], dtype=dtype).reshape(-1, 1))
            inputs.append(made)
        for version in ("", "1"):
            told = client.infer("world", inputs, model_version=version, request_id="q")
            assert told.as_numpy("prediction").tolist() == [a["prediction"] for a in expected]
            assert told.as_numpy("version").tolist() == [b"world/1"] * len(rows)
            assert told.as_numpy("fallback").tolist() == [False] * len(rows)
            assert (told.get_response().id, told.get_response().model_version) == ("q", "1")
        only = client.infer("world", inputs, outputs=[triton.InferRequestedOutput("propensity")])
        assert [o.name for o in only.get_response().outputs] == ["propensity"]
        with pytest.raises(triton.InferenceServerException, match="nobody"):
            client.infer("nobody", inputs)


@pytest.mark.filterwarnings("ignore")
def test_the_messages_are_those_of_tritons_generated_code() -> None:
    """Every message and field that we have is there under the same number, name and kind."""
    pytest.importorskip("tritonclient.grpc", reason="LOUD: tritonclient is not installed; its messages are not compared")
    theirs = importlib.import_module("tritonclient.grpc.service_pb2")

    def told(message: Any) -> dict[str, tuple[Any, ...]]:
        return {f.name: (f.number, f.type, getattr(f.message_type, "full_name", "")) for f in message.fields}

    for name in MESSAGES:
        outer, _, inner = name.partition(".")
        ours, other = kind(outer).DESCRIPTOR, getattr(theirs, outer).DESCRIPTOR
        if inner:
            ours, other = ours.nested_types_by_name[inner], other.nested_types_by_name[inner]
        assert ours.full_name == other.full_name
        assert told(ours).items() <= told(other).items(), name


def test_a_fallback_is_a_parameter_of_the_answer() -> None:
    message = _answer({}, b'{"model_name":"w","model_version":"1","id":"","outputs":[],"parameters":{"fallback":true}}')
    assert message.parameters["fallback"].bool_param is True


def test_typed_contents_are_answered_typed(server: Server, rows: list[dict[str, Any]]) -> None:
    told = call(server, "ModelInfer", model_name="world", id="q", inputs=typed(rows))
    outputs = {o.name: o.contents for o in told.outputs}
    assert not told.raw_output_contents
    assert list(outputs["prediction"].fp64_contents) == [a["prediction"] for a in answers(server, rows)]
    assert list(outputs["arm"].bytes_contents) == [b"control"] * len(rows)
    assert list(outputs["fallback"].bool_contents) == [False] * len(rows)


def test_refusals_have_the_codes_of_grpc(server: Server, rows: list[dict[str, Any]]) -> None:
    inputs = typed(rows)
    code = grpc.StatusCode
    assert refused(server, "ModelInfer", model_name="other", inputs=inputs)[0] is code.NOT_FOUND
    assert refused(server, "ModelInfer", model_name="world/../x", inputs=inputs)[0] is code.NOT_FOUND
    assert refused(server, "ModelInfer", inputs=inputs)[0] is code.NOT_FOUND
    assert refused(server, "ModelReady", name="world", version="9")[0] is code.NOT_FOUND
    status, told = refused(server, "ModelInfer", model_name="world", inputs=inputs[:2])
    assert status is code.INVALID_ARGUMENT
    assert "x1" in told
    assert refused(server, "ModelInfer", model_name="world", inputs=inputs, raw_input_contents=[b""])[0] is code.INVALID_ARGUMENT
    half = [{"name": "x1", "datatype": "FP64", "shape": [2, 1]}]
    assert refused(server, "ModelInfer", model_name="world", inputs=half, raw_input_contents=[b"x"])[0] is code.INVALID_ARGUMENT
    bad = [{"name": "id", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"\xff"]}}]
    assert refused(server, "ModelInfer", model_name="world", inputs=bad)[0] is code.INVALID_ARGUMENT
    large = [{"name": "x1", "datatype": "FP64", "shape": [2**22, 1]}]
    sent = {"model_name": "world", "inputs": large, "raw_input_contents": [b"\x00" * 2**25]}
    assert refused(server, "ModelInfer", **sent)[0] is code.RESOURCE_EXHAUSTED
    assert call(server, "ServerLive").live
    assert call(server, "ServerReady").ready


def test_keys_and_rates_are_those_of_http(table: pl.DataFrame, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASK", "secret")
    monkeypatch.setenv("LABEL", "other")
    with served(table, keys=("predict=env:ASK", "feedback=env:LABEL"), rate=0.1, burst=2) as server:
        sent = {"model_name": "world", "inputs": typed(rows)}
        assert refused(server, "ModelInfer", **sent)[0] is grpc.StatusCode.UNAUTHENTICATED
        assert refused(server, "ModelInfer", ("x-api-key", "other"), **sent)[0] is grpc.StatusCode.PERMISSION_DENIED
        for _ in range(2):
            assert call(server, "ModelInfer", ("authorization", "Bearer secret"), **sent).outputs
        assert refused(server, "ModelInfer", ("x-api-key", "secret"), **sent)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert call(server, "ServerLive").live


def test_a_server_without_a_champion_or_told_to_stop_is_alive_and_not_ready(table: pl.DataFrame) -> None:
    with served(table) as server:
        server.app.draining = True
        assert call(server, "ServerLive").live
        assert not call(server, "ServerReady").ready
        assert not call(server, "ModelReady", name="world").ready


def test_an_answer_is_logged_with_its_id_and_trace_and_waits_for_its_label(table: pl.DataFrame, rows: list[dict[str, Any]]) -> None:
    with served(table) as server:
        call(server, "ModelInfer", ("x-request-id", "mine"), ("traceparent", TRACE), model_name="world", inputs=typed(rows))
        assert httpx.get(f"{server.url}/status").json()["waiting_for_labels"] == len(rows)
        labels = [{"id": row["id"], "y": True} for row in rows]
        assert httpx.post(f"{server.url}/feedback", json=labels).json()["joined"] == len(rows)
        assert f'loudly_rows_total{{arm="control",version="world/1"}} {len(rows)}.0' in httpx.get(f"{server.url}/metrics").text


@pytest.mark.slow
def test_loudly_serve_listens_for_grpc_too_and_ends_it(shipped: Project, tmp_path: Path) -> None:
    project, port, other = shipped.copy(tmp_path), free_port(), free_port()
    project.edit("loudly.toml", "[server]", f"[server]\ngrpc_port = {other}\ndrain = 0.5")
    process = project.serve(port)
    with grpc.insecure_channel(f"127.0.0.1:{other}") as channel:
        ask = channel.unary_unary(
            f"/{SERVICE}/ModelInfer", kind("ModelInferRequest").SerializeToString, kind("ModelInferResponse").FromString
        )
        row = {**ROW, "loan_id": "by-grpc"}
        kinds = {name: "FP64" if isinstance(value, float) else "BYTES" for name, value in row.items()}
        inputs = [
            {
                "name": name,
                "datatype": kinds[name],
                "shape": [1, 1],
                "contents": {"fp64_contents": [v]} if isinstance(v, float) else {"bytes_contents": [v.encode()]},
            }
            for name, v in row.items()
        ]
        told = ask(kind("ModelInferRequest")(model_name="loans", inputs=inputs), timeout=20)
    assert len(told.outputs) == 5
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) in (0, -signal.SIGTERM)
    logged = b"".join(p.read_bytes() for p in (tmp_path / ".loudly" / "traffic").rglob("*") if p.is_file())
    assert b"by-grpc" in logged
