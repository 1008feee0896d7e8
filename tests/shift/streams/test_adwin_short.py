"""A few values go without arrays and many by arrays: the same alarms and the same state, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loudly.errors import StreamRefused
from loudly.shift.streams.adwin import FEW, Adwin

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
    for batch in (7, 33, FEW, FEW + 1):
        state, found = detector.init(), []
        for first in range(0, len(values), batch):
            state, told = detector.update(state, values[first : first + batch])
            found += [int(first + at) for at in told]
        assert found == alarms.tolist()
        assert state == whole


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("settings", [*SETTINGS, {"clock": 50, "grace": 200}], ids=str)
@pytest.mark.parametrize("far", [0.0, 1e7])
def test_a_running_window_is_what_update_makes(settings: dict[str, Any], restart: bool, far: float) -> None:
    """Quiet for long, so that most cuts go unseen, and with changes; one by one and a few at a time; from the middle on."""
    rng = np.random.default_rng(8)
    parts = [rng.normal(rng.uniform(-1, 1), rng.uniform(0.2, 2), int(n)) for n in (6000, 40, 900, 300, 2500)]
    values = np.concatenate([*parts, np.full(500, 0.25), np.full(300, 0.5)]) * 3 + far
    detector = Adwin(**settings, restart=restart, missing="skip")
    whole, alarms = detector.update(detector.init(), values)
    assert len(alarms)
    begun, first = detector.update(detector.init(), values[:777])
    one, few = detector.running(begun), detector.running()
    found = [*first.tolist(), *(777 + i for i, value in enumerate(values[777:].tolist()) if one.push(value))]
    told = [low + int(at) for low in range(0, len(values), 45) for at in few.extend(values[low : low + 45])]
    assert found == told == alarms.tolist()
    assert one.state == few.state == whole
    assert not one.push(np.nan)
    assert one.state.skipped == 1
    with pytest.raises(StreamRefused, match="not a number"):
        Adwin().running().push(np.inf)
