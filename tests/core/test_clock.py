from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loudly.core.canon import unit_draw
from loudly.core.clock import DAY, MINUTE, SECOND, DataClock, WallClock, duration, instant, iso, span
from loudly.errors import ClockError, ConfigError


def test_a_wall_clock_that_jumps_back_is_named_and_a_small_step_is_borne(monkeypatch: pytest.MonkeyPatch) -> None:
    read = [1_700_000_000 * SECOND]
    monkeypatch.setattr(time, "time_ns", lambda: read[0] * 1000)
    clock = WallClock()
    first = clock.now()
    read[0] -= MINUTE
    assert clock.now() == first, "never backwards"
    read[0] -= 60 * MINUTE
    with pytest.raises(ClockError, match="jumped back"):
        clock.now()


def test_event_time_never_goes_back() -> None:
    clock = DataClock(DAY)
    clock.advance(2 * DAY)
    with pytest.raises(ClockError, match="went backwards"):
        clock.advance(DAY)
    assert clock.now() == 2 * DAY


@given(st.integers(0, 10**6))
def test_durations_are_read_as_they_are_written(seconds: int) -> None:
    days, rest = divmod(seconds, 86400)
    hours, minutes = divmod(rest // 60, 60)
    us = days * DAY + hours * 3600 * SECOND + minutes * MINUTE
    if us and sum(bool(part) for part in (days, hours, minutes)) <= 2:
        assert duration(span(us)) == us
    assert instant(iso(us)) == us


@pytest.mark.parametrize("text", ["", "soon", "1x", "1d and a bit", "-3h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a duration"):
        duration(text)


@pytest.mark.parametrize("text", ["yesterday", "2013-13-01", ""])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a time"):
        instant(text)


def test_units_are_spread_evenly_and_rollouts_are_independent() -> None:
    one = [unit_draw(f"u{i}", "1") for i in range(4000)]
    two = [unit_draw(f"u{i}", "2") for i in range(4000)]
    assert abs(sum(d < 0.05 for d in one) / 4000 - 0.05) < 0.015
    both = sum(a < 0.5 and b < 0.5 for a, b in zip(one, two, strict=True)) / 4000
    assert abs(both - 0.25) < 0.03
