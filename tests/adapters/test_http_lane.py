"""The lane of plain predictions answers as the rest of the server does, whatever bytes come in which pieces."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("httptools")
httpx = pytest.importorskip("httpx")

from conftest import SINCE, make_world  # noqa: E402
from live_server import Server, make_live, rows_of  # noqa: E402
from loudly.adapters import http_parting  # noqa: E402
from loudly.adapters.asgi_request import new_id  # noqa: E402
from loudly.config import ServerConfig  # noqa: E402
from loudly.core.clock import DAY  # noqa: E402

TABLE = make_world(days=45)
ROW = rows_of(TABLE, SINCE, SINCE + DAY)[0]
Answer = tuple[int, dict[str, str], Any]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(make_live(TABLE)[0], ServerConfig(slow=0.5, most_bytes=50_000)) as running:
        yield running


def predict(row: Any = ROW, *more: str, path: str = "/predict") -> bytes:
    """A request as a client would write it."""
    body = json.dumps(row).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: here", "Content-Type: application/json", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def connect(server: Server) -> socket.socket:
    port = int(server.url.rsplit(":", 1)[1])
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def answers(door: socket.socket, count: int) -> list[Answer]:
    """So many answers, in the order in which they come."""
    found, file = [], door.makefile("rb")
    for _ in range(count):
        status = int(file.readline().split()[1])
        headers = {}
        while line := file.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = file.read(int(headers["content-length"]))
        found.append((status, headers, json.loads(body) if body.startswith(b"{") else body))
    return found


def ask(server: Server, *pieces: bytes, count: int = 1) -> list[Answer]:
    with connect(server) as door:
        door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            door.sendall(piece)
        return answers(door, count)


def test_both_ways_answer_the_same(server: Server) -> None:
    for row in (ROW, [ROW, ROW], {"columns": {k: [v] for k, v in ROW.items()}}, {**ROW, "id": 7}, {}, "no row"):
        (plain,) = ask(server, predict(row))
        (other,) = ask(server, predict(row, path="/predict?nothing=1"))
        assert plain[0] == other[0]
        assert plain[2] == other[2]
        assert set(plain[1]) == set(other[1])


def test_pieces_and_several_at_once_are_answered_in_order(server: Server) -> None:
    whole = predict()
    (alone,) = ask(server, whole)
    assert ask(server, *(whole[i : i + 1] for i in range(len(whole))))[0][2] == alone[2], "byte by byte"
    head = whole.index(b"\r\n\r\n") + 4
    assert ask(server, whole[:head], whole[head:])[0][2] == alone[2], "head, then body"
    sizes = [len(told[2]["answers"]) for told in ask(server, predict([ROW] * 3) + predict([ROW] * 2) + whole, count=3)]
    assert sizes == [3, 2, 1]
    get = b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n"
    mixed = ask(server, whole + get + whole + get, count=4)
    assert [told[0] for told in mixed] == [200] * 4
    assert mixed[1][2] == {"status": "alive"}
    assert mixed[2][2] == alone[2]


def test_ids_and_traces_come_back_and_nobody_gets_those_of_another(server: Server) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    first, named, last = ask(server, predict() + predict(ROW, "X-Request-Id: mine", f"traceparent: {trace}") + predict(), count=3)
    assert (named[1]["x-request-id"], named[1]["traceparent"]) == ("mine", trace)
    assert len({first[1]["x-request-id"], last[1]["x-request-id"], "mine"}) == 3
    assert "traceparent" not in last[1]
    assert len({new_id() for _ in range(1000)}) == 1000


def test_what_the_lane_does_not_take_is_answered_all_the_same(server: Server) -> None:
    body = json.dumps(ROW).encode()
    chunked = b"POST /predict HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    assert ask(server, chunked)[0][0] == 200
    (told,) = ask(server, predict(ROW, "Connection: close"))
    assert (told[0], told[1]["connection"]) == (200, "close")
    for path in ("/predict", "/feedback", "/v2/models/world/infer"):
        assert ask(server, predict(ROW, "Content-Encoding: gzip", path=path))[0][0] == 415
    assert ask(server, predict(ROW, "Content-Encoding: identity"))[0][0] == 200
    assert ask(server, predict(ROW, "Content-Length: 1"))[0][0] == 400, "two lengths: nobody knows where the body ends"
    assert ask(server, b"no HTTP at all\r\n\r\n")[0][0] == 400
    assert ask(server, predict([ROW] * 2000))[0][0] == 413


def test_a_body_that_does_not_come_in_time_is_refused_and_the_connection_closed(server: Server) -> None:
    with connect(server) as door:
        door.sendall(predict()[:-5])
        ((status, headers, _),) = answers(door, 1)
        assert (status, headers["connection"]) == (408, "close")
        assert door.recv(1) == b""


def offered(path: str, body: bytes, *more: str) -> bytes:
    """A request as Java's client and `curl --http2` write it."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: here",
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAEA",
        *more,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_an_offer_of_another_protocol_is_declined_and_the_request_answered(server: Server) -> None:
    body = json.dumps(ROW).encode()
    length, chunks = f"Content-Length: {len(body)}", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    whole = offered("/predict", body, length)
    cut = whole.index(b"\r\n\r\n") + 4
    (alone,) = ask(server, predict())
    for pieces in ((whole,), (whole[:40], whole[40:]), (whole[:cut], whole[cut:]), (whole[: cut + 9], whole[cut + 9 :])):
        assert ask(server, *pieces)[0][2] == alone[2]
    chunked = offered("/predict", chunks, "Transfer-Encoding: chunked")
    told = ask(server, predict() + whole + chunked + whole + b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n", count=5)
    assert [answer[2] for answer in told] == [*[alone[2]] * 4, {"status": "alive"}]
    label = json.dumps({"id": "nobody", "y": True}).encode()
    assert ask(server, offered("/feedback", label, f"Content-Length: {len(label)}"))[0][2]["unknown"] == 1


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n"])
def test_a_head_that_does_not_end_or_does_not_come_ends_the_connection(server: Server, before: bytes) -> None:
    for more, status in ((b"", 408), (b"a" * 2_000_000, 431)):
        with connect(server) as door:
            door.sendall(before)
            assert len(answers(door, len(before) and 1)) == len(before[:1])
            door.sendall(b"POST /predict HTTP/1.1\r\nX-Long: ")
            door.sendall(more)
            (told,) = answers(door, 1)
            assert (told[0], told[1]["connection"]) == (status, "close")


@pytest.mark.parametrize(
    ("begun", "status"), [("POST /predict HTTP/1.1\r\nX-Long: " + "a" * 70_000, 431), (predict()[:-9].decode(), 408)]
)
def test_who_goes_on_speaking_hears_the_last_answer_and_holds_no_shutdown_up(
    monkeypatch: pytest.MonkeyPatch, begun: str, status: int
) -> None:
    monkeypatch.setattr(http_parting, "PARTING", 60.0)
    with Server(make_live(TABLE)[0], ServerConfig(slow=0.5)) as stopping:
        door = connect(stopping)
        door.sendall(begun.encode())
        for _ in range(100):
            time.sleep(0.01)
            door.sendall(b"a" * 10_000 if status == 431 else b"")
        for _ in range(20):
            time.sleep(0.01)
            door.sendall(b"a" * 50_000)
        (told,) = answers(door, 1)
        assert (told[0], told[1]["connection"], door.recv(1)) == (status, "close", b"")
    assert not stopping.thread.is_alive()
    door.close()


def test_a_client_that_leaves_or_does_not_read_holds_nobody_up(server: Server) -> None:
    with connect(server) as gone, connect(server) as deaf:
        gone.sendall(predict()[:-5])
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(1.0)
        many = predict([ROW] * 100) * 2000
        with pytest.raises(TimeoutError):
            deaf.sendall(many)
        assert ask(server, predict())[0][0] == 200


def test_keys_and_draining_hold_here_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANE_KEY", "open")
    with Server(make_live(TABLE)[0], ServerConfig(keys=("predict=env:LANE_KEY",))) as closed:
        told = ask(closed, predict() + predict(ROW, "Authorization: Bearer open") + predict(ROW, "X-API-Key: wrong"), count=3)
        assert [status for status, _, _ in told] == [401, 200, 401]
        assert told[0][1]["www-authenticate"] == "Bearer"
        key, other = "X-API-Key: open", "Authorization: Basic b3RoZXI6"
        for path in ("/predict", "/predict?nothing=1"):
            for headers in ((key, other), (other, key)):
                assert ask(closed, predict(ROW, *headers, path=path))[0][0] == 200, "a proxy's own credentials take nothing away"
        closed.app.draining = True
        (last,) = ask(closed, predict(ROW, "X-API-Key: open"))
        assert (last[0], last[1]["connection"]) == (200, "close")


def test_what_comes_behind_a_closing_answer_is_neither_answered_nor_logged() -> None:
    live = make_live(TABLE)[0]
    with Server(live, ServerConfig()) as stopping:
        stopping.app.draining = True
        with connect(stopping) as door:
            door.sendall(predict([ROW] * 3) + predict([ROW] * 5))
            ((status, headers, _),) = answers(door, 1)
            assert (status, headers["connection"]) == (200, "close")
            assert door.recv(1) == b""
        live.answering.gather()
        assert live.answering._rows == 3
