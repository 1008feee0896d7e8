"""The OpenAPI document of a server, typed from the frozen schema of the champion, and a page that shows it by itself."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

from loudly.adapters.asgi_schemas import TEXT, components, many, ref
from loudly.serve.front import Front
from loudly.serve.request import expectation
from loudly.serve.rows import asked

JSON, PLAIN, BINARY = "application/json", "text/plain", "application/octet-stream"
REFUSALS = {
    "400": "the request is broken",
    "401": "no key, or one that is not known",
    "403": "the key may not do this",
    "404": "there is no such model or version",
    "408": "the body did not come in time",
    "413": "too large",
    "422": "a field does not fit the schema",
    "429": "too many at once, come again after Retry-After",
    "500": "an error of the server's own, named in its log under the request id",
    "503": "no champion answers yet, or no answer in time",
}
KEYED = ("401", "403", "429")
# path -> what it says, the component that it answers with, the refusals
GETS = {
    "/health": ("Whether the process lives.", "Alive", ()),
    "/ready": ("Whether a champion answers.", "Ready", ("503",)),
    "/status": ("Champion, candidate, alarms, labels that are waited for.", "Status", KEYED),
    "/metrics": ("Prometheus metrics.", "", KEYED),
    "/v2/health/live": ("Open Inference Protocol: alive.", "Live", ()),
    "/v2/health/ready": ("Open Inference Protocol: ready.", "Ready", ("503",)),
    "/v2": ("Open Inference Protocol: the server.", "ServerMetadata", ()),
}
POSTED = tuple(code for code in REFUSALS if code not in ("400", "404"))


def document(front: Front, most_rows: int, explain_rows: int, secured: bool) -> dict[str, Any]:
    """OpenAPI 3.1 of what the server does now."""
    paths: dict[str, Any] = {path: {"get": _get(path, *said)} for path, said in GETS.items()}
    rows = [ref("Row"), many(ref("Row"), most_rows), ref("Columns")]
    labels = [ref("Label"), many(ref("Label"), most_rows)]
    paths["/predict"] = {"post": _post("predict", "Answers a row, many rows, or columns.", rows, "Answers")}
    few = [ref("Row"), many(ref("Row"), explain_rows), ref("FewColumns")]
    paths["/explain"] = {"post": _post("explain", "What each column contributed to the scores of some rows.", few, "Explanations")}
    paths["/feedback"] = {"post": _post("feedback", "Takes labels that have come.", labels, "Arrived")}
    model = f"/v2/models/{front.name}"
    told = "Open Inference Protocol: inputs and outputs of the model."
    paths[model] = {"get": _get("/v2/model", told, "ModelMetadata", ("503",))}
    told = "Open Inference Protocol: the model is ready."
    paths[f"{model}/ready"] = {"get": _get("/v2/model/ready", told, "ModelReady", ("503",))}
    paths[f"{model}/infer"] = {"post": _infer()}
    made: dict[str, Any] = {"openapi": "3.1.0", "info": {"title": f"loudly: {front.name}", "version": "1"}, "paths": paths}
    made["components"] = {"schemas": components(front, most_rows, explain_rows)}
    if secured:
        schemes = {"bearer": {"type": "http", "scheme": "bearer"}, "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}
        made["components"]["securitySchemes"] = schemes
        made["security"] = [{"bearer": []}, {"key": []}]
    return made


def page(front: Front) -> str:
    """What the server takes, as a page of its own: no script, nothing fetched from outside."""
    schema = front.schema()
    rows = "".join(
        f"<tr><td><code>{html.escape(f.name)}</code></td><td>{html.escape(expectation(f))}</td></tr>"
        for f in (asked(schema) if schema is not None else ())
    )
    paths = "".join(
        f"<li><code>{method} {html.escape(path)}</code> {html.escape(told)}</li>"
        for method, path, told in (
            ("POST", "/predict", "a row, a list of rows, or {&quot;columns&quot;: ...}".replace("&quot;", '"')),
            ("POST", "/explain", "rows as for /predict: what each column contributed"),
            ("POST", "/feedback", f"labels: {front.key} and {front.label_name}"),
            *(("GET", path, told) for path, (told, *_) in GETS.items()),
            ("POST", f"/v2/models/{front.name}/infer", "Open Inference Protocol"),
            ("GET", "/openapi.json", "this, for programs"),
        )
    )
    example = html.escape(json.dumps(dict(front.example()), indent=2, default=str))
    name = html.escape(front.name)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>loudly: {name}</title>'
        "<style>body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}td{padding:.1em 1em .1em 0}"
        "pre{background:#f4f4f4;padding:1em;overflow:auto}</style>"
        f"<h1>{name}</h1><ul>{paths}</ul><h2>A row</h2><table>{rows}</table><h2>For example</h2><pre>{example}</pre></html>"
    )


def _get(path: str, told: str, said: str, codes: tuple[str, ...]) -> dict[str, Any]:
    answers = {"200": _answer("Successful Response", {PLAIN: TEXT} if path == "/metrics" else {JSON: ref(said)})}
    for code in codes:
        answers[code] = _answer(REFUSALS[code], {JSON: {"anyOf": [ref(said), ref("Refusal")]} if code == "503" else ref("Refusal")})
    made: dict[str, Any] = {"summary": told, "operationId": f"{path.strip('/').replace('/', '_')}_get", "responses": answers}
    return made if "401" in codes else {**made, "security": []}


def _post(name: str, told: str, bodies: list[Any], said: str) -> dict[str, Any]:
    answers = {code: _answer(REFUSALS[code], {JSON: ref("Refusal")}) for code in POSTED}
    return {
        "summary": told,
        "operationId": f"{name}_post",
        "requestBody": {"required": True, "content": {JSON: {"schema": {"anyOf": bodies}}}},
        "responses": {"200": _answer("Successful Response", {JSON: ref(said)}), **answers},
    }


def _infer() -> dict[str, Any]:
    kinds = {JSON: ref("InferResponse"), BINARY: {"type": "string", "format": "binary"}}
    wrong = {"anyOf": [ref("ProtocolError"), ref("Refusal")]}
    return {
        "summary": "Open Inference Protocol, JSON or binary tensors.",
        "operationId": "infer_post",
        "requestBody": {"required": True, "content": {JSON: {"schema": ref("InferRequest")}}},
        "responses": {
            "200": _answer("Successful Response", kinds),
            **{code: _answer(what, {JSON: wrong}) for code, what in REFUSALS.items() if code != "404"},
        },
    }


def _answer(told: str, kinds: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": told, "content": {kind: {"schema": schema} for kind, schema in kinds.items()}}
