"""The HTTP server: FastAPI in front of the wheel.

`POST /predict` (a row, or a list of rows), `POST /feedback`, `GET /health`, `/ready`, `/status`, `/metrics`. The OpenAPI
document is typed from the frozen schema of the champion and changes with it.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.utils import get_openapi
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from loudly.core.clock import stopwatch
from loudly.deliver.analysis import analyse
from loudly.errors import LoudlyError, RolloutError
from loudly.serve.front import Answered, Front
from loudly.serve.request import check, json_schema

MOST_BYTES = 16 * 2**20
MOST_ROWS = 10_000
TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Meters:
    """Prometheus metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("loudly_requests_total", "Requests by path and status.", ["path", "status"], registry=self.registry)
        self.rows = Counter("loudly_rows_total", "Rows answered, by version and arm.", ["version", "arm"], registry=self.registry)
        self.fallbacks = Counter("loudly_fallbacks_total", "Rows answered by a fallback.", registry=self.registry)
        self.seconds = Histogram("loudly_request_seconds", "Seconds a request took.", ["path"], registry=self.registry)
        self.alarms = Gauge("loudly_open_alarms", "Alarms that are open.", registry=self.registry)
        self.log_refused = Gauge("loudly_log_refused", "1 while the disk refuses the traffic log.", registry=self.registry)
        self.log_lost = Gauge("loudly_log_lost", "Records of traffic that had no room.", registry=self.registry)
        self.labels = Counter("loudly_labels_total", "Labels received, by what became of them.", ["what"], registry=self.registry)

    def answered(self, answer: Answered) -> None:
        """Counts the rows of an answer."""
        for version, arm, fallback in zip(answer.versions, answer.arms, answer.fallbacks, strict=True):
            self.rows.labels(version, arm).inc()
            if fallback:
                self.fallbacks.inc()


def build(front: Front, on_start: Callable[[], None], on_stop: Callable[[], None]) -> FastAPI:
    """The application. `on_start` and `on_stop` run once, around serving."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        on_start()
        yield
        await run_in_threadpool(front.flush)
        on_stop()

    app = FastAPI(title=f"loudly: {front.name}", version="1", lifespan=lifespan)
    meters = Meters()
    _measure(app, meters)
    _predict(app, front, meters)
    _feedback(app, front, meters)
    _watchful(app, front, meters)
    _analysis(app, front)
    app.openapi = lambda: _document(app, front)  # type: ignore[method-assign]
    return app


def _measure(app: FastAPI, meters: Meters) -> None:
    @app.middleware("http")
    async def measured(request: Request, call_next: Any) -> Response:
        begun = stopwatch()
        response: Response = await call_next(request)
        path = request.url.path if response.status_code != 404 else "other"
        meters.requests.labels(path, str(response.status_code)).inc()
        meters.seconds.labels(path).observe(stopwatch() - begun)
        response.headers["X-Request-Id"] = request.headers.get("X-Request-Id") or uuid.uuid4().hex
        return response


def _predict(app: FastAPI, front: Front, meters: Meters) -> None:
    @app.post("/predict")
    async def predict(request: Request) -> Response:
        schema = front.schema()
        if schema is None:
            return _problem(503, "nothing answers yet: there is no champion")
        rows, wrong = await _rows(request)
        if wrong is not None:
            return wrong
        problems = check(rows, schema)
        if problems:
            return _unfit(problems, schema.version)
        try:
            answer = await run_in_threadpool(front.answer, rows)
        except RolloutError as error:
            return _problem(503, str(error))
        except LoudlyError as error:
            return _problem(422, str(error))
        meters.answered(answer)
        return _json(200, {"schema_version": schema.version, "answers": _answers(answer)})


def _feedback(app: FastAPI, front: Front, meters: Meters) -> None:
    @app.post("/feedback")
    async def feedback(request: Request) -> Response:
        rows, wrong = await _rows(request)
        if wrong is not None:
            return wrong
        needed = (front.key, front.label_name)
        missing = [{"loc": ["body", i, n], "msg": "missing"} for i, row in enumerate(rows) for n in needed if row.get(n) is None]
        if missing:
            return _json(422, {"detail": missing})
        try:
            told = await run_in_threadpool(front.label, rows)
        except LoudlyError as error:
            return _problem(422, str(error))
        for what, count in told.items():
            if isinstance(count, int):
                meters.labels.labels(what).inc(count)
        return _json(200, dict(told))


def _watchful(app: FastAPI, front: Front, meters: Meters) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/ready")
    async def ready() -> Response:
        schema = front.schema()
        if schema is None:
            return _json(503, {"ready": False, "reason": "there is no champion"})
        return _json(200, {"ready": True, "schema_version": schema.version})

    @app.get("/status")
    async def status() -> Response:
        return _json(200, dict(await run_in_threadpool(front.status)))

    @app.get("/metrics")
    async def metrics() -> Response:
        told = await run_in_threadpool(front.status)
        meters.alarms.set(len(told.get("alarms", ())))
        meters.log_refused.set(bool(told["log"].get("refused")))
        meters.log_lost.set(told["log"].get("lost", 0))
        return Response(generate_latest(meters.registry), media_type=TEXT)


def _analysis(app: FastAPI, front: Front) -> None:
    @app.api_route("/analysis/{asked:path}", methods=["GET", "POST"], include_in_schema=False)
    async def analysis(request: Request) -> Response:
        told = await run_in_threadpool(analyse, request.url.path, await request.body(), front.verdict)
        return Response(told.body, status_code=told.status, media_type="application/json")


async def _rows(request: Request) -> tuple[list[Mapping[str, Any]], Response | None]:
    """The body as a list of objects, or the answer that refuses it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            return [], _problem(413, f"a request may have {MOST_BYTES:,} bytes at most")
    try:
        given = json.loads(bytes(body))
    except (ValueError, RecursionError) as wrong:
        return [], _json(422, {"detail": [{"loc": ["body"], "msg": f"no JSON: {wrong}", "type": "json_invalid"}]})
    rows = given if isinstance(given, list) else [given]
    if not rows or not all(isinstance(row, dict) for row in rows):
        return [], _json(422, {"detail": [{"loc": ["body"], "msg": "an object, or a list of objects", "type": "rows"}]})
    if len(rows) > MOST_ROWS:
        return [], _problem(413, f"a request may have {MOST_ROWS:,} rows at most")
    return rows, None


