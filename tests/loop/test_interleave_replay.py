"""Two rankings in one list within the wheel: replayed twice, restarted, by workers, over HTTP, decided by clicks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from conftest import SINCE, make_world
from loudly.app.app import App
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock
from loudly.errors import ConfigError
from loudly.loop import traffic
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.loop.outpost import Outpost, routing_of
from loudly.loop.restart import catch_up
from loudly.loop.system import System
from loudly.loop.taking import take
from loudly.serve.attempt import Attempt
from loudly.serve.rows import rows_of
from loudly.store.segments import Record, SegmentWriter
from loudly.store.sqlite_ledger import SqliteLedger
from loudly.testing.damage import labels_shuffled
from replayed import chains, of_kind, run, ungated

OFFERED = SINCE + 2 * DAY
BAD = labels_shuffled("y", pl.lit(True), 1)


def searches(days: int, per_day: int = 100) -> pl.DataFrame:
    """Rows of which five in a row are the results of one query, a click each or none."""
    table = make_world(days=days, per_day=per_day)
    return table.with_columns(
        query=pl.format("q{}", pl.int_range(pl.len()) // 5), at=pl.col("at").first().over(pl.int_range(pl.len()) // 5)
    )


def system_of(table: pl.DataFrame, text: str, **settings: Any) -> System:
    made = ungated(table, text, days=2, **settings)
    return replace(made, group="query", gate=replace(made.gate, overfit=1.0))


def offering(bad_champion: bool) -> Callable[[Live, int], None]:
    def turn(live: Live, now: int) -> None:
        if now == OFFERED:
            bad = live.retrain("by hand", "bad on purpose", harm=BAD, offer=False)
            if bad_champion:
                live.promote(str(bad), "a bad champion, for the test")
                bad = live.retrain("by hand", "a good one", offer=False)
            live.offer(str(bad), "a test")

    return turn


@pytest.mark.parametrize("text", ["interleave team draft for 14d", "interleave probabilistically for 14d"])
def test_a_replay_twice_gives_the_same_ledger_and_the_better_ranking_wins(text: str) -> None:
    table = searches(46, 150)
    system = system_of(table, text, margin=0.02 if "team" in text else 0.2)
    once, again = (run(system, table, offering(bad_champion=True)) for _ in range(2))
    assert chains(once) == chains(again)
    assert once.state.champion == "world/3"
    judged = of_kind(once, "rollout_judged")
    assert judged[0].data["verdict"]["evidence"][0]["unit"] == "share of the units with a winner"
    assert "candidate" in judged[0].data["verdict"]["reason"]


def test_of_three_rankings_the_worse_leaves_and_the_better_wins_twice_alike() -> None:
    table = searches(46, 300)
    system = system_of(table, "interleave team draft among 3 for 14d", margin=0.02)

    def turn(live: Live, now: int) -> None:
        if now == OFFERED:
            bad = [live.retrain("by hand", "bad on purpose", harm=BAD, offer=False) for _ in range(2)]
            live.promote(str(bad[0]), "a bad champion, for the test")
            live.offer(str(live.retrain("by hand", "a good one", offer=False)), "a test")

    once, again = (run(system, table, turn) for _ in range(2))
    assert chains(once) == chains(again)
    assert of_kind(once, "rollout_started")[0].data["others"] == ["world/3"]
    assert once.state.champion == "world/4"
    assert "wins" in of_kind(once, "rollout_judged")[0].data["verdict"]["reason"]
    placed = once.answers.filter(pl.col("at").dt.epoch("us").is_between(OFFERED + DAY, OFFERED + 2 * DAY))["_version"]
    assert set(placed) == {"world/2", "world/3", "world/4"}


def test_the_worse_ranking_is_rolled_back_and_no_promotion_is_waited_for() -> None:
    table = searches(50, 150)
    made = run(system_of(table, "interleave team draft for 16d"), table, offering(bad_champion=False))
    back = of_kind(made, "version_rolled_back")
    assert "control is surely preferred" in back[0].data["reason"]
    assert made.state.confirming is None


def wheel(table: pl.DataFrame, ledger: Any, log: Any, text: str = "interleave team draft for 14d") -> Live:
    stores = replace(memory_stores("world"), ledger=ledger, traffic=log)
    live = Live(system_of(table, text, alpha=1e-9), stores, DataClock(SINCE), key=b"k")
    assert not found(live, table.filter(pl.col("at").dt.epoch("us") < SINCE))
    live.retrain("first training", "there is no model yet")
    live.offer(str(live.retrain("by hand", "bad on purpose", harm=BAD, offer=False)), "a test")
    return live


def day(table: pl.DataFrame, number: int) -> pl.DataFrame:
    at = pl.col("at").dt.epoch("us")
    return table.filter((at >= SINCE + number * DAY) & (at < SINCE + (number + 1) * DAY))


def test_the_order_of_the_answers_is_the_list_and_the_log_knows_who_placed_what(tmp_path: Path) -> None:
    table = searches(40)
    ledger, log = SqliteLedger(tmp_path / "ledger.db"), SegmentWriter(tmp_path / "traffic")
    live = wheel(table, ledger, log)
    for number in range(3):
        live.clock.advance(SINCE + number * DAY)  # type: ignore[attr-defined]
        if number:
            live.feedback(day(table, number - 1).select("id", "y"))
        replies, fitted = live.answer(day(table, number).drop("y"))
        live.tick()
    told = traffic.logged(fitted.good, replies, 1, 0)
    for (_,), rows in told.group_by("query"):
        assert rows.height == 5
        assert sorted(rows["_arm"].to_list()) in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])
        assert rows["_answer"].n_unique() == 5
        shown = rows.sort("_answer", descending=True)
        for arm, name in ((0, "_control"), (1, "_candidate")):
            if shown["_arm"][0] == arm:
                assert shown[name][0] == rows[name].max(), "the first place is that ranking's best"
    evidence = live.rollout_state["evidence"]
    preference = evidence["pairs"]["candidate"]["preference"]
    assert sum(preference["wins"]["counts"]) + preference["ties"] == 20, "the lists of the first day"
    assert live.given["control"] > 0
    log.flush()
    again = Live(live.system, live.stores, DataClock(SINCE + 2 * DAY), key=b"k")
    reopen(again)
    catch_up(again, tmp_path / "traffic")
    assert again.rollout_state["evidence"]["days"] == evidence["days"]
    for what in ("preference", "met"):
        assert again.rollout_state["evidence"]["pairs"]["candidate"][what] == evidence["pairs"]["candidate"][what]
    rows = day(table, 5).drop("y")
    ours, theirs = live.answer(rows)[0], again.answer(rows)[0]
    assert (ours.arm == theirs.arm).all()
    assert (ours.answer == theirs.answer).all()
    ledger.close()
    log.close()


def test_workers_merge_the_same_lists_and_their_clicks_count_as_the_wheels_own() -> None:
    table = searches(40)
    alone, far = (wheel(table, memory_stores("world").ledger, None) for _ in range(2))
    post = Outpost(far.system, far.stores, b"k", far.clock, lambda kind, payload: take(far, [Record(0, kind, payload)]) and None)
    for number in range(3):
        post.follow(routing_of(far))
        rows = day(table, number).drop("y")
        sent = rows_of([{**r, "at": r["at"].isoformat()} for r in rows.to_dicts()], far.ready["world/1"].schema)
        made, ours = post.answer(sent, Attempt((rows.height,))), alone.answer(rows)[0]
        assert made.arm.tolist() == ours.arm.tolist()
        assert np.allclose(made.answer, ours.answer, rtol=1e-12, atol=0)
        for live in (alone, far):
            live.clock.advance(SINCE + (number + 1) * DAY)  # type: ignore[attr-defined]
            live.feedback(day(table, number).select("id", "y"))
            live.tick()
    ours, theirs = (one.rollout_state["evidence"]["pairs"]["candidate"] for one in (far, alone))
    assert ours["preference"] == theirs["preference"]
    assert far.given == alone.given


def test_a_list_waits_for_the_labels_of_all_its_rows() -> None:
    """Clicks that come at once do not count before the rows around them have had their time; later ones count no more."""
    table = searches(40)
    live = wheel(table, memory_stores("world").ledger, None)
    first = day(table, 0)
    live.answer(first.drop("y"))
    live.feedback(first.filter(pl.col("y")).select("id", "y"))
    live.tick()
    assert not live.rollout_state["evidence"]["days"]
    live.clock.advance(SINCE + 3 * DAY)  # type: ignore[attr-defined]
    live.answer(day(table, 2).drop("y"))
    live.feedback(day(table, 2).head(1).select("id", "y"))
    live.tick()
    before = live.rollout_state["evidence"]["pairs"]["candidate"]["preference"]
    assert sum(before["wins"]["counts"]) > 10
    live.feedback(first.filter(~pl.col("y")).select("id", "y"))
    live.tick()
    after = live.rollout_state["evidence"]["pairs"]["candidate"]["preference"]
    assert after["wins"] == before["wins"]


def test_without_a_group_or_with_classes_it_is_said_what_to_declare() -> None:
    app = App("shop", label="clicked", time="at", key="id", metric="roc_auc")
    app.data(lambda: None)
    app.train(lambda X, y: None)
    app.rollout("interleave team draft for 14d")
    with pytest.raises(ConfigError, match="no group of rows is declared") as said:
        _ = app.system
    assert 'group="query_id"' in str(said.value)
    table = searches(36).with_columns(y=pl.col("group"))
    system = replace(system_of(table, "interleave team draft for 7d"), metric="accuracy", slices=())
    live = Live(system, memory_stores("world"), DataClock(SINCE), key=b"k")
    assert not found(live, table.filter(pl.col("at").dt.epoch("us") < SINCE).drop("group"))
    live.promote(str(live.retrain("first training", "there is no model yet", offer=False)), "the first")
    with pytest.raises(ConfigError, match="no order"):
        live.offer(str(live.retrain("by hand", "another", offer=False)), "a test")
