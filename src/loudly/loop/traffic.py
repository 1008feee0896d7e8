"""What is logged of an answer: the row, who answered with which propensity, and what every arm scored."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from loudly.serve.router import ARMS, Replies

if TYPE_CHECKING:
    from loudly.core.seams import Floats


def logged(rows: pl.DataFrame, replies: Replies, rollout: int, at: int) -> pl.DataFrame:
    """The rows with `_arm`, `_propensity`, `_answer`, `_fallback`, `_rollout`, `_at` (when, µs) and `_<arm>` scores."""
    return rows.with_columns(
        pl.Series("_arm", replies.arm, dtype=pl.Int8),
        pl.Series("_propensity", replies.propensity),
        _scores("_answer", replies.answer),
        pl.Series("_fallback", replies.fallback),
        pl.lit(rollout, pl.Int64).alias("_rollout"),
        pl.lit(at, pl.Int64).alias("_at"),
        *(_scores(f"_{arm}", replies.scores[arm]) for arm in ARMS),
    )


def column(rows: pl.DataFrame, name: str) -> Floats:
    """A column of scores as (n,) or (n, k)."""
    return np.asarray(rows[name].to_numpy(), dtype=np.float64)


def to_bytes(rows: pl.DataFrame) -> bytes:
    """A batch as Arrow IPC."""
    buffer = io.BytesIO()
    rows.write_ipc_stream(buffer)
    return buffer.getvalue()


def from_bytes(data: bytes) -> pl.DataFrame:
    """The inverse of `to_bytes`."""
    return pl.read_ipc_stream(io.BytesIO(data))


def _scores(name: str, values: Floats) -> pl.Series:
    if values.ndim == 1:
        return pl.Series(name, values, dtype=pl.Float64)
    return pl.Series(name, values, dtype=pl.Array(pl.Float64, values.shape[1]))
