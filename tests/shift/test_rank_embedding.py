"""The default: its level at every size and for every kind of column, its power, its verdict, its refusals."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from loudly import shift
from loudly.core.values import Decision
from loudly.errors import DataError
from loudly.shift.encode import encoding_of

NAMES = ["column_0", "column_1"]


def frame(rng: np.random.Generator, n: int, **more: Any) -> pl.DataFrame:
    """A table of many kinds: tails, ties, categories, holes, a constant."""
    made = {
        "normal": rng.normal(size=n),
        "heavy": rng.standard_t(2, n),
        "count": rng.poisson(2, n),
        "flag": rng.random(n) < 0.1,
        "kind": rng.choice(["a", "b", "c"], n, p=[0.7, 0.2, 0.1]),
        "holes": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
        "constant": np.full(n, 3.0),
    }
    return pl.DataFrame({**made, **more})


@pytest.mark.simulation
@pytest.mark.parametrize("n", [1, 5, 40, 300])
def test_false_alarms_are_what_was_asked_for(n: int) -> None:
    """Each null has a reference of its own; columns of every kind, scores too."""
    alarms = []
    for seed in range(120):
        rng = np.random.default_rng((n, seed))
        reference = shift.fit(frame(rng, 400), rng.random(400), seed=seed)
        found = reference.check(frame(rng, n), rng.random(n), permutations=99)
        alarms.append((found.evidence[0].p_value or 0.0) <= 0.05)
    assert np.mean(alarms) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)


@pytest.mark.simulation
def test_discrete_rows_raise_no_more_false_alarms_than_others() -> None:
    """Splits with the same counts tie, in whatever order their rows were summed."""
    alarms = []
    for seed in range(250):
        rng = np.random.default_rng(seed)
        reference = shift.fit((rng.random((1000, 1)) < 0.02).astype(float), seed=seed)
        found = reference.check((rng.random((50, 1)) < 0.02).astype(float))
        alarms.append((found.evidence[0].p_value or 0.0) <= 0.05)
    assert np.mean(alarms) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 250)


@pytest.mark.parametrize("n", [10, 50, 200])
def test_constant_rows_are_no_evidence_at_all(n: int) -> None:
    assert shift.fit(np.ones((1000, 1))).check(np.ones((n, 1))).evidence[0].p_value == 1.0


DAMAGES = {
    "one column a little": lambda t, rng: t.with_columns(pl.col("normal") + 0.4),
    "wider": lambda t, rng: t.with_columns(pl.col("normal") * 2),
    "another mix": lambda t, rng: t.with_columns(kind=pl.Series(rng.choice(["a", "b", "c"], t.height, p=[0.4, 0.3, 0.3]))),
    "an unseen category": lambda t, rng: t.with_columns(
        kind=pl.when(pl.Series(rng.random(t.height) < 0.08)).then(pl.lit("new")).otherwise("kind")
    ),
    "missing": lambda t, rng: t.with_columns(holes=pl.when(pl.Series(rng.random(t.height) < 0.15)).then(None).otherwise("holes")),
    "a constant that moved": lambda t, rng: t.with_columns(constant=pl.lit(3.1)),
    "ten absurd rows": lambda t, rng: t.with_columns(normal=pl.when(pl.int_range(pl.len()) < 10).then(50.0).otherwise("normal")),
    "infinities": lambda t, rng: t.with_columns(normal=pl.when(pl.int_range(pl.len()) < 30).then(np.inf).otherwise("normal")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_known_damage_is_found(damage: str) -> None:
    rng = np.random.default_rng(0)
    reference = shift.fit(frame(rng, 3000))
    found = [reference.check(DAMAGES[damage](frame(rng, 300), rng), tolerance=0.02) for _ in range(10)]
    assert np.mean([v.failed for v in found]) >= 0.8
    assert all("nothing was found" not in v.reason for v in found if (v.evidence[0].p_value or 0.0) <= 0.05)


@pytest.mark.parametrize(("damage", "about"), [("wider", "spread of normal"), ("missing", "missing holes")])
def test_what_does_not_move_a_middle_is_named_too(damage: str, about: str) -> None:
    rng = np.random.default_rng(1)
    found = shift.fit(frame(rng, 3000)).check(DAMAGES[damage](frame(rng, 400), rng))
    assert found.failed
    assert about in [e.about for e in found.evidence]


def test_two_absurd_rows_among_ten_are_heard() -> None:
    rng = np.random.default_rng(0)
    reference = shift.fit(rng.normal(size=(5000, 50)))
    found = []
    for _ in range(20):
        window = rng.normal(size=(10, 50))
        window[:2] *= 6
        found.append(reference.check(window).evidence[0].p_value or 0.0)
    assert np.mean(np.array(found) <= 0.05) >= 0.8


@pytest.mark.parametrize("large", [1e6, 1e300])
def test_a_column_of_large_numbers_hides_no_absurd_rows_of_others(large: float) -> None:
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scale = np.r_[np.ones(9), large]
        reference = shift.fit(rng.normal(size=(1000, 10)) * scale)
        window = rng.normal(size=(10, 10)) * scale
        window[:2, :9] *= 6
        found.append(reference.check(window).evidence[0].p_value or 0.0)
    assert np.mean(np.array(found) <= 0.05) >= 0.7


def test_scores_are_seen_where_the_inputs_stand_still() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 3))
    reference = shift.fit(x[:1500], rng.beta(2, 5, 1500))
    moved = reference.check(x[1500:1700], rng.beta(2, 3, 200))
    assert moved.failed
    assert moved.evidence[1].about == "score 0"
    with pytest.raises(DataError, match="both or to neither"):
        reference.check(x[:10])
    with pytest.raises(DataError, match="one row each"):
        reference.check(x[:10], rng.random(9))


def test_the_answer_does_not_flip_because_n_grew() -> None:
    """A real shift below the tolerance: more rows make it surer, and it stays within."""
    rng = np.random.default_rng(0)
    reference = shift.fit(rng.normal(size=(40_000, 2)))
    decisions = [reference.check(rng.normal(size=(n, 2)) + 0.02, tolerance=0.1).decision for n in (50, 2000, 20_000, 200_000)]
    assert decisions[0] is not Decision.FAIL
    assert decisions[2:] == [Decision.PASS, Decision.PASS]


def test_undecided_says_what_is_missing_and_a_fail_says_where() -> None:
    rng = np.random.default_rng(0)
    table = frame(rng, 20_000)
    reference = shift.fit(table)
    few = reference.check(frame(rng, 20))
    assert few.decision is Decision.UNDECIDED
    assert "more rows" in few.missing
    assert reference.check(table[:0]).decision is Decision.UNDECIDED
    moved = reference.check(frame(rng, 500).with_columns(pl.col("heavy") + 3))
    assert moved.failed
    assert "most in heavy" in moved.reason
    assert [e.about for e in moved.evidence[1:]][1] == "heavy" or moved.evidence[1].about == "heavy"


def test_the_same_window_has_the_same_verdict_and_order_of_rows_hardly_counts() -> None:
    rng = np.random.default_rng(0)
    reference = shift.fit(frame(rng, 1000))
    window = frame(rng, 200)
    assert reference.check(window) == reference.check(window)
    shuffled = reference.check(window.sample(fraction=1.0, shuffle=True, seed=1))
    one, two = shuffled.evidence[0].p_value, reference.check(window).evidence[0].p_value
    assert one == pytest.approx(two, abs=0.15)


def test_what_is_missing_would_settle_it() -> None:
    """More rows where they help, else a longer reference, else another tolerance: never rows that nobody looks at."""
    rng = np.random.default_rng(0)
    long, short = shift.fit(rng.normal(size=(20_000, 2))), shift.fit(rng.normal(size=(30, 2)))
    found = long.check(rng.normal(size=(300, 2)))
    more = int(found.missing.removeprefix("about ").removesuffix(" more rows").replace(",", ""))
    assert 100 < more < 2_000
    assert long.check(rng.normal(size=(2_500, 2))).passed
    assert "a reference of about" in short.check(rng.normal(size=(300, 2))).missing
    assert "a wider tolerance" in long.check(rng.normal(size=(20_000, 2)) + 0.165).missing


@pytest.mark.parametrize("alpha", [0.01, 0.001])
def test_a_small_alpha_draws_enough_permutations_to_be_reached(alpha: float) -> None:
    """Scores alone move, so one family of several speaks; its least p-value has to be able to reach alpha."""
    rng = np.random.default_rng(0)
    x, scores = rng.normal(size=(600, 2)), rng.random(600)
    found = shift.detect(x[:500], x[500:], scores[:500], scores[500:] / 4, alpha=alpha)
    assert found.failed
    assert found.evidence[0].p_value <= alpha


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"alpha": 1e-6}, {"alpha": 2.0}, {"tolerance": -1.0}, {"tolerance": np.nan}])
def test_a_risk_or_tolerance_that_nothing_could_meet_is_named(wrong: Any) -> None:
    with pytest.raises(DataError, match="judged so"):
        shift.fit(np.arange(100.0)).check(np.arange(50.0), **wrong)


def test_tables_of_any_maker_are_the_same() -> None:
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(500, 2)), rng.normal(size=(80, 2)) + 0.3
    polars = shift.detect(pl.DataFrame(x, schema=NAMES), pl.DataFrame(y, schema=NAMES))
    assert shift.detect(x, y) == polars
    assert shift.detect(pd.DataFrame(x, columns=NAMES), pd.DataFrame(y, columns=NAMES)) == polars
    assert shift.detect(pl.DataFrame(x, schema=NAMES).to_arrow(), pl.DataFrame(y, schema=NAMES).to_arrow()) == polars


def test_columns_of_one_name_are_an_error_and_none_is_lost() -> None:
    pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    rows = np.random.default_rng(0).normal(size=(100, 2))
    twice = [pd.DataFrame(rows, columns=["a", "a"]), pd.DataFrame(rows, columns=[1, "1"]), {1: rows[:, 0], "1": rows[:, 1]}]
    for table in [*twice, pa.table([rows[:, 0], rows[:, 1]], names=["a", "a"])]:
        with pytest.raises(DataError, match="the same name"):
            shift.fit(table)


def test_masked_values_are_missing_and_objects_are_what_they_hold() -> None:
    rng = np.random.default_rng(0)
    reference = shift.fit(rng.normal(size=(500, 2)))
    rows = rng.normal(size=(100, 2))
    hidden = reference.check(np.ma.array(rows, mask=np.tile([True, False], (100, 1))))
    assert hidden.failed
    assert hidden.evidence[1].about == "missing column_0"
    assert reference.check(rows.astype(object)) == reference.check(rows)
    named = np.array([(float(x), float(y)) for x, y in rows], dtype=[("column_0", "f8"), ("column_1", "f8")])
    assert reference.check(named) == reference.check(rows)


def test_bad_input_has_a_named_answer() -> None:
    rng = np.random.default_rng(0)
    reference = shift.fit(frame(rng, 100))
    with pytest.raises(DataError, match="are gone"):
        reference.check(frame(rng, 50).drop("heavy"))
    with pytest.raises(DataError, match="held numbers"):
        reference.check(frame(rng, 50).with_columns(heavy=pl.lit("x")))
    with pytest.raises(DataError, match="too small"):
        shift.fit(frame(rng, 19))
    with pytest.raises(DataError, match="no column"):
        shift.fit(pl.DataFrame({"at": [datetime(2024, 1, 1)] * 30}))
    with pytest.raises(DataError, match="no table"):
        shift.fit(3)
    with pytest.raises(DataError, match="NaN or infinite"):
        shift.fit(frame(rng, 50), np.full(50, np.nan))
    assert "LOUD: window: extra: new" in reference.check(frame(rng, 50, extra=np.zeros(50))).reason
    for nothing in (pl.lit(None, pl.Float64), pl.lit(None)):
        all_missing = frame(rng, 60).with_columns(normal=nothing)
        assert (reference.check(all_missing).evidence[0].p_value or 0.0) <= 0.05
    assert shift.fit(frame(rng, 20)).check(frame(rng, 20)).decision is not Decision.FAIL


def test_scores_and_columns_of_another_shape_are_named_errors() -> None:
    rows, three = {"c": ["a", "b"] * 20}, np.eye(3)[np.arange(40) % 3]
    reference = shift.fit(rows, three)
    other = "another number of scores"
    for wrong, match in ((three[:, :2], other), (np.ones((40, 4)), other), (["high"] * 40, "must be numbers")):
        with pytest.raises(DataError, match=match):
            reference.check(rows, wrong)
    with pytest.raises(DataError, match="c held categories in the reference"):
        reference.check({"c": [["a"]] * 40}, three)


def test_categories_beyond_thirty_share_one_column() -> None:
    table = pl.DataFrame({"c": [f"v{i % 500}" for i in range(5000)]})
    assert len(encoding_of(table).outputs) == 31


def test_a_second_look_with_more_permutations_keeps_the_level() -> None:
    """Few permutations decide where they leave no doubt; the p-value that is told keeps every level."""
    told, drawn = [], []
    for seed in range(400):
        rng = np.random.default_rng((17, seed))
        reference = shift.fit(rng.normal(size=(120, 2)), seed=seed)
        first = reference.check(rng.normal(size=(30, 2)), permutations=999).evidence[0]
        told.append(first.p_value)
        drawn.append(first.detail["permutations"])
    p = np.array(told)
    for level in (0.01, 0.05, 0.1, 0.2, 0.4):
        assert (p <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / len(p)), level
    assert 0.1 < np.mean(np.array(drawn) == 999) < 0.32
    moved = reference.check(rng.normal(size=(30, 2)) + 2, permutations=999).evidence[0]
    assert moved.p_value == 1 / 1000
