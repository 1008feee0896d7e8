"""What every stream detector owes, over the table of all of them: quiet, power, purity, resuming, no silence about NaN."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly import plugins
from loudly.core.values import plain
from loudly.errors import ConfigError, StreamRefused

Stream = Callable[[np.random.Generator, int, bool], np.ndarray]


def numbers(rng: np.random.Generator, n: int, changed: bool) -> np.ndarray:
    return rng.normal(1.5 if changed else 0.0, 1.0, n)


def wrong(rng: np.random.Generator, n: int, changed: bool) -> np.ndarray:
    return (rng.random(n) < (0.4 if changed else 0.1)).astype(float)


CALIBRATION = np.random.default_rng(99).normal(size=1000)


@dataclass(frozen=True)
class Case:
    """How a detector is tried: settings, a stream, the most alarms in 10,000 quiet values (from its source, or its known flaw)."""

    settings: dict[str, Any]
    stream: Stream
    most: int
    bad: dict[str, Any]


CASES = {
    "adwin": Case({}, numbers, 1, {"delta": 2.0}),
    "conformal-martingale": Case({"calibration": CALIBRATION}, numbers, 0, {"calibration": CALIBRATION[:3]}),
    "cusum": Case({"target": 0.0, "deviation": 1.0, "threshold": 10.0}, numbers, 1, {"deviation": None}),
    "ddm": Case({}, wrong, 3, {"warn": 4.0}),
    "e-detector": Case({"mean": 0.1, "alpha": 1e-5}, wrong, 1, {"mean": 1.5}),
    "eddm": Case({}, wrong, 30, {"alarm": 1.0}),
    "harmful-shift": Case({"limit": 0.15}, wrong, 0, {"limit": 0.0}),
    "kswin": Case({"alpha": 1e-4}, numbers, 10, {"newest": 80}),
    "page-hinkley": Case({"delta": 0.1}, numbers, 1, {"threshold": -1.0}),
}


def test_every_detector_of_the_table_has_a_case() -> None:
    assert CASES.keys() == set(plugins.names("stream"))


@pytest.fixture(params=sorted(plugins.names("stream")))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made(name: str, **more: Any) -> Any:
    return plugins.resolve("stream", name)(**{**CASES[name].settings, **more})


def alarms_of(detector: Any, values: np.ndarray, cuts: list[int] | None = None) -> tuple[list[int], Any]:
    """Alarms in the whole stream and the last state; the state goes through JSON at every cut."""
    state, found, first = detector.init(), [], 0
    for end in [*(cuts or []), len(values)]:
        state, alarms = detector.update(state, values[first:end])
        found += [first + int(a) for a in alarms]
        state = detector.restore(json.loads(json.dumps(plain(state), allow_nan=False)))
        first = end
    return found, state


def test_it_is_quiet_while_nothing_changes(name: str) -> None:
    counts = [len(alarms_of(made(name), CASES[name].stream(np.random.default_rng(s), 10_000, False))[0]) for s in range(8)]
    assert np.mean(counts) <= CASES[name].most


def test_it_finds_a_plain_change_soon(name: str) -> None:
    soon = 0
    for seed in range(20):
        rng = np.random.default_rng(1000 + seed)
        values = np.concatenate([CASES[name].stream(rng, 1000, False), CASES[name].stream(rng, 400, True)])
        found, _ = alarms_of(made(name), values)
        soon += any(a >= 1000 for a in found)
    assert soon >= 19


def test_update_changes_neither_the_state_nor_the_values(name: str) -> None:
    detector, rng = made(name), np.random.default_rng(3)
    values = CASES[name].stream(rng, 777, False)
    before, kept = detector.update(detector.init(), values)[0], values.copy()
    written = json.dumps(plain(before))
    one, two = detector.update(before, values), detector.update(before, values)
    assert one[0] == two[0]
    assert one[1].tolist() == two[1].tolist()
    assert json.dumps(plain(before)) == written
    assert (values == kept).all()
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.skipped = 1


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(plugins.names("stream"))), seed=st.integers(0, 2**32), data=st.data())
def test_any_split_of_the_stream_gives_the_same_alarms_and_state(name: str, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    stretches = data.draw(st.lists(st.tuples(st.integers(1, 400), st.booleans()), min_size=1, max_size=6))
    values = np.concatenate([CASES[name].stream(rng, n, changed) for n, changed in stretches])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=12)))
    detector = made(name)
    assert alarms_of(detector, values, cuts) == alarms_of(detector, values)


def test_one_value_at_a_time_is_the_same_as_all_at_once(name: str) -> None:
    rng = np.random.default_rng(5)
    values = np.concatenate([CASES[name].stream(rng, 400, c) for c in (False, True, False)])
    detector = made(name)
    assert alarms_of(detector, values, list(range(1, len(values)))) == alarms_of(detector, values)


def test_long_batches_are_the_same_as_short_ones(name: str) -> None:
    rng = np.random.default_rng(6)
    values = np.concatenate([CASES[name].stream(rng, 20_000, False), CASES[name].stream(rng, 3_000, True)])
    detector = made(name)
    assert alarms_of(detector, values, list(range(999, len(values), 999))) == alarms_of(detector, values)


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_refused_or_counted(name: str, hole: float) -> None:
    rng = np.random.default_rng(7)
    values = np.concatenate([CASES[name].stream(rng, 500, False), CASES[name].stream(rng, 500, True)])
    at = np.sort(rng.choice(1000, 50, replace=False))
    holed = np.insert(values, at, hole)
    with pytest.raises(StreamRefused, match="not a number"):
        made(name).update(made(name).init(), holed)
    expected, state = alarms_of(made(name), values)
    found, skipping = alarms_of(made(name, missing="skip"), holed)
    kept = np.flatnonzero(np.isfinite(holed))
    assert found == kept[expected].tolist()
    assert skipping.skipped == 50
    assert dataclasses.replace(skipping, skipped=0) == state


def test_nothing_is_no_news(name: str) -> None:
    detector = made(name)
    state, _ = detector.update(detector.init(), CASES[name].stream(np.random.default_rng(8), 100, False))
    after, alarms = detector.update(state, np.zeros(0))
    assert (after, alarms.tolist()) == (state, [])
    skipping = made(name, missing="skip")
    assert skipping.update(state, np.full(3, np.nan))[0] == dataclasses.replace(state, skipped=3)


def test_a_table_is_refused(name: str) -> None:
    with pytest.raises(StreamRefused, match="one column"):
        made(name).update(made(name).init(), np.zeros((5, 2)))
    with pytest.raises(StreamRefused, match="one column"):
        made(name).update(made(name).init(), np.array(1.0))


@pytest.mark.parametrize("wrong", [np.array([1.0, 1e200]), np.full(500, 2e150), ["a"]])
def test_what_nobody_can_reckon_with_is_refused(name: str, wrong: Any) -> None:
    """Its squares are infinite: every deviation would be, and nothing would ever alarm."""
    with pytest.raises(StreamRefused, match=r"too large|takes numbers"):
        made(name).update(made(name).init(), wrong)


def test_impossible_settings_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        plugins.resolve("stream", name)(**{**CASES[name].settings, **CASES[name].bad})
