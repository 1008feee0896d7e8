"""The OpenAPI document of a server, typed from the frozen schema of the champion, and a page that shows it by itself."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

from loudly.core.values import Schema
from loudly.serve.front import Front
from loudly.serve.request import expectation, json_schema
from loudly.serve.rows import asked

JSON = "application/json"
REFUSALS = {
    "400": "the request is broken",
    "401": "no key, or one that is not known",
    "403": "the key may not do this",
    "408": "the body did not come in time",
    "413": "too large",
    "422": "a field does not fit the schema",
    "429": "too many at once, come again after Retry-After",
    "500": "an error of the server's own, named in its log under the request id",
    "503": "no champion answers yet, or no answer in time",
}
GETS = {
    "/health": ("Whether the process lives.", ()),
    "/ready": ("Whether a champion answers.", ("503",)),
    "/status": ("Champion, candidate, alarms, labels that are waited for.", ("401", "403", "429")),
    "/metrics": ("Prometheus metrics.", ("401", "403", "429")),
    "/v2/health/live": ("Open Inference Protocol: alive.", ()),
    "/v2/health/ready": ("Open Inference Protocol: ready.", ("503",)),
    "/v2": ("Open Inference Protocol: the server.", ()),
}


def document(front: Front, most_rows: int, secured: bool) -> dict[str, Any]:
    """OpenAPI 3.1 of what the server does now."""
    schema = front.schema()
    paths: dict[str, Any] = {path: {"get": _get(path, told, codes)} for path, (told, codes) in GETS.items()}
    row = json_schema(schema, front.example()) if schema is not None else {"type": "object"}
    label = {
        "type": "object",
        "required": [front.key, front.label_name],
        "properties": {front.key: {"type": "string"}, front.label_name: {}},
    }
    columns = _columns(schema, row, most_rows)
    paths["/predict"] = {"post": _post("Predict", "Answers a row, many rows, or columns.", [row, _many(row, most_rows), columns])}
    paths["/feedback"] = {"post": _post("Feedback", "Takes labels that have come.", [label, _many(label, most_rows)])}
    model = f"/v2/models/{front.name}"
    paths[model] = {"get": _get(model, "Open Inference Protocol: inputs and outputs of the model.", ("404", "503"))}
    paths[f"{model}/ready"] = {"get": _get(f"{model}/ready", "Open Inference Protocol: the model is ready.", ("503",))}
    tensors = {"type": "object", "required": ["inputs"], "properties": {"inputs": {"type": "array", "items": {"type": "object"}}}}
    paths[f"{model}/infer"] = {"post": _post("Infer", "Open Inference Protocol, JSON or binary tensors.", [tensors])}
    made: dict[str, Any] = {"openapi": "3.1.0", "info": {"title": f"loudly: {front.name}", "version": "1"}, "paths": paths}
    if secured:
        schemes = {"bearer": {"type": "http", "scheme": "bearer"}, "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}
        made |= {"components": {"securitySchemes": schemes}, "security": [{"bearer": []}, {"key": []}]}
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
            ("POST", "/feedback", f"labels: {front.key} and {front.label_name}"),
            *(("GET", path, told) for path, (told, _) in GETS.items()),
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


def _many(item: Mapping[str, Any], most_rows: int) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1, "maxItems": most_rows}


def _columns(schema: Schema | None, row: Mapping[str, Any], most_rows: int) -> dict[str, Any]:
    fields = asked(schema) if schema is not None else ()
    lists = {f.name: _many(row["properties"][f.name], most_rows) for f in fields}
    required = [f.name for f in fields if not f.nullable]
    inner = {"type": "object", "properties": lists, "required": required}
    return {"type": "object", "title": "Columns", "properties": {"columns": inner}, "required": ["columns"]}


def _get(path: str, told: str, codes: tuple[str, ...]) -> dict[str, Any]:
    kind = "text/plain" if path == "/metrics" else JSON
    answers = {"200": {"description": "Successful Response", "content": {kind: {"schema": {}}}}}
    name = path.strip("/").replace("/", "_") or "root"
    refusals = {code: {"description": REFUSALS.get(code, "not here")} for code in codes}
    return {"summary": told, "operationId": f"{name}_get", "responses": answers | refusals}


def _post(name: str, told: str, bodies: list[Any]) -> dict[str, Any]:
    answers = {"200": {"description": "Successful Response", "content": {JSON: {"schema": {}}}}}
    return {
        "summary": told,
        "operationId": f"{name.lower()}_post",
        "requestBody": {"required": True, "content": {JSON: {"schema": {"anyOf": bodies}}}},
        "responses": answers | {code: {"description": what} for code, what in REFUSALS.items()},
    }
