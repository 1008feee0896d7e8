"""OpenTelemetry spans around the server, where the process has a tracer provider: a request, and the model's part of it.

Two layers from outside, so that a server without them does nothing more: the application is wrapped, and what answers is. The
request's span goes on from the client's `traceparent` and takes its place in the answer and in the log. A batch answers many
requests, so each of them has a span of its own over the batch's time, as a child of the request's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from loudly import __version__
from loudly.adapters.asgi_wrapped import draining_inside
from loudly.serve.attempt import Attempt
from loudly.serve.front import Answered, Front
from loudly.serve.rows import Rows

CARRIED = (b"traceparent", b"tracestate")
PROPAGATOR = TraceContextTextMapPropagator()
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def spans(provider: TracerProvider | None = None) -> Spans | None:
    """What makes the spans; None where nobody has set a tracer provider, so that nothing is made for nobody."""
    found = provider or trace.get_tracer_provider()
    if isinstance(found, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return Spans(found.get_tracer("loudly", __version__))


class Spans:
    """Makes spans. `app` wraps the application, `front` what answers behind it; both belong together."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._open: dict[str, Span] = {}

    def app(self, app: Any) -> SpannedApp:
        """The ASGI application with a span around each request."""
        return SpannedApp(app, self._tracer, self._open)

    def front(self, front: Front) -> Any:
        """What answers, with a span around the model for each request of a batch."""
        return SpannedFront(front, self._tracer, self._open)


class SpannedApp:
    """An ASGI application; the span of a request begins before it and ends after its answer."""

    draining = draining_inside()

    def __init__(self, app: Any, tracer: Tracer, opened: dict[str, Span]) -> None:
        self._app, self._tracer, self._open = app, tracer, opened

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        carrier = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in CARRIED}
        method, path = scope["method"], scope["path"]
        said = {"http.request.method": method, "url.path": path}
        span = self._tracer.start_span(f"{method} {path}", PROPAGATOR.extract(carrier), SpanKind.SERVER, said)
        own = _parent(span)
        headers = [h for h in scope["headers"] if h[0] != b"traceparent"]
        self._open[own] = span

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                _tell(span, method, message)
            await send(message)

        try:
            with trace.use_span(span, end_on_exit=True):
                await self._app({**scope, "headers": [*headers, (b"traceparent", own.encode())]}, receive, told)
        finally:
            self._open.pop(own, None)


class SpannedFront:
    """What answers, as it is but for the spans of `answer` and the mark of `give_up`."""

    def __init__(self, front: Front, tracer: Tracer, opened: dict[str, Span]) -> None:
        self._front, self._tracer, self._open = front, tracer, opened

    def __getattr__(self, name: str) -> Any:
        return getattr(self._front, name)

    def answer(self, rows: Rows, attempt: Attempt) -> Answered:
        """As the front's; what it raises stands in the spans."""
        parents = [self._open.get(parent) for _, parent in attempt.notes]
        with self._children(parents, rows.height) as children:
            answered = self._front.answer(rows, attempt)
            late, first = attempt.close(), 0
            for index, (child, parent, size) in enumerate(zip(children, parents, attempt.sizes, strict=False)):
                if child is not None and parent is not None:
                    said = {**_said(answered, first, first + size), "loudly.late": index in late}
                    child.set_attributes(said)
                    parent.set_attributes(said)
                first += size
            return answered

    def give_up(self, rows: Rows, attempt: Attempt) -> Answered:
        """As the front's; the request's span says so."""
        answered = self._front.give_up(rows, attempt)
        trace.get_current_span().set_attributes({**_said(answered, 0, rows.height), "loudly.late": True})
        return answered

    @contextmanager
    def _children(self, parents: Sequence[Span | None], height: int) -> Iterator[list[Span | None]]:
        """A span for each request that is recorded. A request alone in its batch is the current one while the model is asked."""
        made = [self._child(p, height) if p is not None and p.is_recording() else None for p in parents]
        with ExitStack() as stack:
            for child in made:
                if child is not None:
                    stack.callback(child.end)
            if len(made) == 1 and made[0] is not None:
                stack.enter_context(trace.use_span(made[0], record_exception=False, set_status_on_exception=False))
            try:
                yield made
            except Exception as wrong:
                for child in made:
                    if child is not None:
                        child.record_exception(wrong)
                        child.set_status(Status(StatusCode.ERROR, type(wrong).__name__))
                raise

    def _child(self, parent: Span, height: int) -> Span:
        return self._tracer.start_span("model", trace.set_span_in_context(parent), attributes={"loudly.batch_rows": height})


def _tell(span: Span, method: str, message: Message) -> None:
    """What the head of the answer says. A path that is not there names no span: strangers could make as many as they like."""
    status = int(message["status"])
    span.set_attribute("http.response.status_code", status)
    for name, value in message["headers"]:
        if name == b"x-request-id":
            span.set_attribute("loudly.request_id", value.decode("latin-1"))
    if status == 404:
        span.update_name(method)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))


def _parent(span: Span) -> str:
    carrier: dict[str, str] = {}
    PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
    return carrier.get("traceparent", "")


def _said(answered: Answered, first: int, last: int) -> dict[str, str | int | bool]:
    """Who answered rows `first` to `last`; several versions or arms are joined by a comma."""
    span = slice(first, last)
    fallbacks = int(sum(answered.fallbacks[span]))
    return {
        "loudly.version": ",".join(sorted(set(answered.versions[span]))),
        "loudly.arm": ",".join(sorted(set(answered.arms[span]))),
        "loudly.rows": last - first,
        "loudly.fallback": fallbacks > 0,
        "loudly.fallback_rows": fallbacks,
    }
