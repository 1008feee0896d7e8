"""A weighted sample of rows without replacement that merges: the k rows of least priority, whoever saw them.

A row's priority is -log(u) / weight with u a hash of the row itself (or of its key), so any split of the rows, in any order,
keeps the same rows. Rows of equal content have equal priority: they are kept together or not at all, so give a `key` where
many rows are alike.

Source: Efraimidis & Spirakis 2006; Cohen & Kaplan 2007 (bottom-k).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loudly.core.seams import Floats
from loudly.shift.bins import is_number
from loudly.shift.categories import FEW, as_text, codes_of
from loudly.shift.fold import read
from loudly.shift.hashing import mixed, number_hash, number_words, text_hash
from loudly.shift.plan import Plan

Words = NDArray[np.uint64]

# Merging is lazy: parts wait, until there are so many of them or as many rows as in so many full samples.
MOST_PARTS, MOST_SAMPLES = 64, 16
BLOCK = 8192
MULTIPLY = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """priority (k,) ascending, tie (k,) breaks ties, weight (k,), values (k, d): numbers, or bins of categories (NaN missing)."""

    priority: Floats
    tie: Words
    weight: Floats
    values: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Reservoir:
    """At most `keep` rows, as parts that are not merged yet, `held` rows in all; none above `bound` can be among the least."""

    keep: int
    parts: tuple[Rows, ...]
    held: int
    bound: float = math.inf

    def merge(self, other: Reservoir) -> Reservoir:
        """Of both the rows of least priority. Cost: some µs, and a selection every so often."""
        mine, theirs = self._under(other.bound), other._under(self.bound)
        both = Reservoir(self.keep, mine.parts + theirs.parts, mine.held + theirs.held, min(mine.bound, theirs.bound))
        return both if len(both.parts) < MOST_PARTS and both.held < MOST_SAMPLES * self.keep else both.settled()

    def _under(self, bound: float) -> Reservoir:
        """Without rows that cannot be among the least when merged with a sample of that bound."""
        if bound >= self.bound:
            return self
        parts = tuple(_under(p, bound) for p in self.parts)
        return Reservoir(self.keep, parts, sum(len(p.priority) for p in parts), bound)

    def settled(self) -> Reservoir:
        """The same sample in one part."""
        return self if len(self.parts) == 1 else sample_of(self.keep, _least(self.parts, self.keep))

    @property
    def rows(self) -> Rows:
        """The sample, in the order of priority."""
        return self.settled().parts[0]

    @property
    def chances(self) -> Floats:
        """(k,) each row's chance to be in the sample, given the others: 1 while nothing has been turned away."""
        rows = self.rows
        if len(rows.priority) < self.keep:
            return np.ones(len(rows.priority))
        made: Floats = -np.expm1(-rows.weight * rows.priority[-1])
        return made


def joined(samples: Sequence[Reservoir]) -> Reservoir:
    """All samples as one, in one selection."""
    parts = tuple(p for s in samples for p in s.parts)
    return sample_of(samples[0].keep, _least(parts, samples[0].keep))


def sample_of(keep: int, rows: Rows) -> Reservoir:
    """A settled sample; while it is not full, it turns nobody away."""
    n = len(rows.priority)
    return Reservoir(keep, (rows,), n, float(rows.priority[-1]) if keep and n == keep else math.inf)


def _under(rows: Rows, bound: float) -> Rows:
    """What may still be among the least, as a copy: a view would keep all the rest in memory."""
    n = int(rows.priority.searchsorted(bound, side="right"))
    if n == len(rows.priority):
        return rows
    return Rows(rows.priority[:n].copy(), rows.tie[:n].copy(), rows.weight[:n].copy(), rows.values[:n].copy())


def _least(parts: tuple[Rows, ...], keep: int) -> Rows:
    """Priorities first: values are read of the rows that stay only."""
    priority = np.concatenate([p.priority for p in parts])
    at = np.arange(len(priority))
    if len(at) > keep:
        at = np.flatnonzero(priority <= np.partition(priority, keep - 1)[keep - 1])
    tie = np.concatenate([p.tie for p in parts])
    at = at[np.lexsort((tie[at], priority[at]))[:keep]]
    values = np.empty((len(at), parts[0].values.shape[1]))
    weight = np.concatenate([p.weight for p in parts])[at]
    # In the order of rows each part's are together; where each of them goes is known.
    order = np.argsort(at)
    starts = np.cumsum([0, *(len(p.priority) for p in parts)])
    ends = np.searchsorted(at[order], starts)
    for p, start, a, b in zip(parts, starts, ends, ends[1:], strict=False):
        if b > a:
            values[order[a:b]] = p.values[at[order[a:b]] - start]
    return Rows(priority[at], tie[at], weight, values)


