"""A champion without a score, and labels that nothing can be judged by, page at the next tick, until they are over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

from conftest import SINCE, make_world
from live_server import Server
from loudly.app.app import App
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, HOUR, DataClock
from loudly.core.values import Field, Kind, Role, Schema
from loudly.errors import RolloutError
from loudly.loop.founding import found, reopen
from loudly.loop.knowing import known
from loudly.loop.label_values import encode, known_labels
from loudly.loop.live import Live
from loudly.loop.restart import catch_up
from loudly.monitor.failing import ANSWERS, SHARE, VALUES, Failing, Share
from loudly.store.segments import SegmentWriter

httpx = pytest.importorskip("httpx")
WHEN = pl.col("at").dt.epoch("us")
# What the model of these tests does: every n-th row has no score, or it raises.
HOLES: dict[str, Any] = {"every": 0, "raises": False}


class Moody(ClassifierMixin, BaseEstimator):
    """A logistic regression that does as it is told."""

    def fit(self, X: Any, y: Any) -> Moody:
        self.inner_ = LogisticRegression(max_iter=1000).fit(X, y)
        self.classes_ = self.inner_.classes_
        return self

    def predict_proba(self, X: Any) -> Any:
        if HOLES["raises"]:
            raise RuntimeError("out of memory")
        made = self.inner_.predict_proba(X)
        if HOLES["every"]:
            made[:: HOLES["every"]] = np.nan
        return made

    def predict(self, X: Any) -> Any:
        return self.inner_.predict(X)


def made_app(*stages: str, metric: str = "roc_auc") -> App:
    app = App("world", label="y", time="at", key="id", metric=metric)
    app.data(make_world)

    @app.train(holdout="7d")
    def fit(X: Any, y: Any) -> Any:
        return Moody().fit(X, y)

    app.labels(arrive_within="1d")
    app.rollout(*stages, deadline="60d")
    return app


@pytest.fixture
def moods() -> Iterator[dict[str, Any]]:
    yield HOLES
    HOLES.update(every=0, raises=False)


def started(table: pl.DataFrame, app: App, **parts: Any) -> Live:
    """A wheel at SINCE with a champion of the rows before."""
    live = Live(app.system, replace(memory_stores("world"), **parts), DataClock(SINCE), key=b"key")
    assert not found(live, table.filter(WHEN < SINCE))
    live.retrain("first training", "there is no model yet")
    assert live.state.champion == "world/1"
    return live


def hour(live: Live, table: pl.DataFrame, number: int, labels: Any = None) -> list[tuple[str, str, str]]:
    """An hour's rows are answered and labelled. What the clock has said of it."""
    live.clock.advance(now := SINCE + number * HOUR)  # type: ignore[attr-defined]
    before = live.state.position
    rows = table.filter((now <= WHEN) & (now + HOUR > WHEN))
    live.answer(rows.drop("y"))
    if labels is not None:
        live.feedback(labels(rows.select("id", "y")))
    live.tick()
    events = [r.event for r in live.stores.ledger.read(before)]
    causes = (ANSWERS, VALUES)
    return [(e.kind, e.data["cause"], e.data["reason"]) for e in events if e.data.get("cause") in causes]  # type: ignore[misc]


