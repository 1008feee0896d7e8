"""Profiles are a commutative monoid to the byte, a group but for the sample; bins by table are the bins by search."""

from __future__ import annotations

import datetime as dt
import math
import pickle
import threading
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.errors import DataError
from loudly.shift import fold as folding
from loudly.shift.bins import SPECIAL, STEP_BITS, Bins, bins_of, cells_of, lookup_of
from loudly.shift.categories import codes_of
from loudly.shift.embedding import GRID, Embedding, projections
from loudly.shift.hashing import number_hash, text_hash
from loudly.shift.profile import Profile, profile, total
from loudly.shift.reference import Reference
from loudly.shift.reservoir import Reservoir, _draws, joined
from loudly.shift.wire import from_bytes, plain_profile, plain_reference, profile_of, reference_of, to_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from loudly.core.seams import Floats, Ints

strange = st.sampled_from(
    [0.0, -0.0, math.inf, -math.inf, math.nan, 1e308, -1e308, 5e-324, -5e-324, 1e-310, 3.0, 2.9999999999999996]
)
number = st.none() | st.floats(-50, 50) | st.floats(allow_nan=True, allow_infinity=True) | strange
text = st.none() | st.sampled_from(["a", "b", "new", "", "a much longer category", "ä"])
table_rows = st.lists(st.tuples(number, number, text), min_size=1, max_size=40)


def frame(rows: list[tuple[float | None, float | None, str | None]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"x": pl.Float64, "y": pl.Float64, "c": pl.String}, orient="row")


def fitted(seed: int = 0, n: int = 500, **more: int) -> Reference:
    rng = np.random.default_rng(seed)
    return Reference.fit({"x": rng.normal(size=n), "y": rng.integers(0, 5, n) / 2, "c": rng.choice(["a", "b"], n)}, **more)  # type: ignore[arg-type]


REFERENCE = fitted(bins=64, keep=8, features=4)


