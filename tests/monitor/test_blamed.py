"""What an alarm says is to blame; the estimate held against labels; windows of the champion before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, HOUR, DataClock, instant
from loudly.core.values import Schema, Task
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.loop.replay import replay
from loudly.loop.restart import catch_up
from loudly.loop.why import why
from loudly.monitor.judged import WindowJudged
from loudly.monitor.settings import MonitorSettings
from loudly.monitor.watch import Watch
from loudly.store.segments import SegmentWriter
from loudly.validate.schema import infer_schema

START = instant("2024-01-01")
TABLE = make_world(days=60, per_day=240)
HELD = 20 * 240


@dataclass
class Champion:
    """Right about a world that does not turn."""

    schema: Schema
    task: Task = Task.BINARY
    classes: tuple[str, ...] = ("0", "1", "2")
    tilt: float = 1.0

    def predict(self, table: pl.DataFrame) -> np.ndarray:
        """The law of `make_world`, exaggerated by `tilt`."""
        x1, x2 = table["x1"].to_numpy(), table["x2"].to_numpy()
        score = 1.6 * x1 + 0.12 * (x2 - 20) + 0.5 * (table["group"] == "b").to_numpy() - 0.6
        return 1 / (1 + np.exp(-self.tilt * score))


def watched(champion: Champion | None = None, **settings: object) -> tuple[Watch, Champion]:
    watch = Watch(replace(MonitorSettings(enough=500, trailing=7), **settings), metric="roc_auc", time="at", key="id")  # type: ignore[arg-type]
    champion = champion or Champion(infer_schema(TABLE, label="y", time="at", key="id"))
    watch.crown(champion, TABLE[:HELD], 0.84, START + 20 * DAY)
    return watch, champion


def day(watch: Watch, champion: Champion, number: int, table: pl.DataFrame, *, labels: bool = True) -> tuple[WindowJudged, ...]:
    """A day of rows, answered in the evening; its labels are there before the next."""
    low = START + number * DAY
    rows = table.filter((pl.col("at").dt.epoch("us") >= low) & (pl.col("at").dt.epoch("us") < low + DAY))
    score = champion.predict(rows)
    watch.rows(rows, score, low + DAY)
    judged = watch.close(low + DAY)
    if labels:
        watch.labels(rows["y"].cast(pl.Float64).to_numpy(), score, rows["at"].dt.epoch("us").to_numpy(), low + DAY, rows)
    return judged


def test_a_shift_is_blamed_on_its_column_its_slice_and_its_hour() -> None:
    begins = "2024-01-25 13:00"
    hit = (pl.col("at") >= pl.lit(begins).str.to_datetime()) & (pl.col("group") == "b")
    table = TABLE.with_columns(x2=pl.when(hit).then(pl.col("x2") + 40.0).otherwise("x2"))
    watch, champion = watched(sample=400, shift=0.1)
    judged = [w for number in range(20, 32) for w in day(watch, champion, number, table)]
    last = judged[-1]
    (cause,) = [c for c in last.causes if c.cause == "shift: x2"]
    verdict, blame = watch.explain(cause, last)
    (column, *_rest) = blame["columns"]  # type: ignore[misc,index]
    assert column["column"] == "x2"  # type: ignore[index,call-overload]
    since = instant(str(column["since"]))  # type: ignore[index,call-overload]
    assert abs(since - instant(begins)) <= 3 * HOUR
    assert instant(str(column["earliest"])) <= instant(begins) + 2 * HOUR  # type: ignore[index,call-overload]
    assert list(blame["slices"]) == ["x2 only in group = b"]  # type: ignore[arg-type]
    assert "blamed: x2 (KS distance" in verdict.reason


def test_a_loss_that_labels_confirm_is_blamed_on_the_rows_that_go_wrong_and_on_a_concept_shift() -> None:
    turned = (pl.col("at") >= pl.lit("2024-02-10").str.to_datetime()) & (pl.col("group") == "b")
    table = TABLE.with_columns(y=pl.when(turned).then(~pl.col("y")).otherwise("y"))
    watch, champion = watched(trailing=10)
    raised = None
    for number in range(20, 58):
        for window in day(watch, champion, number, table):
            found_it = [c for c in window.causes if c.kind == "performance"]
            raised = raised or ((window, found_it[0]) if found_it and number > 48 else None)
    assert raised is not None
    verdict, blame = watch.explain(raised[1], raised[0])
    assert "group is b" in str(blame["rules"])
    assert "errors are worst where group is b" in verdict.reason
    assert str(blame["kind"]).startswith("concept shift")
    assert "group is b" in watch.blamed("performance", "worse")
    assert watch.blamed("schedule", "old") == "old", "nothing went wrong"


def test_of_several_classes_a_loss_is_blamed_on_the_rows_that_go_wrong_too() -> None:
    """Champions of several classes kept no examples, so nobody could say which rows, or which kind of shift."""

    class OfThree(Champion):
        def predict(self, table: pl.DataFrame) -> np.ndarray:
            one = super().predict(table)
            weights = np.stack([one, 1 - one, np.full(len(one), 0.4)], axis=1)
            return weights / weights.sum(axis=1, keepdims=True)

    schema = infer_schema(TABLE, label="y", time="at", key="id")
    champion = OfThree(schema, Task.MULTICLASS, tilt=3.0)
    cumulated = champion.predict(TABLE).cumsum(axis=1)
    kinds = pl.Series("y", (np.random.default_rng(1).random(TABLE.height)[:, None] > cumulated).sum(axis=1))
    turned = (pl.col("at") >= pl.lit("2024-02-10").str.to_datetime()) & (pl.col("group") == "b")
    table = TABLE.with_columns(kinds).with_columns(y=pl.when(turned).then((pl.col("y") + 1) % 3).otherwise("y"))
    watch = Watch(MonitorSettings(enough=500, trailing=10), metric="accuracy", time="at", key="id")
    watch.crown(
        champion, table[:HELD], float((champion.predict(TABLE).argmax(axis=1) == kinds.to_numpy()).mean()), START + 20 * DAY
    )
    raised = None
    for number in range(20, 58):
        for window in day(watch, champion, number, table):
            losses = [c for c in window.causes if c.kind == "performance"]
            raised = raised or ((losses[0], window) if losses and number > 48 else None)
    assert raised is not None
    verdict, blame = watch.explain(*raised)
    assert "group is b" in str(blame["rules"])
    assert "errors are worst where group is b" in verdict.reason
    assert str(blame["kind"]).startswith("concept shift")


def test_of_more_classes_than_ten_no_rows_are_kept_and_the_blame_says_so() -> None:
    watch, _ = watched()
    low = START + 20 * DAY
    rows = TABLE.filter((pl.col("at").dt.epoch("us") >= low) & (pl.col("at").dt.epoch("us") < low + DAY))
    at = rows["at"].dt.epoch("us").to_numpy()
    for classes, kept in ((10, rows.height), (11, 0)):
        watch.examples.begin(("x1",))
        watch.examples.add(rows, np.zeros(rows.height), np.full((rows.height, classes), 1 / classes), at)
        assert watch.examples.between(0, low + DAY).height == min(kept, watch.settings.sample)
    assert "up to 10 classes" in watch._case().loss([], "").told


def test_a_broken_feed_is_dated_to_the_hour() -> None:
    begins = "2024-01-25 09:00"
    table = TABLE.with_columns(x2=pl.when(pl.col("at") >= pl.lit(begins).str.to_datetime()).then(None).otherwise("x2"))
    watch, champion = watched(sample=400)
    judged = [w for number in range(20, 25) for w in day(watch, champion, number, table)]
    (cause,) = [c for c in judged[-1].causes if c.kind == "feed"]
    _verdict, blame = watch.explain(cause, judged[-1])
    assert abs(instant(str(blame["columns"][0]["since"])) - instant(begins)) <= 2 * HOUR  # type: ignore[index,call-overload]


def test_blame_is_in_the_alarm_and_in_the_record_of_the_champion() -> None:
    table = make_world(days=60, per_day=200, turn=45)
    app = make_app(table, growth=None, cooldown="3d")
    app.monitor(replace(app.system.monitor, trailing=7, enough=500))
    made = replay(app.system, table, memory_stores("world"), since=SINCE, until=instant("2024-02-20"))
    (alarm, *_rest) = [r.event for r in made.events if r.event.kind == "alarm_raised"]
    assert alarm.data["alarm"] == "performance"
    kind = str(alarm.data["blame"]["kind"])  # type: ignore[index,call-overload]
    assert kind.startswith("concept shift")
    told = [e.text for e in why(made.events, "world/1").entries]
    assert any("ALARM performance" in line for line in told)
    assert any(e.kind == "retrain_triggered" and kind in str(e.data["reason"]) for e in (r.event for r in made.events))


# -- the estimate against labels -------------------------------------------------------------------------------------


@dataclass
class Failing(Champion):
    """It has no score for one row in a hundred."""

    def predict(self, table: pl.DataFrame) -> np.ndarray:
        score = super().predict(table)
        score[::100] = np.nan
        return score


@pytest.mark.parametrize("kind", [Champion, Failing])
def test_labels_disprove_an_estimate_loudly_and_it_is_used_no_more_until_the_next_champion(kind: type[Champion]) -> None:
    champion = kind(infer_schema(TABLE, label="y", time="at", key="id"), tilt=4.0)
    watch, _ = watched(champion)
    for number in range(20, 26):
        day(watch, champion, number, TABLE)
    (told,) = watch.told()
    assert told.kind == "estimate_disproved"
    assert "LOUD: the estimate was wrong" in str(told.data["verdict"])
    assert watch.told() == (), "said once"
    refused = watch.estimate(START + 26 * DAY)
    assert (refused.decision.value, refused.reason) == ("UNDECIDED", "labels have disproved it")
    watch.crown(champion, TABLE[:HELD], 0.84, START + 26 * DAY)
    assert watch.estimate(START + 26 * DAY).reason != "labels have disproved it"


def test_a_calibrated_estimate_is_not_disproved_by_looking_often() -> None:
    wrong = 0
    for seed in range(6):
        table = make_world(days=50, per_day=200, seed=seed)
        champion = Champion(infer_schema(table, label="y", time="at", key="id"))
        watch = Watch(MonitorSettings(enough=200, trailing=7, joint=0.0), metric="roc_auc", time="at", key="id")
        watch.crown(champion, table[:4000], 0.84, START + 20 * DAY)
        for number in range(20, 50):
            day(watch, champion, number, table)
        wrong += len(watch.told())
    assert wrong == 0


def test_a_disproved_estimate_lets_shifts_page_that_it_called_harmless() -> None:
    champion = Champion(infer_schema(TABLE, label="y", time="at", key="id"), tilt=4.0)
    watch, _ = watched(champion, enough=600)
    for number in range(20, 24):
        day(watch, champion, number, TABLE, labels=False)
    held = watch.weight(START + 24 * DAY)
    assert (held.pages, held.kind) == (False, "harmless")
    assert held.reason.startswith("no harm, as estimated")
    for number in range(24, 28):
        day(watch, champion, number, TABLE)
    watch.close(START + 28 * DAY)
    assert watch.checked.disproved
    assert watch.weight(START + 60 * DAY).kind == "unknown"
    assert watch.weight(START + 60 * DAY).pages


# -- windows of the champion before, and after a restart ------------------------------------------------------------


def test_late_rows_of_a_window_that_closed_under_the_champion_before_correct_that_window() -> None:
    watch, champion = watched()
    rows = TABLE[HELD : HELD + 240]
    early, late = rows[:200], rows[200:]
    watch.rows(early, champion.predict(early), START + 21 * DAY)
    assert [(w.start, w.rows) for w in watch.close(START + 21 * DAY)] == [(START + 20 * DAY, 200)]
    other = Champion(champion.schema, tilt=0.5)
    watch.crown(other, TABLE[: HELD + 200], 0.84, START + 21 * DAY)
    watch.rows(late, other.predict(late), START + 21 * DAY + HOUR)
    (again,) = watch.close(START + 21 * DAY + HOUR)
    assert (again.start, again.revision, again.rows) == (START + 20 * DAY, 1, 240)
    assert not again.shifts, "another reference judges only its own windows"


def test_a_crown_in_the_middle_of_a_window_loses_no_row_of_it() -> None:
    watch, champion = watched()
    rows = TABLE[HELD : HELD + 240]
    noon = START + 20 * DAY + 12 * HOUR
    before = rows.filter(pl.col("at").dt.epoch("us") < noon)
    after = rows.filter(pl.col("at").dt.epoch("us") >= noon)
    watch.rows(before, champion.predict(before), noon)
    watch.crown(Champion(champion.schema, tilt=0.5), TABLE[:HELD], 0.84, noon)
    watch.rows(after, champion.predict(after), START + 21 * DAY)
    (judged,) = watch.close(START + 21 * DAY)
    assert (judged.rows, judged.shifts) == (240, {})


def test_a_server_that_comes_back_goes_on_watching(tmp_path: Path) -> None:
    table = make_world(days=50)
    log = SegmentWriter(tmp_path / "traffic")
    stores = replace(memory_stores("world"), traffic=log)

    def start(now: int) -> Live:
        live = Live(make_app(table, stage="manual").system, stores, DataClock(now), key=b"k")
        reopen(live)
        return live

    live = start(SINCE)
    assert not found(live, table.filter(pl.col("at").dt.epoch("us") < SINCE))
    live.retrain("first training", "there is no model yet")
    at = table["at"].dt.epoch("us")
    for number in range(3):
        now = SINCE + number * DAY
        live.clock.advance(now)  # type: ignore[attr-defined]
        live.answer(table.filter((at >= now) & (at < now + DAY)).drop("y"))
        live.clock.advance(now + DAY)  # type: ignore[attr-defined]
        live.tick()
    log.flush()
    again = start(SINCE + 3 * DAY)
    catch_up(again, tmp_path / "traffic")
    now = SINCE + 3 * DAY
    for one in (live, again):
        one.clock.advance(now)  # type: ignore[attr-defined]
        one.answer(table.filter((at >= now) & (at < now + DAY)).drop("y").with_columns(x2=pl.lit(None, pl.Float64)))
        judged = one.watch.close(now + DAY)[-1]
        assert [c.cause for c in judged.causes if c.kind == "feed"] == ["feed: x2 gone"]
    assert {s: w.profile.rows for s, w in again.watch.shifts.windows.items()} == {
        s: w.profile.rows for s, w in live.watch.shifts.windows.items()
    }
    log.close()


@pytest.mark.parametrize("word", ["hour", "weekday", "hour_of_week", "month", "season"])
def test_the_words_of_the_calendar_are_contexts(word: str) -> None:
    watch, champion = watched(context=(word,))
    assert day(watch, champion, 21, TABLE)[0].shifts == {}
