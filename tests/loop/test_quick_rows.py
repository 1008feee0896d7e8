"""The numbers, matrix and tables of a request's rows are those that training sees, byte for byte."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SINCE, make_world
from lived import first_live
from loudly.app.verbs import memory_stores
from loudly.core.clock import HOUR
from loudly.core.values import Field, Kind, Role, Schema
from loudly.features.feature_set import FeatureSet
from loudly.serve.rows import Rows, joined, microseconds, of_table
from loudly.validate.conform import conform

VALUES = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=True), st.integers(-(2**53), 2**53).map(float))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(max_size=3), st.integers(0, 4_000_000_000_000_000), VALUES, VALUES, st.sampled_from([None, "a", "b", "zz"])
        ),
        min_size=1,
        max_size=6,
    )
)
def test_the_quick_matrix_is_the_matrix_byte_for_byte(records: list[tuple[Any, ...]]) -> None:
    live = LIVE
    ready = live.ready["world/1"]
    rows = Rows(ready.schema, None, len(records), records)
    assert ready._assembler(ready.schema) is not None
    quick: list[bytes] = []
    spy = replace(ready, model=Recorder(quick))
    spy.quick(rows)
    spy.quick(joined([Rows(ready.schema, None, 1, [r]) for r in records]))
    whole = ready.features.matrix(rows.table()).tobytes()
    assert quick == [whole, whole]
    fitted = conform(rows.table(), ready.schema)
    assert fitted.aside.is_empty()
    assert fitted.good.equals(rows.table(), null_equal=True)
    assert list(of_table(rows.table(), ready.schema).records) == [tuple(r) for r in records]


def test_the_numbers_of_rows_are_the_matrix_however_the_rows_are_held() -> None:
    kinds = {"id": Kind.TEXT, "b": Kind.NUMBER, "at": Kind.TIME, "a": Kind.INTEGER, "c": Kind.BOOLEAN, "d": Kind.NUMBER}
    roles = {"id": Role.KEY, "at": Role.TIME}
    schema = Schema(tuple(Field(n, k, roles.get(n, Role.INPUT), nullable=n not in roles) for n, k in kinds.items()))
    records = [("x", 1.5, 0, 2**60 + 1, True, 0.1), ("y", None, 1, None, None, 7.0), ("z", -0.0, 2, -3, False, 1e300)]
    by_row, by_column = Rows(schema, None, 3, records), Rows(schema, Rows(schema, None, 3, records).columns, 3)
    table = by_row.table()
    whole = FeatureSet([], schema).fit(table).matrix(table)
    parts = [Rows(schema, None, 1, [record]) for record in records]
    for rows in (by_row, by_column, joined(parts)):
        assert rows.numbers.tobytes() == whole.tobytes()
        assert not rows.numbers.flags.writeable
    again = joined(parts)
    assert again.numbers.tobytes() == whole.tobytes(), "of parts whose numbers are there already"
    for rows in (by_row, by_column, again):
        assert rows.table().equals(table, null_equal=True), "a missing number stays missing, a whole one whole"
        assert all(rows.series(name).equals(table[name], null_equal=True) for name in kinds)


class Recorder:
    """A model that keeps the bytes of what it was asked."""

    def __init__(self, kept: list[bytes]) -> None:
        self.kept = kept

    def predict(self, X: Any) -> Any:
        assert X.flags.c_contiguous
        self.kept.append(X.tobytes())
        return np.zeros(len(X))


LIVE = first_live(make_world(days=45), memory_stores("world"))[0]


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("2024-02-01T00:00:00", SINCE),
        ("2024-02-01", SINCE),
        ("2024-02-01T02:00:00+02:00", SINCE),
        ("2024-02-01T01:00:00Z", SINCE + HOUR),
        ("2024-02-01 00:00:00.000001", SINCE + 1),
    ],
)
def test_times_are_read_as_the_table_reads_them(text: str, us: int) -> None:
    assert microseconds(text) == us
