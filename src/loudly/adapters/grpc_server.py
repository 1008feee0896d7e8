"""gRPC beside HTTP: the Open Inference Protocol v2 on a port of its own, answered by the same application.

Each call becomes the protocol's REST request to the application itself, in this process and without a socket, so keys, limits,
batches, log, metrics and spans are those of HTTP. Tensors go through as bytes: gRPC's raw contents are REST's binary tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc

from loudly.adapters.asgi_wrapped import draining_inside
from loudly.adapters.grpc_messages import SERVICE, kind
from loudly.adapters.inference_protocol import HEADER
from loudly.config import ServerConfig

GRACE_SECONDS = 5.0
CARRIED = ("authorization", "x-api-key", "x-request-id", "traceparent", "tracestate")
RETURNED = (b"x-request-id", b"traceparent", b"retry-after")
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


def beside(app: Any, host: str, settings: ServerConfig) -> Beside:
    """The application, with gRPC on `[server] grpc_port` of the host for as long as it runs."""
    return Beside(app, f"{host}:{settings.grpc_port}", settings.most_bytes)


class Beside:
    """An ASGI application whose lifespan is also that of a gRPC server. `port`: where that listens, once it does."""

    draining = draining_inside()

    def __init__(self, app: Any, address: str, most_bytes: int) -> None:
        self._app, self._address, self._most_bytes = app, address, most_bytes
        self._server: Any = None
        self.port = 0

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def heard() -> Mapping[str, Any]:
            message = await receive()
            if message["type"] == "lifespan.shutdown" and self._server is not None:
                await self._server.stop(GRACE_SECONDS)
            return message

        async def told(message: Mapping[str, Any]) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self._start()
            await send(message)

        await self._app(scope, heard, told)

    async def _start(self) -> None:
        self._server = server = grpc.aio.server(options=[("grpc.max_receive_message_length", self._most_bytes)])
        calls = Calls(self._app)
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                getattr(calls, work),
                request_deserializer=kind(f"{name}Request").FromString,
                response_serializer=kind(f"{name}Response").SerializeToString,
            )
            for name, work in METHODS.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        self.port = server.add_insecure_port(self._address)
        await server.start()


METHODS = {
    "ServerLive": "server_live",
    "ServerReady": "server_ready",
    "ModelReady": "model_ready",
    "ServerMetadata": "server_metadata",
    "ModelMetadata": "model_metadata",
    "ModelInfer": "model_infer",
}


class Calls:
    """The calls of the service, each a request to the application."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def server_live(self, _: Any, context: Any) -> Any:
        return kind("ServerLiveResponse")(live=(await self._told(context, "/v2/health/live"))["live"])

    async def server_ready(self, _: Any, context: Any) -> Any:
        return kind("ServerReadyResponse")(ready=(await self._told(context, "/v2/health/ready", 503))["ready"])

    async def model_ready(self, request: Any, context: Any) -> Any:
        path = await _path(context, request.name, request.version)
        return kind("ModelReadyResponse")(ready=(await self._told(context, f"{path}/ready", 503))["ready"])

    async def server_metadata(self, _: Any, context: Any) -> Any:
        return kind("ServerMetadataResponse")(**await self._told(context, "/v2"))

    async def model_metadata(self, request: Any, context: Any) -> Any:
        told = await self._told(context, await _path(context, request.name, request.version))
        # The protocol's message has no parameters for a tensor.
        outputs = [{name: value for name, value in one.items() if name != "parameters"} for one in told["outputs"]]
        return kind("ModelMetadataResponse")(**{**told, "outputs": outputs})

    async def model_infer(self, request: Any, context: Any) -> Any:
        path = await _path(context, request.model_name, request.model_version)
        try:
            head, tail = _asked(request)
        except ValueError as wrong:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(wrong))
        own = ((HEADER.lower().encode(), str(len(head)).encode()),) if tail else ()
        headers, body = await self._ask(context, "POST", f"{path}/infer", head + tail, own)
        return _answer(headers, body)

    async def _told(self, context: Any, path: str, also: int = 200) -> Any:
        return json.loads((await self._ask(context, "GET", path, b"", (), also))[1])

    async def _ask(
        self, context: Any, method: str, path: str, body: bytes, own: tuple[tuple[bytes, bytes], ...], also: int = 200
    ) -> tuple[dict[bytes, bytes], bytes]:
        """Headers and body of the application's answer. Ends the call where that is neither 200 nor `also`."""
        given = [(k.encode(), v.encode()) for k, v in context.invocation_metadata() or () if k in CARRIED and isinstance(v, str)]
        told: list[Mapping[str, Any]] = []

        async def receive() -> Mapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Mapping[str, Any]) -> None:
            told.append(message)

        await self._app({"type": "http", "method": method, "path": path, "headers": [*given, *own]}, receive, send)
        headers, said = dict(told[0]["headers"]), b"".join(m.get("body", b"") for m in told[1:])
        status = int(told[0]["status"])
        context.set_trailing_metadata(tuple((k.decode(), v.decode()) for k, v in headers.items() if k in RETURNED))
        if status not in (200, also):
            await context.abort(CODES.get(status, grpc.StatusCode.INTERNAL), _reason(said))
        return headers, said


