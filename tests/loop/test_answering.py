"""The hot path gives the answers of the slow one, and folds the same however late it folds."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from lived import first_live, sent
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, HOUR, DataClock
from loudly.core.values import Field, Kind, Role, Schema
from loudly.data.pseudonym import pseudonymise
from loudly.errors import DataError, RolloutError
from loudly.loop import traffic
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.loop.restart import catch_up
from loudly.serve.attempt import Attempt
from loudly.serve.replies import Served
from loudly.serve.router import Routing
from loudly.serve.rows import Rows
from loudly.store.segments import SegmentWriter, read_segments
from waiting import until

TABLE = make_world(days=45)
when = pl.col("at").dt.epoch("us")


def made_live(log: Path | None = None) -> tuple[Live, DataClock]:
    return first_live(TABLE, replace(memory_stores("world"), traffic=SegmentWriter(log) if log is not None else None))


def history(live: Live, clock: DataClock, size: int, *, quick: bool) -> list[float]:
    """Ten days: rows of each day in batches of `size`, labels a day later, a rollout on the way; all on the data's clock."""
    answers: list[float] = []
    for day in range(10):
        now = SINCE + day * DAY
        late = TABLE.filter((when >= now - 2 * DAY) & (when < now - DAY) & (when >= SINCE))
        if late.height:
            live.feedback(late.select("id", "y"))
        rows = TABLE.filter((when >= now) & (when < now + DAY))
        for first in range(0, rows.height, size):
            part = sent(rows[first : first + size], live)
            if quick:
                answers += live.answering.answer(part, Attempt((part.height,))).answer.tolist()
                live.answering.settle()
            else:
                answers += live.answer(part.table())[0].answer.tolist()
        if day == 3:
            live.retrain("by hand", "to have a rollout on the way")
        clock.advance(now + DAY)
        live.tick()
    return answers


@pytest.mark.parametrize("size", [1, 7, 120])
def test_folding_later_gives_the_same_answers_and_the_same_ledger(size: int) -> None:
    slow, fast = made_live(), made_live()
    told, tells = history(*slow, size, quick=False), history(*fast, size, quick=True)
    assert tells == told
    events = [[r.chain for r in live.stores.ledger.read()] for live, _ in (slow, fast)]
    kinds = {r.event.kind for r in fast[0].stores.ledger.read()}
    assert {"stage_started", "champion_changed"} <= kinds
    assert events[0] == events[1]
    assert fast[0].book.waiting == slow[0].book.waiting


def test_a_restart_folds_the_compact_log_to_the_same_state(tmp_path: Path) -> None:
    live, clock = made_live(tmp_path)
    rows = TABLE.filter((when >= SINCE) & (when < SINCE + DAY))
    for i in range(40):
        live.answering.answer(sent(rows[i : i + 1], live), Attempt((1,), ((f"request-{i}", ""),)))
    live.feedback(rows[:10].select("id", "y"))
    live.stores.traffic.flush()  # type: ignore[union-attr]
    notes = [n for r in read_segments(tmp_path) for n in traffic.notes_of(r.payload)]
    assert notes == [(f"request-{i}", "", 1) for i in range(40)]
    again = Live(live.system, replace(live.stores, traffic=None), clock, key=b"key")
    again.watch.crown(again.ready["world/1"], TABLE.filter(when < SINCE), None, clock.now())
    assert catch_up(again, tmp_path) == 40
    assert again.book.waiting == live.book.waiting == 30
    joined_again = again.feedback(rows[10:20].select("id", "y")).joined
    assert joined_again.equals(live.feedback(rows[10:20].select("id", "y")).joined)


def test_calls_that_count_as_one_are_one_record_and_stand_before_the_labels_that_follow_them(tmp_path: Path) -> None:
    live, clock = made_live(tmp_path)
    rows = TABLE.filter((when >= SINCE) & (when < SINCE + DAY))[:12]
    live.stores.traffic.before = lambda whole: None  # type: ignore[union-attr] # the log's own thread is kept out
    for i in range(12):
        clock.advance(SINCE + 1 + i)
        live.answering.answer(sent(rows[i : i + 1], live), Attempt((1,)))
    live.feedback(rows[:3].select("id", "y"))
    live.stores.traffic.flush()  # type: ignore[union-attr]
    answered, labels = read_segments(tmp_path)
    assert (answered.kind, labels.kind) == ("predictions", "labels")
    table = traffic.from_bytes(answered.payload)
    assert table["_at"].to_list() == [SINCE + 1 + i for i in range(12)]
    assert table["id"].to_list() == rows["id"].to_list()
    again = traffic.entry(answered.payload)
    assert again is not None
    assert (again.at, list(again.ats)) == (SINCE + 12, table["_at"].to_list())


