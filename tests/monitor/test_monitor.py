from __future__ import annotations

import json
import threading
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest

from conftest import make_world
from loudly.core.clock import DAY, HOUR, instant
from loudly.core.values import Decision, Schema, Task, Verdict
from loudly.errors import ConfigError
from loudly.metrics.table import metric
from loudly.monitor.alerts import Alerts
from loudly.monitor.answers import PREDICTION
from loudly.monitor.judged import Cause, WindowJudged
from loudly.monitor.notify import terminal, to_file, to_webhook
from loudly.monitor.performance import Trail, calibration, judge
from loudly.monitor.settings import MonitorSettings
from loudly.monitor.shifts import JOINT
from loudly.monitor.watch import Watch
from loudly.validate.schema import infer_schema

SETTINGS = MonitorSettings()
START = instant("2024-01-01")
BAD = Verdict(Decision.FAIL, "feed of x", "x is gone")


@dataclass
class Champion:
    """What the watch knows of one."""

    schema: Schema
    task: Task = Task.BINARY
    classes: tuple[str, ...] = ("0", "1", "2")

    def predict(self, table: pl.DataFrame) -> np.ndarray:
        """A score that follows x1."""
        return 1 / (1 + np.exp(-table["x1"].fill_null(0.0).to_numpy()))


@pytest.fixture
def table() -> pl.DataFrame:
    return make_world(days=40, per_day=200)


def crowned(table: pl.DataFrame) -> Watch:
    watch = Watch(SETTINGS, metric="roc_auc", time="at")
    watch.crown(Champion(infer_schema(table, label="y", time="at", key="id")), table[:4000], 0.8, START + 20 * DAY)  # type: ignore[arg-type]
    return watch


def feed(watch: Watch, rows: pl.DataFrame, now: int, gain: float = 0.0) -> tuple[WindowJudged, ...]:
    scores = Champion(Schema(())).predict(rows)
    watch.rows(rows, scores + gain * (1 - scores), now)
    return watch.close(now)


def test_windows_close_by_event_time_and_late_rows_correct_them(table: pl.DataFrame) -> None:
    watch = crowned(table)
    day = table[4000:4200]
    first = feed(watch, day.with_columns(x2=pl.lit(None, pl.Float64))[:150], START + 21 * DAY)
    assert [(w.revision, w.rows) for w in first] == [(0, 150)]
    assert [c.cause for c in first[0].causes if c.kind == "feed"] == ["feed: x2 gone"]
    assert watch.broken_spans() == ((START + 20 * DAY, START + 21 * DAY),)
    again = feed(watch, day, START + 21 * DAY + HOUR)
    assert [(w.revision, w.rows) for w in again] == [(1, 350)]
    assert not [c for c in again[0].causes if "gone" in c.cause], "the correction takes it back: not gone, but missing in part"
    assert feed(watch, day[:0], START + 22 * DAY) == ()
    assert feed(watch, day, START + 40 * DAY) == ()
    told = [event.data for event in watch.told() if event.kind == "rows_set_aside"]
    assert told == [{"where": "monitor", "rows": day.height, "reasons": {"too late for its window": day.height}}]


def test_a_column_that_the_next_champion_wants_and_the_feed_never_brings_is_gone(table: pl.DataFrame) -> None:
    watch = crowned(table)
    assert not feed(watch, table[4000:4200], START + 21 * DAY)[0].causes
    more = table.with_columns(x9=pl.col("x2") * 2)
    watch.crown(Champion(infer_schema(more, label="y", time="at", key="id")), more[:4200], 0.8, START + 21 * DAY)
    (judged,) = feed(watch, more[4200:4400].with_columns(x9=pl.lit(None, pl.Float64)), START + 22 * DAY)
    assert [c.cause for c in judged.causes if c.kind == "feed"] == ["feed: x9 gone"]
    assert watch.broken_spans() == ((START + 21 * DAY, START + 22 * DAY),)
    assert len(watch.feed.history["x2"].missing) == 21, "what is known is not learned twice"


