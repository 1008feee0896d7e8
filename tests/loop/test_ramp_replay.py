"""A ramp within the wheel: replayed twice, killed everywhere, over a restart, with workers, and after its promotion."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from conftest import SINCE, make_world
from lived import live_day, promoted_early
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock
from loudly.core.values import Decision
from loudly.deliver.ramp import Ramp
from loudly.deliver.rollout import parse_rollout
from loudly.loop import traffic
from loudly.loop.arms import told
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.loop.outpost import Outpost, routing_of
from loudly.loop.replay import Replayed
from loudly.loop.restart import catch_up
from loudly.loop.stores import Stores
from loudly.loop.system import Labels
from loudly.loop.taking import take
from loudly.loop.tell import tell
from loudly.serve.attempt import Attempt
from loudly.serve.replies import Replies
from loudly.serve.rows import rows_of
from loudly.store.segments import Record, SegmentWriter
from loudly.store.sqlite_ledger import SqliteLedger
from loudly.testing.damage import labels_turned
from replayed import chains, of_kind, plain_stores, run, survivors, ungated

BAD = labels_turned("y", pl.lit(True))
OFFERED = SINCE + 2 * DAY
AT = pl.col("at").dt.epoch("us")


def day_of(number: int) -> pl.Expr:
    """Whether a row is of that day, the first of the rollout being 0."""
    return AT.is_between(SINCE + number * DAY, SINCE + (number + 1) * DAY, closed="left")


AB, THOMPSON = "ab 50% for 14d ramped 10% 40% 100% every 2d", "thompson among 3 for 14d ramped 10% 40% 100% every 2d"


def offering(live: Live, now: int) -> None:
    """Two days in: two candidates, and the offer of the newer one."""
    if now == OFFERED:
        live.retrain("by hand", "one beside it", offer=False)
        live.offer(str(live.retrain("by hand", "a good one", offer=False)), "a test")


def offering_one(live: Live, now: int) -> None:
    """Two days in: a candidate, and the offer of it."""
    if now == OFFERED:
        live.offer(str(live.retrain("by hand", "a good one", offer=False)), "a test")


def shares_by_day(made: Replayed, champion: str = "world/1") -> list[float]:
    """Of the answers of each day since the offer, how many candidates gave."""
    days = made.answers.with_columns(day=(AT - OFFERED) // DAY).filter(pl.col("day") >= 0)
    each = days.group_by("day").agg(share=(pl.col("_version") != champion).mean()).sort("day")
    return each["share"].to_list()


@pytest.mark.parametrize("text", [
    AB, THOMPSON, "ab 40% 30% 30% for 14d ramped 10% 40% 100% every 2d", "linucb on x1 10% for 14d ramped 10% 40% 100% every 2d",
])  # fmt: skip
def test_a_replay_of_it_twice_is_the_same_byte_for_byte_and_its_share_grows_step_by_step(text: str) -> None:
    table = make_world(days=44, per_day=300)
    system = ungated(table, text, margin=0.3)
    once, again = (run(system, table, offering) for _ in range(2))
    assert chains(once) == chains(again)
    assert once.answers.equals(again.answers)
    grown = of_kind(once, "share_grown")
    assert [(e.data["step"], e.data["share"], e.at) for e in grown] == [(1, 0.4, OFFERED + 2 * DAY), (2, 1.0, OFFERED + 4 * DAY)]
    assert tell(grown[0]) == "the rollout of world/3 grows to 40%: no harm was seen for 2d"
    shares = shares_by_day(once)
    assert np.mean(shares[:2]) < 0.1
    assert 0.1 < np.mean(shares[2:4]) < 0.35
    assert np.mean(shares[4:6]) > 0.35
    judged = of_kind(once, "rollout_judged")
    assert all("mismatch" not in e.data["verdict"]["reason"] for e in judged)
    promoted = [e for e in of_kind(once, "champion_changed") if e.data["previous"] is not None]
    assert all(e.at >= OFFERED + 6 * DAY for e in promoted), "not before all units have taken part for two days"
    if not text.startswith("linucb"):
        assert promoted
        assert judged[0].data["verdict"]["subject"].endswith("ramped to 100%")


@pytest.mark.parametrize("text", ["ab 50% for 14d", AB, THOMPSON])
def test_rows_of_a_shadow_before_it_whose_labels_come_late_are_no_evidence_of_control(text: str) -> None:
    """Control answered them all: taken for its rows they would be a sample ratio mismatch, and its rewards of other days."""
    table = make_world(days=44, per_day=200)
    system = ungated(table, text)
    system = replace(system, rollout=(parse_rollout("shadow 3d"), *(replace(spec, margin=0.3) for spec in system.rollout)))
    seen: list[Any] = []

    def turn(live: Live, now: int) -> None:
        offering(live, now)
        if now == OFFERED + 7 * DAY:
            seen.append(live.rollout_state)

    made = run(system, table, turn)
    assert [e.data["strategy"] for e in of_kind(made, "stage_started")][:2] == ["shadow", text.split()[0]]
    assert made.state.champion != "world/1"
    counts = seen[0]["ratio"]["counts"] if "ratio" in seen[0] else seen[0]["evidence"]["pulls"]
    assert 0 < sum(counts) <= (80 if "ramped" in text else 400), "two days, or the part of them that took part"
    assert min(counts) > 0


def test_a_candidate_that_is_harmful_never_leaves_the_first_step() -> None:
    table = make_world(days=46, per_day=800)
    spec = replace(parse_rollout("ab 50% for 20d ramped 20% 100% every 7d", margin=0.02), rows=200)
    system = replace(ungated(table, AB), rollout=(spec,))

    def turn(live: Live, now: int) -> None:
        if now == OFFERED:
            live.offer(str(live.retrain("by hand", "bad on purpose", harm=BAD, offer=False)), "a test")

    made = run(system, table, turn)
    back = of_kind(made, "version_rolled_back")
    assert len(back) == 1
    assert back[0].at < OFFERED + 7 * DAY
    assert "surely worse" in back[0].data["reason"]
    assert not of_kind(made, "share_grown")
    assert max(shares_by_day(made)) < 0.15


def test_killed_at_every_append_and_resumed_it_ends_with_the_same_ledger() -> None:
    table = make_world(days=37, per_day=60)
    system = ungated(table, AB, margin=0.6)

    def replayed(stores: Stores) -> Replayed:
        return run(system, table, offering_one, stores=stores)

    whole, left = survivors(replayed, plain_stores())
    assert len(of_kind(whole, "share_grown")) == 2
    for n, stores in enumerate(left):
        assert chains(replayed(stores)) == chains(whole), f"killed after append {n}"


# -- a server that comes back, workers, the log ------------------------------------------------------------------------------


def live_of(text: str, table: pl.DataFrame, **stores: Any) -> Live:
    """A wheel with a rollout of candidates that are as good as the champion."""
    live = Live(ungated(table, text, margin=0.0), replace(memory_stores("world"), **stores), DataClock(SINCE), key=b"k")
    assert not found(live, table.filter(AT < SINCE))
    live.retrain("first training", "there is no model yet")
    for _ in range(2):
        newest = live.retrain("by hand", "another", offer=False)
    live.offer(str(newest), "a test")
    return live


@pytest.mark.parametrize(
    "text", [AB, THOMPSON, "linucb on x1 10% for 14d ramped 10% 40% 100% every 2d", "ab among 3 ramped 10% 100%"]
)
def test_a_restarted_server_goes_on_at_the_same_share_with_the_same_evidence(text: str, tmp_path: Path) -> None:
    table = make_world(days=40, per_day=200)
    ledger, log = SqliteLedger(tmp_path / "ledger.db"), SegmentWriter(tmp_path / "traffic")
    live = live_of(text, table, ledger=ledger, traffic=log)
    for day in range(4):
        live_day(live, table, day)
    assert live.rollout_state["step"] == 1
    log.flush()
    again = Live(live.system, live.stores, DataClock(SINCE + 3 * DAY), key=b"k")
    reopen(again)
    catch_up(again, tmp_path / "traffic")
    again.tick()
    assert again.state == live.state
    for what in ("step", "step_at", "shares", "ratio", "met", "dropped"):
        assert again.rollout_state.get(what) == live.rollout_state.get(what)
    ours, theirs = (one.rollout_state["evidence"] for one in (again, live))
    for what in ("pulls", "earned", "means", "theta", "lift", "alone", "rows", "each", "clusters", "candidate2"):
        if what == "candidate2" and what in ours:  # counts of answers are not in the log
            ours, theirs, what = ours[what], theirs[what], "each"
        assert ours.get(what) == theirs.get(what)
    rows = table.filter(AT >= SINCE + 5 * DAY).head(300).drop("y")
    for one in (again, live):
        one.clock.advance(SINCE + 5 * DAY)  # type: ignore[attr-defined]
    mine, other = again.answer(rows)[0], live.answer(rows)[0]
    assert (mine.arm == other.arm).all()
    assert (mine.propensity == other.propensity).all()
    ledger.close()
    log.close()


def test_only_rows_of_units_that_took_part_are_the_rollouts_however_late_their_labels_come() -> None:
    """Two days at 10 %, labelled when four in ten take part: evidence, and what still waits, are of the first tenth."""
    table = make_world(days=40, per_day=400)
    live = live_of(AB, table)
    clock: Any = live.clock
    inside = 0
    for day in range(2):
        clock.advance(SINCE + day * DAY)
        replies, _ = live.answer(table.filter(day_of(day)).drop("y"))
        assert replies.share is not None
        assert not replies.arm[replies.share == 0].any()
        inside += int((replies.share > 0).sum())
    assert 40 < inside < 120
    clock.advance(SINCE + 2 * DAY)
    live.tick()
    assert live.rollout_state["step"] == 1
    assert live.state.rollout is not None
    assert live.book.waiting_of("_rollout", live.state.rollout.started)[0] == inside
    shares = {name: arm["share"] for name, arm in told(live).items()}  # type: ignore[index,call-overload]
    assert shares == {"control": pytest.approx(0.8), "candidate": pytest.approx(0.2)}
    live.feedback(table.filter((AT >= SINCE) & (AT < SINCE + 2 * DAY)).select("id", "y"))
    live.tick()
    assert live.rollout_state["evidence"]["rows"] == inside
    assert sum(live.rollout_state["ratio"]["counts"]) == inside


def test_a_worker_answers_as_the_wheel_does_and_its_rows_count_alike(tmp_path: Path) -> None:
    """What it is told is pickled on the way; a row that it still answers at the old share is counted at the old share."""
    table = make_world(days=40, per_day=200)
    alone, wheel = live_of(THOMPSON, table), live_of(THOMPSON, table)
    post = Outpost(wheel.system, wheel.stores, b"k", wheel.clock, lambda kind, sent: take(wheel, [Record(0, kind, sent)]) and None)  # type: ignore[func-returns-value]
    for day in range(4):
        post.follow(pickle.loads(pickle.dumps(routing_of(wheel))))
        rows = table.filter(day_of(day))
        schema = wheel.ready[wheel.state.champion or ""].schema
        sent = rows_of([{**r, "at": r["at"].isoformat()} for r in rows.drop("y").to_dicts()], schema)
        ours: Replies = post.answer(sent, Attempt((sent.height,)))
        theirs, _ = alone.answer(rows.drop("y"))
        assert ours.arm.tolist() == theirs.arm.tolist()
        assert ours.propensity.tolist() == theirs.propensity.tolist()
        for live in (alone, wheel):
            clock: Any = live.clock
            clock.advance(SINCE + (day + 1) * DAY)
            live.feedback(rows.select("id", "y"))
            live.tick()
    assert wheel.rollout_state["step"] == 2
    assert wheel.rollout_state["evidence"]["pulls"] == alone.rollout_state["evidence"]["pulls"]
    assert wheel.given == alone.given
    assert [r.chain for r in wheel.stores.ledger.read()] == [r.chain for r in alone.stores.ledger.read()]
    post.follow(routing_of(wheel))
    early = live_of(THOMPSON, table)
    stale = Outpost(early.system, early.stores, b"k", early.clock, lambda kind, sent: take(early, [Record(0, kind, sent)]) and None)  # type: ignore[func-returns-value]
    stale.follow(routing_of(early))
    early.clock.advance(SINCE + 2 * DAY)  # type: ignore[attr-defined]
    early.tick()
    assert early.rollout_state["step"] == 1
    rows = table.filter((AT >= SINCE) & (AT < SINCE + DAY))
    sent = rows_of([{**r, "at": r["at"].isoformat()} for r in rows.drop("y").to_dicts()], early.ready["world/1"].schema)
    replies = stale.answer(sent, Attempt((sent.height,)))
    assert early.state.rollout is not None
    assert replies.share is not None
    assert set(replies.share) == {0.0, 0.1}
    assert early.book.waiting_of("_rollout", early.state.rollout.started)[0] == (replies.share > 0).sum()


def test_the_compact_record_is_the_table_that_would_have_been_logged() -> None:
    table = make_world(days=34, per_day=120)
    live = live_of(AB, table)
    assert isinstance(live.strategy, Ramp)
    part = table.filter(AT >= SINCE).head(120)
    rows = rows_of([{**r, "at": r["at"].isoformat()} for r in part.drop("y").to_dicts()], live.ready["world/1"].schema)
    assert live.router is not None
    replies = live.router.answer(rows, list(rows.columns["id"]))
    logged = traffic.logged(rows.table(), replies, 7, SINCE)
    assert traffic.from_bytes(traffic.compact(rows, replies, 7, SINCE)).equals(logged)
    assert set(logged["_rollout"]) == {0, 7}
    assert (logged["_share"] > 0).equals(logged["_rollout"] == 7)
    everybody = replace(replies, share=None)
    entries = [traffic.entry(traffic.compact(rows, one, 7, SINCE)) for one in (replies, everybody)]
    both = traffic.table_of([e for e in entries if e is not None])
    assert both["_share"].to_list() == [*logged["_share"].to_list(), *[1.0] * 120]
    assert both["_rollout"].to_list() == [*logged["_rollout"].to_list(), *[7] * 120]
    assert "_share" not in traffic.logged(rows.table(), everybody, 7, SINCE).columns
    kept = replies.take(np.arange(5))
    assert kept.share is not None
    assert len(kept.share) == 5


# -- after the promotion ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "bad"), [(AB, False), (AB, True), ("linucb on x1 20% for 30d ramped 50% 100%", False)])
def test_the_rollback_stays_armed_by_rows_of_units_that_took_part(text: str, bad: bool, tmp_path: Path) -> None:
    table = make_world(days=60, per_day=300)
    system = replace(ungated(table, text, margin=0.1), labels=Labels(10 * DAY), slices=())
    system = replace(system, rollout=(replace(system.rollout[0], days=2, rows=300, deadline=30 * DAY),))
    clock, log = DataClock(SINCE), SegmentWriter(tmp_path)
    live = Live(system, replace(memory_stores("world"), traffic=log), clock, key=b"key")
    assert not found(live, table.filter(AT < SINCE))
    live.retrain("first training", "there is no model yet")
    live.offer(str(live.retrain("by hand", "a candidate", harm=BAD if bad else None, offer=False)), "a test")
    waiting = promoted_early(live, clock, table, "world/2", labelled=60)
    assert live.state.champion == "world/2"
    known = live.confirming.known()
    assert known is not None
    outside = live.book.waiting_of("_rollout", 0)[0]
    unripe = known.waiting - (waiting.height - outside)
    assert outside > 0
    assert unripe >= 0 if text.startswith("linucb") else unripe == 0, "rows of units that took no part are not waited for"
    log.flush()
    again = Live(system, replace(live.stores, traffic=None), DataClock(clock.now()), key=b"key")
    reopen(again)
    catch_up(again, tmp_path)
    after = again.confirming.known()
    assert after is not None
    assert after.waiting == known.waiting
    clock.advance(clock.now() + 11 * DAY)
    live.feedback(waiting.select("id", "y"))
    live.tick()
    clock.advance(clock.now() + 11 * DAY)
    live.tick()
    kinds = [r.event.kind for r in live.stores.ledger.read()]
    assert live.state.champion == ("world/1" if bad else "world/2")
    assert ("promotion_confirmed" in kinds) is not bad
    if bad:
        back = [r.event for r in live.stores.ledger.read() if r.event.kind == "rollout_judged"][-1]
        assert back.data["verdict"]["decision"] in (Decision.FAIL, Decision.UNDECIDED)  # type: ignore[index,call-overload]
    log.close()
