"""Streams that are asked for: errors, losses, scores and columns under a detector; exactly once, whatever the split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, HOUR, DataClock, instant
from loudly.core.values import Schema, Task, plain
from loudly.errors import ConfigError
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.loop.replay import replay
from loudly.loop.restart import catch_up
from loudly.monitor.alerts import Alerts
from loudly.monitor.settings import MonitorSettings
from loudly.monitor.streams import Asked, Followed, Streams, loss, parse_stream, wrong
from loudly.monitor.watch import Watch
from loudly.plugins import resolve
from loudly.store.segments import SegmentWriter
from loudly.validate.schema import infer_schema

START = instant("2024-01-01")
TABLE = make_world(days=60, per_day=240, turn=40)
HELD = 20 * 240
SCHEMA = infer_schema(TABLE, label="y", time="at", key="id")


def asked(*texts: str) -> tuple[Asked, ...]:
    return tuple(parse_stream(text, partial(resolve, "stream")) for text in texts)


@dataclass
class Champion:
    """Right about a world that does not turn."""

    schema: Schema = SCHEMA
    task: Task = Task.BINARY
    classes: tuple[str, ...] = ("0", "1", "2")

    def predict(self, table: pl.DataFrame) -> np.ndarray:
        x1, x2 = table["x1"].to_numpy(), table["x2"].to_numpy()
        return 1 / (1 + np.exp(-(1.6 * x1 + 0.12 * (x2 - 20) + 0.5 * (table["group"] == "b").to_numpy() - 0.6)))


def watched(*texts: str) -> Watch:
    watch = Watch(MonitorSettings(enough=500, trailing=7, joint=0.0, streams=asked(*texts)), metric="roc_auc", time="at", key="id")
    watch.crown(Champion(), TABLE[:HELD], 0.84, START + 20 * DAY)
    return watch


def lived(watch: Watch, days: range, pieces: int = 1, table: pl.DataFrame = TABLE) -> list[tuple[int, str, str]]:
    """Days of rows whose labels come in the evening, each in `pieces`; (day, cause, reason) of what the streams say."""
    found = []
    for number in days:
        low = START + number * DAY
        rows = table.filter((pl.col("at").dt.epoch("us") >= low) & (pl.col("at").dt.epoch("us") < low + DAY))
        for part in range(pieces):
            some = rows[part * rows.height // pieces : (part + 1) * rows.height // pieces]
            at, score = some["at"].dt.epoch("us").to_numpy(), Champion().predict(some)
            watch.rows(some, score, low + DAY)
            watch.labels(some["y"].cast(pl.Float64).to_numpy(), score, at, low + DAY, some)
        for window in watch.close(low + DAY):
            found += [(number, c.cause, c.verdict.reason) for c in window.causes if c.kind == "stream"]
    return found


TEXTS = (
    "ddm on errors",
    "page-hinkley threshold=30 on loss",
    "adwin delta=1e-5 on loss",
    "e-detector mean=0.25 alpha=1e-6 side=up on loss",
)


def test_detectors_on_errors_and_losses_hear_a_world_that_turns() -> None:
    said = lived(watched(*TEXTS), range(24, 44))
    for text in TEXTS[1:]:
        days = [number for number, cause, _ in said if cause == f"stream: {text}"]
        assert days, text
        assert 40 <= min(days) <= 43, text
    (reason, *_rest) = [r for _, cause, r in said if cause == f"stream: {TEXTS[1]}"]
    assert "alarmed at 2024-02-1" in reason
    assert "values; the newest 30 average 0." in reason


def test_columns_and_scores_are_looked_at_as_they_are_answered() -> None:
    moved = TABLE.with_columns(x2=pl.when(pl.col("at").dt.epoch("us") >= START + 30 * DAY).then(pl.col("x2") + 9).otherwise("x2"))
    said = lived(watched("adwin on x2", "adwin on score", "adwin on x1"), range(20, 34), table=moved)
    assert {(number, cause) for number, cause, _ in said} >= {(30, "stream: adwin on x2"), (30, "stream: adwin on score")}
    assert not [cause for _, cause, _ in said if "x1" in cause]


def test_any_split_of_the_traffic_says_the_same_and_holds_the_same_state() -> None:
    whole, split = watched(*TEXTS, "adwin on x2"), watched(*TEXTS, "adwin on x2")
    assert lived(whole, range(34, 44)) == lived(split, range(34, 44), pieces=3)
    assert whole.streams.states() == split.streams.states()
    for told in whole.streams.states().values():
        assert isinstance(plain(told), dict)


def test_an_alarm_is_raised_once_within_the_budget_and_ends_with_a_new_champion() -> None:
    watch = watched("page-hinkley threshold=30 on loss")
    alerts = Alerts(replace(watch.settings, budget=1), watch.weight, watch.explain)
    events = []
    for number in range(30, 46):
        low = START + number * DAY
        rows = TABLE.filter((pl.col("at").dt.epoch("us") >= low) & (pl.col("at").dt.epoch("us") < low + DAY))
        score, at = Champion().predict(rows), rows["at"].dt.epoch("us").to_numpy()
        watch.rows(rows, score, low + DAY)
        watch.labels(rows["y"].cast(pl.Float64).to_numpy(), score, at, low + DAY, rows)
        events += [e for e in alerts.events(watch.close(low + DAY), low + DAY, "world/1") if e.kind.startswith("alarm")]
    raised = [e for e in events if e.kind == "alarm_raised" and e.data["alarm"] == "stream"]
    assert len(raised) == 1
    assert raised[0].data["cause"] == "stream: page-hinkley threshold=30 on loss"
    assert instant(str(raised[0].data["verdict"]["evidence"][0]["detail"]["since"])) >= START + 40 * DAY  # type: ignore[index,call-overload]
    (ended,) = alerts.reset({str(raised[0].data["cause"]): raised[0].data}, START + 48 * DAY)
    assert ended.kind == "alarm_cleared"
    watch.crown(Champion(), TABLE[:HELD], 0.84, START + 48 * DAY)
    assert watch.streams.states() == {"page-hinkley threshold=30 on loss": Followed(watch.settings.streams[0].detector.init())}


def test_what_cannot_be_looked_at_is_told_once() -> None:
    watch = watched("adwin on x9", "adwin on group", "e-detector mean=0.5 on x2")
    lived(watch, range(20, 22))
    told = [str(e.data["reason"]) for e in watch.told()]
    assert [e for e in told if "no column 'x9'" in e]
    assert [e for e in told if "the column 'group' is no number" in e]
    assert [e for e in told if "leaves the bounds" in e]
    assert len(told) == 3
    lived(watch, range(22, 24))
    assert watch.told() == ()
    numbers = Streams(asked("ddm on errors"))
    numbers.begin(Task.REGRESSION, SCHEMA, 0)
    assert 'say "on loss"' in str(numbers.news()[0].data["reason"])


def test_errors_and_losses_of_two_classes_of_more_and_of_numbers() -> None:
    truth, score = np.array([1.0, 0.0, 1.0]), np.array([0.9, 0.6, np.nan])
    assert wrong(truth, score, Task.BINARY)[:2].tolist() == [0.0, 1.0]
    assert np.isnan(wrong(truth, score, Task.BINARY)[2])
    assert loss(truth, score, Task.BINARY)[:2] == pytest.approx([0.01, 0.36])
    many = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    assert wrong(np.array([0.0, 1.0]), many, Task.MULTICLASS).tolist() == [0.0, 1.0]
    assert loss(np.array([0.0, 1.0]), many, Task.MULTICLASS) == pytest.approx([0.07, 0.73])
    assert loss(np.array([3.0]), np.array([1.0]), Task.REGRESSION).tolist() == [4.0]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("ddm", "asks for no stream"),
        ("ddm on", "asks for no stream"),
        ("dmm on errors", "no stream called 'dmm'"),
        ("ddm warmup=3 on errors", "no setting 'warmup'"),
        ("ddm warn=9 on errors", "Impossible settings"),
        ("e-detector on loss", "does not say enough"),
    ],
)
def test_words_that_ask_for_nothing_are_refused_when_the_file_is_loaded(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make_app(TABLE).monitor(streams=[text])


def test_a_restart_comes_to_the_same_streams_as_the_server_that_went_on(tmp_path: Path) -> None:
    log = SegmentWriter(tmp_path / "traffic")
    stores = replace(memory_stores("world"), traffic=log)
    app = make_app(TABLE, stage="manual")
    app.monitor(streams=["page-hinkley threshold=30 on loss", "adwin on x2", "ddm on errors"])

    def start(now: int) -> Live:
        live = Live(app.system, stores, DataClock(now), key=b"k")
        reopen(live)
        return live

    at = TABLE["at"].dt.epoch("us")
    live = start(SINCE)
    assert not found(live, TABLE.filter(at < SINCE))
    live.retrain("first training", "there is no model yet")
    for now in range(SINCE, SINCE + 3 * DAY, 6 * HOUR):
        rows = TABLE.filter((at >= now) & (at < now + 6 * HOUR))
        live.clock.advance(now)  # type: ignore[attr-defined]
        live.answer(rows.drop("y"))
        live.clock.advance(now + 6 * HOUR)  # type: ignore[attr-defined]
        live.feedback(rows.select("id", "y"))
        live.tick()
    log.flush()
    again = start(SINCE + 3 * DAY)
    catch_up(again, tmp_path / "traffic")
    states = live.watch.streams.states()
    assert [told.n for told in states.values()] == [3 * 240] * 3
    assert again.watch.streams.states() == states
    log.close()


def test_a_replay_tells_a_stream_in_its_ledger_and_retrains_on_nothing_of_it() -> None:
    app = make_app(TABLE, growth=None)
    app.retrain("stateless", on=())
    app.monitor(replace(app.system.monitor, tolerance=1.0, bias=1.0), streams=["page-hinkley threshold=30 on loss"])
    made = replay(app.system, TABLE, memory_stores("world"), since=SINCE, until=instant("2024-02-25"))
    kinds = [(r.event.kind, r.event.data.get("alarm")) for r in made.events]
    assert ("alarm_raised", "stream") in kinds
    assert not [k for k, _ in kinds if k == "retrain_triggered"][1:]
