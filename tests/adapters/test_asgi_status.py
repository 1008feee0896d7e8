"""The status page over real HTTP: who may see it, by which key, and what a browser may do with it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")

from browser import drawn, whole  # noqa: E402
from conftest import SINCE, make_world  # noqa: E402
from live_server import Server, make_live, rows_of  # noqa: E402
from loudly.config import ServerConfig  # noqa: E402
from loudly.core.clock import DAY  # noqa: E402

TABLE = make_world(days=50)
ROWS = rows_of(TABLE, SINCE, SINCE + DAY)


def basic(key: str) -> dict[str, str]:
    """What a browser sends where somebody typed a password."""
    return {"Authorization": "Basic " + base64.b64encode(f"anybody:{key}".encode()).decode()}


def test_the_page_tells_what_the_server_did(tmp_path: Path) -> None:
    live, clock = make_live(TABLE)
    with Server(live) as server, httpx.Client(base_url=server.url) as client:
        client.post("/predict", json=ROWS[:40])
        client.post("/predict", json={})
        clock.advance(SINCE + DAY)
        client.post("/feedback", json=[{"id": row["id"], "y": True} for row in ROWS[:30]])
        live.retrain("by hand", "to have a rollout")
        live.tick()
        answer = client.get("/-/")
        picture = drawn(f"{server.url}/-/", tmp_path)
        assert client.post("/-/").status_code == 405
        assert "/-/" in client.get("/openapi.json").json()["paths"]
    page = answer.text
    whole(page)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    for said in ("<b>world/1</b> answers since", "<td>control</td>", "40</td>", "422", "labels: 30 joined.",
                 "The rollout of world/2", "world/2 enters shadow", "world/1</td>"):  # fmt: skip
        assert said in page, said
    assert len(picture) > 30_000


def test_a_key_is_the_password_here_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ASK", "ADMIN"):
        monkeypatch.setenv(name, f"key-{name}")
    settings = ServerConfig(keys=("predict=env:ASK", "admin=env:ADMIN"))
    with Server(make_live(TABLE)[0], settings) as server, httpx.Client(base_url=server.url) as client:
        asked: Any = client.get("/-/")
        assert (asked.status_code, asked.headers["www-authenticate"]) == (401, 'Basic realm="loudly", charset="UTF-8"')
        assert client.get("/-/", headers=basic("guess")).status_code == 401
        assert client.get("/-/", headers={"Authorization": "Basic ?"}).status_code == 401
        assert client.get("/-/", headers=basic("key-ASK")).status_code == 403
        assert client.get("/-/", headers=basic("key-ADMIN")).status_code == 200
        assert client.get("/-/", headers={"Authorization": "Bearer key-ADMIN"}).status_code == 200
        # A browser would send a password along with whatever another site makes it ask.
        assert client.get("/status", headers=basic("key-ADMIN")).status_code == 401
        assert client.post("/promote", json={}, headers=basic("key-ADMIN")).status_code == 401
        assert client.post("/predict", json=ROWS[0], headers=basic("key-ADMIN")).status_code == 401


def test_a_server_without_a_champion_shows_that() -> None:
    live, _ = make_live(TABLE)
    live.state = type(live.state)(position=live.state.position)
    with Server(live) as server:
        page = httpx.get(f"{server.url}/-/")
    assert page.status_code == 200
    assert "No champion" in page.text
