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


def test_what_waits_too_long_is_forgotten_counted_and_unknown_when_its_label_comes() -> None:
    book = LabelBook("id", "y", keep=10 * DAY)
    for day in range(30):
        book.predicted(pl.DataFrame({"id": [f"{day}-{i}" for i in range(4)]}), day * DAY)
        first = pl.DataFrame({"id": [f"{day}-0"], "y": [1]})
        assert book.arrived(first, day * DAY).joined.height == 1
        book.sweep(day * DAY)
        assert book.waiting <= 3 * 11, "memory is bounded"
    assert book.waiting + book.overdue == 3 * 30
    late = book.arrived(pl.DataFrame({"id": ["2-1", "25-1"], "y": [1, 1]}), 30 * DAY)
    assert late.unknown == ("2-1",)
    assert late.joined["id"].to_list() == ["25-1"]
    again = book.arrived(pl.DataFrame({"id": ["28-0", "29-0"], "y": [1, 0]}), 30 * DAY)
    assert (again.duplicate, again.changed) == (("28-0",), ("29-0",)), "what is labelled stays known for as long"
    assert len(book._answered) + len(book._earlier) <= 2 * 11, "and no longer than twice that"
