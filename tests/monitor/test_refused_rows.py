"""Rows that do not fit the schema page at the next tick, whoever refuses them, and hold training back until they fit again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from live_server import Server
from loudly.app.server import LiveFront
from loudly.app.verbs import memory_stores
from loudly.core.clock import HOUR, DataClock
from loudly.loop.forgetting import ask, carry_out, retain
from loudly.loop.founding import found, reopen
from loudly.loop.knowing import known
from loudly.loop.live import Live
from loudly.loop.misfits import ASIDES, MOST_REASONS, OTHERWISE, Aside, Count, aside_of
from loudly.loop.outpost import Outpost, routing_of
from loudly.loop.restart import catch_up
from loudly.loop.sampling import Sample
from loudly.loop.taking import take
from loudly.monitor.failing import ROWS
from loudly.monitor.silence import REQUESTS
from loudly.store.segments import Record, SegmentWriter, read_segments

httpx = pytest.importorskip("httpx")
WHEN = pl.col("at").dt.epoch("us")
PREDICT, INFER = "/predict", "/v2/models/world/infer"


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return make_world(days=40)


def started(table: pl.DataFrame, **parts: Any) -> Live:
    live = Live(make_app(table).system, replace(memory_stores("world"), **parts), DataClock(SINCE), key=b"key")
    assert not found(live, table.filter(WHEN < SINCE))
    live.retrain("first training", "there is no model yet")
    return live


def after(table: pl.DataFrame, rows: int) -> pl.DataFrame:
    return table.filter(WHEN >= SINCE).head(rows).drop("y")


def as_text(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(x1=pl.format("{} m/s", "x1"))


def ticked(live: Live, hours: int = 1) -> list[tuple[str, str]]:
    """What the ledger says of rows that are refused, of a tick so many hours later."""
    before = live.state.position
    live.clock.advance(live.clock.now() + hours * HOUR)  # type: ignore[attr-defined]
    live.tick()
    events = [r.event for r in live.stores.ledger.read(before)]
    asides = [(e.kind, str(e.data["reasons"])) for e in events if e.kind == "rows_set_aside" and e.data["where"] == "traffic"]
    return [*[(e.kind, str(e.data["reason"])) for e in events if e.data.get("cause") == ROWS], *asides]


@contextmanager
def posted(live: Live) -> Iterator[Any]:
    """Asks a server one row after the other; how many were refused."""

    def post(path: str, bodies: Sequence[Any]) -> int:
        sent = [body if isinstance(body, str) else json.dumps(body, default=str) for body in bodies]
        codes = [client.post(path, content=body).status_code for body in sent]
        assert set(codes) <= {200, 422, 400, 404}
        return len(codes) - codes.count(200)

    with Server(live) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        yield post


def rows_in(rows: pl.DataFrame) -> list[Any]:
    return [{**row, "at": row["at"].isoformat()} for row in rows.to_dicts()]


def tensors_in(rows: pl.DataFrame) -> list[Any]:
    kinds = {pl.Float64: "FP64", pl.Int64: "INT64", pl.String: "BYTES"}

    def tensor(name: str, value: Any, kind: Any) -> dict[str, Any]:
        return {"name": name, "datatype": kinds.get(kind, "BYTES"), "shape": [1], "data": [value]}

    return [{"inputs": [tensor(n, v, rows.schema.get(n)) for n, v in row.items()]} for row in rows_in(rows)]


@pytest.mark.parametrize(("path", "bodies_of"), [(PREDICT, rows_in), (INFER, tensors_in)])
def test_a_column_that_becomes_text_pages_over_http_holds_training_back_and_clears(
    table: pl.DataFrame, path: str, bodies_of: Any
) -> None:
    live, rows = started(table), after(table, 300)
    with posted(live) as post:
        assert post(path, bodies_of(rows.slice(0, 100))) == 0
        assert ticked(live) == []
        assert post(path, bodies_of(as_text(rows.slice(100, 40)))) == 40
        ((raised, reason), told) = ticked(live)
        assert raised == "alarm_raised"
        assert reason.startswith("40 of the newest 140 rows do not fit the schema, e.g. 'x1 is no number'")
        assert told == ("rows_set_aside", "{'x1 is no number': 40}")
        assert known(live).broken == (ROWS,), "what is left of the rows is nothing to learn from"
        assert post(path, bodies_of(as_text(rows.slice(140, 30)))) == 30
        assert [kind for kind, _ in ticked(live)] == ["rows_set_aside"], "it is raised once"
        told = []
        for piece in rows.slice(170).iter_slices(40):
            assert post(path, bodies_of(piece)) == 0
            told += ticked(live)
        assert told == [("alarm_cleared", "nearly all rows fit the schema again")]
    assert known(live).broken == ()


def test_of_a_body_with_one_row_that_does_not_fit_nobody_is_answered_and_all_rows_count(table: pl.DataFrame) -> None:
    live, rows = started(table), after(table, 50)
    with posted(live) as post:
        bad = rows_in(rows)
        del bad[7]["x1"]
        columns = {name: [row.get(name) for row in rows_in(rows)] for name in rows.columns}
        assert post(PREDICT, [bad]) == 1
        assert post(PREDICT, [{"columns": columns | {"x2": [{}] * 50}}]) == 1
        assert post(PREDICT, ["[{", "[1, 2]"]) == 2
        assert post(f"{PREDICT}?version=world/1", [bad]) == 1, "who asks a version by name asks no champion"
        assert post("/explain", [bad]) == 1
        assert post("/feedback", [[{"id": 1}]]) == 1
    told = {"x1 is missing": 50, "x2 is no number": 50, "the body is no rows": 2}
    assert ticked(live)[-1] == ("rows_set_aside", str(dict(sorted(told.items()))))
    assert live.state.alarms[ROWS]["reason"].startswith("102 of the newest 102 rows")


def test_a_restart_counts_them_once_more_and_says_nothing_twice(table: pl.DataFrame, tmp_path: Path) -> None:
    with closing(SegmentWriter(tmp_path)) as log:
        live, rows = started(table, traffic=log), after(table, 200)
        for piece in (rows.slice(0, 100), as_text(rows.slice(100, 30)), rows.slice(130, 70)):
            live.answer(piece)
        assert [kind for kind, _ in ticked(live)] == ["alarm_raised", "rows_set_aside"]
        log.flush()
        again = Live(live.system, live.stores, DataClock(live.clock.now()), key=b"key")
        reopen(again)
        catch_up(again, tmp_path)
        before = again.state.position
        again.tick()
        assert again.state.position == before
        assert again.watch.failing.causes() == live.watch.failing.causes()
        assert again.watch.failing.causes()[0].verdict.evidence[0].n == 200
        assert not again.answering.raised_by_fold.fresh()


def test_their_records_go_with_their_time_and_stay_when_a_subject_is_forgotten(table: pl.DataFrame, tmp_path: Path) -> None:
    with closing(SegmentWriter(tmp_path)) as log:
        live, rows = started(table, traffic=log), after(table, 100)
        live.answer(as_text(rows))
        ticked(live)
        live.answer(rows)
        log.seal()
        ask(live, str(rows["id"][0]), "asked")
        (erased,) = carry_out(live, tmp_path, log.seal)
        assert erased.rows == 1
        assert [aside_of(r.payload).rows for r in read_segments(tmp_path) if r.kind == ASIDES] == [100]
        ticked(live, hours=48)
        log.seal()
        assert retain(live, tmp_path, 24 * HOUR).segments == 1
        assert [aside_of(r.payload).rows for r in read_segments(tmp_path) if r.kind == ASIDES] in ([0], [])


def test_what_workers_refuse_counts_at_the_wheel(table: pl.DataFrame, tmp_path: Path) -> None:
    with closing(SegmentWriter(tmp_path)) as log:
        live, spool = started(table, traffic=log), list[Record]()
        post = Outpost(live.system, live.stores, b"key", live.clock, lambda kind, data: spool.append(Record(0, kind, data)))
        post.follow(routing_of(live))
        post.tell_refused()
        assert spool == [], "nothing is said of nothing"
        post.refused.add(25, "x1 is no number")
        post.refused.add(5, "x2 is missing")
        post.tell_refused()
        take(live, spool)
        assert ticked(live)[-1] == ("rows_set_aside", "{'x1 is no number': 25, 'x2 is missing': 5}")
        assert known(live).broken == (ROWS,)
        log.flush()
        assert [aside_of(r.payload).rows for r in read_segments(tmp_path) if r.kind == ASIDES] == [30]


def test_where_a_share_of_the_units_is_followed_so_is_that_share_of_what_is_refused(table: pl.DataFrame) -> None:
    """A tenth of the answers is counted: were all that is refused, one in two hundred would look as one in twenty."""
    live = started(table, sample=Sample(0.1))
    for _ in range(35):
        live.asides.count.add(1, "x1 is no number")
        live.asides.fold()
    causes = live.watch.failing.causes()
    assert causes == (), "3 rows are too few to tell"
    live.asides.count.add(30, "x1 is no number")
    live.asides.fold()
    assert live.watch.failing.causes()[0].verdict.evidence[0].n == 6


def test_requests_that_are_refused_are_no_silence(table: pl.DataFrame) -> None:
    live, rows = started(table), after(table, 9)
    for _ in range(24 * 9):
        live.answer(rows)
        ticked(live)
    for _ in range(12):
        live.answer(as_text(rows))
        ticked(live)
    assert (ROWS in live.state.alarms, REQUESTS in live.state.alarms) == (True, False)
    for _ in range(12):
        ticked(live)
    assert REQUESTS in live.state.alarms


def test_reasons_are_few_and_rows_are_all() -> None:
    count = Count()
    for number in range(3 * MOST_REASONS):
        count.add(2, f"column {number} is no number")
    made = count.take(7)
    assert made is not None
    assert (len(made.reasons), made.rows, made.reasons[OTHERWISE]) == (MOST_REASONS + 1, 6 * MOST_REASONS, 4 * MOST_REASONS)
    assert count.take(8) is None
    assert aside_of(made.to_bytes()) == made == Aside(7, made.reasons)


def test_a_front_of_the_wheel_takes_note_from_many_threads(table: pl.DataFrame) -> None:
    live = started(table)
    front = LiveFront(live)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: front.refuse(1, "x1 is no number"), range(4000)))
    taken = live.asides.count.take(0)
    assert taken is not None
    assert taken.rows == 4000
