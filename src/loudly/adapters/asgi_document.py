"""The OpenAPI document of a server: everything that it answers, typed from the frozen schema of the champion; and a page of it."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loudly.adapters.asgi_schemas import TEXT, components, many, ref
from loudly.deliver.analysis import ARGO, ASKED
from loudly.deliver.analysis import ROOT as ANALYSIS
from loudly.serve.front import Front
from loudly.serve.request import expectation
from loudly.serve.rows import asked

JSON, PLAIN, HTML, BINARY = "application/json", "text/plain", "text/html", "application/octet-stream"
REFUSALS = {
    "400": "the request is broken",
    "401": "no key, or one that is not known",
    "403": "the key may not do this",
    "404": "there is no such model or version",
    "408": "the body did not come in time",
    "409": "it may not be done as things stand",
    "413": "too large",
    "415": "the body is packed",
    "422": "a field does not fit the schema",
    "425": "not yet: the verdict is UNDECIDED",
    "429": "too many at once, come again after Retry-After",
    "500": "an error of the server's own, named in its log under the request id",
    "503": "no champion answers yet, no answer in time, or what must be written cannot be",
}
KEYED = ("401", "403", "429")
SENT = ("408", "413", "415", "500")
ASKING = (*KEYED, *SENT, "404", "422", "503")
CHANGING = (*KEYED, *SENT, "400", "404", "409", "422", "503")
# path -> what it says, the component that it answers with, the refusals
GETS = {
    "/health": ("Whether the process lives.", "Alive", ()),
    "/ready": ("Whether a champion answers.", "Ready", ("503",)),
    "/status": ("Champion, candidate, alarms, labels that are waited for.", "Status", KEYED),
    "/metrics": ("Prometheus metrics.", "", KEYED),
    "/-/": ("Status, rollout, quality, alarms and what happened, as a page.", "", KEYED),
    "/openapi.json": ("This document.", "Document", ()),
    "/docs": ("What the server takes, as a page.", "", ()),
    "/v2/health/live": ("Open Inference Protocol: alive.", "Live", ()),
    "/v2/health/ready": ("Open Inference Protocol: ready.", "Ready", ("503",)),
    "/v2": ("Open Inference Protocol: the server.", "ServerMetadata", ()),
}
TEXTS = {"/metrics": PLAIN, "/docs": HTML, "/-/": HTML}
VERSION = {"name": "version", "in": "path", "required": True, "schema": TEXT, "description": "A number, as in 2."}
MODEL = {"name": "model", "in": "path", "required": True, "schema": TEXT, "description": "The name of the model."}
NAMED = {"name": "version", "in": "query", "schema": TEXT, "description": "A version that is loaded; else the routing chooses."}
Operation = dict[str, Any]


def document(front: Front, most_rows: int, explain_rows: int, secured: bool) -> dict[str, Any]:
    """OpenAPI 3.1 of what the server does now."""
    made: dict[str, Any] = {"openapi": "3.1.0", "info": {"title": f"loudly: {front.name}", "version": "1"}}
    made["paths"] = _paths(front, most_rows, explain_rows)
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
        f"<li><code>{method.upper()} {html.escape(path)}</code> {html.escape(operation['summary'])}</li>"
        for path, item in _paths(front, 1, 1).items()
        for method, operation in item.items()
    )
    row = front.example()
    example = f"<h2>For example</h2><pre>{html.escape(json.dumps(dict(row), indent=2, default=str))}</pre>" if row else ""
    name = html.escape(front.name)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>loudly: {name}</title>'
        "<style>:root{color-scheme:light dark}body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
        "td{padding:.1em 1em .1em 0}pre{background:#8882;padding:1em;overflow:auto}</style>"
        f"<h1>{name}</h1><h2>A row for POST /predict</h2><table>{rows}</table>{example}"
        f"<h2>All that is answered</h2><ul>{paths}</ul></html>"
    )


def _paths(front: Front, most_rows: int, explain_rows: int) -> dict[str, dict[str, Operation]]:
    """path -> method -> operation."""
    rows = [ref("Row"), many(ref("Row"), most_rows), ref("Columns")]
    few = [ref("Row"), many(ref("Row"), explain_rows), ref("FewColumns")]
    labels = [ref("Label"), many(ref("Label"), most_rows)]
    predict = _post("predict", "A row, many rows, or columns: answers.", rows, "Answers", ASKING)
    explain = _post("explain", "Some rows: what each column contributed to their scores.", few, "Explanations", ASKING)
    feedback = _post("feedback", "Labels that have come.", labels, "Arrived", ASKING)
    promote = _post("promote", "A version answers everything from now on.", [ref("Promotion")], "Promoted", CHANGING)
    paths = {path: {"get": _get(path, *said)} for path, said in GETS.items()}
    paths |= {"/predict": {"post": {**predict, "parameters": [NAMED]}}, "/explain": {"post": explain}}
    paths |= {"/feedback": {"post": feedback}, "/promote": {"post": promote}, **_protocol(front.name)}
    paths |= dict(_of_a_version(paths, front.name))
    return paths | dict(_analysis())


def _protocol(name: str) -> dict[str, dict[str, Operation]]:
    """The Open Inference Protocol of one model, and its repository."""
    model, repository = f"/v2/models/{name}", f"/v2/repository/models/{name}"
    told = "Open Inference Protocol: inputs and outputs of the model."
    made = {model: {"get": _get("/v2/model", told, "ModelMetadata", ("503",))}}
    told = "Open Inference Protocol: the model is ready."
    made[f"{model}/ready"] = {"get": _get("/v2/model/ready", told, "ModelReady", ("503",))}
    made[f"{model}/infer"] = {"post": _infer()}
    told = "Open Inference Protocol: the versions, and which of them can be asked by name."
    made["/v2/repository/index"] = {
        "post": _post("index", told, [ref("IndexRequest")], "Index", (*KEYED, *SENT, "400", "503"), False)
    }
    for work, told in (("load", "a version answers whoever names it."), ("unload", "a version answers nobody by its name.")):
        operation = _post(work, f"Open Inference Protocol: {told}", [ref("RepositoryRequest")], "", CHANGING, False)
        made[f"{repository}/{work}"] = {"post": operation}
    return made


def _of_a_version(paths: Mapping[str, Mapping[str, Operation]], name: str) -> Iterator[tuple[str, dict[str, Operation]]]:
    """The protocol's paths of the model, as they are for a version that the path names."""
    for path, item in paths.items():
        head, found, rest = path.partition(f"/models/{name}")
        if found:
            yield f"{head}{found}/versions/{{version}}{rest}", {m: _with_version(operation) for m, operation in item.items()}


