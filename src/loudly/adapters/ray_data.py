"""Batches on Ray Data: row groups scored by a pool of actors on as many machines as the cluster has.

Files must lie where every machine can read them. The user's functions travel by value, so no machine needs the user's file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cloudpickle
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from loudly.adapters.ray_start import start
from loudly.loop.batch import MakeFormats, Piece, Scorer, Work
from loudly.store.travel import users_by_value


class Actor:
    """Loads the version once and scores the pieces it is handed."""

    def __init__(self, packed: bytes) -> None:
        work, formats = cloudpickle.loads(packed)
        self._scorer = Scorer(work, formats())

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for row in batch.to_pylist():
            yield from self._scorer.piece(Piece(**row))


def run(work: Work, formats: MakeFormats, pieces: Sequence[Piece], workers: int) -> Iterator[pa.Table]:
    """Scored tables in the order of the pieces; Ray holds back where whoever writes them is slower."""
    start(workers)
    DataContext.get_current().execution_options.preserve_order = True
    DataContext.get_current().enable_progress_bars = False
    items = [{"path": p.path, "group": p.group, "first": p.first, "rows": p.rows} for p in pieces]
    scored: Any = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        Actor,
        fn_constructor_args=(_packed(work, formats),),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=max(1, workers)),
    )
    yield from scored.iter_batches(batch_size=None, batch_format="pyarrow")


def _packed(work: Work, formats: MakeFormats) -> bytes:
    with users_by_value():
        return bytes(cloudpickle.dumps((work, formats)))
