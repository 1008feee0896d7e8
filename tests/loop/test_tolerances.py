"""What no verdict can know is said: margins that do not fit a loss, slices that nobody judges, steps that lead nowhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import Ridge

from loudly import App
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, instant
from loudly.core.values import Evidence
from loudly.deliver.rollout import parse_rollout
from loudly.errors import ConfigError, ReplayError
from loudly.evaluate.gate import Gate
from loudly.loop.replay import Replayed, replay
from loudly.loop.retraining import policy_digest
from loudly.loop.tell import tell
from loudly.loop.tolerances import unfit_tolerances
from loudly.monitor.settings import MonitorSettings

SINCE, DAYS, PER_DAY = instant("2024-02-01"), 45, 80


def prices(unit: float = 1.0, days: int = DAYS) -> pl.DataFrame:
    rng, n = np.random.default_rng(0), days * PER_DAY
    x, noise = rng.normal(size=(2, n))
    at = pl.Series(SINCE - 31 * DAY + np.arange(n) * (DAY // PER_DAY)).cast(pl.Datetime("us"))
    return pl.DataFrame({"id": [f"h{i}" for i in range(n)], "at": at, "x": x, "price": unit * (200 + 5 * x + 8 * noise)})


def ridge(X: Any, y: Any) -> Any:
    return Ridge().fit(X, y)


def made_app(table: pl.DataFrame, metric: str = "mae", fit: Callable[[Any, Any], Any] = ridge) -> App:
    app = App("houses", label="price", time="at", key="id", metric=metric)
    app.data(lambda: table)
    app.train(holdout="7d")(fit)
    app.labels(arrive_within="1d")
    app.rollout("shadow 1d", "canary 50% 100%", deadline="20d")
    return app


def absolute(app: App) -> App:
    """In units of the metric, with the figures that are right for shares and areas."""
    app.gate(Gate())
    app.monitor(MonitorSettings())
    app.rollout("shadow 1d", "canary 50% 100%", margin=0.02, deadline="20d")
    return app


def played(app: App, table: pl.DataFrame) -> Replayed:
    return replay(app.system, table, memory_stores("houses"), since=SINCE)


def loud(made: Replayed, what: str) -> list[Any]:
    return [e.data["reason"] for r in made.events if (e := r.event).kind == "guarantee_weakened" and e.data["what"] == what]


@pytest.mark.parametrize(("unit", "said"), [(1e-3, "pass that are worse by a quarter and more"), (100.0, "tell from nothing")])
def test_margins_that_do_not_fit_the_loss_are_said_at_the_training(unit: float, said: str) -> None:
    """By default a model that answers 0 to prices of a thousandth was promoted as surely not worse than the margin."""
    table = prices(unit)
    (told,) = loud(played(absolute(made_app(table)), table), "tolerances")
    assert said in told
    for name in ("0.01 (the gate)", "0.05 (the gate's slices)", "0.02 (the canary)", "0.01 (the monitor)"):
        assert name in told
    assert "say how much worse is too much, e.g." in told


def test_margins_that_fit_are_not_spoken_of() -> None:
    system = made_app(prices()).system
    fits = replace(system, gate=Gate(margin=0.4, slice_margin=1.0), monitor=MonitorSettings(tolerance=0.5))
    fits = replace(fits, rollout=tuple(replace(stage, margin=0.4) for stage in fits.rollout))
    assert unfit_tolerances(fits, 6.4) == ()
    assert len(unfit_tolerances(fits, 0.6)) == 1
    green = replace(fits, rollout=(parse_rollout("blue-green", margin=9.0),))
    assert [reason.split(" where")[0] for _, reason in unfit_tolerances(green, 6.4)] == ["tolerances of 9 (the blue-green)"]
    assert unfit_tolerances(replace(fits, metric="r2"), 0.6) == ()
    assert unfit_tolerances(fits, None) == ()


def test_slices_beyond_those_that_are_judged_are_said_and_a_regression_decides_nothing() -> None:
    table = prices()
    app = made_app(table)

    @app.slice
    def size(rows: pl.DataFrame) -> pl.Series:
        return (rows["x"] * 100).round()

    app.retrain(growth=0.1, enough_labels=200, cooldown="3d")
    made = played(app, table)
    told = loud(made, "slices")
    assert told
    assert all("size has" in reason and "the 50 with the most rows are judged" in reason for reason in told)
    reports = [tell(r.event) for r in made.events if r.event.kind == "disagreement_reported"]
    assert reports
    assert all("rows otherwise, mean gap" in report and "decides" not in report for report in reports)


def test_a_replay_that_cannot_go_on_says_so() -> None:
    table = prices()
    system = made_app(table).system
    with pytest.raises(ReplayError, match="goes on in steps"):
        replay(system, table, memory_stores("houses"), since=SINCE, step=0)
    with pytest.raises(ReplayError, match="ends after it begins"):
        replay(system, table, memory_stores("houses"), since=SINCE, until=SINCE - DAY)


def test_a_champion_that_too_few_labels_judge_is_said_to_be_unjudged_once() -> None:
    """40 labelled rows a day, and 2,000 in two weeks are asked for: a loss of half went unseen for months, and nobody was told."""
    table = prices().filter((pl.col("at").dt.epoch("us") < SINCE) | (pl.int_range(pl.len()) % 2 == 0))
    app = made_app(table)
    assert not loud(played(app, table), "performance"), "its two weeks are not twice the trailing windows"
    app.monitor(MonitorSettings(trailing=4))
    (told,) = loud(played(app, table), "performance")
    assert told.startswith("it is not judged by its labels, and has not been for ")
    assert "in the trailing 4 windows there are" in told
    assert "enough=2,000 are asked for" in told
    app.monitor(MonitorSettings(trailing=4, enough=60))
    assert not loud(played(app, table), "performance")


def shares(table: pl.DataFrame, fit: Callable[[Any, Any], Any] = ridge) -> App:
    """Tolerances as shares of what is expected: they mean the same whatever the unit of the label."""
    app = made_app(table, fit=fit)
    app.rollout("shadow 1d", "canary 50% 100%", margin="25%", deadline="20d")
    app.gate(Gate(margin=0.1, slice_margin=0.2, rows=200, relative=True))
    app.monitor(MonitorSettings(tolerance=0.2, enough=200, relative=True))
    app.retrain(growth=0.1, enough_labels=200, cooldown="3d")
    return app


def test_relative_tolerances_decide_alike_in_every_unit() -> None:
    """0.01 lets a model that answers 0 to prices in millions pass, and no model at all to prices in cents."""
    told = {}
    for unit in (2.0**-10, 1.0, 2.0**10):  # powers of two: the same floats but for their exponents
        table = prices(unit, days=65)
        made = played(shares(table), table)
        assert not loud(made, "tolerances")
        verdicts = [(e.kind, e.data["verdict"]["decision"]) for r in made.events if "verdict" in (e := r.event).data]
        told[unit] = [(r.event.kind, r.event.at) for r in made.events if r.event.kind == "champion_changed"], verdicts
        (gate, *_) = [r.event.data["verdict"] for r in made.events if r.event.kind == "gate_judged"][1:]
        margin = float(gate["reason"].split("against -")[1].split(";")[0])
        assert margin == pytest.approx(0.1 * 6.4 * unit, rel=0.1), "a tenth of the champion's mae"
    assert told[1.0] == told[2.0**-10] == told[2.0**10]
    assert len(told[1.0][0]) > 1, "candidates are promoted"


def test_an_app_that_says_nothing_of_a_loss_in_units_of_its_label_gets_shares() -> None:
    told = {}
    for unit in (2.0**-10, 2.0**10):
        table = prices(unit, days=65)
        app = made_app(table)
        app.retrain(growth=0.1, enough_labels=200, cooldown="3d")
        made = played(app, table)
        assert not loud(made, "tolerances")
        told[unit] = [(e.kind, e.at) for r in made.events if (e := r.event).kind in ("champion_changed", "gate_judged")]
        gates = [r.event.data["verdict"]["reason"] for r in made.events if r.event.kind == "gate_judged"]
        margin = float(gates[-1].split("against -")[1].split(";")[0])
        assert margin == pytest.approx(0.02 * 6.4 * unit, rel=0.1)
    assert told[2.0**-10] == told[2.0**10]
    assert [kind for kind, _ in told[1024.0]].count("champion_changed") > 1, "candidates are promoted"


def test_defaults_in_shares_are_for_losses_in_units_of_a_label_alone_and_what_is_said_stays() -> None:
    said = made_app(prices()).system
    assert (said.gate, said.monitor) == (Gate(0.02, 0.05, relative=True), MonitorSettings(tolerance=0.05, relative=True))
    assert [(s.strategy, s.margin, s.relative) for s in said.rollout] == [("shadow", 0.02, False), ("canary", 0.05, True)]
    app = made_app(prices())
    app.rollout("canary 5% 100%", margin=0.3)
    app.monitor(context=["hour"])
    assert [(s.margin, s.relative) for s in app.system.rollout] == [(0.3, False)]
    assert app.system.monitor.relative
    other = made_app(prices(), metric="r2").system
    assert (other.gate, other.monitor) == (Gate(), MonitorSettings())
    assert not any(stage.relative for stage in other.rollout)


def test_a_candidate_worse_by_more_than_its_share_is_stopped() -> None:
    table, fits = prices(1e-3), 0

    def worse(X: Any, y: Any) -> Any:
        nonlocal fits
        fits += 1
        return ridge(X, y if fits <= 2 else 0 * y)  # for the gate and, once it has passed, on all rows

    made = played(shares(table, worse), table)
    gates = [r.event.data["verdict"]["decision"] for r in made.events if r.event.kind == "gate_judged"]
    assert gates[0] == "PASS"
    assert len(gates) > 1
    assert set(gates[1:]) == {"FAIL"}
    assert [r.event.data["version"] for r in made.events if r.event.kind == "champion_changed"] == ["houses/1"]


@pytest.mark.parametrize(
    ("text", "margin", "told"), [("canary 5% 100%", "much", "a number, or a percentage"), ("thompson for 7d", "2%", "rewards")]
)
def test_a_margin_that_is_no_share_is_refused(text: str, margin: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_rollout(text, margin=margin)


def test_policies_that_say_nothing_of_shares_have_the_digest_that_they_had() -> None:
    system = made_app(prices()).system
    said = policy_digest(system)
    assert policy_digest(replace(system, gate=Gate(relative=True))) != said
    assert policy_digest(replace(system, monitor=MonitorSettings(relative=True))) != said
    assert "relative" not in system.rollout[0].said()
    assert parse_rollout("canary 5% 100%", margin="2%").said()["relative"] is True


def test_without_an_expectation_a_relative_margin_is_none_at_all() -> None:
    worse = Evidence("x", -0.5, -0.6, -0.4, 900, "", "mae")
    gate = Gate(margin=0.1, relative=True)
    assert gate.judge(worse, held_out=900, worth=10.0).passed
    assert gate.judge(worse, held_out=900, worth=float("nan")).failed
    assert gate.judge(worse, held_out=900).failed
    assert MonitorSettings(tolerance=0.1, relative=True).tolerated(None) == 0.0
    assert MonitorSettings(tolerance=0.1, relative=True).tolerated(-0.5) == pytest.approx(0.05)
    assert MonitorSettings(tolerance=0.1).tolerated(0.5) == 0.1
