"""Distances of profiles bound the exact statistics of the rows; bad input has a named answer and is never "no shift"."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon, pdist
from scipy.special import rel_entr

from loudly.core.values import Decision
from loudly.errors import DataError
from loudly.shift.distances import Distances, pools_of
from loudly.shift.embedding import GRID, covariance_trace, mmd2
from loudly.shift.reference import Reference
from loudly.stats.divergence import (
    all_of,
    chi2,
    hellinger,
    js,
    kl,
    ks_noise,
    psi,
    total_variation,
    total_variation_noise,
    wasserstein_noise,
)

KINDS = {
    "normal": lambda r, n, s: r.normal(s, 1 + s, n),
    "heavy": lambda r, n, s: np.exp(2 * r.normal(s, 1, n)),
    "integers": lambda r, n, s: r.poisson(3 + s, n).astype(float),
    "zeros": lambda r, n, s: np.where(r.random(n) < 0.5 + s / 4, 0.0, r.exponential(size=n)),
    "lattice": lambda r, n, s: np.round(r.normal(s, 1, n), 1),
    "clusters": lambda r, n, s: np.where(r.random(n) < 0.5 + s, r.normal(size=n), 1000 + r.normal(size=n)),
    "uniform": lambda r, n, s: r.uniform(s, 1 + s, n),
    "constant": lambda r, n, s: np.full(n, 3.0 + s),
}


def far(reference: Reference, window: object) -> Distances:
    return reference.distances(reference.profile(window))


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_bounds_hold_the_exact_statistics(kind: str, shift: float) -> None:
    rng = np.random.default_rng(0)
    for n, m in ((20_000, 5000), (3000, 60)):
        before, now = KINDS[kind](rng, n, 0.0), KINDS[kind](rng, m, shift)
        reference = Reference.fit({"x": before}, features=0, keep=0)
        bins = reference.plan.bins["x"]
        found = far(reference, {"x": now}).columns["x"].distances
        ks = stats.ks_2samp(before, now).statistic
        assert found["ks"].low - 1e-12 <= ks <= found["ks"].high + 1e-12
        assert found["ks"].high - found["ks"].low <= 2.2 / 1024 + 1e-12, "the stated error: about a bin's share"
        w1, unit = stats.wasserstein_distance(before, now), 2.0 ** (bins.exponent - 18)
        assert found["wasserstein"].low - unit <= w1 <= found["wasserstein"].high + unit
        sums = reference.own.column("x").moments
        assert abs(sums.mean - before.mean()) <= unit
        # On the bins themselves the statistics are those of scipy.
        assert bins.edges is not None
        pools = pools_of(bins)
        p, q = (np.add.reduceat(np.bincount(bins.search(v), minlength=bins.size), pools) for v in (before, now))
        assert found["js"].value == pytest.approx(jensenshannon(p, q, base=2), abs=1e-12)
        both = (p + q) > 0
        table = np.array([p[both], q[both]])
        if table.shape[1] > 1:
            assert found["chi2"].value == pytest.approx(stats.chi2_contingency(table, correction=False).statistic, rel=1e-9)
        assert found["total_variation"].value == pytest.approx(np.abs(p / n - q / m).sum() / 2)
        assert found["hellinger"].value == pytest.approx(np.sqrt(((np.sqrt(p / n) - np.sqrt(q / m)) ** 2).sum() / 2))
        a, b = np.maximum(p / n, 1e-4), np.maximum(q / m, 1e-4)
        assert found["psi"].value == pytest.approx(((b - a) * np.log(b / a)).sum())
        assert found["kl"].value == pytest.approx(rel_entr(b / b.sum(), a / a.sum()).sum())


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(-6, 6) | st.floats(-50, 50), min_size=20, max_size=80),
    st.lists(st.integers(-6, 6) | st.floats(-70, 70), min_size=1, max_size=60),
    st.sampled_from([4, 16, 1024]),
)
def test_bounds_hold_for_any_rows(before: list[float], now: list[float], bins: int) -> None:
    reference = Reference.fit({"x": np.array(before, dtype=float)}, bins=bins, features=0, keep=0)
    found = far(reference, {"x": np.array(now, dtype=float)}).columns["x"].distances
    ks, w1 = stats.ks_2samp(before, now, method="asymp").statistic, stats.wasserstein_distance(before, now)
    assert found["ks"].low - 1e-9 <= ks <= found["ks"].high + 1e-9
    # Each value is rounded to half a unit: what each side adds up to is out by so much at most, and the upper bound takes parts of
    # it twice again. Of floating point there are some thousand roundings, none of more than the span of the values.
    unit = 2.0 ** (reference.plan.bins["x"].exponent - 18)
    rounded = 1e-12 * max(map(abs, [*before, *now]))
    assert found["wasserstein"].low - unit - rounded <= w1 <= found["wasserstein"].high + 3 * unit + rounded


def test_wasserstein_is_close_in_the_tails_and_exact_for_few_values() -> None:
    rng = np.random.default_rng(1)
    before, now = np.exp(2 * rng.normal(size=50_000)), np.exp(2 * rng.normal(0.1, 1, 20_000))
    found = far(Reference.fit({"x": before}, features=0, keep=0), {"x": now}).columns["x"].distances["wasserstein"]
    assert found.high is not None
    assert found.value == pytest.approx(stats.wasserstein_distance(before, now), rel=0.03)
    assert found.high - found.low <= 0.7 * found.value, "loose where a bin of the tail is wider than the shift"
    a, b = rng.poisson(4, 5000), rng.poisson(4.3, 900)
    exact = far(Reference.fit({"x": a}, features=0, keep=0), {"x": b}).columns["x"].distances
    assert exact["wasserstein"].low == pytest.approx(exact["wasserstein"].high)
    assert exact["ks"].low == exact["ks"].high == pytest.approx(stats.ks_2samp(a, b).statistic)
    assert exact["js"].high == exact["js"].value, "few values are no approximation"


def test_the_noise_is_what_sampling_alone_gives() -> None:
    rng = np.random.default_rng(2)
    reference = Reference.fit({"x": rng.normal(size=20_000), "c": rng.choice(list("abcdefgh"), 20_000)}, features=16, keep=0)
    seen: dict[str, list[float]] = {}
    squares, noise = [], 0.0
    for _ in range(150):
        found = far(reference, {"x": rng.normal(size=2000), "c": rng.choice(list("abcdefgh"), 2000)})
        for column in found.columns.values():
            for name, d in column.distances.items():
                seen.setdefault(f"{column.column} {name}", []).append(d.value / d.noise)
        assert found.mmd2 is not None
        squares.append(found.mmd2.value)
        noise = found.mmd2.noise
    for name, ratios in seen.items():
        assert np.mean(ratios) == pytest.approx(1.0, abs=0.15), name
    assert abs(np.mean(squares)) < 0.1 * noise, "the squared MMD is unbiased"
    assert ks_noise(0, 5) != ks_noise(0, 5)
    assert wasserstein_noise(np.zeros(0), [5], 5) == 0.0
    assert total_variation_noise([5], 5) == 0.0


def test_a_shift_stands_out_of_the_noise() -> None:
    rng = np.random.default_rng(3)
    reference = Reference.fit({"x": rng.normal(size=20_000), "y": rng.normal(size=20_000)}, keep=0)
    joint = rng.normal(size=2000)
    found = far(reference, {"x": rng.normal(0.6, 1, 2000), "y": rng.normal(size=2000)})
    for name, d in found.columns["x"].distances.items():
        if name != "chi2":
            assert d.excess > 0, name
    assert found.columns["y"].distances["ks"].excess == 0
    correlated = far(reference, {"x": joint, "y": joint})
    assert correlated.mmd2 is not None
    assert correlated.mmd2.value > 20 * correlated.mmd2.noise, "a shift of the joint alone"
    assert correlated.columns["x"].distances["ks"].evidence("x", 2000).detail["noise"] > 0


def test_the_embedding_is_the_mmd_of_the_rows() -> None:
    rng = np.random.default_rng(4)
    before, now = rng.normal(size=(3000, 3)), rng.normal(0.3, 1.2, (2000, 3))
    reference = Reference.fit(before, features=512, keep=0)
    e = reference.plan.embedding
    assert e is not None
    spread = np.subtract(*np.quantile(before, [0.75, 0.25], axis=0)) / 1.349
    assert e.bandwidth == pytest.approx(np.median(pdist(before[:800] / spread)), rel=0.05)
    value, _ = mmd2(reference.own.embedding, 3000, reference.profile(now).embedding, 2000)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        square = ((a[:, None, :] - b[None, :, :]) ** 2).sum(-1)
        return np.exp(-square / (2 * e.bandwidth**2))

    a, b = before / spread, now / spread
    kaa, kbb, kab = kernel(a, a), kernel(b, b), kernel(a, b)
    n, m = len(a), len(b)
    exact = (kaa.sum() - n) / n / (n - 1) + (kbb.sum() - m) / m / (m - 1) - 2 * kab.mean()
    assert value == pytest.approx(exact, rel=0.15)
    features = reference.profile(now).embedding / GRID / m
    assert covariance_trace(reference.profile(now).embedding, m) == pytest.approx(m / (m - 1) * (1 - (features**2).sum() / 512))
    assert mmd2(reference.own.embedding, 1, reference.own.embedding, 5)[0] != 0


# -- bad input -------------------------------------------------------------------------------------------------------------

NORMAL = np.random.default_rng(5).normal(size=1000)
PLAIN = Reference.fit({"x": NORMAL, "c": ["a", "b"] * 500}, features=4, keep=16)


@pytest.mark.parametrize(
    ("window", "answer", "decision", "missing"),
    [
        ({"x": [], "c": []}, "empty window", Decision.UNDECIDED, "rows in the window"),
        ({"x": [0.5], "c": ["a"]}, "few rows", Decision.UNDECIDED, "19 more values in the window"),
        ({"x": [None] * 50, "c": ["a"] * 50}, "all missing", Decision.UNDECIDED, "values in the window"),
        ({"x": [np.nan] * 50, "c": ["a"] * 50}, "all missing", Decision.UNDECIDED, "values in the window"),
        ({"x": [np.inf] * 50, "c": ["a"] * 50}, "all missing", Decision.UNDECIDED, "values in the window"),
        ({"x": ["?"] * 50, "c": ["a"] * 50}, "all missing", Decision.UNDECIDED, "values in the window"),
        ({"c": ["a"] * 50}, "gone", Decision.FAIL, ""),
    ],
)
def test_a_window_that_cannot_be_compared_says_why(
    window: dict[str, list[object]], answer: str, decision: Decision, missing: str
) -> None:
    column = far(PLAIN, window).columns["x"]
    assert column.answer == answer
    assert column.verdict is not None
    assert (column.verdict.decision, column.verdict.missing) == (decision, missing)
    assert "x" in column.verdict.subject


def test_an_empty_table_of_any_type_is_an_empty_window() -> None:
    for nothing in (pl.DataFrame(), pl.DataFrame({"x": [], "c": []}), pd.DataFrame(), np.zeros((0, 2)), {"x": []}):
        found = far(PLAIN, nothing)
        assert {c.answer for c in found.columns.values()} == {"empty window"}
        assert found.mmd2 is None
        assert len(found.undecided) == 2


def test_types_that_changed_are_counted_as_such() -> None:
    mixed = far(PLAIN, {"x": ["1.5", "n/a", 2, None, 0.5, *["0.1"] * 45], "c": [1, "a", None, *["b"] * 47]})
    assert mixed.columns["x"].mistyped == pytest.approx(1 / 50)
    assert mixed.columns["x"].missing == pytest.approx(2 / 50)
    assert mixed.columns["c"].unseen == pytest.approx(1 / 50)
    texts = far(PLAIN, pl.DataFrame({"x": ["oops"] * 30, "c": ["a"] * 30}))
    assert texts.columns["x"].mistyped == 1.0
    assert "no number" in texts.columns["x"].verdict.reason  # type: ignore[union-attr]
    nested = far(PLAIN, pl.DataFrame({"x": [[1]] * 30, "c": [["a"]] * 30}))
    assert nested.columns["x"].answer == "all missing"
    assert nested.columns["c"].unseen == 1.0


@pytest.mark.parametrize(
    ("one", "other", "dtype"),
    [
        ([1, 2], [3], None),
        ({"a": 1}, {"a": 2}, None),
        (b"a", b"\xff", None),
        ((1, 2), (3, 4), pl.Object),
        (2**100, 2**101, pl.Int128),
        (pd.Period("2024-01"), pd.Period("2024-02"), "pandas"),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_values_of_any_type_are_compared(one: object, other: object, dtype: Any) -> None:
    """Half of the rows are another value: half a total variation, in the reference as in the window."""

    def table(first: object, second: object) -> Any:
        values = [first, second] * 30
        return pd.DataFrame({"x": values}) if dtype == "pandas" else pl.DataFrame({"x": pl.Series(values, dtype=dtype)})

    reference = Reference.fit(table(one, one), keep=8)
    assert far(reference, table(one, one)).columns["x"].distances["total_variation"].value == 0.0
    assert far(reference, table(one, other)).columns["x"].distances["total_variation"].value == 0.5


def test_infinities_and_missing_values_are_shares_of_their_own() -> None:
    found = far(PLAIN, {"x": [*NORMAL[:80], np.inf, np.inf, -np.inf, np.nan, *[None] * 16], "c": ["a"] * 100}).columns["x"]
    assert (found.infinite, found.missing, found.n) == (0.03, 0.17, 80)
    column = PLAIN.profile({"x": [np.inf, -np.inf, -np.inf, np.nan, None], "c": ["a"] * 5}).column("x")
    assert (column.infinite, column.lows, column.nans, column.missing) == (3, 2, 1, 2)


def test_new_categories_are_unseen_and_new_columns_are_said() -> None:
    found = far(PLAIN, {"x": NORMAL[:50], "c": ["a"] * 25 + ["new"] * 25, "extra": [1] * 50})
    assert found.columns["c"].unseen == 0.5
    assert found.columns["c"].distances["js"].excess > 0
    assert found.added == {"extra": 50}
    assert [v.subject for v in found.undecided] == ["shift of extra"]
    assert found.undecided[0].decision is Decision.UNDECIDED


def test_a_million_categories_take_bounded_memory_and_keep_unseen_honest() -> None:
    n = 1_000_000
    rng = np.random.default_rng(6)
    names = pl.Series("c", np.arange(n)).cast(pl.String)
    table = pl.concat([names, pl.Series("c", ["often"] * 5000 + ["0"] * 2000)]).to_frame()
    reference = Reference.fit(table, features=0, keep=0)
    bins = reference.plan.bins["c"]
    assert bins.size == 1000 + 256 + 1
    assert {"often", "0"} <= set(bins.categories)
    assert "1,000 categories named" in reference.notes["c"][0]
    assert "rarer ones count as unseen" in reference.notes["c"][0]
    same = far(reference, pl.DataFrame({"c": rng.choice(n, 20_000)}).cast(pl.String)).columns["c"]
    assert same.unseen < 1e-3
    assert same.distances["js"].excess < 0.01
    new = far(reference, pl.DataFrame({"c": [f"new {i}" for i in range(1000)]})).columns["c"]
    assert new.unseen == 1.0
    assert not bins.atoms.all(), "buckets hold several categories, and say so"


def test_a_constant_and_a_missing_reference_are_said_and_answered() -> None:
    reference = Reference.fit({"k": [3.0] * 100, "gone": [None] * 100, "nan": [np.nan] * 100, "word": ["a"] * 100})
    assert reference.notes["k"] == ("constant in the reference",)
    assert reference.notes["word"] == ("constant in the reference",)
    assert reference.notes["gone"] == ("all missing in the reference",)
    same = far(reference, {"k": [3.0] * 50, "gone": [1.0] * 50, "nan": [1.0] * 50, "word": ["a"] * 50}).columns
    assert same["k"].distances["ks"].value == 0
    assert {same[n].answer for n in ("gone", "nan")} == {"no values in the reference"}
    moved = far(reference, {"k": [3.0000000000000004] * 50, "gone": [None] * 50, "nan": [1.0] * 50, "word": ["b"] * 50}).columns
    assert moved["k"].distances["ks"].value == 1
    assert moved["word"].distances["js"].value == 1


def test_a_reference_of_twenty_rows_works_and_of_fewer_cannot_tell() -> None:
    rng = np.random.default_rng(7)
    small = Reference.fit({"x": rng.normal(size=20)})
    found = far(small, {"x": rng.normal(3, 1, 100)}).columns["x"]
    assert found.answer == "compared"
    assert found.distances["ks"].excess > 0
    tiny = far(Reference.fit({"x": [1.0]}), {"x": rng.normal(size=100)}).columns["x"]
    assert tiny.answer == "few rows"
    assert tiny.verdict is not None
    assert tiny.verdict.missing == "19 more values in the reference"


@pytest.mark.parametrize("nothing", [pl.DataFrame(), {"x": []}, np.zeros((0, 3)), pl.DataFrame({"id": [1]})])
def test_a_reference_without_rows_or_columns_is_refused(nothing: object) -> None:
    with pytest.raises(DataError, match="needs rows and columns"):
        Reference.fit(nothing, key="id" if isinstance(nothing, pl.DataFrame) and nothing.width else "")


def test_what_is_no_table_or_no_column_is_refused() -> None:
    with pytest.raises(DataError, match="no table"):
        Reference.fit(3)
    with pytest.raises(DataError, match="one or two dimensions"):
        Reference.fit(np.zeros((2, 2, 2)))
    with pytest.raises(DataError, match="did you mean 'speed'"):
        Reference.fit({"speed": [1.0]}, key="sped")


def test_every_kind_of_table_gives_the_same_profile() -> None:
    rng = np.random.default_rng(8)
    x, i = rng.normal(size=200), rng.integers(0, 9, 200)
    columns = {"x": x, "i": i, "c": ["a", None] * 100, "f": x.astype(np.float32), "b": x > 0}
    columns["t"] = [dt.datetime(2024, 1, 1) + dt.timedelta(hours=int(h)) for h in i]  # type: ignore[assignment]
    table = pl.DataFrame(columns)
    reference = Reference.fit(table)
    wanted = reference.own.vector
    for same in (columns, table.to_arrow(), pd.DataFrame(columns), table.lazy(), pa.table(table.to_arrow())):
        assert (Reference.fit(same).own.vector == wanted).all(), type(same)
        assert (reference.profile(same).vector == wanted).all(), type(same)
    array = np.c_[x, i]
    assert Reference.fit(array).profile(array).rows == 200
    assert Reference.fit(pl.Series("s", x)).profile(pd.Series(x, name="s")).rows == 200
    mixed = Reference.fit(pd.DataFrame({"m": [1, "a", None, 2.5] * 10}))
    assert "mixed types" in mixed.notes["m"][0]
    assert far(mixed, pd.DataFrame({"m": [1, "a", None, 2.5] * 10})).columns["m"].distances["js"].value == 0


def test_bins_may_come_from_a_sample_and_say_so() -> None:
    rng = np.random.default_rng(9)
    before = rng.normal(size=50_000)
    reference = Reference.fit({"x": before}, sample=5000, features=0)
    assert reference.notes["x"] == ("bins from a sample of 5,000 of 50,000 rows",)
    assert reference.rows == 50_000
    now = rng.normal(0.05, 1, 20_000)
    found = far(reference, {"x": now}).columns["x"].distances["ks"]
    assert found.high is not None
    assert found.low <= stats.ks_2samp(before, now).statistic <= found.high


def test_all_distances_at_once_are_those_one_by_one() -> None:
    rng = np.random.default_rng(10)
    for _ in range(20):
        p, q = rng.poisson(5, 30) * (rng.random(30) < 0.8), rng.poisson(3, 30) * (rng.random(30) < 0.8)
        one_by_one = {f.__name__: f(p, q) for f in (js, hellinger, psi, kl, total_variation)}
        together = all_of(p, q)
        assert together.pop("chi2") == pytest.approx(chi2(p, q)[0])
        assert together == pytest.approx(one_by_one)


def test_distances_of_nothing_are_no_number() -> None:
    assert chi2([0, 0], [1, 2])[0] != chi2([0, 0], [1, 2])[0]
    assert kl([0, 0], [1, 2]) != kl([0, 0], [1, 2])