@settings(max_examples=150, deadline=None)
@given(table_rows, st.data())
def test_any_split_in_any_order_gives_the_same_bytes(
    rows: list[tuple[float | None, float | None, str | None]], data: st.DataObject
) -> None:
    whole = REFERENCE.profile(frame(rows))
    order = data.draw(st.permutations(range(len(rows))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), min_size=2, max_size=2)))
    pieces = [[rows[i] for i in order[a:b]] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    a, b, c = (REFERENCE.profile(frame(p)) for p in pieces)
    wanted = to_bytes(whole)
    assert to_bytes(a.merge(b).merge(c)) == wanted
    assert to_bytes(a.merge(b.merge(c))) == wanted
    assert to_bytes(c.merge(a).merge(b)) == wanted
    assert to_bytes(whole.merge(REFERENCE.empty())) == wanted
    assert to_bytes(total([b, c, a, REFERENCE.empty()])) == wanted
    assert to_bytes(whole.subtract(b)) == to_bytes(a.merge(c).thinned())
    assert to_bytes(from_bytes(wanted, REFERENCE.plan)) == wanted
    for name in ("x", "y"):
        column = whole.column(name)
        assert int(column.counts.sum()) + column.missing + column.infinite == len(rows), "every value is somewhere"


def test_spans_do_not_change_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    n = 70_000
    rows = pl.DataFrame({"x": rng.standard_cauchy(n), "y": rng.integers(-2, 9, n) / 2, "c": rng.choice(["a", "b", "z"], n)})
    rows = rows.with_columns(x=pl.when(pl.col("x") > 4).then(None).otherwise("x"))
    reference = fitted(n=20_000)
    made = []
    for span in (2**17 - 1, 32_768, 5000):
        monkeypatch.setattr(folding, "SPAN", span)
        made.append(to_bytes(profile(rows, reference.plan)))
    assert len(set(made)) == 1
    parts = [reference.profile(rows[a : a + 1000]) for a in range(0, n, 1000)]
    made_of_all = reference.empty()
    for part in parts:
        made_of_all = made_of_all.merge(part)
    whole = reference.profile(rows)
    assert to_bytes(made_of_all) == to_bytes(total(parts)) == to_bytes(whole), "tables and searches agree, and so do samples"


@pytest.mark.parametrize("features", [0, 16])
def test_threads_do_not_change_a_byte(features: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns are taken by whoever is free; far values too are told in the order of the columns."""
    rng = np.random.default_rng(2)
    n = folding.SPAN + 9_000
    columns: dict[str, object] = {f"x{i}": rng.standard_cauchy(n) for i in range(6)}
    rows = pl.DataFrame(columns | {"c": rng.choice(["a", "b", "z"], n), "n": rng.integers(-2, 9, n)})
    reference = Reference.fit(rows.head(20_000), features=features, keep=0)
    made = set()

    def numbers_of(*given: Any) -> Any:
        own = threading.current_thread().name
        if own not in ran:
            ran.add(own)
            meet.wait()
        return numbers(*given)

    numbers = folding._numbers
    monkeypatch.setattr(folding, "_numbers", numbers_of)
    for cores in (1, 2, 2, 2, 2):
        monkeypatch.setattr("loudly.stats.threads._cores", lambda cores=cores: cores)
        ran, meet = set[str](), threading.Barrier(cores, timeout=60)
        found = reference.profile(rows)
        made.add((to_bytes(found), tuple(found.far)))
        assert len(ran) == cores
    assert len(made) == 1
    assert len(found.far) == 6


@pytest.mark.parametrize("n", [2**16 - 1, 2**16, 2**17 - 1, 2**17, 2**18])
@pytest.mark.parametrize("end", [-1.0, 1.0])
def test_the_fullest_bin_is_counted_and_summed_exactly(n: int, end: float) -> None:
    bins = Bins("x", np.zeros(0), (), np.array([1]), centre=0.0, exponent=0)
    made = profile(pl.DataFrame({"x": np.full(n, end * (1 - 2.0**-30))}), {"x": bins}).column("x")
    assert made.counts.tolist() == [n]
    assert made.sums is not None
    assert made.sums.tolist() == [n * end], "rounded to the unit, and then exact"
    assert made.moments.m2 == 0


def test_a_plan_travels_without_its_tables() -> None:
    reference, rows = fitted(n=5000), {"x": np.random.default_rng(3).normal(size=5000)}
    sent = pickle.loads(pickle.dumps(reference.plan))
    assert reference.plan.tables
    assert not sent.tables
    assert to_bytes(profile(pl.DataFrame(rows), sent)) == to_bytes(reference.profile(rows))


def test_unseen_and_missing_texts_among_many_short_ones() -> None:
    reference = Reference.fit({"c": ["a", "bb", "ccc"] * 200})
    rng = np.random.default_rng(4)
    rows = rng.choice(np.array(["a", "bb", "ccc", "b", "d", None], dtype=object), 40_000)
    made = reference.profile({"c": rows}).column("c")
    assert made.counts.tolist() == [
        *(int((rows == c).sum()) for c in ("a", "bb", "ccc")),
        int(((rows == "b") | (rows == "d")).sum()),
    ]
    assert made.missing == int(sum(v is None for v in rows))


REFERENCES = {
    "normal": lambda r, n: r.normal(size=n),
    "heavy": lambda r, n: np.exp(3 * r.normal(size=n)),
    "cauchy": lambda r, n: r.standard_cauchy(n),
    "integers": lambda r, n: r.integers(-20, 20, n).astype(float),
    "zeros": lambda r, n: np.where(r.random(n) < 0.5, 0.0, r.exponential(size=n)),
    "two clusters": lambda r, n: np.where(r.random(n) < 0.5, r.normal(size=n) * 0.01, 1000 + r.normal(size=n) * 0.01),
    "times": lambda r, n: 1.7e15 + r.integers(0, int(3e13), n),
    "lattice": lambda r, n: np.round(r.normal(size=n) * 100, 1),
    "constant": lambda r, n: np.full(n, 3.0),
    "huge": lambda r, n: r.normal(size=n) * 1e300,
    "tiny": lambda r, n: r.normal(size=n) * 1e-300,
    "sentinel": lambda r, n: np.where(r.random(n) < 0.01, -999999.0, r.normal(size=n)),
}


def by_table(bins: Bins, probe: Floats) -> tuple[NDArray[np.bool_], Ints]:
    """Which numbers the table tells of, and the bin of each of these."""
    lookup, cells = lookup_of(bins), cells_of(probe, bins.centre, bins.exponent)
    code = lookup.table[cells]
    scores = (np.arange(bins.size + SPECIAL + 1) % 251 - 125).astype(np.int8)
    both = lookup_of(bins, scores).table[cells]
    assert (both >> STEP_BITS == code).all(), "with an embedding the steps stand below"
    assert (both.astype(np.int8) == np.where(code, scores[code - 1], both.astype(np.int8))).all()
    if lookup.atoms is not None:
        code = code + (probe > lookup.atoms[code]) - (probe < lookup.atoms[code])
    return code > 0, code.astype(np.int64) - 1


@pytest.mark.parametrize("kind", REFERENCES)
def test_the_table_is_the_search(kind: str) -> None:
    rng = np.random.default_rng(2)
    values = REFERENCES[kind](rng, 20_000)
    bins = bins_of(pl.Series("x", values), 1024)
    assert bins.edges is not None
    ends = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e300, -1e300, 5e-324, -5e-324])
    probe = np.concatenate(
        [values, values * 1.1 + 0.37, bins.edges, np.nextafter(bins.edges, np.inf), np.nextafter(bins.edges, -np.inf), ends]
    )
    told, got = by_table(bins, probe)
    assert (got[told] == bins.search(probe)[told]).all()
    assert bins.size <= 2 * 1024 + 40
    free = bins.counts[~bins.atoms].max()
    assert free <= 2.2 * len(values) / 1024, "no bin but an atom holds more than about two shares"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=60),
    st.lists(st.floats(), min_size=1, max_size=60),
)
def test_the_table_is_the_search_for_any_numbers(reference: list[float], window: list[float]) -> None:
    bins = bins_of(pl.Series("x", reference), 8)
    probe = np.array([*window, *reference])
    told, got = by_table(bins, probe)
    assert (got[told] == bins.search(probe)[told]).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=50))
def test_moments_are_those_of_exact_arithmetic(window: list[float]) -> None:
    made = REFERENCE.profile({"x": window}).column("x").moments
    exact = [Fraction(v) for v in window]
    mean = sum(exact) / len(exact)
    unit = 2.0 ** (REFERENCE.plan.bins["x"].exponent - 18)
    assert made.n == len(window)
    largest = max(abs(float(v)) for v in exact)
    # What a sum of n doubles can lose: n roundings of at most n · largest, over n.
    assert abs(Fraction(made.mean) - mean) <= Fraction(unit) + len(exact) * Fraction(largest) / 2**53
    spread = math.sqrt(sum((v - mean) ** 2 for v in exact) / len(exact))
    assert math.sqrt(made.m2 / made.n) == pytest.approx(spread, rel=1e-6, abs=2 * unit + largest * 1e-7)


def test_the_sample_is_uniform_and_the_same_whatever_the_split() -> None:
    n, keep = 2000, 100
    reference = Reference.fit({"x": np.arange(n) / 7, "c": ["a", "b"] * (n // 2)}, keep=keep, features=0)
    hits = np.zeros(n)
    for seed in range(60):
        shifted = np.arange(n) / 7 + seed * 1000.0
        sample = reference.profile({"x": shifted, "c": ["a", "b"] * (n // 2)}).sample
        assert sample is not None
        hits[np.searchsorted(shifted, sample.rows.values[:, 0])] += 1
        assert sample.chances == pytest.approx(keep / n, rel=0.5)
    assert hits.sum() == 60 * keep
    # 2,000 counts of mean 3: their variance under uniform sampling is 60 · .05 · .95.
    assert hits.var() == pytest.approx(60 * 0.05 * 0.95, rel=0.15)


def test_weights_draw_rows_in_proportion_and_keys_tell_equal_rows_apart() -> None:
    n = 5000
    rng = np.random.default_rng(3)
    rows = pl.DataFrame({"id": [f"row {i}" for i in range(n)], "x": rng.integers(0, 2, n), "w": rng.integers(0, 4, n)})
    reference = Reference.fit(rows, key="id", weight="w", keep=500, features=0)
    sample = reference.own.sample
    assert sample is not None
    assert sample.rows.weight.min() == 1, "a weight of nothing is never drawn"
    counts = np.bincount(sample.rows.weight.astype(int), minlength=4)
    assert counts[3] / counts[1] == pytest.approx(3, rel=0.35)
    estimated = (1 / sample.chances).sum()
    assert estimated == pytest.approx((rows["w"] > 0).sum(), rel=0.15)
    assert reference.plan.bins.keys() == {"x"}


def test_a_reservoir_settles_before_it_grows() -> None:
    sample = REFERENCE.own.sample
    assert isinstance(sample, Reservoir)
    grown = sample
    for _ in range(200):
        grown = grown.merge(sample)
        assert len(grown.parts) < 64
        assert grown.held == sum(len(p.priority) for p in grown.parts) < 16 * grown.keep
    assert len(grown.rows.priority) == 8


def test_rows_that_cannot_stay_are_dropped_before_the_sample_settles() -> None:
    rng = np.random.default_rng(12)
    reference = Reference.fit({"x": rng.normal(size=500)}, features=0, keep=8)
    windows = [reference.profile({"x": rng.normal(size=200)}).sample for _ in range(40)]
    whole = windows[0]
    assert whole is not None
    for sample in windows[1:]:
        assert sample is not None
        whole = whole.merge(sample)
    assert whole.held < 16 * 8
    rows = joined([w for w in windows if w is not None]).rows
    assert np.array_equal(whole.rows.priority, rows.priority)
    assert np.array_equal(whole.rows.values, rows.values)


def test_counts_slide(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    hours = [{"x": rng.normal(i / 5, 1, 50) * 10.0**i, "c": rng.choice(["a", "b", "q"], 50)} for i in range(12)]
    parts = [REFERENCE.profile(h) for h in hours]
    window = REFERENCE.empty().thinned()
    for i, part in enumerate(parts):
        window = window.merge(part)
        if i >= 3:
            window = window.subtract(parts[i - 3])
    wanted = parts[9].merge(parts[10]).merge(parts[11]).thinned()
    assert to_bytes(window) == to_bytes(wanted)


def test_a_category_of_any_length_is_found_and_a_new_one_is_unseen() -> None:
    short, long = [f"c{i}" for i in range(300)], [f"a category of some length {i}" for i in range(300)]
    for names in (short, long, [*short, *long]):
        bins = bins_of(pl.Series("c", names * 3))
        for values in (names, [*names, None, "new", "c0 but longer than that", ""]):
            codes = codes_of(pl.Series("c", values), bins)
            assert [bins.categories[c] if c < len(bins.categories) else None for c in codes[: len(names)]] == names
            assert (
                codes[len(names) :].tolist() == [bins.size, bins.size - 1, bins.size - 1, bins.size - 1][: len(codes) - len(names)]
            )
        few = pl.Series("c", [*names, None, "new"])
        assert codes_of(pl.concat([few] * 20), bins).tolist() == codes_of(few, bins).tolist() * 20, "by their bytes, by an Enum"
        coded = pl.Series("c", [*names, None], dtype=pl.Enum(names))
        assert codes_of(coded, bins).tolist() == codes_of(coded.cast(pl.String), bins).tolist()


def test_hashes_are_those_of_every_version_and_machine() -> None:
    assert [f"{h:016x}" for h in text_hash(pl.Series(["", "a", "ab", None, "ä" * 30])).tolist()] == HASHES
    assert number_hash(np.array([0.0, 1.5]))[0] == number_hash(np.array([-0.0]))[0]
    many = text_hash(pl.Series([str(i) for i in range(200_000)]))
    assert len(np.unique(many)) == 200_000
    assert np.bincount((many % np.uint64(64)).astype(int)).std() < 100


HASHES = ["a706dd2f4d197e6f", "da55afbd38ff9dda", "2e864f3c2421316b", "a706dd2f4d197e6f", "eb2e8e082a93cbfb"]


def test_profiles_and_references_survive_the_wire() -> None:
    rng = np.random.default_rng(5)
    window = REFERENCE.profile({"x": [*rng.normal(size=30), 1e200, math.inf], "c": ["a"] * 32, "more": [1] * 32})
    again = reference_of(plain_reference(REFERENCE))
    assert again.plan.fingerprint == REFERENCE.plan.fingerprint
    back = profile_of(plain_profile(window), again.plan)
    assert to_bytes(back) == to_bytes(window)
    assert back.added == {"more": 32}
    assert back.column("x").moments == window.column("x").moments
    assert to_bytes(again.profile({"x": [0.5]})) == to_bytes(REFERENCE.profile({"x": [0.5]}))
    made = to_bytes(window)
    for broken in (b"", b"LOUDx", b"X" + made[1:], made[:4] + b"\x09\x00" + made[6:], made[:-5]):
        with pytest.raises(DataError):
            from_bytes(broken, REFERENCE.plan)
    with pytest.raises(DataError, match="another reference"):
        from_bytes(made, fitted(seed=9, bins=64).plan)
    with pytest.raises(DataError, match="cannot be combined"):
        window.merge(fitted(seed=9, bins=64).profile({"x": [1.0]}))
    assert len(to_bytes(fitted(n=5000, keep=0).own)) < 20_000, "bytes are compact"


def test_times_are_numbers_of_microseconds_in_any_zone() -> None:
    start = dt.datetime(2024, 1, 1)
    naive = pl.Series("t", [start + dt.timedelta(hours=i) for i in range(500)])
    reference = Reference.fit(naive.to_frame())
    zoned = naive.dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo").cast(pl.Datetime("ns", "Asia/Tokyo"))
    assert to_bytes(reference.profile(zoned.to_frame())) == to_bytes(reference.profile(naive.to_frame()[::-1])), "out of order, too"
    found = reference.distances(reference.profile((naive + dt.timedelta(hours=100)).to_frame())).columns["t"]
    assert found.distances["wasserstein"].value == pytest.approx(100 * 3.6e9, rel=1e-3)
    dates = Reference.fit({"d": [dt.date(2024, 1, 1) + dt.timedelta(days=i % 30) for i in range(100)]})
    assert dates.own.column("d").moments.mean > 1.7e15


def test_a_profile_too_large_for_its_sums_is_refused() -> None:
    large = REFERENCE.profile({"x": [1.0]})
    vector = large.vector.copy()
    vector[0] = 2**40
    with pytest.raises(DataError, match="overflow"):
        Profile(large.plan, vector).merge(large)
    with pytest.raises(DataError, match="overflow"):
        total([Profile(large.plan, vector), large])
    with pytest.raises(DataError, match="Nothing to merge"):
        total([])


def test_features_are_cosines_within_what_is_said_and_no_processor_can_round_them_otherwise() -> None:
    turn = np.arange(4096) * (2 * np.pi / 4096)
    for wave in (np.cos(turn) * 1024, np.sin(turn) * 1024):
        assert np.abs(np.abs(wave - np.floor(wave)) - 0.5).min() > 1e-6
    rng = np.random.default_rng(13)
    made = Embedding(projections(5, 8, 2.0, 0), (), 2.0)
    steps = rng.integers(-120, 121, (5, 3000)).astype(np.int8)
    phase = made.weights.astype(np.float64) @ steps * (2 * np.pi / 4096)
    exact = np.concatenate([np.cos(phase), np.sin(phase)])
    assert np.abs(made.sums(steps[:, :1]) / GRID - exact[:, 0]).max() <= 1.3 * 2**-10
    assert np.abs(made.sums(steps) / GRID - exact.sum(axis=1)).max() <= 1.3 * 2**-10 * 3000
    assert np.array_equal(made.sums(steps), made.sums(steps[:, :7]) + made.sums(steps[:, 7:]))


def test_every_row_that_differs_has_a_draw_of_its_own() -> None:
    """Whole numbers share most of their bits: a careless mix of columns made one row in forty the double of another."""
    x, y = np.meshgrid(np.arange(300.0), np.arange(300.0))
    table = pl.DataFrame({"x": x.ravel(), "y": y.ravel()})
    plan = Reference.fit(table, bins=64, keep=8, features=4).plan
    assert len(np.unique(_draws(table, plan))) == 90_000
