"""Damage on purpose, for rehearsals: what feeds and people do to tables, each as one pure function.

A damage takes the rows of a stretch of traffic and gives them back harmed. `since` is event time in µs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from loudly.core.canon import unit_draw

Harm = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True, slots=True)
class Damage:
    """A named harm that begins at `since` (µs) and, unless `until` is given, stays."""

    name: str
    harm: Harm
    since: int
    until: int | None = None

    def __call__(self, rows: pl.DataFrame, time: str) -> pl.DataFrame:
        """The rows with the harm done to those within its time. Order is kept."""
        within = pl.col(time).dt.epoch("us") >= self.since
        if self.until is not None:
            within &= pl.col(time).dt.epoch("us") < self.until
        marked = rows.select(within.alias("within"))["within"]
        if marked.all():
            return self.harm(rows)
        if not marked.any():
            return rows
        mixed = [rows.filter(~marked), self.harm(rows.filter(marked))]
        return pl.concat(mixed, how="diagonal_relaxed").sort(time, maintain_order=True)


def units_changed(column: str, scale: float, offset: float) -> Harm:
    """The feed switches units: value -> value * scale + offset. °F to °C is (5/9, -160/9)."""
    return lambda rows: rows.with_columns(pl.col(column) * scale + offset)


def column_gone(column: str) -> Harm:
    """The column is no longer sent."""
    return lambda rows: rows.drop(column)


def nulls(column: str, share: float, where: pl.Expr, key: str) -> Harm:
    """A share of the values of a subset becomes null; which ones depends on the key alone.

    >>> rows = pl.DataFrame({"k": ["a", "b"], "x": [1.0, 2.0], "at": ["EWR", "JFK"]})
    >>> nulls("x", 1.0, pl.col("at") == "EWR", "k")(rows)["x"].to_list()
    [None, 2.0]
    """

    def harm(rows: pl.DataFrame) -> pl.DataFrame:
        draws = np.array([unit_draw(str(k), column) for k in rows[key]])
        lost = pl.Series("lost", draws < share)
        return rows.with_columns(pl.when(where & lost).then(None).otherwise(pl.col(column)).alias(column))

    return harm


def labels_turned(label: str, where: pl.Expr) -> Harm:
    """Boolean labels of a subset are turned round: somebody mapped the classes the wrong way."""
    return lambda rows: rows.with_columns(pl.when(where).then(~pl.col(label)).otherwise(pl.col(label)).alias(label))


def labels_shuffled(label: str, where: pl.Expr, seed: int) -> Harm:
    """Labels of a subset are dealt out anew among its rows: the mean stays, the knowledge is gone."""

    def harm(rows: pl.DataFrame) -> pl.DataFrame:
        index = rows.with_row_index("_i").filter(where)["_i"].to_numpy()
        dealt = rows[label].to_numpy().copy()
        dealt[index] = dealt[np.random.default_rng(seed).permutation(index)]
        return rows.with_columns(pl.Series(label, dealt, dtype=rows[label].dtype, nan_to_null=True))

    return harm
