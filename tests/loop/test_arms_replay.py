"""Rollouts of several arms, by fixed shares and by rewards, within the wheel: replayed twice, killed everywhere, resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from conftest import SINCE, make_app, make_world
from lived import live_day
from loudly.app.app import App
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock
from loudly.core.values import Decision
from loudly.deliver.rollout import parse_rollout
from loudly.errors import ConfigError, RolloutError
from loudly.evaluate.gate import Gate
from loudly.loop.arms import arms_of
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.loop.restart import catch_up
from loudly.loop.standing import standing_verdict
from loudly.loop.tell import tell
from loudly.loop.why import why
from loudly.store.segments import SegmentWriter
from loudly.store.sqlite_ledger import SqliteLedger
from loudly.testing.damage import labels_shuffled
from replayed import chains, of_kind, plain_stores, run, survivors, ungated

BAD = labels_shuffled("y", pl.lit(True), 1)
OFFERED = SINCE + 2 * DAY


def offering(live: Live, now: int) -> None:
    """Two days in: a candidate as good as the champion, a bad one, and the offer."""
    if now == OFFERED:
        live.retrain("by hand", "bad on purpose", harm=BAD, offer=False)
        good = live.retrain("by hand", "a good one", offer=False)
        assert good is not None
        live.offer(good, "a test")


@pytest.mark.parametrize("text", [
    "thompson for 14d", "epsilon-greedy 0.1 for 14d", "ucb1 for 14d", "thompson among 3 for 14d", "ab 40% 30% 30% for 14d",
    "linucb on x1, x2 10% for 14d", "linear-thompson on x1 among 3 for 14d", "ab 50% for 14d adjusted by x1",
])  # fmt: skip
def test_a_replay_of_it_twice_gives_the_same_ledger_byte_for_byte(text: str) -> None:
    table = make_world(days=44, per_day=100)
    system = ungated(table, text, margin=0.3)
    once, again = (run(system, table, offering) for _ in range(2))
    assert chains(once) == chains(again)
    assert once.answers.equals(again.answers)
    started = of_kind(once, "rollout_started")
    assert started[0].data["version"] == "world/3"
    several = "among 3" in text or "30%" in text
    assert started[0].data.get("others") == (["world/2"] if several else None)
    assert set(once.answers["_version"].unique()) == ({"world/1", "world/2", "world/3"} if several else {"world/1", "world/3"})
    assert all(tell(r.event) for r in once.events)


def test_of_three_arms_the_better_one_takes_the_traffic_and_wins() -> None:
    table = make_world(days=60, per_day=400)
    system = ungated(table, "thompson among 3 for 25d", margin=0.1)

    def turn(live: Live, now: int) -> None:
        if now == OFFERED:
            live.retrain("by hand", "bad on purpose", harm=BAD, offer=False)
            live.retrain("by hand", "bad on purpose", harm=BAD, offer=False)
            live.promote("world/2", "a bad champion, for the test")
            good = live.retrain("by hand", "a good one", offer=False)
            live.offer(str(good), "a test")

    made = run(system, table, turn)
    assert made.state.champion == "world/4"
    judged = of_kind(made, "rollout_judged")
    assert len(judged) == 1
    assert judged[0].data["verdict"]["decision"] == Decision.PASS
    assert "surely earns" in judged[0].data["verdict"]["reason"]
    assert judged[0].data["others"] == ["world/3"]
    assert of_kind(made, "champion_changed")[-1].data["others"] == ["world/3"]
    during = made.answers.filter((pl.col("at").dt.epoch("us") >= OFFERED + 2 * DAY) & (pl.col("at").dt.epoch("us") < judged[0].at))
    shares = dict(during["_version"].value_counts(normalize=True).iter_rows())
    assert shares["world/4"] > 0.6 > shares["world/3"]
    told = {version: why(made.events, version).standing for version in ("world/3", "world/4")}
    assert told["world/3"] == "out of traffic"
    assert "rollout_judged" in [e.kind for e in why(made.events, "world/3").entries]


def test_killed_at_every_append_of_a_bandit_rollout_and_resumed_it_ends_with_the_same_ledger() -> None:
    table = make_world(days=39, per_day=60)
    system = ungated(table, "thompson among 3 for 14d", margin=0.6)
    whole, left = survivors(lambda stores: run(system, table, offering, stores=stores), plain_stores())
    assert of_kind(whole, "champion_changed")[-1].data["version"] != "world/1"
    assert len(left) >= 12
    for n, stores in enumerate(left):
        assert chains(run(system, table, offering, stores=stores)) == chains(whole), f"killed after append {n}"


def test_all_arms_worse_are_rolled_back_and_judged_no_second_time() -> None:
    table = make_world(days=60, per_day=400)
    system = ungated(table, "thompson among 3 for 25d", margin=0.0)

    def turn(live: Live, now: int) -> None:
        if now == OFFERED:
            live.retrain("by hand", "bad on purpose", harm=BAD, offer=False)
            bad = live.retrain("by hand", "bad on purpose", harm=BAD, offer=False)
            live.offer(str(bad), "a test")

    made = run(system, table, turn)
    back = of_kind(made, "version_rolled_back")
    assert len(back) == 1
    assert (back[0].data["version"], back[0].data["others"]) == ("world/3", ["world/2"])
    assert made.state.champion == "world/1"
    assert made.state.passed == ()
    assert "control surely earns most" in back[0].data["reason"]


def test_fewer_candidates_than_arms_is_said_aloud_and_the_rollout_goes_on() -> None:
    table = make_world(days=40, per_day=80)
    system = ungated(table, "ab 40% 30% 30% for 7d")

    def turn(live: Live, now: int) -> None:
        if now == OFFERED:
            live.offer(str(live.retrain("by hand", "alone", offer=False)), "a test")
            shares = live.rollout_state["shares"]
            assert shares == pytest.approx([4 / 7, 3 / 7])

    made = run(system, table, turn)
    weakened = [e.data for e in of_kind(made, "guarantee_weakened") if "3 arms" in str(e.data["what"])]
    assert len(weakened) == 1
    assert "others" not in of_kind(made, "rollout_started")[0].data


def test_what_each_arm_stands_for_is_told_while_it_runs_and_when_it_is_over() -> None:
    table = make_world(days=50, per_day=300)
    system = ungated(table, "ab among 3 for 14d", margin=0.3)
    seen: list[str] = []

    def turn(live: Live, now: int) -> None:
        offering(live, now)
        if now == OFFERED + DAY:
            seen.extend(str(standing_verdict(live, ref).decision) for ref in (None, "world/2", "world/3"))
        if now == OFFERED + 15 * DAY:
            seen.extend(str(standing_verdict(live, ref).decision) for ref in ("world/2", "world/3"))

    made = run(system, table, turn)
    assert seen[:3] == ["UNDECIDED"] * 3
    assert made.state.champion == "world/3"
    assert seen[3:] == ["FAIL", "PASS"]


def test_the_context_is_standardised_by_what_was_known_when_the_stage_began() -> None:
    table = make_world(days=40, per_day=100)
    made = run(ungated(table, "linucb on x2, x1 10% for 7d"), table, offering)
    began = of_kind(made, "stage_started")[0].data["context"]
    assert began["columns"] == ["x2", "x1"]
    assert began["constant"] is True
    known = table.filter(pl.col("at").dt.epoch("us") < SINCE)
    assert began["means"] == pytest.approx([known["x2"].mean(), known["x1"].mean()], abs=0.2)
    assert began["spreads"] == pytest.approx([5, 1], rel=0.1)


@pytest.mark.parametrize("column", ["group", "x3", "y"])
def test_a_context_that_is_no_numeric_input_is_refused_at_once(column: str) -> None:
    table = make_world(days=40, per_day=60)
    with pytest.raises(ConfigError, match=column):
        run(ungated(table, f"linucb on {column} for 7d"), table, offering)


def test_the_covariate_of_an_ab_test_reaches_it() -> None:
    table = make_world(days=44, per_day=150)
    states: list[Any] = []

    def turn(live: Live, now: int) -> None:
        offering(live, now)
        if now == OFFERED + 6 * DAY:
            states.append(live.rollout_state["evidence"]["before"]["n"])

    made = make_app(table, stage="manual")
    for text in ("ab 50% for 14d", "ab 50% for 14d adjusted by x1"):
        system = replace(made.system, metric="brier", gate=replace(made.system.gate, margin=1.0, slice_margin=1.0))
        run(replace(system, rollout=(parse_rollout(text, margin=0.01),)), table, turn)
    assert states[0] == 0
    assert states[1] > 300


# -- rewards -------------------------------------------------------------------------------------------------------------------


def test_the_users_reward_is_what_the_bandit_learns_from() -> None:
    """A reward that likes whatever says no: the arm that is bad for the label earns as much as any."""
    table = make_world(days=40, per_day=100)
    seen: list[Any] = []

    def low(rows: pl.DataFrame, answers: pl.Series) -> pl.Series:
        seen.append((rows.columns, len(answers)))
        return 1 - answers

    system = replace(ungated(table, "thompson for 7d", margin=0.0), reward=low)
    states: list[Any] = []

    def turn(live: Live, now: int) -> None:
        offering(live, now)
        if now == OFFERED + 4 * DAY:
            states.append(live.rollout_state["evidence"])

    run(system, table, turn)
    assert seen
    assert seen[0][0] == ["id", "at", "x1", "x2", "group", "y"]
    means = np.array(states[0]["earned"]) / np.array(states[0]["pulls"])
    assert means == pytest.approx([0.6, 0.6], abs=0.15)


@pytest.mark.parametrize(("given", "told"), [
    (lambda rows, answers: answers * 3, "outside"),
    (lambda rows, answers: [None] * len(answers), "outside"),
    (lambda rows, answers: answers[:1], "one number a row"),
    (lambda rows, answers: rows["paid"], "failed"),
    (lambda rows, answers: ["good"] * len(answers), "no numbers"),
])  # fmt: skip
def test_a_reward_that_is_none_freezes_the_bandit_and_names_the_row_it_was_for(given: Any, told: str) -> None:
    table = make_world(days=48, per_day=60)
    given.__name__ = "worth"
    made = run(replace(ungated(table, "thompson for 7d"), reward=given), table, offering)
    stopped = of_kind(made, "bandit_frozen")
    assert len(stopped) == 1
    assert "'worth'" in stopped[0].data["reason"]
    assert told in stopped[0].data["reason"]
    assert "LOUD" in tell(stopped[0])
    back = of_kind(made, "version_rolled_back")[0]
    assert "undecided at its deadline" in back.data["reason"]
    assert "worth" in back.data["reason"]
    assert of_kind(made, "window_judged") or made.answers.height, "the labels went on to everybody else"


def test_a_label_that_comes_early_waits_until_its_time_is_over() -> None:
    """Labels of one kind that come at once must not make an arm look better than it is: the bandit sees rows, not arrivals."""
    table = make_world(days=44, per_day=100)
    early = pl.when(pl.col("y")).then(pl.col("at")).otherwise(pl.col("at") + pl.duration(days=1))
    table = table.with_columns(came=early)
    made = ungated(table, "thompson for 14d", margin=0.0)
    labels = replace(made.labels, arrives="came", arrive_within=2 * DAY)
    seen: list[Any] = []

    def turn(live: Live, now: int) -> None:
        offering(live, now)
        if now == OFFERED + 5 * DAY:
            seen.append((live.rollout_state["evidence"], len(live.unripe)))

    run(replace(made, labels=labels, ignored=("came",)), table, turn)
    evidence, waiting = seen[0]
    assert sum(evidence["pulls"]) == 300, "three of five days are old enough"
    assert 25 < waiting < 100


@pytest.mark.parametrize("text", ["shadow 1d", "thompson among 3 for 12d"])
def test_several_classes_and_labels_of_rows_from_before_the_rollout(text: str) -> None:
    """Rows that one arm answered and rows that several could have answered are labelled together."""
    table = make_world(days=41, per_day=120)
    score = pl.col("x1") + (pl.col("x2") - 20) / 5 + pl.Series(np.random.default_rng(1).normal(size=table.height))
    table = table.with_columns(
        y=pl.when(score > 0.7).then(pl.lit("hi")).when(score < -0.7).then(pl.lit("lo")).otherwise(pl.lit("mid"))
    )
    app = App("world", label="y", time="at", key="id", metric="accuracy")
    app.data(lambda: table)

    @app.train(holdout="7d")
    def fit(X: Any, y: Any) -> Any:
        return LogisticRegression(max_iter=300).fit(X, y)

    app.labels(arrive_within="30h")
    app.retrain("manual")
    app.gate(Gate(margin=1.0, slice_margin=1.0, overfit=1.0))
    made = run(replace(app.system, rollout=(parse_rollout(text, margin=0.5),)), table, offering)
    assert made.state.champion != "world/1"
    assert made.state.rollout is None


# -- a server that comes back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["thompson among 3 for 14d", "linucb on x1, x2 10% for 14d", "ab among 3 for 14d"])
def test_a_restarted_server_goes_on_with_the_same_shares_arms_and_context(text: str, tmp_path: Path) -> None:
    table = make_world(days=40, per_day=100)
    ledger, log = SqliteLedger(tmp_path / "ledger.db"), SegmentWriter(tmp_path / "traffic")
    stores = replace(memory_stores("world"), ledger=ledger, traffic=log)
    system, at = ungated(table, text, margin=0.0), pl.col("at").dt.epoch("us")
    live = Live(system, stores, DataClock(SINCE), key=b"k")
    assert not found(live, table.filter(at < SINCE))
    live.retrain("first training", "there is no model yet")
    for _ in range(2):
        newest = live.retrain("by hand", "another", offer=False)
    live.offer(str(newest), "a test")
    for day in range(4):
        live_day(live, table, day)
    log.flush()
    again = Live(system, stores, DataClock(SINCE + 3 * DAY), key=b"k")
    reopen(again)
    catch_up(again, tmp_path / "traffic")
    again.tick()
    assert again.state == live.state
    assert arms_of(again) == arms_of(live)
    for what in ("shares", "ratio", "met"):
        assert again.rollout_state.get(what) == live.rollout_state.get(what)
    ours, theirs = (one.rollout_state["evidence"] for one in (again, live))
    for what in ("pulls", "earned", "means", "theta", "lift", "alone"):
        assert ours.get(what) == theirs.get(what)
    assert again.router is not None
    assert live.router is not None
    assert again.router.routing.context == live.router.routing.context
    ledger.close()
    log.close()


def test_versions_beside_the_candidate_can_be_named_and_others_are_refused() -> None:
    table = make_world(days=34, per_day=80)
    live = Live(ungated(table, "thompson among 3 for 7d"), memory_stores("world"), DataClock(SINCE), key=b"k")
    assert not found(live, table.filter(pl.col("at").dt.epoch("us") < SINCE))
    for _ in range(4):
        live.retrain("by hand", "one of many", offer=False)
    live.promote("world/1", "the first")
    with pytest.raises(RolloutError, match="world/1 cannot take part"):
        live.offer("world/4", "a test", ["world/1"])
    with pytest.raises(RolloutError, match="3 arms"):
        live.offer("world/4", "a test", ["world/2", "world/3"])
    assert live.state.rollout is None
    live.offer("world/4", "a test", ["world/2"])
    assert [arm.version for arm in arms_of(live)] == ["world/1", "world/4", "world/2"]
    live.roll_back("world/4", "enough")
    assert live.state.passed == ("world/3",)
    live.offer("world/3", "a test")
    assert [arm.version for arm in arms_of(live)] == ["world/1", "world/3"]