def test_rows_far_ahead_of_the_clock_open_no_windows_and_are_told(table: pl.DataFrame) -> None:
    watch = crowned(table)
    day = table[4000:4200]
    years = pl.int_range(1, 4) * 366 * DAY
    wrong = day[:3].with_columns(pl.col("at") + pl.duration(microseconds=years))
    (judged,) = feed(watch, pl.concat([wrong, day[3:]]), START + 21 * DAY)
    assert judged.rows == 197
    assert feed(watch, wrong, START + 21 * DAY + HOUR) == ()
    told = [event.data for event in watch.told() if event.kind == "rows_set_aside"]
    assert [data["reasons"] for data in told] == [{"more than 31d ahead of the clock": 3}] * 2
    assert [len(era.state.panes) for era in watch.eras._eras] == [1], "no window waits for years"
    truth, score = np.ones(200), np.full(200, 0.5)
    both = pl.concat([wrong, day[3:]])
    watch.labels(truth, score, both["at"].dt.epoch("us").to_numpy(), START + 21 * DAY, both)
    assert len(watch.trail.since(0)[0]) == 197, "their labels would be the newest for years"
    soon = day.with_columns(pl.col("at") + pl.duration(days=30))
    feed(watch, soon, START + 21 * DAY + 2 * HOUR)
    assert not [event for event in watch.told() if event.kind == "rows_set_aside"]


def test_a_shift_is_recorded_with_its_size_and_is_no_feed_break(table: pl.DataFrame) -> None:
    watch = crowned(table)
    moved = table[4000:4200].with_columns(group=pl.lit("c"))
    (judged,) = feed(watch, moved, START + 21 * DAY)
    assert "group" in judged.shifts
    assert {c.kind for c in judged.causes} == {"shift"}
    assert not judged.worth_telling


def test_predictions_that_move_are_told_with_an_interval_while_the_inputs_stay(table: pl.DataFrame) -> None:
    """The inputs are as ever; what the model says of them is not."""
    (as_ever,) = feed(crowned(table), table[4000:4200], START + 21 * DAY)
    assert as_ever.shifts == {}
    (judged,) = feed(crowned(table), table[4000:4200], START + 21 * DAY, gain=0.7)
    assert list(judged.shifts) == [PREDICTION, JOINT], "the prediction, and so all columns together"
    cause = judged.causes[0]
    (evidence,) = cause.verdict.evidence
    assert evidence.low is not None
    assert evidence.high is not None
    assert SETTINGS.shift < evidence.low < judged.shifts[PREDICTION] < evidence.high
    assert not judged.worth_telling, "a shift alone is no page"


