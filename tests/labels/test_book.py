from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.core.clock import DAY
from loudly.errors import DataError
from loudly.labels.book import LabelBook


def rows(*keys: str) -> pl.DataFrame:
    return pl.DataFrame({"k": keys, "x": range(len(keys))}, schema={"k": pl.String, "x": pl.Int64})


def labels(**given: bool) -> pl.DataFrame:
    return pl.DataFrame({"k": list(given), "y": list(given.values())}, schema={"k": pl.String, "y": pl.Boolean})


def test_each_label_meets_its_prediction_once_and_the_rest_is_named() -> None:
    book = LabelBook("k", "y")
    book.predicted(rows("a", "b"), 0)
    book.predicted(rows("c"), DAY)
    first = book.arrived(labels(b=True, nobody=False), 2 * DAY)
    assert first.joined.select("k", "x", "y").rows() == [("b", 1, True)]
    assert first.unknown == ("nobody",)
    assert first.lateness.tolist() == [2 * DAY]
    again = book.arrived(labels(b=True, a=False), 3 * DAY)
    assert again.duplicate == ("b",)
    assert again.joined["k"].to_list() == ["a"]
    assert book.arrived(labels(b=False), 3 * DAY).changed == ("b",)
    assert book.waiting == 1
    assert book.expects(pl.Series(["c", "a"])).to_list() == [True, False]


def test_what_waits_too_long_is_given_up_by_name() -> None:
    book = LabelBook("k", "y", keep=DAY)
    book.predicted(rows("a"), 0)
    book.predicted(rows("b"), 2 * DAY)
    assert book.overdue(2 * DAY)["k"].to_list() == ["a"]
    assert book.arrived(labels(a=True), 2 * DAY).unknown == ("a",)


def test_rows_without_the_key_are_refused() -> None:
    with pytest.raises(DataError, match="can never be labelled"):
        LabelBook("k", "y").predicted(pl.DataFrame({"x": [1]}), 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.booleans()), max_size=40), st.integers(1, 6))
def test_no_label_is_lost_and_none_joined_twice(given_labels: list[tuple[str, bool]], batch: int) -> None:
    book = LabelBook("k", "y")
    for i, key in enumerate("abcdefg"):
        book.predicted(rows(key), i)
    joined: list[str] = []
    told = 0
    for first in range(0, len(given_labels), batch):
        part = given_labels[first : first + batch]
        frame = pl.DataFrame({"k": [k for k, _ in part], "y": [v for _, v in part]}, schema={"k": pl.String, "y": pl.Boolean})
        arrival = book.arrived(frame, 100)
        joined += arrival.joined["k"].to_list() if arrival.joined.height else []
        told += len(arrival.unknown) + len(arrival.duplicate) + len(arrival.changed)
    assert len(joined) == len(set(joined))
    assert len(joined) + told == len(given_labels)