def _answers(answer: Answered) -> list[dict[str, Any]]:
    columns = zip(answer.predictions, answer.versions, answer.arms, answer.propensities, answer.fallbacks, strict=True)
    return [
        {"prediction": p, "version": version, "arm": arm, "propensity": propensity, "fallback": fallback}
        for p, version, arm, propensity, fallback in columns
    ]


def _unfit(problems: tuple[Any, ...], version: str) -> Response:
    """422 as FastAPI clients know it, naming field, expectation and schema version."""
    detail = [
        {
            "loc": ["body", p.row, p.field],
            "msg": f"expected {p.expected}",
            "type": "schema",
            **asdict(p),
            "schema_version": version,
        }
        for p in problems
    ]
    return _json(422, {"detail": detail})


def _problem(status: int, message: str) -> Response:
    return _json(status, {"detail": message})


def _json(status: int, content: Any) -> Response:
    return Response(json.dumps(_told(content)), status_code=status, media_type="application/json")


def _told(value: Any) -> Any:
    """NaN and infinities have no word in JSON: they are null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {k: _told(v) for k, v in value.items()}
    return [_told(v) for v in value] if isinstance(value, list | tuple) else value


def _document(app: FastAPI, front: Front) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schema = front.schema()
    if schema is None:
        return document
    row = json_schema(schema, front.example())
    label = {
        "type": "object",
        "required": [front.key, front.label_name],
        "properties": {front.key: {"type": "string"}, front.label_name: {}},
    }
    for path, item in (("/predict", row), ("/feedback", label)):
        operation = document["paths"][path]["post"]
        one_or_many = {"anyOf": [item, {"type": "array", "items": item, "minItems": 1, "maxItems": MOST_ROWS}]}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": one_or_many}}}
        operation["responses"] |= {
            "413": {"description": "too large"},
            "422": {"description": "a field does not fit the schema"},
            "503": {"description": "no champion answers yet"},
        }
    for path in ("/ready",):
        document["paths"][path]["get"]["responses"]["503"] = {"description": "not ready"}
    return document