def test_the_compact_record_is_the_table_that_would_have_been_logged() -> None:
    live, _ = made_live()
    rows = sent(TABLE.filter(when >= SINCE)[:5], live)
    replies = live.answering.answer(rows, Attempt((5,)))
    table = traffic.logged(rows.table(), replies, 7, 8)
    assert traffic.from_bytes(traffic.compact(rows, replies, 7, 8)).equals(table, null_equal=True)
    assert traffic.from_bytes(traffic.to_bytes(table)).equals(table)
    assert len(traffic.compact(rows, replies, 7, 8)) * 4 < len(traffic.to_bytes(table))


def test_what_was_given_up_is_not_logged_and_the_rest_is(tmp_path: Path) -> None:
    live, _ = made_live(tmp_path)
    rows = sent(TABLE.filter(when >= SINCE)[:6], live)
    attempt = Attempt((1, 3, 2), (("a", ""), ("b", ""), ("c", "")))
    assert attempt.leave(1)
    replies = live.answering.answer(rows, attempt)
    assert len(replies.answer) == 6
    assert not attempt.leave(0), "its answer is made"
    live.answering.give_up(Rows(rows.schema, None, 3, rows.records[1:4]), Attempt((3,), (("b", ""),)))
    live.stores.traffic.flush()  # type: ignore[union-attr]
    logs = [traffic.from_bytes(r.payload) for r in read_segments(tmp_path)]
    assert [log["id"].to_list() for log in logs] == [[rows.columns["id"][i] for i in at] for at in ((0, 4, 5), (1, 2, 3))]
    assert logs[1]["_fallback"].all()
    with live.lock:
        live.answering.fold()
    assert live.book.waiting == 6


def test_rows_of_an_older_schema_are_answered_by_the_new_champion() -> None:
    live, _ = made_live()
    rows = sent(TABLE.filter(when >= SINCE)[:3], live)
    old = replace(rows.schema, fields=tuple(f for f in rows.schema.fields if f.name != "x1"))
    without = Rows(old, {n: c for n, c in rows.columns.items() if n != "x1"}, 3)
    twin = Rows(replace(rows.schema), rows.columns, 3)
    assert live.answering.answer(twin, Attempt((3,))).answer.tolist() == live.answering.answer(rows, Attempt((3,))).answer.tolist()
    assert live.answering.answer(without, Attempt((3,))).fallback.all(), "a logistic regression has no answer to a missing value"
    texts = tuple(replace(f, kind=Kind.TEXT) if f.name == "x1" else f for f in rows.schema.fields)
    misfit = Rows(replace(rows.schema, fields=texts), {**rows.columns, "x1": ["1.5", "much", "2.5"]}, 3)
    with pytest.raises(DataError, match="x1 is no number"):  # two answers would be taken for those of three rows
        live.answering.answer(misfit, Attempt((3,)))
    no_key = Rows(rows.schema, {**rows.columns, "id": [None, "b", "c"]}, 3)
    nullable = tuple(replace(f, nullable=True) if f.role is Role.KEY else f for f in rows.schema.fields)
    with pytest.raises(DataError, match="key"):
        live.answering.answer(Rows(replace(rows.schema, fields=nullable), no_key.columns, 3), Attempt((3,)))


def test_without_a_champion_nothing_answers() -> None:
    ready, _ = made_live()
    live = Live(make_app(TABLE).system, memory_stores("world"), DataClock(SINCE), key=b"key")
    with pytest.raises(RolloutError, match="no champion"):
        live.answering.answer(sent(TABLE[:1], ready), Attempt((1,)))


def test_private_columns_are_hidden_as_in_training() -> None:
    app = make_app(TABLE)
    app._private = ("group",)
    live = Live(app.system, memory_stores("world"), DataClock(SINCE), key=b"key")
    known = TABLE.filter(when < SINCE).with_columns(y=pl.when(when + DAY <= SINCE).then(pl.col("y")))
    assert not found(live, known)
    live.retrain("first training", "there is no model yet")
    part = TABLE.filter(when >= SINCE)[:4]
    rows = sent(part, live)
    quick = live.answering.answer(rows, Attempt((4,)))
    assert quick.answer.tolist() == live.answer(part.drop("y"))[0].answer.tolist()
    with live.lock:
        live.answering.fold()
    joined_rows = live.feedback(part.select("id", "y")).joined
    hidden = pseudonymise(part, ["group"], b"key")["group"].to_list()
    assert set(joined_rows["group"]) == set(hidden)


