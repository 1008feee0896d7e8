"""The sample-ratio test: false alarms over all looks, power, agreement with the formula, resumable."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import beta, binom

from loudly.errors import DataError
from loudly.stats.sample_ratio import SampleRatio, sample_ratio_of


def looked(rng: np.random.Generator, planned: tuple[float, ...], true: tuple[float, ...], looks: int, n: int) -> int | None:
    """The units after which a mismatch was called, looking after every `n`; None for never."""
    test = SampleRatio(planned)
    for look in range(looks):
        test = test.add(tuple(int(c) for c in rng.multinomial(n, true)))
        if test.off(0.05):
            return (look + 1) * n
    return None


@pytest.mark.simulation
@pytest.mark.parametrize("planned", [(0.5, 0.5), (0.9, 0.1), (0.5, 0.3, 0.2), (0.25,) * 4])
def test_false_alarms_over_all_looks(planned: tuple[float, ...]) -> None:
    rng = np.random.default_rng(21)
    alarms = [looked(rng, planned, planned, 300, 40) is not None for _ in range(300)]
    assert np.mean(alarms) <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 300)


def test_a_chi_square_at_every_look_would_fail_that_test() -> None:
    rng, alarms = np.random.default_rng(22), 0
    for _ in range(200):
        seen, n = np.cumsum(rng.binomial(40, 0.5, 300)), 40 * np.arange(1, 301)
        alarms += bool(((seen - n / 2) ** 2 / (n / 4) > 3.84).any())
    assert alarms / 200 > 0.25


def test_power_for_52_to_48() -> None:
    """A fixed test with 90 % power needs 6,570 units for two points; looking always costs a factor that stays below 2.5."""
    rng = np.random.default_rng(23)
    found = [looked(rng, (0.5, 0.5), (0.52, 0.48), 400, 50) for _ in range(200)]
    assert np.mean([at is not None for at in found]) > 0.95
    assert np.median([at or 20_000 for at in found]) < 2 * 6570
    gone = [looked(rng, (0.5, 0.5), (0.6, 0.4), 400, 50) for _ in range(100)]
    assert np.median([at or 20_000 for at in gone]) < 700


def test_the_e_value_is_the_mixture_over_the_plan() -> None:
    test = SampleRatio((0.7, 0.3), concentration=50).add((40, 30))
    p = np.linspace(1e-6, 1 - 1e-6, 200_001)
    mixture = np.trapezoid(beta.pdf(p, 35, 15) * binom.pmf(40, 70, p), p)
    assert test.log_e == pytest.approx(math.log(mixture / binom.pmf(40, 70, 0.7)), abs=1e-6)


def test_a_mismatch_is_called_where_the_e_value_is_one_over_the_risk() -> None:
    test = SampleRatio((0.5, 0.3, 0.2)).add((600, 340, 160))
    p = math.exp(-test.log_e)
    assert 0.001 < p < 0.5
    assert test.p_value == pytest.approx(p)
    assert (test.off(1.001 * p), test.off(0.999 * p)) == (True, False)
    told = test.evidence(("a", "b", "c"), 0.06)
    assert told.about == "c"
    assert (told.low, told.high) == pytest.approx([end - 0.2 for end in test.interval(2, 0.02)]), "for all arms together"


def test_a_mismatch_within_a_batch_is_seen_where_units_are_followed_one_by_one() -> None:
    """Three hundred units of one arm, then as many of the other: at the end nothing is off, in the middle all was."""
    walk = np.repeat([0, 1], 300)
    assert SampleRatio((0.5, 0.5)).follow(walk).off(0.05)
    assert not SampleRatio((0.5, 0.5)).add((300, 300)).off(0.05)
    assert SampleRatio((0.5, 0.5)).follow(walk).peak == pytest.approx(SampleRatio((0.5, 0.5)).add((300, 0)).log_e)


def test_e_values_multiply_when_the_plan_grows_and_false_alarms_stay_rare() -> None:
    rng, alarms = np.random.default_rng(24), 0
    for _ in range(300):
        test = SampleRatio((0.95, 0.05))
        for share in (0.05, 0.25, 0.5):
            before = test.log_e
            test = test.planned((1 - share, share))
            assert test.log_e == pytest.approx(before)
            for _ in range(60):
                test = test.add(tuple(int(c) for c in rng.multinomial(50, (1 - share, share))))
        alarms += test.off(0.05)
    assert alarms / 300 <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 300)


def test_the_interval_covers_and_shuts_the_plan_out_exactly_when_the_test_does() -> None:
    rng, missed = np.random.default_rng(25), 0
    for _ in range(150):
        test, out = SampleRatio((0.5, 0.5)), False
        for _ in range(40):
            test = test.add(tuple(int(c) for c in rng.multinomial(100, (0.52, 0.48))))
            low, high = test.interval(0, 0.05)
            out |= not low <= 0.52 <= high
            assert (not low <= 0.5 <= high) == (test.log_e > math.log(20))
        missed += out
    assert missed / 150 <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 150)
    assert SampleRatio((0.5, 0.5)).interval(0, 0.05) == (0.0, 1.0)
    assert SampleRatio((0.5, 0.5)).add((30, 0)).interval(0, 0.05)[1] == 1.0


def test_what_was_once_rejected_stays_so_and_the_state_is_plain() -> None:
    test = SampleRatio((0.5, 0.5)).add((700, 500))
    assert test.off(0.05)
    later = sample_ratio_of(json.loads(json.dumps(test.plain()))).add((500, 700))
    assert later.off(0.05)
    assert later.p_value == test.p_value < 0.05
    told = test.evidence(("control", "candidate"), 0.05)
    assert told.about == "control"
    assert told.low is not None
    assert 0 < told.low < told.effect < told.high  # type: ignore[operator]


@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.6), (1.0, 0.0)])
def test_impossible_plans_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="sum to 1"):
        SampleRatio(shares)
    with pytest.raises(DataError, match="each arm"):
        SampleRatio((0.5, 0.5)).add((1, 2, 3))
