"""Labelled rows of a rollout, as a strategy sees them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from loudly.core.seams import Feedback, Floats
from loudly.loop import traffic
from loudly.loop.slices import slice_rows
from loudly.loop.system import System


def feedback_of(system: System, rows: pl.DataFrame, truth: Floats, at: int, arms: Sequence[str], unit: str = "") -> Feedback:
    """Rows of the traffic log whose labels have come. truth: (n,) encoded labels.  at: when they came (µs).  arms: their names.

    unit: the column that names the units; the key by default.
    """
    return Feedback(
        at=at,
        units=rows[unit or system.key].to_list(),
        arm=rows["_arm"].to_numpy().astype(np.int64),
        truth=truth,
        scores={arm: traffic.column(rows, f"_{arm}") for arm in arms},
        slices=slice_rows(system, rows),
        days=rows[system.time].cast(pl.Date).cast(pl.Int32).to_numpy().astype(np.int64),
    )