def test_a_candidate_that_comes_too_late_is_blamed_for_it() -> None:
    live, clock = made_live()
    live.retrain("by hand", "to have a rollout on the way")
    for day in range(4):
        if live.strategy is not None and live.strategy.name == "canary":
            break
        clock.advance(SINCE + (day + 1) * DAY)
        live.tick()
    assert live.strategy is not None
    assert live.strategy.name == "canary"
    rows = sent(TABLE.filter(when >= SINCE)[:100], live)
    for first in range(0, 100, 10):
        part = Rows(rows.schema, None, 10, rows.records[first : first + 10])
        attempt = Attempt((10,))
        live.answering.answer(part, attempt)
        attempt.scoring = "candidate"
        live.answering.lose(Rows(rows.schema, None, 1, part.records[:1]), attempt)
    with live.lock:
        live.answering.fold()
    verdict = live.rollout_verdict
    assert verdict is not None
    assert verdict.failed
    assert "10 of 10 units with failed answers are the candidate's" in verdict.reason


def test_side_tables_are_joined_on_the_hot_path_too() -> None:
    app = make_app(TABLE)

    @app.side("weather", on="since", by=["group"], within="300d")
    def weather() -> pl.DataFrame:
        since = pl.Series([SINCE - 60 * DAY] * 3, dtype=pl.Int64).cast(pl.Datetime("us"))
        return pl.DataFrame({"group": ["a", "b", "c"], "since": since, "rain": [0.5, 1.5, 2.5]})

    live = Live(app.system, memory_stores("world"), DataClock(SINCE), key=b"key")
    known = TABLE.filter(when < SINCE).with_columns(y=pl.when(when + DAY <= SINCE).then(pl.col("y")))
    assert not found(live, known)
    live.retrain("first training", "there is no model yet")
    part = TABLE.filter(when >= SINCE)[:5]
    quick = live.answering.answer(sent(part, live), Attempt((5,)))
    assert quick.answer.tolist() == live.answer(part.drop("y"))[0].answer.tolist()
    assert not quick.fallback.any()


def test_answers_that_cannot_be_logged_are_counted_and_others_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live, _ = made_live(tmp_path / "log")
    whole = traffic.compact

    def compact(rows: Rows, *rest: Any) -> bytes:
        if rows.height == 3:
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
        return whole(rows, *rest)

    monkeypatch.setattr(traffic, "compact", compact)
    fresh = TABLE.filter(when >= SINCE)
    for first, last, version in ((0, 4, ""), (4, 7, live.state.champion or ""), (7, 12, "")):
        live.answering.answer(sent(fresh[first:last], live), Attempt((last - first,), version=version))
    live.answering.gather()
    assert live.answering.unlogged == 3
    assert [told.split(":")[1].strip() for told in live.answering.raised_by_log.fresh()] == ["UnicodeEncodeError"]
    assert live.stores.traffic is not None
    live.stores.traffic.flush()
    kept = pl.concat(traffic.from_bytes(r.payload) for r in read_segments(tmp_path / "log"))
    assert kept["id"].to_list() == [*fresh["id"][:4], *fresh["id"][7:12]]


def test_answers_that_cannot_be_grouped_are_logged_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live, _ = made_live(tmp_path / "log")
    monkeypatch.setattr("loudly.loop.answering.gathered", lambda fresh: 1 / 0)
    rows = TABLE.filter(when >= SINCE)[:4]
    for i in range(4):
        live.answering.answer(sent(rows[i : i + 1], live), Attempt((1,)))
    live.stores.traffic.flush()  # type: ignore[union-attr]
    assert [traffic.from_bytes(r.payload)["id"].to_list() for r in read_segments(tmp_path / "log")] == [[i] for i in rows["id"]]
    assert live.answering.unlogged == 0
    told = "traffic log: answers are logged one by one: ZeroDivisionError: division by zero"
    assert live.answering.raised_by_log.fresh() == [told]


