"""One definition for the table and for the row: the same bytes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.errors import DataError, UserFileError
from loudly.features.feature_set import FeatureSet
from loudly.serve.rows import rows_of
from loudly.validate.conform import conform
from loudly.validate.schema import infer_schema

rows = st.lists(
    st.fixed_dictionaries(
        {
            "x": st.none() | st.floats(-1e6, 1e6),
            "n": st.none() | st.integers(-(2**40), 2**40),
            "c": st.none() | st.sampled_from(["a", "b", "ü", ""]),
            "b": st.none() | st.booleans(),
            "t": st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2030, 1, 1)),
        }
    ),
    min_size=1,
    max_size=12,
)
SCHEMA = {"x": pl.Float64, "n": pl.Int64, "c": pl.String, "b": pl.Boolean, "t": pl.Datetime("us")}


def hour(t: pl.Series) -> pl.Series:
    return t.dt.hour()


def night(hour: pl.Series) -> pl.Series:
    return hour < 6


def letter(c: pl.Series) -> pl.Series:
    return c.str.to_uppercase()


def table_of(given_rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(given_rows, schema=SCHEMA).with_columns(id=pl.int_range(pl.len()).cast(pl.String), y=pl.lit(True))


@settings(max_examples=60, deadline=None)
@given(rows)
def test_a_row_gives_the_same_bytes_alone_and_in_a_table(given_rows: list[dict[str, Any]]) -> None:
    table = table_of(given_rows)
    schema = infer_schema(table, label="y", time="t", key="id")
    features = FeatureSet([night, hour, letter], schema).fit(table)
    whole = features.matrix(table)
    assert whole.flags.c_contiguous
    assert whole.dtype == np.float64
    for i in range(table.height):
        assert features.matrix(table[i]).tobytes() == whole[i].tobytes()
    sent = [{**row, "t": row["t"].isoformat()} for row in table.drop("y").to_dicts()]
    for i, row in enumerate(sent):
        live = conform(rows_of([row], schema).table(), schema).good
        assert features.matrix(live).tobytes() == whole[i].tobytes(), "a row as a request sends it"


def test_unseen_and_missing_are_nan_and_codes_stay() -> None:
    table = table_of([{"x": 1.0, "n": 1, "c": c, "b": True, "t": datetime(2020, 1, 1, 3)} for c in "ab"])
    fitted = FeatureSet([], infer_schema(table, label="y", time="t", key="id"))
    features = fitted.fit(table)
    where = features.columns.index("c")
    assert features.categories_of("numpy") == (where,)
    later = table.with_columns(c=pl.Series(["b", "zzz"]), x=pl.Series([None, 2.0]))
    matrix = features.matrix(later)
    assert matrix[0, where] == 1.0
    assert np.isnan(matrix[1, where])
    assert np.isnan(matrix[0, features.columns.index("x")])
    again = fitted.thaw(features.plain())
    assert again.matrix(later).tobytes() == matrix.tobytes()
    assert features.matrix(later.drop("x")).shape == matrix.shape


def test_a_number_made_of_a_category_of_the_same_name_is_a_number() -> None:
    def c(c: pl.Series) -> pl.Series:
        return c.str.len_chars()

    table = table_of([{"x": 1.0, "n": 1, "c": c, "b": True, "t": datetime(2020, 1, 1)} for c in ("a", "abc")])
    features = FeatureSet([c], infer_schema(table, label="y", time="t", key="id")).fit(table)
    assert features.codes == {}
    later = table_of([{"x": 1.0, "n": 1, "c": c, "b": True, "t": datetime(2020, 1, 1)} for c in ("ab", "abcdefghijk")])
    assert features.matrix(later)[:, features.columns.index("c")].tolist() == [2.0, 11.0]


@pytest.mark.parametrize("make", ["x - x.mean()", "x.rank()", "x.shift(1)", "x > x.median()", "x.cum_sum()"])
def test_a_feature_that_reads_other_rows_is_named_before_it_is_served(make: str) -> None:
    made: dict[str, Any] = {}
    exec(f"def odd(x):\n    return {make}", made)
    table = table_of([{"x": float(i), "n": i, "c": "ab"[i % 2], "b": True, "t": datetime(2020, 1, 1)} for i in range(50)])
    schema = infer_schema(table, label="y", time="t", key="id")
    with pytest.raises(DataError, match="'odd' makes another value of a row alone"):
        FeatureSet([made["odd"]], schema).fit(table).refuse_skew(table)
    FeatureSet([night, hour, letter], schema).fit(table).refuse_skew(table)


def test_mistakes_in_definitions_are_named() -> None:
    table = table_of([{"x": 1.0, "n": 1, "c": "a", "b": True, "t": datetime(2020, 1, 1)}])
    schema = infer_schema(table, label="y", time="t", key="id")

    def lost(xx: pl.Series) -> pl.Series:
        return xx

    def chicken(egg: pl.Series) -> pl.Series:
        return egg

    def egg(chicken: pl.Series) -> pl.Series:
        return chicken

    def short(x: pl.Series) -> pl.Series:
        return x[:0]

    with pytest.raises(UserFileError, match="did you mean 'x'"):
        FeatureSet([lost], schema)
    with pytest.raises(UserFileError, match="circle"):
        FeatureSet([chicken, egg], schema)
    with pytest.raises(DataError, match="one value a row"):
        FeatureSet([short], schema).fit(table).matrix(table)
