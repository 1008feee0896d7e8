"""What a label can be for a metric."""

from __future__ import annotations

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
