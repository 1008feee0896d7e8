"""What every detector owes: run these against yours, with a fixture `detector`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from loudly.core.seams import Floats
from loudly.errors import LoudlyError

WINDOWS, ROWS, COLUMNS, ALPHA = 100, 60, 3, 0.05


def rows(seed: int, n: int = ROWS) -> Floats:
    """Correlated rows with one heavy tail."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, COLUMNS))
    x[:, 1] += 0.7 * x[:, 0]
    x[:, 2] = rng.standard_t(3, n)
    return x


def moved(seed: int, n: int = ROWS) -> Floats:
    """The same with every column half as wide again and one standard deviation away."""
    return rows(seed, n) * 1.5 + 1.0


class DetectorCase:
    """Conformance of a detector: false alarms, power, purity, resuming, named refusals."""

    def test_false_alarms_are_no_more_than_promised(self, detector: Any) -> None:
        """Each null has a reference of its own, so that they are independent."""
        alarms = [detector.update(detector.init(rows(2 * i)), rows(2 * i + 1))[1].p_value <= ALPHA for i in range(WINDOWS)]
        assert np.mean(alarms) <= ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / WINDOWS)

    def test_a_shift_that_anybody_would_see_is_seen(self, detector: Any) -> None:
        found = [detector.update(detector.init(rows(2 * i, 200)), moved(2 * i + 1, 200))[1].p_value <= ALPHA for i in range(20)]
        assert np.mean(found) >= 0.9

    def test_the_same_state_and_window_give_the_same_evidence_and_nothing_is_changed(self, detector: Any) -> None:
        reference, window = rows(0), moved(1)
        state = detector.init(reference)
        before = reference.copy(), window.copy(), state["windows"]
        one, two = detector.update(state, window), detector.update(state, window)
        assert one[1] == two[1]
        assert np.array_equal(reference, before[0])
        assert np.array_equal(window, before[1])
        assert state["windows"] == before[2]

    def test_it_resumes_from_plain_json(self, detector: Any) -> None:
        state, _ = detector.update(detector.init(rows(0)), rows(1))
        again = json.loads(json.dumps(state, default=lambda array: array.tolist()))
        assert detector.update(again, rows(2))[1] == detector.update(state, rows(2))[1]

    def test_evidence_says_method_effect_and_n(self, detector: Any) -> None:
        _, evidence = detector.update(detector.init(rows(0)), moved(1))
        assert evidence.method
        assert evidence.effect is not None
        assert evidence.n == ROWS
        assert 0 <= evidence.p_value <= 1

    def test_rows_that_cannot_be_judged_are_named_never_passed(self, detector: Any) -> None:
        """No rows, other columns: an error, or evidence without a p-value; never a quiet "no shift"."""
        state = detector.init(rows(0))
        for window in (rows(1)[:0], rows(1)[:, :2]):
            try:
                _, evidence = detector.update(state, window)
            except LoudlyError:
                continue
            assert evidence.p_value is None
        with pytest.raises(LoudlyError):
            detector.update(detector.init(rows(0)[:0]), rows(1))
