"""Planted causes are named: the column, the slice, the hour, the rule; and where nothing was planted nothing is."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from loudly.errors import DataError
from loudly.shift.blame import blame_columns, blame_slices, since_when
from loudly.shift.error_rules import error_rules

FLAT = np.full(8, 1 / 8)
MOVED = 0.85 * FLAT + 0.15 * np.eye(8)[7]


@pytest.mark.parametrize(("rows", "start"), [(50, 100), (20, 100), (50, 150)])
def test_the_hour_it_began_is_within_its_interval(rows: int, start: int) -> None:
    rng = np.random.default_rng(0)
    covered, off, width = 0, [], []
    for _ in range(120):
        reference = rng.multinomial(5000, FLAT)
        windows = np.vstack([rng.multinomial(rows, FLAT, size=start), rng.multinomial(rows, MOVED, size=168 - start)])
        found = since_when(reference, windows)
        covered += found.low <= start <= found.high
        off.append(abs(found.window - start))
        width.append(found.high - found.low)
    assert covered / 120 >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / 120)
    assert np.median(off) <= (2 if rows == 50 else 6)
    assert np.median(width) <= (12 if rows == 50 else 30), "and the interval tells something"


def test_planted_columns_are_named_with_their_hours_and_others_are_not() -> None:
    rng = np.random.default_rng(1)
    names = [f"c{i}" for i in range(12)]
    references = {n: rng.multinomial(20_000, FLAT) for n in names}
    windows = {n: rng.multinomial(100, FLAT, size=72) for n in names}
    windows["c3"][40:] = rng.multinomial(100, 0.6 * FLAT + 0.4 * np.eye(8)[0], size=32)
    windows["c7"][60:] = rng.multinomial(100, 0.5 * FLAT + 0.5 * np.eye(8)[5], size=12)
    found = blame_columns(references, windows, tolerance=0.1)
    assert {b.column for b in found} == {"c3", "c7"}
    began = {b.column: b.since for b in found}
    assert began["c3"].low <= 40 <= began["c3"].high
    assert began["c7"].low <= 60 <= began["c7"].high
    lows = [b.verdict.evidence[0].low for b in found]
    assert lows == sorted(lows, reverse=True), "the surest first"  # type: ignore[type-var]


def test_nothing_planted_names_nothing() -> None:
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(30):
        references = {n: rng.multinomial(2000, FLAT) for n in "abcde"}
        windows = {n: rng.multinomial(60, FLAT, size=48) for n in "abcde"}
        wrong += bool(blame_columns(references, windows, tolerance=0.02))
    assert wrong / 30 <= 0.05


def flights(rng: np.random.Generator, n: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "carrier": rng.choice(["UA", "DL", "AA", "B6"], n),
            "origin": rng.choice(["JFK", "LGA", "EWR"], n),
            "temp": rng.normal(15, 8, n),
            "distance": rng.exponential(1000, n),
        }
    )


def test_the_slice_is_named_and_a_shift_everywhere_is_no_slice() -> None:
    rng = np.random.default_rng(3)
    reference, window = flights(rng, 20_000), flights(rng, 12_000)
    hurt = window.with_columns(temp=pl.when(pl.col("origin") == "LGA").then(pl.col("temp") + 12).otherwise(pl.col("temp")))
    found = blame_slices(reference, hurt, "temp", ["carrier", "origin"], tolerance=0.2)
    assert (found[0].name, found[0].alone) == ("origin = LGA", True)
    assert not any(s.alone for s in found[1:])
    everywhere = blame_slices(reference, window.with_columns(pl.col("temp") + 12), "temp", ["carrier", "origin"], tolerance=0.2)
    assert len(everywhere) == 7
    assert not any(s.alone for s in everywhere)
    assert blame_slices(reference, window, "temp", ["carrier", "origin"], tolerance=0.1) == ()
    mixed = window.with_columns(carrier=pl.when(pl.col("origin") == "EWR").then(pl.lit("UA")).otherwise(pl.col("carrier")))
    assert blame_slices(reference, mixed, "carrier", ["origin"], tolerance=0.1)[0].name == "origin = EWR"
    with pytest.raises(DataError, match="did you mean 'origin'"):
        blame_slices(reference, window, "temp", ["orign"])


def test_the_rule_behind_the_errors_is_read_out_with_its_cost() -> None:
    rng = np.random.default_rng(4)
    now, before = flights(rng, 8000), flights(rng, 8000)
    planted = ((now["carrier"] == "UA") & (now["temp"] > 20)).to_numpy()
    loss = (rng.random(8000) < np.where(planted, 0.6, 0.1)).astype(float)
    rule = error_rules(now, loss, now.columns, (before, rng.random(8000) < 0.1))[0]
    assert "carrier is UA" in rule.text
    assert "temp > " in rule.text
    assert 18.5 < float(rule.text.split("temp > ")[1].split()[0]) < 21.5
    assert rule.low < 0.5 < rule.high
    assert rule.before is not None
    assert rule.before < 0.15
    assert rule.news


def test_rows_that_were_always_hard_are_no_news_and_missing_values_are_a_reason() -> None:
    rng = np.random.default_rng(5)
    now, before = flights(rng, 6000), flights(rng, 6000)
    hard = [(rng.random(6000) < np.where(t["origin"] == "JFK", 0.4, 0.1)).astype(float) for t in (now, before)]
    rule = error_rules(now, hard[0], now.columns, (before, hard[1]))[0]
    assert rule.text.startswith("origin is JFK")
    assert not rule.news
    gone = now.with_columns(temp=pl.when(pl.Series(rng.random(6000) < 0.2)).then(None).otherwise(pl.col("temp")))
    loss = rng.normal(1, 0.5, 6000) + gone["temp"].is_null().to_numpy()
    assert error_rules(gone, loss, gone.columns)[0].text.startswith("temp is missing")


def test_noise_makes_no_rule_more_often_than_alpha() -> None:
    rng = np.random.default_rng(6)
    told = sum(bool(error_rules(t, rng.random(1000) < 0.2, t.columns, seed=i)) for i, t in enumerate([flights(rng, 1000)] * 100))
    assert told / 100 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 100)


def test_bad_input_has_a_named_answer() -> None:
    rng = np.random.default_rng(7)
    few = flights(rng, 50)
    assert error_rules(few, np.ones(50), few.columns) == ()
    some = flights(rng, 500)
    assert error_rules(some, np.full(500, np.nan), some.columns) == ()
    assert error_rules(some, np.ones(500), some.columns) == (), "all wrong alike: no rule tells rows apart"
    with pytest.raises(DataError, match="Every row needs its loss"):
        error_rules(some, np.ones(3), some.columns)
    with pytest.raises(DataError, match="k bins"):
        since_when([1, 2], np.zeros((0, 2)))
    assert blame_slices(some, some[:10], "temp", ["origin"]) == ()