async def _path(context: Any, name: str, version: str) -> str:
    """Where REST has the model. Ends the call for a name that would be another path."""
    if not name or "/" in name + version:
        await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no model {name[:80]!r}")
    return f"/v2/models/{name}/versions/{version}" if version else f"/v2/models/{name}"


def _asked(request: Any) -> tuple[bytes, bytes]:
    """The head in JSON, and the tensors that follow it. Raises: ValueError for contents that are none."""
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise ValueError(f"{len(request.inputs)} inputs have {len(raw)} raw contents")
    inputs = []
    for i, tensor in enumerate(request.inputs):
        said: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if raw:
            said["parameters"] = {"binary_data_size": len(raw[i])}
        else:
            said["data"] = _values(tensor)
        inputs.append(said)
    asked: dict[str, Any] = {"id": request.id, "inputs": inputs, "parameters": {"binary_data_output": bool(raw)}}
    if request.outputs:
        asked["outputs"] = [{"name": one.name} for one in request.outputs]
    return json.dumps(asked).encode(), b"".join(raw)


def _values(tensor: Any) -> list[Any]:
    """The typed contents of a tensor. Raises: ValueError for a type that has none, and for bytes that are no text."""
    if tensor.datatype not in CONTENTS:
        raise ValueError(f"input {tensor.name[:80]!r}: the datatype {tensor.datatype[:20]!r} has no typed contents")
    values = list(getattr(tensor.contents, CONTENTS[tensor.datatype]))
    return [v.decode() for v in values] if tensor.datatype == "BYTES" else values


def _answer(headers: Mapping[bytes, bytes], body: bytes) -> Any:
    """The answer as a message: raw where the tensors came in binary, typed where they came as JSON."""
    length = headers.get(HEADER.lower().encode())
    at = int(length) if length is not None else len(body)
    said = json.loads(body[:at])
    made = kind("ModelInferResponse")(model_name=said["model_name"], model_version=said["model_version"], id=said["id"])
    for name, value in said.get("parameters", {}).items():
        made.parameters[name].bool_param = value
    for tensor in said["outputs"]:
        output = made.outputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        if length is not None:
            size = tensor["parameters"]["binary_data_size"]
            made.raw_output_contents.append(body[at : at + size])
            at += size
        else:
            getattr(output.contents, CONTENTS[tensor["datatype"]]).extend(_typed(tensor))
    return made


def _typed(tensor: Mapping[str, Any]) -> list[Any]:
    if tensor["datatype"] == "BYTES":
        return [v.encode() for v in tensor["data"]]
    return [math.nan if v is None else v for v in tensor["data"]]


def _reason(body: bytes) -> str:
    """Why the application refused, in one line."""
    said = json.loads(body)
    return str(said.get("error") or said.get("detail") or said)[:2000]
