"""A check that is passed over is one at which no cut divides: ADWIN against one that looks at every cut of every check."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.shift.streams.adwin import Adwin
from loudly.shift.streams.adwin_guard import bowed, left, paths

STRETCH = st.tuples(
    st.sampled_from(["normal", "errors", "constant", "heavy", "slope", "wave"]),
    st.floats(-1, 1),
    st.sampled_from([0.05, 0.25, 1.0, 2.0]),
    st.integers(1, 3000),
)


def stretch(rng: np.random.Generator, kind: str, mean: float, deviation: float, n: int) -> np.ndarray:
    match kind:
        case "errors":
            return (rng.random(n) < abs(mean)).astype(float)
        case "constant":
            return np.full(n, mean)
        case "heavy":
            return mean + deviation * rng.standard_t(2, n)
        case "slope":
            return mean + rng.normal(0, deviation, n) + np.linspace(0, deviation, n)
        case "wave":
            return mean + rng.normal(0, deviation / 4, n) + deviation * np.sin(np.arange(n) / 40)
        case _:
            return rng.normal(mean, deviation, n)


def plainly(detector: Adwin, values: np.ndarray) -> list[int]:
    """ADWIN2 as it is written: every bucket merged when it is due, every cut looked at every `clock` values; all is dropped."""
    rows: list[list[tuple[int, float]]] = [[]]
    taken: list[float] = []
    alarms = []
    for i, value in enumerate(values.tolist()):
        taken.append(value)
        rows[0].append((1, value))
        for size, row in enumerate(rows):
            if len(row) > detector.buckets:
                (n, a), (_, b) = row[:2]
                del row[:2]
                rows += [[]] if size + 1 == len(rows) else []
                rows[size + 1].append((2 * n, a + b))
        width = len(taken)
        if width % detector.clock or width <= detector.grace:
            continue
        room, spread = math.log(2 * math.log(max(width, 2)) / detector.delta), float(np.var(taken))
        n0, u0, whole, cut = 0, 0.0, math.fsum(taken), False
        for n, total in (bucket for row in reversed(rows) for bucket in row):
            n0, u0 = n0 + n, u0 + total
            n1 = width - n0
            if n0 >= detector.shortest <= n1:
                harmonic = 1 / (n0 - detector.shortest + 1) + 1 / (n1 - detector.shortest + 1)
                cut |= abs(u0 / n0 - (whole - u0) / n1) > math.sqrt(2 * harmonic * spread * room) + 2 / 3 * harmonic * room
        if cut:
            alarms.append(i)
            rows, taken = [[]], []
    return alarms


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(STRETCH, min_size=1, max_size=4),
    st.sampled_from([0.01, 1.0, 1.0, 40.0]),
    st.sampled_from([0.0, -7.0, 1e6]),
    st.sampled_from([0.002, 0.002, 0.3, 0.9]),
    st.sampled_from([(32, 5, 5), (32, 5, 5), (8, 5, 1), (50, 3, 30), (12, 7, 5)]),
    st.integers(1, 700),
)
def test_nothing_is_passed_over(
    seed: int,
    parts: list[tuple[str, float, float, int]],
    unit: float,
    zero: float,
    delta: float,
    shape: tuple[int, int, int],
    batch: int,
) -> None:
    rng = np.random.default_rng(seed)
    values = np.concatenate([stretch(rng, *part) for part in parts]) * unit + zero
    clock, buckets, shortest = shape
    detector = Adwin(delta=delta, clock=clock, buckets=buckets, shortest=shortest, restart=True)
    expected = plainly(detector, values)
    one, few = detector.running(), detector.running()
    assert [i for i, value in enumerate(values.tolist()) if one.push(value)] == expected
    assert [low + int(at) for low in range(0, len(values), batch) for at in few.extend(values[low : low + batch])] == expected
    state, alarms = detector.update(detector.init(), values)
    assert alarms.tolist() == expected
    assert one.state == few.state == state


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40), st.floats(-10, 10))
def test_the_path_of_sums_stays_within_its_bounds(values: list[float], slope: float) -> None:
    n, total = len(values), math.fsum(values)
    path = np.cumsum(values)
    line = np.arange(1, n + 1) * (total / n)
    assert np.abs(path - line).max() <= bowed(total, math.hypot(*values), n) + 1e-6
    steep = path - slope * np.arange(1, n + 1)
    far = left(values, slope)
    assert min(0.0, steep[-1]) - far - 1e-6 <= steep.min()
    assert steep.max() <= max(0.0, steep[-1]) + far + 1e-6
    (told,), (inner,) = paths(np.array([values]), slope)
    assert math.isclose(told, total, abs_tol=1e-6)
    assert math.isclose(inner, far, abs_tol=1e-6)


@pytest.mark.parametrize("newest", [6, 8, 10, 12, 16, 24])
def test_a_jump_among_the_newest_values_is_seen_at_once(newest: int) -> None:
    """Of every height: just enough for a cut of few values is too little to move what the window holds."""
    rng = np.random.default_rng(newest)
    calm = rng.choice([-40.0, 40.0], 1984 + 64)
    found = []
    for height in np.linspace(20, 200, 40):
        values = calm.copy()
        values[2016 - newest : 2016] += height
        detector = Adwin(restart=True)
        one = detector.running()
        expected = plainly(detector, values)
        assert [i for i, value in enumerate(values.tolist()) if one.push(value)] == expected
        assert detector.update(detector.init(), values)[1].tolist() == expected
        found.append(expected)
    assert found[0] == []
    assert found[-1][:1] == [2015]
