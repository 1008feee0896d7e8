"""Rows folded into the counts of a plan: spans of rows, columns within, blocks of rows within.

A column's table is read for a whole span, so that it stays near the processor; a block's buffers stay there, too.
On one thread: passes of a block are so short that two threads hand Python's lock to and fro, and take longer than one.
Cost: `python benchmarks/floor.py` prints it pass by pass; docs/shift/speed.md tells what the passes are.
Memory: half a MB, and for the embedding a byte a value of a span.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import scipy
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from loudly.core.seams import Floats, Ints
from loudly.shift.bins import DROP, FEW, NAN, SPECIAL, STEP_BITS, Bins, Lookup, gaps_of, is_number, numbers_of
from loudly.shift.categories import SLOTS, codes_of, named_slots
from loudly.shift.plan import ABSENT, BITS, HIGHS, MISTYPED, NANS, NULLS, SQUARES, Plan

if TYPE_CHECKING:
    Far = dict[str, dict[int, int]]
    Mask = NDArray[np.bool_]
    Count = Callable[[int], Floats]

# Rows at a time: smaller blocks cost calls, larger ones leave the processor's second cache.
BLOCK = 16384
# Adding ROUND and taking it away rounds a number within ±1 to a multiple of 2**-18; with ONE added, one weighted count gives
# both the count and the sum of a bin.
ROUND, ONE = 1.5 * 2.0 ** (52 - BITS), 2.0**18
UNIT = 2.0**BITS
# Rows whose steps wait for the embedding. Of up to 2**17 - 1 of them the numbers alone sum to less than ONE / 2, and with the ones
# to less than 53 bits: nothing is rounded.
SPAN = 2**16
WHOLE = np.ones(1)
SQUARED = -1
BLAS = ThreadpoolController()


@dataclass(slots=True)
class Scratch:
    """The buffers of a block. weighted: sums `d` by code, of so many rows.  ones: counts by cell."""

    rows: int
    most: int
    count: Callable[[Floats, NDArray[Any], int], Count]
    d: Floats = field(init=False)
    cell: Ints = field(init=False)
    code: NDArray[np.int32] = field(init=False)
    weighted: Count = field(init=False)
    ones: Count = field(init=False)

    def __post_init__(self) -> None:
        rows = self.rows
        self.d, self.cell = np.empty(rows), np.zeros(rows, dtype=np.int64)
        self.code = np.zeros(rows, dtype=np.int32)
        self.weighted = self.count(self.d, self.code, self.most)
        self.ones = self.count(np.ones(rows), self.cell, max(self.most, SLOTS + 2))


def _few(values: Floats, code: NDArray[Any], most: int) -> Count:
    """Sums the first n values by code, of (at least `most`,)."""
    return lambda n: np.asarray(np.bincount(code[:n], values[:n], most), dtype=np.float64)


def _many(values: Floats, code: NDArray[Any], most: int) -> Count:
    """The same by a sparse matrix (most, 1) over these very arrays, times one: compiled code that takes half of the time."""
    made: Any = scipy.sparse.csc_array((most, 1))
    made.data, made.indices, made.indptr = values, code, np.array([0, len(code)], dtype=code.dtype)

    def count(n: int) -> Floats:
        made.indptr[1] = n
        held: Floats = made @ WHOLE
        return held

    return count


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What the columns are summed into. far: by column, maybe empty."""

    plan: Plan
    vector: Ints
    far: Far


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Where the steps of a column's rows go, and the step of each code."""

    row: NDArray[np.int8]
    scores: NDArray[np.int8]

    def part(self, at: int) -> Steps:
        """Those of the block that begins there."""
        return Steps(self.row[at : at + BLOCK], self.scores)


