"""The alert budget over columns and windows, contexts, and what is held back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, HOUR, instant
from loudly.core.values import Decision, Evidence, Schema, Task, Verdict
from loudly.errors import ConfigError
from loudly.loop.replay import Replayed, replay
from loudly.loop.state import fold_all
from loudly.loop.tell import tell
from loudly.monitor.alerts import Alerts
from loudly.monitor.judged import Cause, Weight, WindowJudged
from loudly.monitor.settings import MonitorSettings
from loudly.monitor.shifts import JOINT, Seen, Shifts
from loudly.monitor.strata import strata_of
from loudly.monitor.watch import Watch
from loudly.shift.plan import Plan
from loudly.shift.profile import bins_of, profile
from loudly.validate.schema import infer_schema

SETTINGS = MonitorSettings(joint=0.0)
START = instant("2024-01-01")
COLUMNS = 20
BAD = Verdict(Decision.FAIL, "shift of x", "x moved", (Evidence("ks", 0.5),))


@dataclass
class Champion:
    """What the watch knows of one."""

    schema: Schema
    task: Task = Task.BINARY
    classes: tuple[str, ...] = ("0", "1", "2")

    def predict(self, table: pl.DataFrame) -> np.ndarray:
        """A score that follows x1."""
        return 1 / (1 + np.exp(-table["x1"].to_numpy()))


def plan_of(reference: pl.DataFrame) -> Plan:
    return Plan({name: bins_of(reference[name]) for name in reference.columns if name != "at"})


def noise(rng: np.random.Generator, n: int, moved: float = 0.0) -> pl.DataFrame:
    table = {f"c{i}": rng.normal(size=n) for i in range(COLUMNS)}
    table["c3"] = table["c3"] + moved
    return pl.DataFrame(table)


def test_chance_raises_fewer_alarms_than_the_budget_and_a_shift_is_found_in_days() -> None:
    """Two months of daily windows of 150 rows, 20 columns, ten times: the budget allows two false alarms each time."""
    rng = np.random.default_rng(0)
    raised, found = 0, []
    for _ in range(10):
        reference = noise(rng, 4000)
        plan, shifts = plan_of(reference), Shifts(SETTINGS)
        shifts.begin(plan, None)
        for day in range(60):
            raised += len(shifts.judge(START + day * DAY, Seen(profile(noise(rng, 150), plan))).raised)
        for day in range(60, 70):
            alarms = shifts.judge(START + day * DAY, Seen(profile(noise(rng, 150, moved=1.2), plan))).raised
            found += [day - 60] if alarms == ("c3",) else []
    assert raised <= 2, "a twentieth of what is allowed would be one"
    assert len(found) == 10, "one alarm each time, not one a window"
    assert max(found) <= 3, "at 150 rows a window"


def test_a_small_shift_never_pages_however_sure_and_one_that_is_over_is_cleared() -> None:
    rng = np.random.default_rng(1)
    reference = noise(rng, 20_000)
    plan, shifts = plan_of(reference), Shifts(SETTINGS)
    shifts.begin(plan, None)
    for day in range(20):
        told = shifts.judge(START + day * DAY, Seen(profile(noise(rng, 5000, moved=0.4), plan)))
        assert (told.raised, dict(told.verdicts)) == ((), {}), "0.16 of KS, sure, and below the tolerance of 0.25"
    assert shifts.judge(START + 20 * DAY, Seen(profile(noise(rng, 500, moved=1.5), plan))).raised == ("c3",)
    told_of = [shifts.judge(START + day * DAY, Seen(profile(noise(rng, 500), plan))) for day in range(21, 30)]
    cleared = [day for day, told in enumerate(told_of, 21) if told.cleared == ("c3",)]
    assert cleared == [20 + SETTINGS.quiet]
    shifts.judge(START + 30 * DAY, Seen(profile(noise(rng, 500, moved=1.5), plan)))
    shifts.begin(plan, None)
    again = shifts.judge(START + 31 * DAY, Seen(profile(noise(rng, 500, moved=1.5), plan)))
    assert again.raised == ("c3",), "a new champion: the budget and what stood begin anew"


def test_the_share_rule_finds_it_too() -> None:
    rng = np.random.default_rng(2)
    plan = plan_of(noise(rng, 20_000))
    shifts = Shifts(replace(SETTINGS, rule="share", alarms_a_month=0.1))
    shifts.begin(plan, None)
    quiet = [shifts.judge(START + d * DAY, Seen(profile(noise(rng, 300), plan))).raised for d in range(20)]
    assert not any(quiet)
    assert shifts.judge(START + 20 * DAY, Seen(profile(noise(rng, 300, moved=2.0), plan))).raised == ("c3",)


# -- context ---------------------------------------------------------------------------------------------------------


def seasonal(rng: np.random.Generator, n: int, summer: float, warmer: float = 0.0) -> pl.DataFrame:
    season = np.where(rng.random(n) < summer, "summer", "winter")
    temp = rng.normal(np.where(season == "summer", 25.0, 5.0), 3.0) + warmer
    at = pl.Series(START + np.arange(n) * 1000).cast(pl.Datetime("us"))
    return pl.DataFrame({"at": at, "season_of_row": season, "temp": temp})


@pytest.mark.parametrize("context", [(), ("season_of_row",)])
def test_the_expected_change_is_no_shift_within_its_context(context: tuple[str, ...]) -> None:
    rng = np.random.default_rng(3)
    settings = replace(SETTINGS, context=context)
    reference = seasonal(rng, 20_000, summer=0.5)
    plan, shifts = plan_of(reference), Shifts(settings)
    strata = strata_of(reference, context, "at", plan) if context else None
    shifts.begin(plan, strata)

    def judge(day: int, rows: pl.DataFrame) -> tuple[str, ...]:
        return shifts.judge(START + day * DAY, Seen(profile(rows, plan), strata.counts(rows, plan) if strata else {})).raised

    expected = [judge(day, seasonal(rng, 400, summer=1.0)) for day in range(30)]
    if not context:
        assert expected[0] == ("season_of_row", "temp")
        return
    assert not any(expected), "a month of summer pages nobody"
    assert judge(30, seasonal(rng, 400, summer=1.0, warmer=6.0)) == ("temp",), "a summer that is too warm does"


def test_contexts_that_the_reference_never_saw_are_not_judged_and_an_unknown_one_is_an_error() -> None:
    rng = np.random.default_rng(4)
    reference = seasonal(rng, 5000, summer=0.0)
    plan, shifts = plan_of(reference), Shifts(replace(SETTINGS, context=("season_of_row", "hour")))
    strata = strata_of(reference, ("season_of_row", "hour"), "at", plan)
    shifts.begin(plan, strata)
    rows = seasonal(rng, 400, summer=1.0)
    told = shifts.judge(START, Seen(profile(rows, plan), strata.counts(rows, plan)))
    assert (told.raised, told.unseen) == ((), 1.0)
    lost = seasonal(rng, 400, summer=0.0).with_columns(temp=pl.lit(np.inf))
    told = shifts.judge(START + DAY, Seen(profile(lost, plan), strata.counts(lost, plan)))
    assert told.unseen == 0.0, "a column without a value is no new context"
    with pytest.raises(ConfigError, match="did you mean 'season'"):
        strata_of(reference, ("seson",), "at", plan)


def mixed(table: pl.DataFrame, turn: str, warmer: float = 0.0) -> pl.DataFrame:
    """x2 depends on the group, and from `turn` on all rows are of the group c, as expected at that time of the year."""
    late = pl.col("at") >= pl.lit(turn).str.to_datetime()
    table = table.with_columns(group=pl.when(late).then(pl.lit("c")).otherwise("group"))
    return table.with_columns(
        x2=pl.col("x2") + pl.when(pl.col("group") == "c").then(30.0).otherwise(0.0) + pl.when(late).then(warmer).otherwise(0.0)
    )


def pages(made: Replayed) -> list[str]:
    return [str(r.event.data["cause"]) for r in made.events if r.event.data.get("alarm") == "shift"]


def test_an_expected_change_of_the_mix_pages_nobody_in_a_replay_and_a_true_shift_does() -> None:
    table = make_world(days=60, per_day=200)

    def run(table: pl.DataFrame, *context: str) -> Replayed:
        app = make_app(table, stage="manual")
        app.monitor(context=context, pages="all")
        return replay(app.system, table, memory_stores("world"), since=SINCE)

    expected = mixed(table, "2024-02-15")
    plain = run(expected)
    assert pages(plain) == ["shift: group"], "without context, one alarm names the surest column"
    told = [tell(r.event) for r in plain.events if r.event.kind == "alarms_muted"]
    assert any("shift: x2" in line and "told in the alarm 'shift: group'" in line for line in told), "and the others are told"
    assert plain.state.held["shift: x2"] == "part"
    (raised,) = [r.event for r in plain.events if r.event.kind == "alarm_raised"]
    assert raised.at == instant("2024-02-16")
    assert raised.data["version"] == "world/1"
    assert pages(run(expected, "group")) == []
    (cause,) = pages(run(mixed(table, "2024-02-15", warmer=12.0), "group"))
    assert cause == "shift: x2"


# -- what is held back -----------------------------------------------------------------------------------------------


def window(number: int, *moved: str, raised: tuple[str, ...] = (), cleared: tuple[str, ...] = ()) -> WindowJudged:
    causes = tuple(Cause("shift", f"shift: {name}", BAD) for name in moved)
    named = tuple(f"shift: {name}" for name in raised), tuple(f"shift: {name}" for name in cleared)
    return WindowJudged(number * DAY, (number + 1) * DAY, 0, 100, causes, {}, "", *named)


def test_a_shift_without_harm_is_held_back_loudly_and_pages_once_that_changes() -> None:
    weights = [Weight(False, "harmless", "labels say so")] * 3 + [Weight(True, "harm", "harm is estimated")] * 9
    alerts = Alerts(SETTINGS, lambda now: weights[now // DAY])
    made = [alerts.events((window(d, "x", "z", raised=("x", "z") if d == 0 else ()),), d * DAY) for d in range(5)]
    assert [[e.kind for e in events] for events in made] == [
        ["alarms_muted"], [], [], ["alarm_raised", "alarms_muted"], [],
    ]  # fmt: skip
    assert made[0][0].data["why"] == {"shift: x": "labels say so", "shift: z": "labels say so"}
    assert "LOUD 2 alarms held back: shift: x, shift: z (labels say so)" in tell(made[0][0])
    assert "harm is estimated" in str(made[3][0].data["reason"])
    assert made[3][1].data["kinds"] == {"shift: z": "part"}
    over = alerts.events((window(5, cleared=("x", "z")),), 5 * DAY)
    assert [e.data["cause"] for e in over if e.kind == "alarm_cleared"] == ["shift: x"]
    weights.extend([Weight(False, "harmless", "labels say so")] * 9)
    assert alerts.events((window(6, "z", raised=("z",)),), 14 * DAY)[0].data["kinds"] == {"shift: z": "harmless"}
    assert alerts.events((window(9, "z", raised=("z",)),), 15 * DAY) == (), "told once"


def test_shifts_share_the_budget_of_pages_and_the_ledger_knows_what_is_held_back() -> None:
    alerts = Alerts(replace(SETTINGS, budget=1, pages="all"))
    assert [e.kind for e in alerts.events((window(0, "x", raised=("x",)),), 0)] == ["alarm_raised"]
    alerts.events((window(1, cleared=("x",)),), DAY)
    (muted,) = alerts.events((window(2, "z", raised=("z",)),), 2 * DAY)
    assert muted.data["why"] == {"shift: z": "over the budget of 1"}
    assert [e.kind for e in alerts.events((window(9, "z"),), 9 * DAY)] == ["alarm_raised"], "the period is over"


def test_a_ledger_tells_after_a_restart_what_is_held_back() -> None:
    table = mixed(make_world(days=50, per_day=200), "2024-02-10")
    app = make_app(table, stage="manual")
    app.monitor(pages="none")
    made = replay(app.system, table, memory_stores("world"), since=SINCE)
    assert pages(made) == []
    assert made.state.held["shift: x2"] == "none"
    again = Alerts(app.system.monitor)
    again.reopen({}, fold_all(made.events).held)
    held = replace(window(60, "x2", "group"), causes=tuple(Cause("shift", c, BAD) for c in made.state.held))
    assert again.events((held,), SINCE) == (), "it has been told"


@pytest.mark.parametrize(
    "settings",
    [{"alarms_a_month": 0}, {"alarms_a_month": np.nan}, {"pages": "some"}, {"rule": "share"}, {"joint": 1.0}, {"context": "hour"}],
)
def test_impossible_budgets_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        MonitorSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("alarms", "raised"), [(0.05, True), (0.01, False)])
def test_all_columns_together_can_raise_within_a_small_budget_or_say_that_they_cannot(alarms: float, raised: bool) -> None:
    """Every column moves by less than it may: the test of all of them has to reach what the budget asks for."""
    table = make_world(days=40, per_day=480)
    watch = Watch(MonitorSettings(alarms_a_month=alarms), metric="roc_auc", time="at", key="id")
    champion = Champion(infer_schema(table, label="y", time="at", key="id"))
    watch.crown(champion, table[:9600], None, START + 20 * DAY)
    rows = table[9600:10080].with_columns(x1=pl.col("x1") * 0.3, x2=20 + (pl.col("x2") - 20) * 0.3)
    watch.rows(rows, champion.predict(rows), START + 21 * DAY)
    (judged,) = watch.close(START + 21 * DAY)
    assert (f"shift: {JOINT}" in judged.raised) is raised
    assert [e.data["what"] for e in watch.told()] == ([] if raised else [JOINT])


@pytest.mark.parametrize("holes", ["reference", "window", "both"])
def test_rows_without_a_score_do_not_switch_the_test_of_all_columns_off(holes: str) -> None:
    table = make_world(days=40, per_day=480)

    class Failing(Champion):
        def predict(self, table: pl.DataFrame) -> np.ndarray:
            score = super().predict(table)
            score[:: 50 if (table.height > 1000) == (holes == "reference") or holes == "both" else table.height + 1] = np.nan
            return score

    watch = Watch(MonitorSettings(), metric="roc_auc", time="at", key="id")
    champion = Failing(infer_schema(table, label="y", time="at", key="id"))
    watch.crown(champion, table[:9600], None, START + 20 * DAY)
    rows = table[9600:10080].with_columns(x1=pl.col("x1") * 0.3, x2=20 + (pl.col("x2") - 20) * 0.3)
    watch.rows(rows, champion.predict(rows), START + 21 * DAY)
    (judged,) = watch.close(START + 21 * DAY)
    assert f"shift: {JOINT}" in judged.raised


def test_hourly_windows_have_one_test_of_all_columns_a_day() -> None:
    table = make_world(days=40, per_day=480)
    watch = Watch(MonitorSettings(window=HOUR), metric="roc_auc", time="at", key="id")
    champion = Champion(infer_schema(table, label="y", time="at", key="id"))
    watch.crown(champion, table[:9600], None, START + 20 * DAY)
    moved = table.with_columns(x1=pl.col("x1") * 0.3, x2=20 + (pl.col("x2") - 20) * 0.3)
    named = []
    for hour in range(20 * 24, 22 * 24):
        low = START + hour * HOUR
        rows = moved.filter((pl.col("at").dt.epoch("us") >= low) & (pl.col("at").dt.epoch("us") < low + HOUR))
        watch.rows(rows, champion.predict(rows), low + HOUR)
        named += [w.raised for w in watch.close(low + HOUR)]
    assert [i for i, raised in enumerate(named) if f"shift: {JOINT}" in raised] == [23], "at the end of the first day, once"
