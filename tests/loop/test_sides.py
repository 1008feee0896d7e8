"""A system with a side table: the same through training, serving, a replay and HTTP; what is missing is LOUD."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from loudly.app.app import App
from loudly.app.server import LiveFront
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, HOUR, DataClock, instant
from loudly.core.values import Role
from loudly.errors import ConfigError, UserFileError
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.loop.replay import replay
from loudly.serve.attempt import Attempt
from loudly.serve.request import check, json_schema
from loudly.serve.rows import rows_of
from replayed import chains

TABLE = make_world(days=45)


def side_table(table: pl.DataFrame) -> pl.DataFrame:
    """x2, moved out of the table: known an hour before each row, from then on."""
    return table.select(pl.col("at").dt.offset_by("-1h").alias("since"), "group", pl.col("x2").alias("temp")).unique(
        ["since", "group"], maintain_order=True
    )


def with_side(read: Any, **settings: Any) -> App:
    app = make_app(TABLE.drop("x2"), growth=0.2)
    app._lists["feature"].clear()
    app.side("weather", **{"on": "since", "by": ["group"], "within": "6h", **settings})(read)

    @app.feature
    def chill(temp: pl.Series, x1: pl.Series) -> pl.Series:
        return temp - x1

    return app


def make_live(app: App) -> tuple[Live, DataClock]:
    clock = DataClock(SINCE)
    live = Live(app.system, memory_stores("world"), clock, key=b"k")
    past = TABLE.drop("x2").filter(pl.col("at").dt.epoch("us") < SINCE)
    assert not found(live, past)
    live.retrain("first training", "there is no model yet")
    assert live.state.champion == "world/1"
    return live, clock


def today() -> pl.DataFrame:
    at = TABLE["at"].dt.epoch("us")
    return TABLE.drop("x2", "y").filter((at >= SINCE) & (at < SINCE + DAY))


def loud(live: Live) -> list[str]:
    return [
        f"{r.event.data['what']}: {r.event.data['reason']}"
        for r in live.stores.ledger.read()
        if r.event.kind == "guarantee_weakened"
    ]


def test_joined_columns_are_inputs_that_no_request_sends() -> None:
    live, _ = make_live(with_side(lambda: side_table(TABLE)))
    schema = live.ready["world/1"].schema
    assert [f.name for f in schema.role(Role.SIDE)] == ["temp"]
    assert "temp" in [f.name for f in schema.inputs]
    assert {"temp", "chill"} <= set(live.ready["world/1"].features.columns)
    front = LiveFront(live)
    row = today().to_dicts()[0] | {"at": today()["at"][0].isoformat()}
    assert check([row], schema) == ()
    assert "temp" not in json_schema(schema, front.example())["properties"]
    assert "temp" not in front.example()
    one = front.answer(rows_of([row, {**row, "temp": 1e6}], schema), Attempt((2,)))
    assert one.predictions[0] == one.predictions[1], "what a client says of a side column does not count"


def test_live_rows_are_scored_as_the_training_table_is() -> None:
    live, _ = make_live(with_side(lambda: side_table(TABLE)))
    rows = today()
    together, _ = live.answer(rows)
    joined = live.sides.train(rows)
    assert joined["temp"].null_count() == 0
    ready = live.ready["world/1"]
    whole = ready.features.matrix(joined)
    assert (ready.predict(joined) == together.answer).all()
    for i in range(0, rows.height, 10):
        alone, fitted = live.answer(rows[i])
        assert ready.features.matrix(fitted.good).tobytes() == whole[i].tobytes()
        assert alone.answer[0] == pytest.approx(together.answer[i], rel=1e-12), "the same bytes in; BLAS may round otherwise"


def test_a_replay_learns_from_what_was_served_and_twice_gives_the_same_ledger() -> None:
    app = with_side(lambda: side_table(TABLE))
    one, two = (replay(app.system, TABLE.drop("x2"), memory_stores("world"), since=SINCE) for _ in range(2))
    assert chains(one) == chains(two)
    assert one.refits >= 1
    whole = replay(make_app(TABLE, growth=0.2).system, TABLE, memory_stores("world"), since=SINCE)
    found_with, found_whole = (next(iter(m.state.expected.values()))["roc_auc"] for m in (one, whole))
    assert found_with == pytest.approx(found_whole, abs=0.02), "the joined column is worth what the column was"


def test_what_is_missing_is_null_and_loud() -> None:
    side = side_table(TABLE)
    ends = instant("2024-02-01T06:00:00")
    live, clock = make_live(with_side(lambda: side.filter(pl.col("since").dt.epoch("us") < ends), within="2h"))
    assert loud(live) == [], "the training rows found theirs"
    replies, fitted = live.answer(today())
    late = today()["at"].dt.epoch("us") > ends + 3 * HOUR
    assert fitted.good.filter(late)["temp"].null_count() == late.sum() > 0
    assert len(replies.answer) == today().height
    clock.advance(SINCE + DAY)
    live.tick()
    missing = fitted.good["temp"].null_count()
    assert loud(live) == [
        f"side table weather: {missing} of {today().height} rows found no row within 2h; their values are missing"
    ]
    live.tick()
    assert len(loud(live)) == 1, "told once"


def test_a_server_reads_again_what_is_due_and_keeps_what_it_has_where_that_fails() -> None:
    now = {"side": side_table(TABLE).filter(pl.col("since").dt.epoch("us") < SINCE), "reads": 0}

    def read() -> pl.DataFrame:
        now["reads"] += 1
        if now["side"] is None:
            raise OSError("the feed is away")
        return now["side"]

    live, clock = make_live(with_side(read, refresh="10m", within="12h"))
    live.sides.refresh(clock.now())
    evening = today().filter(pl.col("at").dt.hour() >= 13)
    assert live.answer(evening)[1].good["temp"].null_count() == evening.height
    now["side"] = side_table(TABLE)
    live.sides.refresh(clock.now())
    assert now["reads"] == 1, "not due yet"
    clock.advance(SINCE + HOUR)
    live.sides.refresh(clock.now())
    assert now["reads"] == 2
    assert live.answer(evening)[1].good["temp"].null_count() == 0
    now["side"] = None
    clock.advance(SINCE + 2 * HOUR)
    live.sides.refresh(clock.now())
    assert live.answer(evening)[1].good["temp"].null_count() == 0
    live.tick()
    assert any("OSError: the feed is away" in line for line in loud(live))


def test_a_side_table_that_left_the_file_is_loud() -> None:
    live, clock = make_live(with_side(lambda: side_table(TABLE)))
    live.system = replace(live.system, sides=())
    live.sides = type(live.sides)(live.system, b"k")
    assert live.answer(today())[1].good["temp"].null_count() == today().height
    clock.advance(SINCE + DAY)
    live.tick()
    assert any("temp: a column that no side table gives any more" in line for line in loud(live))


def test_private_columns_join_under_their_pseudonyms() -> None:
    app = with_side(lambda: side_table(TABLE))
    app._private = ("group",)
    live, _ = make_live(app)
    fitted = live.answer(today())[1].good
    assert fitted["temp"].null_count() == 0
    assert not set(fitted["group"]) & {"a", "b", "c"}


def test_mistakes_are_named() -> None:
    clash = with_side(lambda: side_table(TABLE).rename({"temp": "x1"}))
    clash._lists["feature"].clear()
    with pytest.raises(UserFileError, match="brings 'x1', which is there already"):
        make_live(clash)
    unsent = with_side(lambda: side_table(TABLE))
    unsent._ignored = ("group",)
    with pytest.raises(UserFileError, match="which no request carries"):
        make_live(unsent)
    with pytest.raises(UserFileError, match=r"by=\['group'\]"):
        with_side(lambda: None, by="group")
    with pytest.raises(ConfigError, match="above zero"):
        with_side(lambda: None, within="0s")
    app = with_side(lambda: None)
    with pytest.raises(UserFileError, match="two side tables"):
        app.side("weather", on="since", within="1h")
    with pytest.raises(UserFileError, match="no arguments"):
        app.side("prices", on="since", within="1h")(lambda rows: rows)
    assert timedelta(microseconds=app.system.sides[0].within) == timedelta(hours=6)
