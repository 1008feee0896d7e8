"""Summaries as a Ray Data job: made where the blocks are, merged as the job's reduce step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import polars as pl
import pyarrow as pa
import ray
from ray.data.aggregate import AggregateFn

from loudly.adapters.ray_start import start
from loudly.shift.map_reduce import Made, mapped, merged
from loudly.shift.window_state import Codec, V

KEY, SUMMARY = "_key", "_summary"


class RayReduce:
    """The merge of summaries on a Ray cluster, or on a local Ray with `workers` workers where there is none.

    Tables become blocks of a Ray dataset; call `dataset` with one that Ray has read itself (Parquet, S3), so that the rows
    never pass through this process. Only summaries travel, as bytes.
    """

    def __init__(self, workers: int = 2) -> None:
        start(workers)
        ray.data.DataContext.get_current().enable_progress_bars = False

    def __call__(self, tables: Iterable[pl.DataFrame], make: Callable[[pl.DataFrame], V], codec: Codec[V], by: str = "") -> Made:
        full = [t.to_arrow() for t in tables if t.height]
        return self.dataset(ray.data.from_arrow(full), make, codec, by) if full else {}

    def dataset(self, rows: Any, make: Callable[[pl.DataFrame], V], codec: Codec[V], by: str = "") -> Made:
        """The same for a Ray dataset."""

        def map_step(block: pa.Table) -> pa.Table:
            made = mapped(pl.DataFrame(pl.from_arrow(block)), make, codec, by)
            keys = pa.array([0] * len(made) if not by else list(made))
            return pa.table({KEY: keys, SUMMARY: pa.array(list(made.values()), pa.binary())})

        def joined(one: bytes, other: bytes) -> bytes:
            return merged(one, other, codec) if one and other else one or other

        reduce_step = AggregateFn(
            init=lambda _: b"",
            accumulate_row=lambda held, row: joined(held, bytes(row[SUMMARY])),
            merge=joined,
            name=SUMMARY,
        )
        made = rows.map_batches(map_step, batch_format="pyarrow", batch_size=None).groupby(KEY).aggregate(reduce_step)
        found = sorted(((row[KEY], bytes(row[SUMMARY])) for row in made.take_all()), key=lambda kv: (kv[0] is None, kv[0]))
        return {key if by else None: summary for key, summary in found}
