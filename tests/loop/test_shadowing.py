"""A shadow scores behind the answers: late, together, in order, and at nobody's cost but its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from loudly.app.ticker import Ticker
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock
from loudly.core.values import Field, Kind, Role, Schema
from loudly.loop import shadowing
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.loop.restart import catch_up
from loudly.loop.shadowing import Shadows, Waiting, with_shadows
from loudly.loop.stores import Stores
from loudly.serve.attempt import Attempt
from loudly.serve.replies import Replies, Served
from loudly.serve.rows import Rows, of_table
from loudly.store.segments import SegmentWriter

SCHEMA = Schema((Field("id", Kind.TEXT, Role.KEY), Field("x", Kind.NUMBER)))
Predict = Callable[[pl.DataFrame], Any]


def double(table: pl.DataFrame) -> Any:
    return 2.0 * table["x"].to_numpy()


def batch(values: list[float], predict: Predict | None) -> Waiting:
    n = len(values)
    rows = Rows(SCHEMA, None, n, [(f"r{v}", v) for v in values])
    owed = {"candidate": Served("m/2", predict)} if predict is not None else {}
    nothing = np.full(n, np.nan)
    score = np.asarray(values)
    counts = {"control": n, "candidate": 0}, {"control": 0, "candidate": 0}
    scores = {"control": score, "candidate": nothing}
    whole = np.zeros(n, dtype=np.int64), np.ones(n), np.zeros(n, dtype=bool)
    return Waiting(rows, Replies(score, *whole, scores, ("m/1", "m/2"), *counts, (), {}, owed), 1, 0, ("same",))


def column(taken: list[Waiting], name: str = "candidate") -> list[float]:
    return [float(v) for one in taken for v in one.replies.scores[name]]


def test_batches_come_out_in_order_with_the_scores_that_they_owed() -> None:
    asked: list[int] = []

    def counting(table: pl.DataFrame) -> Any:
        asked.append(table.height)
        return double(table)

    taken: list[Waiting] = []
    noted: list[str] = []
    shadows = Shadows(taken.append, noted.extend)
    one = replace(batch([0.0], counting).replies, owed={})
    served = batch([0.0], counting).replies.owed
    for i in range(600):
        made = batch([float(i)], None)
        shadows.put(replace(made, replies=replace(made.replies, owed=served if i % 16 else one.owed)))
    shadows.drain()
    assert not shadows.busy
    assert column(taken, "control") == [float(i) for i in range(600)]
    want = [2.0 * i if i % 16 else np.nan for i in range(600)]
    np.testing.assert_array_equal(column(taken), want)
    assert sum(asked) == 600 - len(range(0, 600, 16))
    assert sum(one.replies.answered["candidate"] for one in taken) == sum(asked)
    assert not any(one.replies.owed for one in taken)


def test_a_shadow_that_raises_at_one_batch_fails_that_batch_alone() -> None:
    def picky(table: pl.DataFrame) -> Any:
        if 3.0 in table["x"]:
            raise ValueError("three")
        return double(table)

    noted: list[str] = []
    owed = {"candidate": Served("m/2", picky)}
    group = [batch([float(i), 0.5], None) for i in range(6)]
    scored = with_shadows([replace(one, replies=replace(one.replies, owed=owed)) for one in group], noted.extend)
    assert np.isnan(column(scored)).tolist() == [i == 3 for i in range(6) for _ in range(2)]
    assert sum(one.replies.failed["candidate"] for one in scored) == 2
    assert sum(one.replies.answered["candidate"] for one in scored) == 12
    assert noted == ["m/2: ValueError: three"], "and what it raised is told"


@pytest.mark.parametrize("answer", [lambda t: np.full((t.height, 3), 0.3), lambda t: np.full(t.height + 1, 0.3)])
def test_a_shadow_of_another_shape_has_failed(answer: Predict) -> None:
    noted: list[str] = []
    (one,) = with_shadows([batch([1.0, 2.0], answer)], noted.extend)
    assert one.replies.failed["candidate"] == 2
    assert one.replies.scores["candidate"].shape == (2,)


def test_a_shadow_that_hangs_loses_its_thread_and_fails_what_it_holds() -> None:
    free = threading.Event()

    def hanging(table: pl.DataFrame) -> Any:
        free.wait(60)
        return double(table)

    taken: list[Waiting] = []
    noted: list[str] = []
    shadows = Shadows(taken.append, noted.extend)
    for turn in range(shadowing.MOST_STUCK):
        shadows.put(batch([1.0], hanging))
        shadows.put(batch([2.0], None))
        shadows.drain(0.1)
        assert not shadows.busy
        assert [one.replies.failed["candidate"] for one in taken[-2:]] == [1, 0]
        assert shadows.stuck == turn + 1
    shadows.put(batch([1.0], hanging))
    assert taken[-1].replies.failed["candidate"] == 1
    count = len(taken)
    free.set()
    shadows.drain()
    assert len(taken) == count


def test_a_shadow_that_cannot_keep_up_is_spared_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadowing, "MOST_ROWS", 10)
    free = threading.Event()

    def slow(table: pl.DataFrame) -> Any:
        free.wait(60)
        return double(table)

    taken: list[Waiting] = []
    noted: list[str] = []
    shadows = Shadows(taken.append, noted.extend)
    for _ in range(30):
        shadows.put(batch([1.0, 2.0], slow))
    free.set()
    shadows.drain()
    assert sum(one.rows.height for one in taken) == 60
    scored = sum(one.replies.answered["candidate"] for one in taken)
    assert scored + shadows.shed == 60
    assert shadows.shed >= 10


TABLE = make_world(days=45)
when = pl.col("at").dt.epoch("us")


def start(stores: Stores) -> Live:
    return Live(make_app(TABLE).system, stores, DataClock(SINCE), key=b"key")


def with_a_shadow(folder: Path) -> Live:
    """A wheel that logs into the folder, and that a shadow runs beside."""
    live = start(replace(memory_stores("world"), traffic=SegmentWriter(folder)))
    assert not found(live, TABLE.filter(when < SINCE))
    live.retrain("first training", "there is no model yet")
    live.retrain("by hand", "to have a shadow")
    assert live.strategy is not None
    assert live.strategy.name == "shadow"
    return live


def answer_a_day(live: Live) -> int:
    """Answers the rows of a day one by one, folds and logs them; how many there were."""
    schema = live.ready[live.state.champion or ""].schema
    rows = of_table(TABLE.filter((when >= SINCE) & (when < SINCE + DAY)).drop("y"), schema)
    for at in range(rows.height):
        live.answering.answer(Rows(schema, None, 1, rows.records[at : at + 1]), Attempt((1,)))
    with live.lock:
        live.answering.fold()
    live.stores.traffic.close()  # type: ignore[union-attr]
    return rows.height


def test_a_restart_asks_the_shadow_again(tmp_path: Path) -> None:
    live = with_a_shadow(tmp_path)
    count = answer_a_day(live)
    again = start(replace(live.stores, traffic=None))
    reopen(again)
    assert catch_up(again, tmp_path) == count
    labels = TABLE.filter((when >= SINCE) & (when < SINCE + DAY)).select("id", "y")
    here, there = (one.book.arrived(labels, SINCE + DAY).joined.sort("id") for one in (live, again))
    assert np.isfinite(here["_candidate"].to_numpy()).all()
    np.testing.assert_allclose(there["_candidate"].to_numpy(), here["_candidate"].to_numpy(), rtol=1e-12)
    assert not again.answering.raised.fresh()


def broken(_: pl.DataFrame) -> Any:
    raise ValueError("out of order")


def triple(table: pl.DataFrame) -> Any:
    return np.full((table.height, 3), 0.3)


def test_a_row_at_which_a_shadow_raises_costs_the_others_no_score_in_a_restart(tmp_path: Path) -> None:
    live = with_a_shadow(tmp_path)
    count = answer_a_day(live)
    again = start(replace(live.stores, traffic=None))
    reopen(again)
    assert again.router is not None
    routing = again.router.routing
    known: list[str] = []

    def one_in_a_hundred(table: pl.DataFrame) -> Any:
        """Raises at a few rows."""
        if table["id"].str.ends_with("77").any():
            raise ValueError("an unknown row")
        known.extend(table["id"].to_list())
        return np.full(table.height, 0.3)

    again.router.swap(replace(routing, candidates=(Served(routing.versions[1], one_in_a_hundred),)))
    assert catch_up(again, tmp_path) == count
    labels = TABLE.filter((when >= SINCE) & (when < SINCE + DAY)).select("id", "y")
    joined = again.book.arrived(labels, SINCE + DAY).joined
    lacking = joined.filter(joined["_candidate"].is_nan())
    assert lacking.height < 0.2 * count, "few halves hold one of those"
    assert joined.filter(pl.col("id").is_in(known))["_candidate"].is_finite().all()


@pytest.mark.parametrize(
    ("predict", "told"),
    [(broken, "ValueError: out of order"), (triple, "scores of another shape: (")],
)
def test_a_shadow_that_fails_in_a_restart_is_told_and_recorded(
    predict: Predict, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live = with_a_shadow(tmp_path)
    count = answer_a_day(live)
    again = start(replace(live.stores, traffic=None))
    reopen(again)
    assert again.router is not None
    routing = again.router.routing
    again.router.swap(replace(routing, candidates=(Served(routing.versions[1], predict),)))
    assert catch_up(again, tmp_path) == count
    labels = TABLE.filter((when >= SINCE) & (when < SINCE + DAY)).select("id", "y")
    lacking = int(np.isnan(again.book.arrived(labels, SINCE + DAY).joined["_candidate"].to_numpy()).sum())
    assert lacking > 0.9 * count, "only a batch in sixteen was scored before its answer, and logged"
    Ticker(again, 1.0)._look_at_the_models()
    event = list(again.stores.ledger.read())[-1].event
    assert (event.kind, event.data["what"]) == ("guarantee_weakened", "answers of a model")
    assert str(event.data["reason"]).startswith(f"{routing.versions[1]}: {told}")
    assert f"({lacking} logged rows stay without its scores)" in str(event.data["reason"])
    assert "LOUD" in capsys.readouterr().err