def test_whoever_answers_is_held_back_where_too_much_waits_to_be_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    live, _ = made_live()
    monkeypatch.setattr("loudly.loop.answering.MOST_WAITING", 600)
    monkeypatch.setattr("loudly.loop.answering.FOLD_SECONDS", 100.0)
    live.answering.answer(sent(TABLE.filter(when >= SINCE)[:600], live), Attempt((600,)))
    live.answering.gather()
    client = threading.Thread(target=live.answering.settle)
    with live.lock:
        client.start()
        client.join(0.1)
        assert client.is_alive()
        assert live.book.waiting == 0
    client.join()
    assert live.book.waiting == 600


def test_without_room_for_a_thread_whoever_answers_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    live, _ = made_live()
    live.answering.answer(sent(TABLE.filter(when >= SINCE)[:600], live), Attempt((600,)))
    live.answering.gather()

    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    live.answering._folded = 0.0
    live.answering.settle()
    assert live.book.waiting == 600
    assert not live.answering._folding


def test_answers_are_folded_beside_the_answers_and_what_goes_wrong_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    live, clock = made_live()
    rows = sent(TABLE.filter(when >= SINCE)[:600], live)

    def answered() -> None:
        clock.advance(clock.now() + HOUR)
        live.answering.answer(rows, Attempt((600,)))
        live.answering.gather()
        live.answering._folded = 0.0
        live.answering.settle()
        for thread in threading.enumerate():
            if thread.name == "loudly-fold":
                thread.join()

    answered()
    assert live.book.waiting == 600
    monkeypatch.setattr(live, "fold_answers", lambda logged, now: 1 / 0)
    answered()
    assert live.answering.raised_by_fold.fresh() == ["wheel: ZeroDivisionError: division by zero"]
    assert live.answering.uncounted == 600
    monkeypatch.undo()
    answered()
    assert live.book.waiting == 1200, "the next fold is as before"
    assert live.answering._rows == 0


def test_a_batch_in_sixteen_is_timed_and_no_more_than_twenty_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    live, _ = made_live()
    now = [100.0]
    monkeypatch.setattr("loudly.loop.answering.stopwatch", lambda: now[0])

    def timed(batches: int, seconds: float) -> int:
        found = 0
        for _ in range(batches):
            now[0] += seconds / batches
            found += live.answering._is_timed()
        return found

    assert timed(1600, 160.0) == 100, "ten batches a second: one in sixteen"
    assert 150 <= timed(50_000, 10.0) <= 200, "5,000 batches a second"


def test_rows_meet_the_routing_whose_schema_they_were_brought_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A promotion that came in between sent rows in the old champion's columns to the new one, who fell back."""
    live, _ = made_live(tmp_path)
    assert live.router is not None
    before, fit = live.router.routing, live.answering._fit.rows
    assert before.schema is not None
    wider = Schema((*before.schema.fields, Field("extra", Kind.NUMBER, Role.INPUT)))
    after = Routing(Served("world/2", lambda table: table["extra"].to_numpy()), schema=wider, rollout=7, salt="7")
    row = sent(TABLE.filter(when >= SINCE)[:1], live)

    def promoted_meanwhile(rows: Rows, routing: Routing) -> Rows:
        made = fit(rows, routing)
        assert live.router is not None
        live.router.swap(after)
        return made

    monkeypatch.setattr(live.answering._fit, "rows", promoted_meanwhile)
    replies = live.answering.answer(row, Attempt((1,)))
    live.router.swap(before)
    given_up = live.answering.give_up(row, Attempt((1,)))
    assert (replies.versions[0], replies.fallback.any(), replies.errors) == (before.control.version, False, ())
    assert given_up.versions[0] == before.control.version
    live.stores.traffic.flush()  # type: ignore[union-attr]
    told = [traffic.entry(record.payload) for record in read_segments(tmp_path)]
    assert {one.rollout for one in told if one is not None} == {0}, "nor do they count for a rollout that began meanwhile"


def test_an_answer_after_which_nothing_comes_is_on_disk_although_the_log_had_fallen_asleep(tmp_path: Path) -> None:
    live, _ = made_live(tmp_path)
    log = live.stores.traffic
    assert isinstance(log, SegmentWriter)
    row = sent(TABLE.filter(when >= SINCE)[:1], live)
    for number in range(1, 4):
        until(lambda: log._asleep, "its sleep")
        live.answering.answer(row, Attempt((1,)))
        until(lambda: len(list(read_segments(tmp_path))) == number, "the record")  # noqa: B023 - asked at once