def fold(table: pl.DataFrame, plan: Plan) -> tuple[Ints, Far]:
    """The vector of a table's counts, and the exact sums of values far outside the reference, by column."""
    n, made = table.height, Sums(plan, plan.zero(), {})
    made.vector[0] = n
    most = max((b.size for b in plan.bins.values()), default=0) + SPECIAL + 1
    scratch = Scratch(min(n, BLOCK), most, _few if n < FEW else _many)
    rows = -(-n // max(1, -(-n // SPAN)))
    steps = np.empty((len(plan.bins), rows), dtype=np.int8) if plan.embedding else None
    with BLAS.limit(limits=1, user_api="blas") if plan.embedding or n >= FEW else nullcontext():
        for at in range(0, n, max(1, rows)):
            span = table.slice(at, rows)
            told = None if steps is None else steps[:, : span.height]
            _columns(made, span, scratch, told)
            if plan.embedding and told is not None:
                made.vector[1 : 1 + plan.embedding.size] += plan.embedding.sums(told)
    return made.vector, {name: own for name, own in made.far.items() if own}


def added(a: Far, b: Far, sign: int = 1) -> Far:
    """Sums of far values together, by column and bin (SQUARED: of squares); what is nothing is left out."""
    if not b:
        return a
    both = dict(a)
    for name, more in b.items():
        own = dict(both.get(name, {}))
        for where, value in more.items():
            own[where] = own.get(where, 0) + sign * value
        both[name] = {where: value for where, value in own.items() if value}
    return {name: own for name, own in both.items() if own}


def _columns(made: Sums, span: pl.DataFrame, s: Scratch, told: NDArray[np.int8] | None) -> None:
    """The columns of a span. told: (columns, rows), where their steps for the embedding go."""
    embedding = made.plan.embedding
    with np.errstate(over="ignore", invalid="ignore"):
        for j, (name, bins) in enumerate(made.plan.bins.items()):
            steps = None if embedding is None or told is None else Steps(told[j], embedding.scores[j])
            if name not in span.columns:
                place = made.plan.places[name]
                made.vector[place.head + NULLS] += span.height
                made.vector[place.head + ABSENT] += span.height
                if steps is not None:
                    steps.row[:] = 0
            elif bins.numeric:
                _numbers(span[name], bins, made, s, steps)
            else:
                _texts(span[name], bins, made, s, steps)


def as_text(values: pl.Series) -> pl.Series:
    """Values as text (an Enum stays); what has no text of its own (nested values) by its representation."""
    if values.dtype == pl.String or isinstance(values.dtype, pl.Enum):
        return values
    if values.dtype.is_nested() or values.dtype in (pl.Object, pl.Binary):
        return pl.Series(values.name, [None if v is None else str(v) for v in values.to_list()], dtype=pl.String)
    return values.cast(pl.String)


def read(values: pl.Series) -> Floats:
    """(n,) numbers of a column, whatever its type; NaN for what is none."""
    return numbers_of(as_number(values))


def as_number(values: pl.Series) -> pl.Series:
    """Values of a type that is taken as numbers; what is no number is missing."""
    return values if is_number(values.dtype) else as_text(values).cast(pl.String).cast(pl.Float64, strict=False)


def _texts(values: pl.Series, bins: Bins, made: Sums, s: Scratch, steps: Steps | None) -> None:
    """A span of a category column: by the slots of a perfect hash where there is one, else by codes."""
    place, v, size = made.plan.places[bins.name], made.vector, bins.size
    held = np.zeros(size + 1)
    for at in range(0, len(values), BLOCK):
        text = as_text(values.slice(at, BLOCK))
        n = len(text)
        cell = s.cell[:n]
        names = named_slots(text, bins, s.d[:n].view(np.uint64), cell)
        if names is None:
            codes_of(text, bins, cell)
            held += s.ones(n)[: size + 1]
        else:
            held += s.ones(n)[names.slots]
        if steps is not None:
            scores = steps.scores if names is None else steps.scores[names.codes]
            # No code is outside: "wrap" only says that nothing need be looked after.
            scores.take(cell, out=steps.row[at : at + n], mode="wrap")
    counts = held.astype(np.int64)
    v[place.counts : place.sums] += counts[:size]
    v[place.head + NULLS] += counts[size]


def _numbers(values: pl.Series, bins: Bins, made: Sums, s: Scratch, steps: Steps | None) -> None:
    """A span of a number column: counts and sums by bin, squares, and what is not counted by bin: nulls, far values."""
    name, n = bins.name, len(values)
    place, v, size = made.plan.places[name], made.vector, bins.size
    lookup = made.plan.lookup(name) if n >= FEW or name in made.plan.tables else None
    if lookup is not None and lookup.whole and values.dtype.is_integer():
        lookup = replace(lookup, atoms=None)
    held = np.zeros(size + SPECIAL + 1)
    for at, raw, gone in _read(values, place.head, v):
        both, squares, far = _block(raw, gone, bins, lookup, s, None if steps is None else steps.part(at))
        held += both
        v[place.head + SQUARES] += int(squares * UNIT**2)
        if far:
            made.far[name] = added({name: made.far.get(name, {})}, {name: far}).get(name, {})
    counts = np.rint(held * (1 / ONE))
    v[place.counts : place.sums] += counts[1 : size + 1].astype(np.int64)
    v[place.sums : place.end] += ((held - counts * ONE)[1 : size + 1] * UNIT).astype(np.int64)
    v[place.head + NANS : place.head + HIGHS + 1] += counts[size + 1 :].astype(np.int64)


def _read(values: pl.Series, head: int, v: Ints) -> Iterator[tuple[int, Floats, Mask | None]]:
    """Blocks of a span as numbers, and which are null where NaN does not say it; nulls and mistyped values are counted."""
    plain, nulls = values.dtype == pl.Float64, values.null_count()
    whole, gone = (None, None) if not plain else gaps_of(values) if nulls else (values.to_numpy(), None)
    v[head + NULLS] += nulls
    v[head + NANS] -= nulls
    for at in range(0, len(values), BLOCK):
        if whole is not None:
            yield at, whole[at : at + BLOCK], None if gone is None else gone[at : at + BLOCK]
            continue
        part = values.slice(at, BLOCK)
        told = as_number(part)
        mistyped = told.null_count() - part.null_count()
        v[head + NULLS] += mistyped
        v[head + NANS] -= mistyped
        v[head + MISTYPED] += mistyped
        yield at, np.asarray(numbers_of(told), dtype=np.float64), None


def _block(
    raw: Floats,
    gone: Mask | None,
    bins: Bins,
    lookup: Lookup | None,
    s: Scratch,
    steps: Steps | None,
) -> tuple[Floats, float, dict[int, int]]:
    """One block: by code (0: look closer, bin + 1, missing, -inf, +inf) counts and sums in one number, squares, far values."""
    n = len(raw)
    d, code, cell = s.d[:n], s.code[:n], s.cell[:n]
    np.subtract(raw, bins.centre, out=d)
    np.multiply(d, 2.0**-bins.exponent, out=d)
    if gone is not None:
        np.copyto(d, 0.0, where=gone)
    if lookup is None:
        code[:] = np.where(np.abs(d) < 1, bins.search(raw) + 1, 0)
        if gone is not None:
            np.copyto(code, bins.size + NAN + 1, where=gone)
        if steps is not None:
            steps.scores.take(code - 1, out=steps.row, mode="wrap")
    else:
        np.right_shift(d.view(np.uint64), DROP, out=cell.view(np.uint64))
        lookup.table.take(cell, out=code, mode="wrap")
        if gone is not None:
            np.copyto(code, lookup.lost, where=gone)
        if steps is not None:
            np.copyto(steps.row, code, casting="unsafe")
        np.right_shift(code, STEP_BITS, out=code)
        if lookup.atoms is not None:
            _beside(raw, lookup.atoms.take(code, out=cell.view(np.float64), mode="wrap"), code, steps)
    np.add(d, ROUND, out=d)
    np.subtract(d, ROUND, out=d)
    squares = float(np.dot(d, d))
    np.add(d, ONE, out=d)
    held = s.weighted(n)[: bins.size + SPECIAL + 1]
    # Near values alone have no more squares than rows; were far ones' sum nothing by chance, their squares are not.
    if held[0] == 0 and squares <= n:
        return held, squares, {}
    return held, *_closer(raw, bins, held, d, code, steps)


def _beside(raw: Floats, atom: Floats, code: NDArray[np.int32], steps: Steps | None) -> None:
    """Values that share a cell with an atom and are another: one bin up or down. Shapes: (n,), atom NaN where there is none."""
    at = np.flatnonzero((raw > atom) | (raw < atom))
    if len(at):
        code[at] += np.where(raw[at] > atom[at], 1, -1)
        if steps is not None:
            steps.row[at] = steps.scores[code[at] - 1]


def _closer(
    raw: Floats,
    bins: Bins,
    held: Floats,
    d: Floats,
    code: NDArray[np.int32],
    steps: Steps | None,
) -> tuple[float, dict[int, int]]:
    """Searches for what the table could not tell, counts it into `held`; returns squares and the exact sums of far values.

    Far values and what is no number count as 0 elsewhere.
    """
    np.copyto(d, ONE, where=np.isnan(d))
    held[bins.size + NAN + 1] = np.count_nonzero(code == bins.size + NAN + 1) * ONE
    far: dict[int, int] = {}
    at = np.flatnonzero(code == 0)
    if len(at):
        values = raw[at]
        found = bins.search(values)
        outside = ~(np.abs((values - bins.centre) * 2.0**-bins.exponent) < 1)
        d[at[outside]] = ONE
        held[0] = 0
        held += np.bincount(found + 1, d[at], len(held))
        if steps is not None:
            steps.row[at] = steps.scores[found]
        apart = outside & np.isfinite(values)
        far = far_sums(values[apart], found[apart], bins) if apart.any() else {}
    np.subtract(d, ONE, out=d)
    return float(np.dot(d, d)), far


def far_sums(values: Floats, where: Ints, bins: Bins) -> dict[int, int]:
    """Exact sums by bin, in units of 2**(exponent - 18), and of all squares under SQUARED, as Python integers.

    Like near values, each is first rounded to the unit (or kept whole, where its last bit is worth more).
    """
    # Halved, so that the difference of the largest float64 numbers is still one; one is added to the exponent again.
    half, power = np.frexp(values / 2 - bins.centre / 2)
    power = power + 1 - bins.exponent
    made = {SQUARED: 0}
    for p in np.unique(power):
        inside = power == p
        whole = np.rint(np.ldexp(half[inside], min(53, int(p) + BITS))).astype(np.int64)
        shift = max(0, int(p) + BITS - 53)
        for b in np.unique(where[inside]).tolist():
            made[b] = made.get(b, 0) + (_total(whole[where[inside] == b]) << shift)
        upper, lower = whole >> 26, whole & ((1 << 26) - 1)
        square = (_total(upper * upper) << 52) + (_total(upper * lower) << 27) + _total(lower * lower)
        made[SQUARED] += square << 2 * shift
    return {b: value for b, value in made.items() if value}


def _total(whole: Ints) -> int:
    """The sum of integers of 53 bits, without overflow."""
    return (int((whole >> 26).sum()) << 26) + int((whole & ((1 << 26) - 1)).sum())