def reservoir_of(table: pl.DataFrame, plan: Plan) -> Reservoir:
    """The sample of a table. Cost: one hash a row of a column or two; whole rows are hashed for candidates only."""
    draw = _draws(table, plan)
    weight = _weights(table, plan)
    if weight is None:
        at = _candidates(draw, plan.keep)
        heavy = np.ones(len(at))
    else:
        at = np.flatnonzero(weight > 0)
        heavy = weight[at]
    uniform = (draw[at] >> np.uint64(11)).astype(np.float64) * 2.0**-53
    priority = -np.log1p(-uniform) / heavy
    if len(at) > 4 * plan.keep:
        best = np.flatnonzero(priority <= np.partition(priority, plan.keep - 1)[plan.keep - 1])
        at, priority, heavy = at[best], priority[best], heavy[best]
    values, tie = _values(table, plan, at)
    return sample_of(plan.keep, _least((Rows(priority, tie, heavy, values),), plan.keep))


def _candidates(draw: Words, keep: int) -> NDArray[np.intp]:
    """Rows whose hash is among the `keep` least, all that tie with the last included."""
    if len(draw) <= keep:
        return np.arange(len(draw))
    # A guess that nearly always holds spares a full partition.
    limit = np.uint64(min(2**64 - 1, int(2**64 * (2 * keep + 64) / len(draw))))
    at = np.flatnonzero(draw <= limit)
    if len(at) < keep:
        at = np.arange(len(draw))
    edge = np.partition(draw[at], keep - 1)[keep - 1]
    made: NDArray[np.intp] = at[draw[at] <= edge]
    return made


def _draws(table: pl.DataFrame, plan: Plan) -> Words:
    """(n,) a hash of each row's key, or of the columns that tell rows apart best; in blocks that stay near the processor."""
    made = np.zeros(table.height, dtype=np.uint64)
    columns = [table[name] for name in ((plan.key,) if plan.key else plan.spread) if name in table.columns]
    for at in range(0, table.height, BLOCK):
        part = made[at : at + BLOCK]
        for column in columns:
            values = column.slice(at, BLOCK)
            numeric = plan.bins[column.name].numeric if column.name in plan.bins else is_number(column.dtype)
            np.bitwise_xor(part, number_words(read(values)) if numeric else text_hash(as_text(values)), out=part)
            part[:] = mixed(part)
    return made


def _weights(table: pl.DataFrame, plan: Plan) -> Floats | None:
    if not plan.weight or plan.weight not in table.columns:
        return None
    made: Floats = np.nan_to_num(np.asarray(read(table[plan.weight]), dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    return made


def _values(table: pl.DataFrame, plan: Plan, at: NDArray[np.intp]) -> tuple[Floats, Words]:
    """(k, d) the rows, and a hash of each whole."""
    values = np.full((len(plan.bins), len(at)), np.nan)
    columns = {s.name: s for s in table.get_columns() if s.name in plan.bins} if len(at) else {}
    plain = {n: s for n, s in columns.items() if plan.bins[n].numeric and s.dtype == pl.Float64 and not s.null_count()}
    others = [name for name in columns if name not in plain]
    picked = {s.name: s for s in table.select(others)[at].get_columns()} if others else {}
    few = FEW if table.height < FEW else 0
    for j, (name, bins) in enumerate(plan.bins.items()):
        if name in plain:
            values[j] = plain[name].to_numpy()[at]
        elif name not in picked:
            continue
        elif bins.numeric:
            values[j] = read(picked[name])
        else:
            codes = codes_of(as_text(picked[name]), bins, few=few)
            values[j] = np.where(codes < bins.size, codes, np.nan)
    values = np.where(np.isnan(values), np.nan, values + 0.0)
    tie = np.zeros(len(at), dtype=np.uint64)
    for hashed in number_hash(values.ravel()).reshape(values.shape):
        tie = tie * MULTIPLY ^ hashed
    return np.ascontiguousarray(values.T), mixed(tie)
