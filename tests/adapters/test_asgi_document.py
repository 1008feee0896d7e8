"""The OpenAPI document against the server: every route is in it, every path in it is answered, and its examples are true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
jsonschema = pytest.importorskip("jsonschema", reason="LOUD: jsonschema is not installed; the document's examples are not checked")
pytest.importorskip("uvicorn")

from conftest import make_world  # noqa: E402
from live_server import Server, make_live  # noqa: E402
from loudly.adapters.asgi_document import document  # noqa: E402
from loudly.config import ServerConfig  # noqa: E402
from loudly.deliver.analysis import ASKED  # noqa: E402
from loudly.deliver.analysis import ROOT as ANALYSIS  # noqa: E402

VERSIONED = ("/v2/models/world", "/v2/repository/models/world")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    live, _ = make_live(make_world(days=50))
    live.retrain("by hand", "a second one", offer=False)
    with Server(live) as running:
        yield running


@pytest.fixture(scope="module")
def told(server: Server) -> dict[str, Any]:
    return dict(httpx.get(f"{server.url}/openapi.json").json())


def operations(told: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, one) for path, item in told["paths"].items() for method, one in item.items()]


def routes(server: Server) -> dict[tuple[str, str], str]:
    """All that the server's routing table answers, with the role that it needs."""
    own = {(path, method.lower()): role for path, (method, role, _) in server.app._paths.items()}
    of_versions = {
        (path.replace(prefix, f"{prefix}/versions/{{version}}"), method): role
        for (path, method), role in own.items()
        for prefix in VERSIONED
        if path.startswith(prefix)
    }
    hooks = [f"{ANALYSIS}{hook}{tail}" for hook in ASKED for tail in ("", "/{model}/{version}")]
    return own | of_versions | {(path, method): "" for path in hooks for method in ("get", "post")}


def test_every_route_of_the_server_is_in_the_document_with_its_key_and_nothing_else_is(server: Server) -> None:
    told = document(server.front, 10, 10, secured=True)
    known = {(path, method): one.get("security") != [] for path, method, one in operations(told)}
    assert known == {route: bool(role) for route, role in routes(server).items()}
    assert len({one["operationId"] for _, _, one in operations(told)}) == len(known)


def test_every_path_of_the_document_is_answered_and_other_methods_are_refused(server: Server, told: dict[str, Any]) -> None:
    with httpx.Client(base_url=server.url) as client:
        for path, method, one in operations(told):
            asked = path.replace("{version}", "1").replace("{model}", "world")
            answer = client.request(method, asked)
            assert str(answer.status_code) in one["responses"], (method, asked, answer.text)
            assert answer.status_code != 404, (method, asked)
            assert client.request("PATCH", asked).status_code == 405, asked


def test_paths_of_a_version_that_is_not_loaded_are_404(server: Server, told: dict[str, Any]) -> None:
    for path, method, one in operations(told):
        if "/models/world/versions/" in path:
            assert "404" in one["responses"]
            assert httpx.request(method, f"{server.url}{path.replace('{version}', '9')}").status_code == 404, path


def fits(told: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    jsonschema.Draft202012Validator({**schema, "components": told["components"]}).validate(value)


def test_every_example_fits_its_schema(told: dict[str, Any]) -> None:
    shown = {name: one["example"] for name, one in told["components"]["schemas"].items() if "example" in one}
    assert {"Row", "Columns", "Answers", "Promotion", "RepositoryRequest", "InferRequest", "StandingVerdict", "Arrived"} <= set(
        shown
    )
    for name, example in shown.items():
        fits(told, told["components"]["schemas"][name], example)


def test_what_is_sent_by_example_is_answered_as_the_document_says(server: Server, told: dict[str, Any]) -> None:
    """Each operation with the example of each of its bodies; promotion comes last, for it is of a position long past."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for path, method, one in operations(told):
            asked = path.replace("{version}", "1").replace("{model}", "world")
            for body in bodies(told, one):
                answer = client.request(method, asked, json=body) if body is not None else client.request(method, asked)
                assert answer.status_code in (200, 409, 425), (method, asked, answer.text)
                said = one["responses"][str(answer.status_code)].get("content", {})
                kind = answer.headers["content-type"].split(";")[0]
                if said:
                    assert kind in said, (method, asked, kind)
                if kind in said and kind == "application/json":
                    fits(told, said[kind]["schema"], answer.json())
        assert client.post("/predict").status_code == 422


def bodies(told: dict[str, Any], operation: dict[str, Any]) -> list[Any]:
    """The examples of what an operation takes; None where it takes nothing."""
    if "requestBody" not in operation:
        return [None]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    names = [one["$ref"].rpartition("/")[2] for one in schema.get("anyOf", [schema]) if "$ref" in one]
    return [told["components"]["schemas"][name]["example"] for name in names]


def test_where_keys_are_asked_for_no_row_is_shown_to_who_has_none(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN", "secret")
    row = server.front.example()
    with Server(server.live, ServerConfig(keys=("admin=env:ADMIN",))) as keyed:
        for path in ("/openapi.json", "/docs"):
            assert row["id"] in httpx.get(f"{server.url}{path}").text
            assert row["id"] not in httpx.get(f"{keyed.url}{path}").text
