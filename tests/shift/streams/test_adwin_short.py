"""Short batches go value by value and long ones by arrays: the same alarms and the same state, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loudly.shift.streams.adwin import SHORT, Adwin

SETTINGS = [{}, {"delta": 0.3, "clock": 1, "shortest": 1}, {"delta": 0.05, "clock": 5, "buckets": 2}]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_short_batches_are_the_long_one(settings: dict[str, Any], restart: bool) -> None:
    rng = np.random.default_rng(7)
    parts = [rng.normal(rng.uniform(-1, 1), rng.uniform(0.2, 2), int(rng.integers(5, 900))) for _ in range(4)]
    values = np.concatenate(parts) * 30 - 17
    detector = Adwin(**settings, restart=restart)
    whole, alarms = detector.update(detector.init(), values)
    assert len(alarms)
    for batch in (7, 33, SHORT, SHORT + 1):
        state, found = detector.init(), []
        for first in range(0, len(values), batch):
            state, told = detector.update(state, values[first : first + batch])
            found += [int(first + at) for at in told]
        assert found == alarms.tolist()
        assert state == whole
