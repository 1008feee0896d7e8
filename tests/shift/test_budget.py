"""The alert budget: the expected number of false alarms by simulation, one alarm a cause, cooldown, a new reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.errors import ConfigError
from loudly.shift.budget import AlertBudget, Rule, spent_of
from loudly.stats.online_fdr import saffron_weight

NAMES = [f"c{i}" for i in range(20)]


def e_values(rng: np.random.Generator, windows: int, shared: float) -> np.ndarray:
    """(windows, columns) log e-values of a likelihood ratio with expectation exactly 1; columns and windows dependent."""
    common = rng.normal(size=(windows, 1))
    z = np.sqrt(1 - shared) * rng.normal(size=(windows, len(NAMES))) + np.sqrt(shared) * common
    return 2.5 * z - 2.5**2 / 2


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan])
def test_a_budget_of_no_number_is_refused(wrong: float) -> None:
    """Nothing reaches a threshold of NaN, so nothing would ever have been said."""
    with pytest.raises(ConfigError):
        AlertBudget(wrong, 3, 30)


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_false_alarms_stay_within_the_budget_whatever_the_dependence(shared: float) -> None:
    rng = np.random.default_rng(0)
    budget = AlertBudget(false_alarms=3, columns=len(NAMES), windows=60, cooldown=1)
    alarms, naive = [], []
    for _ in range(300):
        told = e_values(rng, 60, shared)
        naive.append((told >= np.log(20)).sum())
        state, count = budget.init("m/1"), 0
        for window, row in enumerate(told):
            state, alert = budget.update(state, window, dict(zip(NAMES, row.tolist(), strict=True)), "m/1")
            count += len(alert.raised)
        alarms.append(count)
    assert np.mean(alarms) <= 3
    assert np.mean(alarms) > 0.02, "not silent by construction"
    assert np.mean(naive) > 6, "a threshold without a budget must fail, or the test is blind"


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_the_share_rule_keeps_its_share(shared: float) -> None:
    rng = np.random.default_rng(1)
    budget = AlertBudget(false_alarms=0.1, columns=len(NAMES), windows=60, cooldown=1, rule="share")
    false, found = [], []
    for _ in range(100):
        told = e_values(rng, 60, shared)
        told[5:, :6] += 2.5 * 4.5
        state = budget.init("m/1")
        bad = good = 0
        for window, row in enumerate(told):
            before = state.found
            state, _ = budget.update(state, window, dict(zip(NAMES, row.tolist(), strict=True)), "m/1")
            hits = state.found - before
            over = int((row[:6] >= np.sort(row)[::-1][hits - 1]).sum()) if hits and window >= 5 else 0
            good, bad = good + over, bad + hits - over
        false.append(bad / max(1, bad + good))
        found.append(good)
    assert np.mean(false) <= 0.1
    assert np.mean(found) > 100


def test_one_alarm_a_cause_until_it_has_been_quiet() -> None:
    budget = AlertBudget(1, 2, 100, cooldown=3)
    state = budget.init("m/1")
    raised, cleared = [], []
    for window, value in enumerate([99, 99, 0, 99, 0, 0, 0, 0, 99]):
        state, alert = budget.update(state, window, {"temp": value, "wind": -1.0}, "m/1")
        raised += [(window, c) for c in alert.raised]
        cleared += [(window, c) for c in alert.cleared]
    assert raised == [(0, "temp"), (8, "temp")]
    assert cleared == [(6, "temp")]


def test_a_window_that_cannot_tell_neither_raises_nor_clears() -> None:
    budget = AlertBudget(1, 1, 10, cooldown=2)
    state, _ = budget.update(budget.init("m/1"), 0, {"temp": 50.0}, "m/1")
    state, alert = budget.update(state, 9, {"temp": float("nan")}, "m/1")
    assert alert.cleared == ()
    assert "temp" in state.standing


def test_the_share_rule_begins_anew_with_each_period() -> None:
    """The first window of a period has the largest level, whatever was found before."""
    budget = AlertBudget(false_alarms=0.1, columns=1, windows=10, cooldown=1, rule="share")
    at_first = -np.log(0.1 * saffron_weight(1))
    for window, raised in ((0, ("a",)), (9, ()), (10, ("a",)), (11, ())):
        state = budget.init("m/1")
        for before in range(window):
            state, _ = budget.update(state, before, {"a": 0.0}, "m/1")
        assert budget.update(state, window, {"a": float(at_first) + 0.01}, "m/1")[1].raised == raised, window


def test_a_new_reference_forgets_everything() -> None:
    budget = AlertBudget(1, 1, 10)
    state, _ = budget.update(budget.init("m/1"), 0, {"temp": 50.0}, "m/1")
    state, alert = budget.update(state, 1, {"temp": 50.0}, "m/2")
    assert alert.cleared == alert.raised == ("temp",), "cleared with the old champion, raised against the new one"
    assert state.reference == "m/2"


@pytest.mark.parametrize("rule", ["count", "share"])
@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.tuples(st.floats(-5, 40), st.floats(-5, 40)), max_size=15), cut=st.integers(0, 15))
def test_the_state_resumes(rule: Rule, values: list[tuple[float, float]], cut: int) -> None:
    budget = AlertBudget(0.5, 2, 5, cooldown=2, rule=rule)
    whole = resumed = budget.init("m/1")
    for window, (a, b) in enumerate(values):
        resumed = spent_of(resumed.plain()) if window == cut else resumed
        whole, first = budget.update(whole, window, {"a": a, "b": b}, "m/1")
        resumed, second = budget.update(resumed, window, {"a": a, "b": b}, "m/1")
        assert first == second
    assert whole == resumed


def test_a_budget_of_nothing_is_refused() -> None:
    for bad in ({"false_alarms": 0}, {"columns": 0}, {"windows": 0}, {"false_alarms": 2, "rule": "share"}):
        with pytest.raises(ConfigError, match="Do:"):
            AlertBudget(**{"false_alarms": 1, "columns": 1, "windows": 1, **bad})  # type: ignore[arg-type]
    assert AlertBudget(1, 50, 8760).level == pytest.approx(1 / 438_000)
