"""Spans as an exporter gets them: the client's trace goes on, the model's part is its child, who answered stands in both."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("opentelemetry", reason="LOUD: opentelemetry is not installed; spans are not tested")
sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="LOUD: opentelemetry-sdk is not installed; spans are not tested")

from opentelemetry import trace  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased  # noqa: E402

from live_server import Server, make_live  # noqa: E402
from loudly.adapters.asgi_request import Request  # noqa: E402
from loudly.adapters.otel_spans import Spans, spans  # noqa: E402
from loudly.config import ServerConfig  # noqa: E402
from loudly.serve.replies import Served  # noqa: E402

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "mine"}


class Spanned:
    """A live server with spans, and what came to the exporter."""

    def __init__(self, table: pl.DataFrame, settings: ServerConfig | None = None, sampler: Any = None) -> None:
        self.exporter = InMemorySpanExporter()
        provider = sdk.TracerProvider(sampler=sampler) if sampler is not None else sdk.TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        made = spans(provider)
        assert isinstance(made, Spans)
        self.server = Server(make_live(table)[0], settings, made)

    def named(self, name: str) -> list[Any]:
        return [s for s in self.exporter.get_finished_spans() if s.name == name]


@pytest.fixture
def spanned(table: pl.DataFrame) -> Iterator[Spanned]:
    made = Spanned(table)
    with made.server:
        yield made


def test_nothing_is_made_where_nobody_has_set_a_provider() -> None:
    assert spans() is None
    assert spans(trace.NoOpTracerProvider()) is None


def test_a_request_goes_on_the_clients_trace_and_the_model_is_its_child(spanned: Spanned, rows: list[dict[str, Any]]) -> None:
    answer = httpx.post(f"{spanned.server.url}/predict", json=rows[:3], headers=SENT)
    (request,), (model,) = spanned.named("POST /predict"), spanned.named("model")
    assert format(request.context.trace_id, "032x") == TRACE
    assert format(request.parent.span_id, "016x") == PARENT
    assert model.parent.span_id == request.context.span_id
    own = f"00-{TRACE}-{request.context.span_id:016x}-01"
    assert answer.headers["traceparent"] == own
    for span in (request, model):
        assert span.attributes["loudly.version"] == "world/1"
        assert span.attributes["loudly.arm"] == "control"
        assert span.attributes["loudly.fallback"] is False
        assert span.attributes["loudly.rows"] == 3
    assert request.attributes["loudly.request_id"] == "mine"
    assert request.attributes["http.response.status_code"] == 200
    assert request.start_time <= model.start_time <= model.end_time <= request.end_time


def test_a_batch_has_a_span_for_each_of_its_requests(table: pl.DataFrame, rows: list[dict[str, Any]]) -> None:
    made = Spanned(table)
    release, seen = threading.Event(), []

    def slow(rows: pl.DataFrame) -> Any:
        seen.append(rows.height)
        release.wait(20)
        return rows["x1"].to_numpy() * 0.0 + 0.5

    router = made.server.live.router
    assert router is not None
    router.swap(replace(router.routing, control=Served("world/1", slow)))

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=made.server.url, timeout=30) as client:
            asked = [asyncio.create_task(client.post("/predict", json=row)) for row in rows[:9]]
            await asyncio.sleep(0.5)
            release.set()
            assert {a.status_code for a in await asyncio.gather(*asked)} == {200}

    with made.server:
        asyncio.run(ask())
    requests, models = made.named("POST /predict"), made.named("model")
    assert len(requests) == len(models) == 9
    assert {m.parent.span_id for m in models} == {r.context.span_id for r in requests}
    assert len({r.context.trace_id for r in requests}) == 9
    assert sum(m.attributes["loudly.rows"] for m in models) == 9
    assert sorted(m.attributes["loudly.batch_rows"] for m in models) == sorted(n for n in seen for _ in range(n))


def test_a_model_that_raises_is_a_fallback_in_the_span(spanned: Spanned, rows: list[dict[str, Any]]) -> None:
    router = spanned.server.live.router
    assert router is not None
    router.swap(replace(router.routing, control=Served("world/1", lambda _: 1 / 0), fallback=0.25))
    httpx.post(f"{spanned.server.url}/predict", json=rows[0])
    (model,) = spanned.named("model")
    assert (model.attributes["loudly.fallback"], model.attributes["loudly.fallback_rows"]) == (True, 1)


def test_refusals_and_strangers(spanned: Spanned) -> None:
    assert httpx.post(f"{spanned.server.url}/predict", json={}).status_code == 422
    assert httpx.get(f"{spanned.server.url}/nowhere/1").status_code == 404
    statuses = {s.name: s.attributes["http.response.status_code"] for s in spanned.exporter.get_finished_spans()}
    assert statuses == {"POST /predict": 422, "GET": 404}


def test_a_deadline_that_is_over_stands_in_the_request(table: pl.DataFrame, rows: list[dict[str, Any]]) -> None:
    made = Spanned(table, ServerConfig(deadline=0.3, late="fallback"))
    release = threading.Event()

    def stuck(rows: pl.DataFrame) -> Any:
        release.wait(20)
        return rows["x1"].to_numpy()

    router = made.server.live.router
    assert router is not None
    router.swap(replace(router.routing, control=Served("world/1", stuck), fallback=0.25))
    with made.server:
        assert httpx.post(f"{made.server.url}/predict", json=rows[0]).json()["answers"][0]["fallback"] is True
        release.set()
    (request,) = made.named("POST /predict")
    assert (request.attributes["loudly.late"], request.attributes["loudly.fallback"]) == (True, True)


def test_what_is_not_sampled_is_carried_on_and_not_exported(table: pl.DataFrame, rows: list[dict[str, Any]]) -> None:
    made = Spanned(table, sampler=ParentBased(ALWAYS_OFF))
    with made.server as server:
        answer = httpx.post(f"{server.url}/predict", json=rows[0], headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert answer.headers["traceparent"].split("-")[1::2] == [TRACE, "00"]
    assert not made.exporter.get_finished_spans()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01"),
        (f"cc-{TRACE}-{PARENT}-01-what-is-not-known-yet", f"00-{TRACE}-{PARENT}-01"),
        (f"cc-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01"),
        (f"00-{TRACE}-{PARENT}-01-more", ""),
        (f"cc-{TRACE}-{PARENT}-01.more", ""),
        (f"ff-{TRACE}-{PARENT}-01", ""),
        (f"00-{TRACE.upper()}-{PARENT}-01", ""),
        (f"00-{'0' * 32}-{PARENT}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
    ],
)
def test_a_traceparent_is_taken_as_the_standard_says(sent: str, kept: str) -> None:
    request = Request("GET", "/", [(b"traceparent", sent.encode())], None)  # type: ignore[arg-type]
    assert request.trace.decode() == kept


def test_an_error_of_the_servers_own_is_logged_with_request_and_trace(
    table: pl.DataFrame, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Spanned(table)
    broken: Callable[[], Any] = lambda: 1 / 0  # noqa: E731
    monkeypatch.setattr(made.server.front, "status", broken)
    with made.server as server, caplog.at_level(logging.ERROR, "loudly.serve"):
        answer = httpx.get(f"{server.url}/status", headers=SENT)
    assert answer.status_code == 500
    (record,) = [r for r in caplog.records if r.name == "loudly.serve"]
    assert (record.request_id, record.trace_id) == ("mine", TRACE)  # type: ignore[attr-defined]
    (request,) = made.named("GET /status")
    assert request.status.status_code is trace.StatusCode.ERROR
