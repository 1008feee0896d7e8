"""The HTTP server: a plain ASGI application in front of the wheel, without a framework.

`POST /predict` (a row, a list of rows, or columns), `/explain`, `/feedback`, `GET /health`, `/ready`, `/status`, `/metrics`,
`/-/` (all that on a page), `/docs`, `/openapi.json`, and the Open Inference Protocol under `/v2`. It runs alone, or mounted in
another application: `app.mount("/model", server)`, with `async with server.running():` in that application's own lifespan.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any

from loudly import __version__
from loudly.adapters import asgi_status as status_page
from loudly.adapters import inference_protocol as v2
from loudly.adapters.admission import Door, keys_of
from loudly.adapters.asgi_codec import Refused, objects
from loudly.adapters.asgi_document import document, page
from loudly.adapters.asgi_examples import Unshown
from loudly.adapters.asgi_explain import Explainer
from loudly.adapters.asgi_labels import held
from loudly.adapters.asgi_predict import Predictor
from loudly.adapters.asgi_repository import Repository, status_of
from loudly.adapters.asgi_request import Asking, Gone, Receive, Reply, Request, Send, encoded, failure, too_slow
from loudly.adapters.asgi_schemas import label_field
from loudly.adapters.batching import Seat
from loudly.adapters.meters import Meters
from loudly.config import ServerConfig
from loudly.core.canon import Json
from loudly.core.clock import stopwatch
from loudly.core.saying import say
from loudly.core.values import Schema
from loudly.deliver.analysis import ROOT as ANALYSIS
from loudly.deliver.analysis import analyse
from loudly.errors import LoudlyError
from loudly.serve.front import Front
from loudly.serve.rows import Rows

TEXT = b"text/plain; version=0.0.4; charset=utf-8"
MOST_LABELLING = 64
# The least status whose requests have a line, by what [server] access_log says.
LINES = {"all": 0, "refused": 400, "none": 1000}
LARGE_BODY = 128 * 1024
MEASURE_SECONDS = 0.25
Work = Callable[[Request], Awaitable[Reply]]


def build(front: Front, on_start: Callable[[], None], on_stop: Callable[[], None], settings: ServerConfig | None = None) -> Server:
    """The application. `on_start` and `on_stop` run once, around serving. Raises: ConfigError for keys that cannot be."""
    return Server(front, on_start, on_stop, settings or ServerConfig())


class Server:
    """An ASGI application. `draining`: every answer closes its connection, and `/ready` says no."""

    def __init__(self, front: Front, on_start: Callable[[], None], on_stop: Callable[[], None], settings: ServerConfig) -> None:
        self.front, self.settings, self.draining = front, settings, False
        self._told: Any = Unshown(front) if settings.keys else front
        self.door = Door(keys_of(settings.keys), settings.rate, settings.burst)
        self.meters = Meters()
        self.predictor = Predictor(front, settings, self.meters)
        self._explainer = Explainer(front, settings)
        self._on_start, self._on_stop = on_start, on_stop
        self._lines = LINES[settings.access_log]
        self._document: tuple[Schema | None, bytes] | None = None
        self._labelling = 0
        model, repository = f"/v2/models/{front.name}", f"/v2/repository/models/{front.name}"
        shown = status_page.StatusPage(front, self.meters, self._aside, self._measured)
        keeper = Repository(front, settings.max_versions, self._body, self._aside)
        # path -> method, role that it needs, what does it
        self._paths: dict[str, tuple[str, str, Work]] = {
            "/predict": ("POST", "predict", self._predict),
            "/explain": ("POST", "predict", self._explain),
            "/feedback": ("POST", "feedback", self._feedback),
            "/health": ("GET", "", self._health),
            "/ready": ("GET", "", self._ready),
            "/status": ("GET", "admin", self._status),
            "/metrics": ("GET", "admin", self._metrics),
            status_page.PATH: ("GET", "admin", shown.reply),
            "/openapi.json": ("GET", "", self._openapi),
            "/docs": ("GET", "", self._docs),
            "/v2": ("GET", "", self._v2_server),
            "/v2/health/live": ("GET", "", self._v2_live),
            "/v2/health/ready": ("GET", "", self._v2_ready),
            model: ("GET", "", self._v2_model),
            f"{model}/ready": ("GET", "", self._v2_model_ready),
            f"{model}/infer": ("POST", "predict", self._infer),
            "/promote": ("POST", "admin", keeper.promote),
            "/v2/repository/index": ("POST", "admin", keeper.index),
            f"{repository}/load": ("POST", "admin", keeper.load),
            f"{repository}/unload": ("POST", "admin", keeper.unload),
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Around serving: starts what must run beside it; at the end all that was answered is on disk."""
        self._on_start()
        measuring = asyncio.get_running_loop().create_task(self._keep_measuring()) if self.meters.shared else None
        try:
            yield
        finally:
            if measuring is not None:
                measuring.cancel()
            for batcher in self.predictor.batchers():
                batcher.stop()
            await asyncio.get_running_loop().run_in_executor(None, self.front.flush)
            self._on_stop()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "lifespan":
                await self._lifespan(receive, send)
            case _:
                await send({"type": "websocket.close", "code": 1003})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self.running():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        begun = stopwatch()
        path, root = scope["path"], scope.get("root_path", "")
        if root and path.startswith(root):
            path = path[len(root) :] or "/"
        request = Request(scope["method"], path, scope["headers"], receive, scope.get("query_string", b""))
        label = path
        try:
            label, work = self._find(request)
            reply = await work(request)
        except Gone:
            return
        except Exception as wrong:  # noqa: BLE001 - whatever it is, the client is told
            label = label if path in self._paths else "other"
            reply = failure(request, wrong)
        headers = [(b"content-type", reply.kind), (b"content-length", b"%d" % len(reply.body)), (b"x-request-id", request.id)]
        if request.trace:
            headers.append((b"traceparent", request.trace))
        if self.draining:
            headers.append((b"connection", b"close"))
        headers.extend(reply.headers)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})
        self.count(request, label, reply.status, stopwatch() - begun)

    def count(self, request: Asking, path: str, status: int, seconds: float) -> None:
        """A request was answered: it is counted, and has its line where one is asked for."""
        self.meters.request(path, status, seconds)
        if status >= self._lines:
            told = {"request_id": request.id.decode(), "trace_id": request.trace[3:35].decode()}
            about: dict[str, Json] = {**told, "path": path, "status": status, "seconds": round(seconds, 6)}
            say(self.front.name, f"{status} {path} in {seconds * 1e3:.3g} ms, request {told['request_id']}", about)

    def _find(self, request: Request) -> tuple[str, Work]:
        """What does it, for a visitor who may. Raises: Refused."""
        found = self._paths.get(request.path)
        if found is None:
            if request.path.startswith(ANALYSIS):
                if request.method not in ("GET", "POST"):
                    raise Refused(405, {"detail": "Method Not Allowed"}, allow="GET, POST")
                return ANALYSIS, self._analysis
            found = self._paths[self._versioned(request)]
        method, role, work = found
        if request.method != method:
            raise Refused(405, {"detail": "Method Not Allowed"}, allow=method)
        if role:
            with status_page.by_password(request) if request.path == status_page.PATH else nullcontext():
                self.admit(request, role)
        if request.version and request.path.startswith("/v2/models/"):
            self.predictor.schema(request.version)
        return request.path if request.path in self._paths else "/v2/models/versions", work

    def _versioned(self, request: Request) -> str:
        """A path of the protocol that names a version, as the one without it; the request is told. Raises: Refused."""
        head, _, rest = request.path.partition("/models/")
        parts = rest.split("/")
        if head not in ("/v2", "/v2/repository") or not parts[0]:
            raise Refused(404, {"detail": "Not Found"})
        if parts[0] != self.front.name:
            raise v2.broken(f"there is no model {parts[0][:80]!r}; this is {self.front.name!r}", 404)
        plain = "/".join((head, "models", parts[0], *parts[3:]))
        if len(parts) < 3 or parts[1] != "versions" or plain not in self._paths:
            raise Refused(404, {"detail": "Not Found"})
        request.version = f"{self.front.name}/{parts[2]}"
        return plain

    def admit(self, request: Asking, role: str) -> None:
        """Lets in who may. Raises: Refused."""
        visitor = self.door.who(request.key)
        if visitor is None:
            raise Refused(401, {"detail": "a key is needed: Authorization: Bearer KEY, or X-API-Key: KEY"})
        if not visitor.may(role):
            raise Refused(403, {"detail": f"this key may not do that; it takes the role {role!r}"})
        if visitor.bucket is not None and (wait := visitor.bucket.wait()) > 0:
            raise Refused(429, {"detail": f"too many requests; come again in {wait:.1f} s"}, wait)

    # -- the wheel ---------------------------------------------------------------------------------------------------

    async def _predict(self, request: Request) -> Reply:
        body = await self._body(request)
        named = request.asked("version")
        if named is not None:
            request.version = named if "/" in named else f"{self.front.name}/{named}"
        read = partial(self.predictor.read, request.version, lambda codec: codec.read(body))
        rows = read() if len(body) <= LARGE_BODY else await asyncio.get_running_loop().run_in_executor(None, read)
        return self.predictor.reply(rows, *await self.predictor.answer(rows, request))

    def take(self, request: Asking, body: bytes, seat: Seat) -> Rows:
        """The rows of a plain prediction, which the batcher has now; the seat is told. Raises: Refused, Full."""
        self.admit(request, "predict")
        rows = self.predictor.read("", lambda codec: codec.read(body))
        self.predictor.take(rows, request, seat)
        return rows

    async def _explain(self, request: Request) -> Reply:
        if request.asked("version") is not None:
            raise Refused(422, {"detail": "who answers a unit explains it: no version can be named here"})
        return await self._explainer.reply(self.predictor.reader(""), await self._body(request))

    async def _feedback(self, request: Request) -> Reply:
        if self._labelling >= MOST_LABELLING:
            raise Refused(429, {"detail": "too many labels are waiting"}, 1.0)
        rows = objects(await self._body(request), self.settings.most_rows)
        held(rows, self.front.key, self.front.label_name, label_field(self.front.schema()))
        self._labelling += 1
        try:
            told = await asyncio.get_running_loop().run_in_executor(None, self.front.label, rows)
        except (LoudlyError, OverflowError, UnicodeError) as error:
            raise Refused(status_of(error), {"detail": str(error)}) from error
        finally:
            self._labelling -= 1
        for what, count in told.items():
            if isinstance(count, int):
                self.meters.labels.labels(what).inc(count)
        return Reply(200, encoded(dict(told)))

    # -- watching ----------------------------------------------------------------------------------------------------

    async def _health(self, _: Request) -> Reply:
        return Reply(200, b'{"status":"alive"}')

    @property
    def ready(self) -> bool:
        """Whether a request would be answered."""
        return self.front.schema() is not None and not self.draining and not self.predictor.batcher.dead

    async def _ready(self, _: Request) -> Reply:
        schema = self.front.schema()
        if schema is not None and self.ready:
            return Reply(200, encoded({"ready": True, "schema_version": schema.version}))
        stopped = "it is told to stop" if self.draining else "no thread is left that the model has not kept"
        reason = "there is no champion" if schema is None else stopped
        return Reply(503, encoded({"ready": False, "reason": reason}))

    async def _status(self, _: Request) -> Reply:
        return Reply(200, json.dumps(dict(await self._aside(self.front.status))).encode())

    async def _metrics(self, _: Request) -> Reply:
        status = await self._aside(self.front.status)
        return Reply(200, self.meters.told(status, *self._measured()), TEXT)

    def _measured(self) -> tuple[int, int, int]:
        """Rows that wait, threads that are stuck, batches given to the models."""
        all_of = self.predictor.batchers()
        return sum(b.waiting for b in all_of), sum(b.stuck for b in all_of), sum(b.batches for b in all_of)

    async def _keep_measuring(self) -> None:
        """Where others tell what we measure, they find it new."""
        while True:
            self.meters.measured(*self._measured())
            await asyncio.sleep(MEASURE_SECONDS)

    async def _analysis(self, request: Request) -> Reply:
        body = await self._body(request) if request.method == "POST" else b""
        told = await self._aside(lambda: analyse(request.path, body, self.front.verdict))
        return Reply(told.status, told.body)

    async def _openapi(self, _: Request) -> Reply:
        schema = self.front.schema()
        if self._document is None or self._document[0] is not schema:
            most = self.settings.most_rows, self.settings.explain_rows
            made = await self._aside(lambda: document(self._told, *most, bool(self.settings.keys)))
            self._document = (schema, encoded(made))
        return Reply(200, self._document[1])

    async def _docs(self, _: Request) -> Reply:
        return Reply(200, (await self._aside(lambda: page(self._told))).encode(), status_page.HTML)

    # -- Open Inference Protocol -------------------------------------------------------------------------------------

    async def _v2_server(self, _: Request) -> Reply:
        return Reply(200, encoded(v2.server(__version__)))

    async def _v2_live(self, _: Request) -> Reply:
        return Reply(200, b'{"live":true}')

    async def _v2_ready(self, request: Request) -> Reply:
        ready = (await self._ready(request)).status
        return Reply(ready, encoded({"ready": ready == 200}))

    async def _v2_model(self, request: Request) -> Reply:
        numbers = [v.rpartition("/")[2] for v in self.front.loaded()]
        schema, classes = self.predictor.reader(request.version).schema, self.front.classes(request.version)
        return Reply(200, encoded(v2.model(self.front.name, numbers, schema, classes)))

    async def _v2_model_ready(self, request: Request) -> Reply:
        ready = (await self._ready(request)).status
        return Reply(ready, encoded({"name": self.front.name, "ready": ready == 200}))

    async def _infer(self, request: Request) -> Reply:
        version = (request.version or self.front.version() or "").rpartition("/")[2]
        try:
            body = await self._body(request)
            length = request.header(b"inference-header-content-length")
            most = self.settings.most_rows
            asking = self.predictor.read(request.version, lambda codec: v2.read(body, length, codec.schema, most))
            answered, first = await self.predictor.answer(asking.rows, request)
        except Refused as refused:
            if "error" in refused.content:
                raise
            raise Refused(refused.status, {"error": refused.content["detail"]}, refused.retry_after) from refused
        last = first + asking.rows.height
        self.meters.answered(answered, first, last)
        told, head = v2.told(asking, self.front.name, version, answered, first, last)
        if head is None:
            return Reply(200, told)
        return Reply(200, told, b"application/octet-stream", ((v2.HEADER.lower().encode(), str(head).encode()),))

    # -- parts -------------------------------------------------------------------------------------------------------

    async def _body(self, request: Request) -> bytes:
        """Raises: Refused for a body that is packed or too large, or does not come in time."""
        if (packed := request.header(b"content-encoding")) not in (None, "", "identity"):
            raise Refused(415, {"detail": f"a body comes as it is, not as Content-Encoding: {packed}"})
        slow: list[bool] = []
        task = asyncio.current_task()
        assert task is not None
        patience = task.get_loop().call_later(self.settings.slow, lambda: slow.append(task.cancel()))
        try:
            return await request.body(self.settings.most_bytes)
        except asyncio.CancelledError as cancelled:
            if not slow:
                raise
            task.uncancel()
            raise too_slow(self.settings.slow) from cancelled
        finally:
            patience.cancel()

    @staticmethod
    async def _aside(work: Callable[[], Any]) -> Any:
        """On a thread: it may have to wait for the lock of the wheel."""
        return await asyncio.get_running_loop().run_in_executor(None, work)
