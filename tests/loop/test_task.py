"""What a label can be for a metric."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from conftest import make_app, make_world
from loudly.core.values import Task
from loudly.errors import DataError
from loudly.loop.candidate import task_of


def test_a_quantity_is_no_label_of_a_metric_of_classes() -> None:
    system = make_app(make_world(days=2)).system
    with pytest.raises(DataError, match=r"too many values for that.*\n.*600 values of type Float64"):
        task_of(pl.Series([float(i) for i in range(600)]), system)
    assert task_of(pl.Series([0.0, 1.0, 0.0]), system) == (Task.BINARY, ("0.0", "1.0"))
    assert task_of(pl.Series(list(range(60))), system)[0] is Task.MULTICLASS
    with pytest.raises(DataError, match="one value only"):
        task_of(pl.Series([True, True]), system)


@pytest.mark.parametrize(
    ("label", "told"),
    [
        (["1.5", "2", "n/a", "3"], r"1 of 4 values are no number: 'n/a'\n.*Mend them"),
        (["1.5", "2"], r"numbers written as text, e\.g\. '1\.5'\n.*cast"),
        (["yes", "no"], r"String\n.*metric for classes"),
        ([True, False], r"Boolean\n.*metric for classes"),
    ],
)
def test_a_label_that_is_no_quantity_says_which_values_are_none(label: list[object], told: str) -> None:
    system = replace(make_app(make_world(days=2)).system, metric="mae")
    with pytest.raises(DataError, match=rf"'mae' wants a numeric label\.\n.*{told}"):
        task_of(pl.Series(label), system)