def _with_version(operation: Operation) -> Operation:
    answers = {**operation["responses"], "404": _refused("404")}
    return {**operation, "operationId": f"version_{operation['operationId']}", "parameters": [VERSION], "responses": answers}


def _analysis() -> Iterator[tuple[str, dict[str, Operation]]]:
    """The webhooks of Argo and Flagger: of the running rollout, and of a version by its name."""
    for hook in ASKED:
        for tail, names in (("", []), ("/{model}/{version}", [MODEL, VERSION])):
            told = (
                f"The verdict on {'a version' if tail else 'the running rollout'}, as {hook.partition('/')[0].title()} asks for it."
            )
            answers = {"200": _answer("Successful Response", {JSON: ref("StandingVerdict")})}
            if hook != ARGO:
                answers |= {code: _answer(REFUSALS[code], {JSON: ref("StandingVerdict")}) for code in ("409", "425")}
            name = f"analysis_{hook.replace('/', '_')}{'_of_version' if tail else ''}"
            operation: Operation = {"summary": told, "security": [], **({"parameters": names} if names else {})}
            posted = {**answers, **{code: _refused(code) for code in ("400", *SENT)}}
            body = _body([ref("Webhook")], False)
            yield (
                f"{ANALYSIS}{hook}{tail}",
                {
                    "get": {**operation, "operationId": f"{name}_get", "responses": answers},
                    "post": {**operation, "operationId": f"{name}_post", "requestBody": body, "responses": posted},
                },
            )


def _get(path: str, told: str, said: str, codes: Sequence[str]) -> Operation:
    answers = {"200": _answer("Successful Response", {TEXTS[path]: TEXT} if path in TEXTS else {JSON: ref(said)})}
    for code in codes:
        refused = {"anyOf": [ref(said), ref("Refusal")]} if code == "503" else ref("Refusal")
        answers[code] = _answer(REFUSALS[code], {JSON: refused})
    name = path.strip("/").replace("/", "_").replace(".", "_")
    made: Operation = {"summary": told, "operationId": f"{name}_get", "responses": answers}
    return made if "401" in codes else {**made, "security": []}


def _post(name: str, told: str, bodies: list[Any], said: str, codes: Sequence[str], required: bool = True) -> Operation:
    """said: the component that it answers with; "" for nothing."""
    done = _answer("Successful Response", {JSON: ref(said)}) if said else {"description": "Done."}
    answers = {"200": done, **{code: _refused(code) for code in sorted(codes)}}
    return {"summary": told, "operationId": f"{name}_post", "requestBody": _body(bodies, required), "responses": answers}


def _infer() -> Operation:
    made = _post("infer", "Open Inference Protocol, JSON or binary tensors.", [ref("InferRequest")], "", (*ASKING, "400"))
    kinds = {JSON: ref("InferResponse"), BINARY: {"type": "string", "format": "binary"}}
    return {**made, "responses": {**made["responses"], "200": _answer("Successful Response", kinds)}}


def _body(bodies: list[Any], required: bool) -> dict[str, Any]:
    return {"required": required, "content": {JSON: {"schema": {"anyOf": bodies} if len(bodies) > 1 else bodies[0]}}}


def _refused(code: str) -> dict[str, Any]:
    """A refusal, in our words or in the protocol's."""
    return _answer(REFUSALS[code], {JSON: {"anyOf": [ref("Refusal"), ref("ProtocolError")]}})


def _answer(told: str, kinds: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": told, "content": {kind: {"schema": schema} for kind, schema in kinds.items()}}
