"""Profiles merge as a monoid; the feed judge names what broke and stays silent about the season."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.demo import nycflights
from loudly.shift.feed import FeedJudge
from loudly.shift.profile import Profile, bins_of, profile
from loudly.shift.units import CONVERSIONS, unit_change

values = st.lists(
    st.tuples(st.none() | st.floats(-50, 50) | st.just(float("inf")), st.none() | st.sampled_from(["a", "b", "new"])),
    min_size=1,
    max_size=40,
)
REFERENCE = pl.DataFrame({"x": np.arange(100) % 7 / 2, "c": ["a", "b", "a", "a"] * 25})
BINS = {name: bins_of(REFERENCE[name]) for name in REFERENCE.columns}


def table_of(rows: list[tuple[float | None, str | None]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"x": pl.Float64, "c": pl.String}, orient="row")


def counts(made: Profile) -> object:
    return {
        n: (c.rows, c.missing, c.infinite, c.counts.tolist(), c.moments.n, c.distinct, c.cells) for n, c in made.columns.items()
    }


@settings(max_examples=80, deadline=None)
@given(values, st.data())
def test_any_split_in_any_order_gives_the_same_counts(rows: list[tuple[float | None, str | None]], data: st.DataObject) -> None:
    cut, other = data.draw(st.integers(0, len(rows))), data.draw(st.integers(0, len(rows)))
    first, last = sorted((cut, other))
    parts = [profile(table_of(p), BINS, ["c"]) for p in (rows[:first], rows[first:last], rows[last:])]
    whole = profile(table_of(rows), BINS, ["c"])
    a, b, c = parts
    assert counts(a.merge(b).merge(c)) == counts(whole)
    assert counts(a.merge(b.merge(c))) == counts(whole)
    assert counts(c.merge(a).merge(b)) == counts(whole)
    x = whole.columns["x"]
    assert x.counts.sum() + x.missing + x.infinite == len(rows), "every value is somewhere"


def test_a_column_that_is_not_there_is_missing_everywhere() -> None:
    made = profile(table_of([(1.0, "a")] * 5).drop("x"), BINS, ["c"])
    assert made.columns["x"].missing == 5
    assert made.columns["x"].cells == {"c=a": (5, 5)}


@pytest.mark.parametrize(("name", "scale", "offset"), CONVERSIONS)
def test_every_conversion_of_the_catalogue_is_found(name: str, scale: float, offset: float) -> None:
    rng = np.random.default_rng(0)
    known = np.unique(np.round(rng.normal(63.7, 18, 4000), 1))
    lattice = known[rng.integers(0, len(known), 300)]
    window = dict(zip(*np.unique(lattice * scale + offset, return_counts=True), strict=True))
    found = unit_change({float(k): int(v) for k, v in window.items()}, known)
    assert found is not None
    back = {n: (s, o) for n, s, o in CONVERSIONS}[found.conversion]
    assert back == pytest.approx((scale, offset), rel=2e-2), f"{found.conversion} for {name}"


def test_a_season_that_moves_along_the_lattice_is_no_unit_change() -> None:
    rng = np.random.default_rng(1)
    known = np.unique(np.round(rng.normal(40, 8, 4000), 0))
    summer = np.unique(np.round(rng.normal(60, 8, 500), 0), return_counts=True)
    assert unit_change(dict(zip(summer[0].tolist(), summer[1].tolist(), strict=True)), known) is None


def test_a_whole_undamaged_year_of_flights_raises_nothing_but_the_real_outage() -> None:
    table = nycflights.table()
    watched = [c for c in table.columns if c not in ("flight_id", "scheduled", "late", "tailnum")]
    bins = {c: bins_of(table[:50_000][c]) for c in watched}
    judge: FeedJudge = FeedJudge()
    named: list[tuple[str, str]] = []
    for (day,), rows in table.group_by(pl.col("scheduled").dt.date(), maintain_order=True):
        made = profile(rows, bins, ["origin"])
        broken = judge.judge(made) if str(day) >= "2013-03-01" else ()
        if not broken:
            judge.learn(made)
        named += [(str(day), b.cause) for b in broken]
    assert {day for day, _ in named} == {"2013-12-31"}, "the weather feed really is missing on the last day of the year"
    assert all("gone" in cause for _, cause in named)


def good_windows(made: list[int]) -> Iterator[Profile]:
    """Twenty windows; each says when it is made."""
    rng = np.random.default_rng(2)
    for number in range(20):
        made.append(number)
        yield profile(pl.DataFrame({"x": rng.normal(size=300).round(1), "c": ["a"] * 300}), BINS)


def test_windows_of_the_past_are_made_when_they_are_needed_and_teach_as_if_they_had_come() -> None:
    made: list[int] = []
    late, soon = FeedJudge(), FeedJudge()
    late.begin(good_windows(made))
    assert made == []
    for window in good_windows([]):
        soon.learn(window)
    stuck = profile(pl.DataFrame({"x": [1.5] * 300, "c": ["a"] * 300}), BINS)
    told = late.judge(stuck)
    assert [b.cause for b in told] == ["x stuck"]
    assert told == soon.judge(stuck)
    for name, history in late.history.items():
        known = soon.history[name]
        assert (history.missing, history.kinds, history.known) == (known.missing, known.kinds, known.known)
    late.look_back()
    assert made == list(range(20))


@pytest.mark.parametrize(("share", "cause"), [(1.0, "x gone"), (0.4, "x nulls in all rows")])
def test_infinities_are_a_broken_feed_like_missing_values(share: float, cause: str) -> None:
    """They lie in no bin, so nothing else hears of them."""
    rng = np.random.default_rng(0)
    good = [pl.DataFrame({"x": rng.normal(size=200)}) for _ in range(20)]
    bins = {"x": bins_of(pl.concat(good)["x"])}
    judge = FeedJudge()
    judge.begin(profile(rows, bins) for rows in good[:-1])
    assert judge.judge(profile(good[-1], bins)) == ()
    lost = good[-1].with_columns(x=pl.when(pl.int_range(200) < 200 * share).then(-np.inf).otherwise("x"))
    (found,) = judge.judge(profile(lost, bins))
    assert found.cause == cause
    assert "x is infinite in" in found.verdict.reason


def test_a_stuck_column_is_named_and_a_small_window_cannot_tell() -> None:
    judge = FeedJudge()
    judge.begin(good_windows([]))
    stuck = pl.DataFrame({"x": [1.5] * 300, "c": ["a"] * 300})
    assert [b.cause for b in judge.judge(profile(stuck, BINS))] == ["x stuck"]
    assert judge.judge(profile(stuck[:20], BINS)) == ()