def labelled(seed: int, n: int, quality: float, level: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.3).astype(float)
    score = 1 / (1 + np.exp(-(rng.normal(quality * (truth - 0.5), 1) - 0.9 + level)))
    return truth, score, np.arange(n, dtype=np.int64) * (14 * DAY // n)


def test_confirmed_performance_finds_harm_and_seldom_cries_wolf() -> None:
    auc = metric("roc_auc")
    wrong = 0
    for seed in range(40):
        trail = Trail(DAY)
        truth, score, at = labelled(seed, 6000, 1.5)
        trail.add(truth, score, at)
        expected = 0.856  # Phi(1.5 / sqrt 2)
        wrong += any(judge(trail, auc, expected, SETTINGS, now, 0).failed for now in range(5 * DAY, 15 * DAY, DAY))
    assert wrong == 0
    trail = Trail(DAY)
    trail.add(*labelled(1, 6000, 0.9))
    found = judge(trail, auc, 0.856, SETTINGS, 14 * DAY, 0)
    assert found.failed
    assert "surely below" in found.reason
    few = judge(Trail(DAY), auc, 0.856, SETTINGS, 14 * DAY, 0)
    assert few.decision is Decision.UNDECIDED
    assert "2,000 more labelled rows" in few.missing


def test_further_below_than_is_tolerated_and_not_surely_is_no_proof_that_all_is_well() -> None:
    """It was PASS, so a shift was held back as harmless though labels spoke of harm, and the estimate was not asked."""
    auc, trail = metric("roc_auc"), Trail(DAY)
    trail.add(*labelled(1, 2500, 1.5))
    value = judge(trail, auc, 0.5, SETTINGS, 14 * DAY, 0).evidence[0].effect
    assert value is not None
    decided = {gap: judge(trail, auc, value + gap, SETTINGS, 14 * DAY, 0) for gap in (-0.05, 0.009, 0.011, 0.02, 0.1)}
    assert [v.decision for v in decided.values()] == ["PASS", "PASS", "UNDECIDED", "UNDECIDED", "FAIL"]
    assert decided[0.02].missing == "more labelled rows"
    assert "not surely" in decided[0.02].reason
    error = metric("mse")
    numbers = Trail(DAY)
    truth = np.random.default_rng(0).normal(size=2500)
    numbers.add(truth, np.zeros(2500), np.arange(2500) * (14 * DAY // 2500))
    mse = float((truth**2).mean())
    assert [judge(numbers, error, mse - gap, SETTINGS, 14 * DAY, 0).decision for gap in (0.005, 0.05, 0.5)] == [
        "PASS",
        "UNDECIDED",
        "FAIL",
    ], "of a loss less is better"


def test_a_shift_with_labels_that_are_not_sure_is_weighed_by_the_estimate(
    table: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, now = crowned(table), START + 30 * DAY
    open_, evidence = Decision.UNDECIDED, watch.performance(now).evidence
    unsure = Verdict(open_, "performance", "further below, and not surely", evidence, missing="more labelled rows")
    monkeypatch.setattr(watch, "performance", lambda _: unsure)
    weights = {}
    for decision in (Decision.PASS, Decision.FAIL, open_):
        told = Verdict(decision, "estimated performance", "as scores say", missing="labels" if decision is open_ else "")
        monkeypatch.setattr(watch, "estimate", lambda _, told=told: told)
        weights[decision] = watch.weight(now)
    assert [(w.pages, w.kind) for w in weights.values()] == [(False, "harmless"), (True, "harm"), (True, "unknown")]
    assert "not surely" in weights[open_].reason


def test_calibration_is_judged_with_days_as_clusters() -> None:
    trail = Trail(DAY)
    trail.add(*labelled(2, 6000, 1.5, level=1.2))
    assert calibration(trail, SETTINGS, 14 * DAY, 0).failed
    sound = Trail(DAY)
    truth, score, at = labelled(3, 6000, 1.5)
    sound.add(truth, np.clip(score + truth.mean() - score.mean(), 0, 1), at)
    assert calibration(sound, SETTINGS, 14 * DAY, 0).passed


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "f1", "recall", "precision", "balanced_accuracy", "r2"])
@pytest.mark.parametrize("positives", [0, 1, 19])
def test_labels_of_one_class_or_nearly_are_neither_harm_nor_the_lack_of_it(name: str, positives: int) -> None:
    """Before, F1 of no positives was 0 [0, 0] and refitted the champion, and balanced accuracy was 1 [1, 1] and cleared it."""
    truth, score = np.zeros(3000), np.random.default_rng(0).random(3000) * 0.4
    truth[: 0 if name == "r2" else positives] = 1
    trail = Trail(DAY)
    trail.add(truth, score, np.arange(3000, dtype=np.int64) * (14 * DAY // 3000))
    found = judge(trail, metric(name), 0.7, SETTINGS, 14 * DAY, 0)
    assert found.decision is Decision.UNDECIDED
    assert found.missing.startswith("labels that differ" if name == "r2" else "at least 20 labelled rows of each class")
    if not positives:
        assert np.isnan(metric(name)(truth, score))


@pytest.mark.parametrize("name", ["f1", "recall", "precision"])
def test_a_class_that_did_not_come_is_no_harm_and_changes_no_metric(name: str) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 3000).astype(float)
    odds = rng.random((3000, 3)) + 2 * np.eye(3)[truth.astype(int)] * (rng.random((3000, 1)) < 0.9)
    score = odds / odds.sum(axis=1, keepdims=True)

    said = score.argmax(axis=1)
    each = {
        "recall": [(said[truth == c] == c).mean() for c in (0, 1)],
        "precision": [(truth[said == c] == c).mean() for c in (0, 1)],
        "f1": [2 * ((said == c) & (truth == c)).sum() / ((said == c).sum() + (truth == c).sum()) for c in (0, 1)],
    }
    assert metric(name)(truth, score) == pytest.approx(np.mean(each[name])), "the mean over the classes that came"


@pytest.mark.parametrize("days", [1, 2])
def test_calibration_of_fewer_than_three_windows_is_undecided_and_no_calm(days: int) -> None:
    trail = Trail(DAY)
    trail.add(np.ones(3000), np.full(3000, 0.1), np.arange(3000, dtype=np.int64) * (days * DAY // 3000))
    found = calibration(trail, SETTINGS, days * DAY, 0)
    assert found.decision is Decision.UNDECIDED
    assert found.missing == "labelled rows of at least 3 windows"
    nobody = calibration(Trail(DAY), replace(SETTINGS, enough=0), DAY, 0)
    assert nobody.decision is Decision.UNDECIDED


def test_a_bias_beyond_the_tolerance_that_is_not_sure_is_undecided() -> None:
    """Before, one day of six on which all scores were wrong passed, and an open alarm had its calm windows."""
    trail, at = Trail(DAY), np.arange(3000, dtype=np.int64) * (6 * DAY // 3000)
    truth = (np.random.default_rng(0).random(3000) < 0.5).astype(float)
    trail.add(truth, np.where(at < DAY, 1.0 - 1e-9, 0.5), at)
    found = calibration(trail, SETTINGS, 6 * DAY, 0)
    assert (found.decision, found.missing) == (Decision.UNDECIDED, "labelled rows of more windows")
    assert (found.evidence[0].effect or 0.0) > SETTINGS.bias
    wild = Trail(DAY)
    wild.add(truth, np.full(3000, 1e308), at)
    with np.errstate(over="ignore", invalid="ignore"):
        assert not calibration(wild, SETTINGS, 6 * DAY, 0, numbers=True).passed, "max(0, nan) is 0"


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_the_bias_of_numbers_is_in_standard_deviations_of_the_label_whatever_their_unit(unit: float) -> None:
    rng, at = np.random.default_rng(0), np.arange(3000, dtype=np.int64) * (14 * DAY // 3000)
    truth = rng.normal(10, 1, 3000) * unit
    for far, decision in ((0.5, "FAIL"), (0.01, "PASS")):
        trail = Trail(DAY)
        trail.add(truth, truth + (far + rng.normal(0, 0.1, 3000)) * unit, at)
        assert calibration(trail, SETTINGS, 14 * DAY, 0, numbers=True).decision == decision
    same = Trail(DAY)
    same.add(np.full(3000, unit), truth, at)
    assert calibration(same, SETTINGS, 14 * DAY, 0, numbers=True).missing == "labels that differ"


def test_the_estimate_of_the_watch_fails_only_when_surely_worse_and_says_what_it_assumes() -> None:
    watch = Watch(SETTINGS, metric="roc_auc", time="at")
    watch._task, watch._since = Task.BINARY, 0
    rng = np.random.default_rng(4)
    score = rng.beta(1, 3, 5000)
    watch._scores = {0: [score]}
    truth = (rng.random(5000) < score).astype(float)
    confirmed = metric("roc_auc")(truth, score)
    watch._expected = confirmed
    assert watch.estimate(DAY).passed
    assert watch.estimate(DAY) == watch.estimate(DAY)
    watch._expected = confirmed + 0.1
    found = watch.estimate(DAY)
    assert found.failed
    assert "no concept shift" in found.reason
    (evidence,) = found.evidence
    assert evidence.low is not None
    assert evidence.high is not None
    assert evidence.low - 0.01 < confirmed < evidence.high + 0.01  # the labels' own chance lies outside the interval
    watch._scores = {0: [score * 9]}
    assert "no probabilities" in watch.estimate(DAY).reason
    watch._scores = {}
    assert watch.estimate(DAY).missing == "answers"


def window(number: int, *causes: Cause) -> WindowJudged:
    return WindowJudged(number * DAY, (number + 1) * DAY, 0, 100, causes, {}, "")


def test_one_alarm_for_a_cause_until_it_clears() -> None:
    alerts = Alerts(SETTINGS)
    cause = Cause("feed", "feed: x gone", BAD)
    kinds = [[e.kind for e in alerts.events((window(d, *([cause] if d < 4 else [])),), d * DAY)] for d in range(8)]
    assert kinds == [["alarm_raised"], [], [], [], [], ["alarm_cleared"], [], []]


@pytest.mark.parametrize("kind", ["feed", "performance"])
def test_windows_in_which_nobody_could_tell_are_no_calm(kind: str) -> None:
    """An alarm does not clear because the rows, or the labels, have stopped coming."""
    alerts = Alerts(SETTINGS)
    alerts.events((window(0, Cause(kind, f"{kind} of x", BAD)),), 0)
    unclear = [replace(window(d), untold=(kind,)) for d in range(1, 20)]
    assert alerts.events(tuple(unclear), 20 * DAY) == ()
    told = [e.kind for d in range(20, 27) for e in alerts.events((window(d),), d * DAY)]
    assert told == ["alarm_cleared"]


def test_a_window_says_what_it_could_not_tell(table: pl.DataFrame) -> None:
    (few,) = feed(crowned(table), table[4000:4030], START + 21 * DAY)
    assert few.untold == ("feed", "performance", "calibration")
    assert few.summary.startswith("30 rows are too few to tell")
    (enough,) = feed(crowned(table), table[4000:4200], START + 21 * DAY)
    assert enough.untold == ("performance", "calibration")
    assert enough.summary.startswith("as it should be")


def test_the_budget_holds_but_a_broken_feed_always_pages() -> None:
    alerts = Alerts(replace(SETTINGS, budget=2))
    many = [Cause("performance", f"performance {i}", BAD) for i in range(5)] + [Cause("feed", "feed: x gone", BAD)]
    made = alerts.events((window(0, *many),), 0)
    assert [e.kind for e in made] == ["alarm_raised"] * 3 + ["alarms_muted"]
    assert made[-1].data["count"] == 3
    assert Cause("shift", "shift: x", BAD).kind not in [
        e.kind for e in alerts.events((window(1, Cause("shift", "shift: x", BAD)),), DAY)
    ]


def test_a_new_champion_ends_alarms_about_the_old_one_but_not_a_broken_feed() -> None:
    alerts = Alerts(SETTINGS)
    alerts.events((window(0, Cause("performance", "performance", BAD), Cause("feed", "feed: x gone", BAD)),), 0)
    open_alarms = {"performance": {"alarm": "performance"}, "feed: x gone": {"alarm": "feed"}}
    assert [e.data["cause"] for e in alerts.reset(open_alarms, DAY)] == ["performance"]


def test_impossible_settings_are_refused() -> None:
    for settings in ({"window": 0}, {"alpha": 0.9}, {"budget": 0}):
        with pytest.raises(ConfigError):
            MonitorSettings(**settings)


class Hook(BaseHTTPRequestHandler):
    """A real receiver of alarms."""

    got: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        Hook.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


def test_alarms_reach_file_and_webhook_and_a_shut_door_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to_file(BAD, tmp_path / "alarms.jsonl")
    assert json.loads((tmp_path / "alarms.jsonl").read_text())["reason"] == "x is gone"
    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/"
    to_webhook(BAD, address)
    thread.join()
    server.server_close()
    assert Hook.got[0]["subject"] == "feed of x"
    for shut in (address, "no address", ""):
        to_webhook(BAD, shut)
        assert "alarm webhook" in capsys.readouterr().err
    terminal(BAD)
    told = capsys.readouterr().err
    assert "LOUD feed of x: x is gone" in told
