"""The reduce step of a Ray Data job on two workers gives the bytes of one process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pytest

from loudly import plugins
from loudly.errors import DataError
from loudly.shift.map_reduce import here
from loudly.shift.window_state import Codec

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.filterwarnings("ignore")]  # Ray warns about itself

EDGES = np.linspace(-3, 3, 255)


def counting() -> tuple[Any, Codec[Any]]:
    """Counts in 256 bins, by value, so that workers need no test module."""

    @dataclass(frozen=True)
    class Counts:
        counts: Any

        def merge(self, other: Counts) -> Counts:
            return Counts(self.counts + other.counts)

    edges = EDGES

    def make(table: pl.DataFrame) -> Counts:
        return Counts(np.bincount(np.searchsorted(edges, table["x"].to_numpy()), minlength=256).astype("<i8"))

    return make, Codec(lambda c: c.counts.tobytes(), lambda b: Counts(np.frombuffer(b, dtype="<i8")))


@pytest.fixture(scope="module")
def reduce() -> Iterator[Any]:
    yield plugins.resolve("reduce", "ray")(workers=2)
    ray.shutdown()


def table(n: int = 40_000) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame({"x": rng.normal(size=n), "day": rng.integers(0, 5, n), "arm": rng.choice(["a", "b"], n)})


def test_two_workers_give_the_bytes_of_one_process(reduce: Any) -> None:
    make, codec = counting()
    whole = here([table()], make, codec)
    parts = list(table().iter_slices(3_000))
    assert reduce(parts, make, codec) == whole == here(parts, make, codec)
    assert np.frombuffer(whole[None], dtype="<i8").sum() == 40_000
    assert reduce([], make, codec) == {} == here([], make, codec)


def test_windows_and_slices_are_reduced_apart(reduce: Any) -> None:
    make, codec = counting()
    rows = table().with_columns(slice=pl.format("{}/{}", "day", "arm"))
    made = reduce(list(rows.iter_slices(3_000)), make, codec, "slice")
    assert len(made) == 10
    assert made == here([rows], make, codec, "slice")


def test_a_dataset_that_ray_reads_itself(reduce: Any, tmp_path: Any) -> None:
    make, codec = counting()
    for i, part in enumerate(table().iter_slices(10_000)):
        part.write_parquet(tmp_path / f"{i}.parquet")
    assert reduce.dataset(ray.data.read_parquet(str(tmp_path)), make, codec) == here([table()], make, codec)


def test_a_column_that_is_not_there_is_named() -> None:
    make, codec = counting()
    with pytest.raises(DataError, match="no column 'week'"):
        here([table(10)], make, codec, "week")