def test_a_share_that_may_fail_is_no_alarm_in_years_and_a_jump_is_one_within_some_hundred_rows() -> None:
    """At one in a hundred exactly, a look after each 50 rows errs in 10⁻⁶ / 2 of cases: .2 are expected of 360,000 looks."""
    rng, alarms, delays = np.random.default_rng(0), 0, []
    for failed in rng.binomial(50, SHARE, (100, 3600)):
        share = Share()
        for look, count in enumerate(failed.tolist()):
            share.add(50, count, look * HOUR // 5)
            alarms += share.found().low > SHARE
    for _ in range(200):
        share = Share()
        share.add(3000, 0, 0)
        found_at = next(
            n for n in range(1, 100) if share.add(10, int(rng.binomial(10, 0.1)), 2 * HOUR + n) or share.found().low > SHARE
        )
        delays.append(10 * found_at)
    assert alarms <= 2
    assert np.median(delays) < 1000, "a tenth fails after 3,000 good rows"
    sudden = Share()
    looks = [sudden.add(1, 1, n) or sudden.found().low > SHARE for n in range(1, 6)]
    assert looks == [False, False, False, True, True], "who fails from the beginning is found at the fourth row"


def test_the_bound_is_that_of_clopper_and_pearson() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    share = Share()
    share.add(400, 37, 0)
    judge = scipy_stats.binomtest(37, 400).proportion_ci(1 - 1e-6, method="exact").low
    assert share.found().low == pytest.approx(judge, rel=1e-9)


def test_hours_with_few_rows_are_one_and_what_is_long_ago_counts_no_more() -> None:
    seldom = Share()
    for day in range(6):
        seldom.add(1, 1, day * DAY)
    assert (seldom.found().rows, seldom.found().failed) == (6, 6), "a row a day is counted with those of before"
    for number in range(3):
        seldom.add(500, 0, 10 * DAY + number * HOUR)
    assert (seldom.found().rows, seldom.found().failed) == (1000, 0)
    seldom.add(10, 10, 0)
    assert seldom.found().rows == 1010, "a clock that jumps back changes nothing"


def test_only_rows_that_the_champion_was_to_answer_count() -> None:
    failing, scores = Failing(), np.where(np.arange(400) % 2, np.nan, 0.5)
    arms = pl.DataFrame({"_arm": np.arange(400) % 2})
    failing.answered(arms, scores, 0)
    assert failing.causes() == (), "control is not asked for the candidate's rows"
    failing.answered(pl.DataFrame({"_arm": np.zeros(400, dtype=np.int64)}), np.stack([scores, 1 - scores], axis=1), 1)
    (cause,) = failing.causes()
    assert (cause.kind, cause.verdict.evidence[0].n) == ("failure", 600)
    assert "no score for 200 of the newest 600 rows" in cause.verdict.reason
    failing.begin()
    assert failing.causes() == (), "another champion begins anew"


@pytest.mark.parametrize("mood", [{"every": 2}, {"raises": True}])
def test_a_champion_without_a_score_pages_at_the_next_tick_until_it_answers_again(
    mood: dict[str, Any], moods: dict[str, Any]
) -> None:
    table, said = make_world(days=40, per_day=960), list[str]()
    live = started(table, made_app("shadow 1d"), notify=(lambda verdict: said.append(verdict.reason),))
    assert [hour(live, table, n) for n in range(5)] == [[]] * 5
    moods.update(mood)
    ((kind, cause, reason),) = hour(live, table, 5)
    assert (kind, cause) == ("alarm_raised", ANSWERS)
    assert "the champion has no score for" in reason
    assert said == [reason]
    assert live.state.alarms[ANSWERS]["version"] == "world/1"
    assert [hour(live, table, n) for n in range(6, 9)] == [[]] * 3, "it is told once"
    moods.update(every=0, raises=False)
    assert [hour(live, table, n) for n in range(9, 11)] == [[], [("alarm_cleared", ANSWERS, "the champion answers again")]]
    assert known(live).broken == (), "who fails to answer keeps nobody from training another"
    moods.update(mood)
    hour(live, table, 12)
    assert ANSWERS in live.state.alarms
    moods.update(every=0, raises=False)
    live.retrain("by hand", "a test", offer=False)
    live.promote("world/2", "a test")
    assert ANSWERS not in live.state.alarms, "it was about the old champion"
    assert hour(live, table, 13) == []


def test_labels_of_no_class_are_set_aside_aloud_page_hold_training_back_and_count_when_sent_rightly(tmp_path: Path) -> None:
    table = make_world(days=40, per_day=960)

    def some_maybe(share: float) -> Any:
        def spoiled(rows: pl.DataFrame) -> pl.DataFrame:
            odd = pl.int_range(pl.len()) < share * rows.height
            return rows.with_columns(y=pl.when(odd).then(pl.lit("maybe")).otherwise(pl.col("y").cast(pl.String)))

        return spoiled

    with closing(SegmentWriter(tmp_path)) as log:
        live = started(table, made_app("shadow 1d"), traffic=log)
        for n in range(60):
            assert hour(live, table, n, labels=some_maybe(0.0)) == []
        assert hour(live, table, 60, labels=some_maybe(1 / 40)) == [], "some of an hour are told, and pages nobody"
        told = [r.event.data for r in live.stores.ledger.read() if r.event.kind == "labels_unmatched"]
        assert [d["strange"] for d in told] == [{"maybe": 2}]
        waiting, learned = live.book.waiting, live.retraining.new_rows
        ((kind, cause, reason),) = hour(live, table, 61, labels=some_maybe(0.5))
        assert (kind, cause) == ("alarm_raised", VALUES)
        assert "e.g. 'maybe'" in reason
        now = SINCE + 61 * HOUR
        rows = table.filter((now <= WHEN) & (now + HOUR > WHEN))
        odd = -(-rows.height // 2)
        assert (live.book.waiting, live.retraining.new_rows) == (waiting + odd, learned + rows.height - odd)
        assert known(live).broken == (VALUES,), "nothing is learned of the labels that are left"
        assert all(np.isin(truth, (0.0, 1.0)).all() for batches in live.watch.trail.rows.values() for truth, _ in batches)
        assert live.watch.performance(now).decision == live.watch.calibration(now).decision == "PASS"
        log.flush()
        again = Live(live.system, live.stores, DataClock(now + 1), key=b"key")
        reopen(again)
        catch_up(again, tmp_path)
        before = again.state.position
        again.tick()
        assert again.state.position == before, "who restarts says it no second time"
        assert again.watch.failing.causes() == live.watch.failing.causes()
        arrival = again.feedback(rows.select("id", "y").head(odd))
        assert (arrival.joined.height, arrival.changed, arrival.strange) == (odd, (), ()), "their answers have waited for them"
        assert [hour(again, table, n, labels=some_maybe(0.0)) for n in range(62, 64)][-1] == [
            ("alarm_cleared", VALUES, "nearly all labels are of known values again")
        ]
        again.retrain("by hand", "a test", offer=False)
        assert (again.retraining.reference()["y"].dtype, again.ready["world/2"].classes) == (pl.Boolean, ("false", "true"))


@pytest.mark.parametrize(
    ("label", "classes", "numbers", "sound"),
    [
        (pl.Series([1, 0, None, 2]), ("0.0", "1.0"), [1, 0, np.nan, np.nan], [True, True, True, False]),
        (pl.Series([1.0, 0.0, None, 0.5]), ("0", "1"), [1, 0, np.nan, np.nan], [True, True, True, False]),
        (pl.Series([True, None]), ("false", "true"), [1, np.nan], [True, True]),
        (pl.Series(["b", "B"]), ("a", "b"), [1, np.nan], [True, False]),
        (pl.Series([1, 2]), ("a", "b"), [np.nan] * 2, [False] * 2),
        (pl.Series([1.5, np.nan, np.inf, None]), (), [1.5, np.nan, np.inf, np.nan], [True, False, False, True]),
        (pl.Series(["2.5", "much"]), (), [2.5, np.nan], [True, False]),
    ],
)
def test_a_label_is_the_class_it_is_equal_to(label: pl.Series, classes: Any, numbers: Any, sound: Any) -> None:
    np.testing.assert_array_equal(encode(label, classes), numbers)
    assert known_labels(label, classes).to_list() == sound


def test_a_whole_number_sent_over_http_is_the_class_of_a_column_of_floats() -> None:
    """A label 1.0 of a CSV is a 1 in JSON: it was joined, and then judged as no label at all, in silence."""
    table = make_world(days=40).with_columns(pl.col("y").cast(pl.Float64))
    live = started(table, made_app("shadow 1d"))
    assert live.ready["world/1"].classes == ("0.0", "1.0")
    rows = table.filter((WHEN >= SINCE) & (SINCE + DAY > WHEN))
    with Server(live) as server:
        sent = [{**row, "at": row["at"].isoformat()} for row in rows.drop("y").to_dicts()]
        assert httpx.post(f"{server.url}/predict", json=sent).status_code == 200
        labels = [{"id": row["id"], "y": int(row["y"])} for row in rows.to_dicts()]
        assert httpx.post(f"{server.url}/feedback", json=labels).json()["joined"] == rows.height
        wrong = httpx.post(f"{server.url}/feedback", json=[{"id": "r005000", "y": 2}]).json()
    assert wrong == {"joined": 0, "unknown": 0, "repeated": 0, "strange": 1}
    truth, _, _ = live.watch.trail.since(0)
    assert sorted(truth) == sorted(rows["y"])
    live.retrain("by hand", "a test", offer=False)
    assert live.ready["world/2"].classes == ("0.0", "1.0"), "and what is learned from it is of the same classes"


def test_a_model_of_other_classes_meets_no_rollout_and_says_why() -> None:
    table = make_world(days=40, per_day=240).with_columns(y=pl.when("y").then(pl.lit("yes")).otherwise(pl.lit("no")))
    live = started(table, made_app("canary 10% 100%", metric="accuracy"))
    third = table.with_columns(y=pl.when(pl.col("group") == "c").then(pl.lit("later")).otherwise(pl.col("y")))
    assert not found(live, third.filter(WHEN < SINCE))
    assert live.retrain("growth", "a test") == "world/2"
    (held,) = [r.event.data for r in live.stores.ledger.read() if r.event.kind == "held"]
    assert held == {"wanted": "the rollout of world/2", "reason": "multiclass of later, no, yes is not binary of no, yes"}
    with pytest.raises(RolloutError, match=r"No rollout can hold world/2 .* multiclass of later, no, yes is not binary of no, yes"):
        live.offer("world/2", "somebody asked for it")
    assert live.state.rollout is None
    assert live.state.champion == "world/1"
    live.system = replace(live.system, rollout=())
    live.offer("world/2", "somebody asked for it")
    assert live.state.champion == "world/2"


def test_labels_that_are_lists_or_days_are_set_aside_and_stop_nothing() -> None:
    lists, days = pl.Series([[1], None]), pl.Series([0, None]).cast(pl.Date)
    for label, classes in ((lists, ("a", "b")), (lists, ()), (days, ())):
        assert known_labels(label, classes).to_list() == [False, True]


def test_a_number_far_beyond_training_is_no_label_to_judge_by() -> None:
    def seen(low: float | None, high: float | None) -> Schema:
        return Schema((Field("price", Kind.NUMBER, Role.LABEL, low=low, high=high),))

    prices = pl.Series([100.0, -9000.0, 22_000.0, 23_000.0, -30_000.0, 1e12, None])
    near = [True, True, True, False, False, False, True]
    assert known_labels(prices, (), seen(100.0, 320.0)).to_list() == near
    assert known_labels(prices.cast(pl.Int64), (), seen(100.0, 320.0)).to_list() == near
    for nothing in (seen(None, None), seen(5.0, 5.0), None):
        assert known_labels(prices, (), nothing).all()
    draws = np.random.default_rng(0).pareto(1.0, 200_000)
    assert known_labels(pl.Series(draws[2000:]), (), seen(0.0, draws[:2000].max())).mean() > 0.9999, "a heavy tail is believed"
