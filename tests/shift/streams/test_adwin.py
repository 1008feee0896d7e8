"""ADWIN's window: bounded, exact in any unit, and shrunk as the paper says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from loudly.core.values import plain
from loudly.errors import DataError
from loudly.shift.streams.adwin import Adwin


def test_the_state_grows_with_the_log_of_the_window() -> None:
    detector = Adwin()
    state, alarms = detector.update(detector.init(), np.random.default_rng(0).normal(size=200_000))
    assert len(alarms) == 0
    assert state.width == 200_000
    assert len(state.sums) <= 5 * 17
    assert state.mean == pytest.approx(0.0, abs=0.01)


def test_alarms_do_not_depend_on_where_zero_is() -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(0, 1, 3000), rng.normal(0.5, 1, 3000), rng.normal(0, 2, 3000)])
    for restart in (False, True):
        detector = Adwin(restart=restart)
        expected = detector.update(detector.init(), values)[1].tolist()
        assert expected
        for far in (1e3, -1e6, 1e9):
            assert detector.update(detector.init(), values + far)[1].tolist() == expected


def test_a_small_change_is_found_after_an_enormous_one() -> None:
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(0, 1, 5000), 1e8 + rng.normal(0, 1, 5000), 1e8 + rng.normal(0.5, 1, 2000)])
    detector = Adwin()
    state, alarms = detector.update(detector.init(), values)
    late = alarms[alarms >= 10_000]
    assert len(late)
    assert late[0] < 10_400
    assert not ((alarms > 5500) & (alarms < 10_000)).any()
    assert state.mean == pytest.approx(1e8 + 0.5, abs=0.1)


def test_after_a_change_the_window_holds_what_came_after_it() -> None:
    rng = np.random.default_rng(3)
    detector = Adwin()
    state, _ = detector.update(detector.init(), np.concatenate([rng.normal(0, 1, 4000), rng.normal(2, 1, 1000)]))
    assert 900 <= state.width <= 1100
    assert state.mean == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("change", [lambda said: said.pop("format"), lambda said: said.update(format=1)])
def test_a_state_whose_numbers_meant_something_else_is_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    """Values since the last check were once kept as they came; read as values less the centre they would move the window."""
    state, _ = Adwin().update(Adwin().init(), np.full(40, 1_000.0))
    said = json.loads(json.dumps(plain(state)))
    assert Adwin().restore(said) == state
    assert state.pending == (0.0,) * 8
    change(said)
    with pytest.raises(DataError, match=r"(?s)another format.*Begin anew"):
        Adwin().restore(said)
