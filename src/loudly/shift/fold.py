"""Rows folded into the counts of a plan: blocks of rows, columns within, threads over stripes of rows.

Cost: `python benchmarks/floor.py` prints it pass by pass; docs/shift/speed.md tells what the passes are. No pass holds Python's
lock. Memory: a few MB a thread, whatever the rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from scipy.sparse import csc_array
from threadpoolctl import ThreadpoolController

from loudly.shift.bins import DROP, LOW, NAN, RARE, Bins, is_number, numbers_of
from loudly.shift.categories import codes_of
from loudly.shift.plan import ABSENT, BITS, HIGHS, MISTYPED, NANS, NULLS, SQUARES, Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from loudly.core.seams import Floats, Ints

    Far = dict[str, dict[int, int]]

# Rows at a time: smaller blocks cost calls, larger ones memory.
BLOCK = 32768
# Fewer rows are searched for: no table is made for an hour of little traffic.
FEW = 4096
THREADS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
# Adding ROUND and taking it away rounds a number within ±1 to a multiple of 2**-18; with ONE added, one weighted count gives
# both the count and the sum of a bin.
ROUND, ONE = 1.5 * 2.0 ** (52 - BITS), 2.0**18
UNIT = 2.0**BITS
# Of so many rows the numbers alone sum to less than ONE / 2, and with the ones to less than 53 bits: nothing is rounded.
EXACT = 2**17 - 1
WHOLE = np.ones(1)
SQUARED = -1
BLAS = ThreadpoolController()


@dataclass(slots=True)
class Scratch:
    """The buffers and the sums of one thread.

    weighted, ones: sparse matrices of one column whose row indices are `code`; times one they are a count by code, in compiled
    code that needs no lock of Python's.  held: (columns, codes) such counts that are not in the vector yet, of `waiting` rows.
    """

    vector: Ints
    rows: int
    plan: Plan
    waiting: int = 0
    far: Far = field(default_factory=dict)
    d: Floats = field(init=False)
    atom: Floats = field(init=False)
    w: Floats = field(init=False)
    cell: Ints = field(init=False)
    code: NDArray[np.int32] = field(init=False)
    y: NDArray[np.float32] = field(init=False)
    short: NDArray[np.int16] = field(init=False)
    steps: NDArray[np.int8] = field(init=False)
    held: Floats = field(init=False)
    weighted: Any = field(init=False)
    ones: Any = field(init=False)

    def __post_init__(self) -> None:
        rows, columns = self.rows, len(self.plan.bins)
        most = max((b.size for b in self.plan.bins.values()), default=0) + RARE + 1
        self.d, self.atom, self.w = np.empty(rows), np.empty(rows), np.empty(rows)
        self.cell, self.code = np.empty(rows, dtype=np.int64), np.zeros(rows, dtype=np.int32)
        self.y, self.short = np.empty(rows, dtype=np.float32), np.empty(rows, dtype=np.int16)
        self.steps = np.empty((columns if self.plan.embedding else 0, rows), dtype=np.int8)
        self.held = np.zeros((columns, most))
        self.weighted, self.ones = _counter(self.w, self.code, most), _counter(np.ones(rows), self.code, most)

    def block(self, n: int) -> None:
        """The next block has `n` rows; before sums could be rounded, they go into the vector."""
        if self.waiting + n > EXACT:
            self.settle()
        self.waiting += n
        self.vector[0] += n
        self.weighted.indptr[1] = self.ones.indptr[1] = n

    def settle(self) -> None:
        """Counts and sums that wait go into the vector."""
        v = self.vector
        for (name, bins), both in zip(self.plan.bins.items(), self.held, strict=True):
            place, size = self.plan.places[name], bins.size
            if not bins.numeric:
                v[place.counts : place.sums] += both[:size].astype(np.int64)
                v[place.head + NULLS] += int(both[size])
                continue
            counts = np.rint(both[: size + RARE] * (1 / ONE))
            v[place.counts : place.sums] += counts[:size].astype(np.int64)
            v[place.sums : place.end] += ((both[:size] - counts[:size] * ONE) * UNIT).astype(np.int64)
            v[place.head + NANS : place.head + HIGHS + 1] += counts[size:].astype(np.int64)
        self.held[:], self.waiting = 0.0, 0


def _counter(values: Floats, code: NDArray[np.int32], most: int) -> Any:
    """A matrix (most, 1) over these very arrays: what is written into them is what it counts next."""
    made: Any = csc_array((most, 1))
    made.data, made.indices, made.indptr = values, code, np.array([0, len(code)], dtype=np.int32)
    return made


def fold(table: pl.DataFrame, plan: Plan, threads: int = THREADS) -> tuple[Ints, Far]:
    """The vector of a table's counts, and the exact sums of values far outside the reference, by column."""
    n = table.height
    stripes = list(_stripes(n, threads if n > BLOCK else 1))
    if n >= FEW:
        for name, bins in plan.bins.items():
            if bins.numeric:
                plan.lookup(name)
    # The threads are ours: those of a BLAS would wait for one another.
    with BLAS.limit(limits=1, user_api="blas") if plan.embedding or n >= FEW else nullcontext():
        if len(stripes) <= 1:
            made = [_stripe(table, plan, a, b) for a, b in stripes]
        else:
            with ThreadPoolExecutor(len(stripes)) as pool:
                made = list(pool.map(lambda span: _stripe(table, plan, *span), stripes))
    vector, far = plan.zero(), dict[str, dict[int, int]]()
    for part in made:
        vector += part.vector
        far = added(far, part.far)
    return vector, far


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


def _stripes(n: int, threads: int) -> Iterator[tuple[int, int]]:
    for i in range(threads):
        a, b = n * i // threads, n * (i + 1) // threads
        if b > a:
            yield a, b


def _stripe(table: pl.DataFrame, plan: Plan, start: int, stop: int) -> Scratch:
    """One thread's rows, block by block."""
    blocks = -(-(stop - start) // BLOCK)
    size = -(-(stop - start) // blocks)
    made = Scratch(plan.zero(), size, plan)
    columns = {series.name: series for series in table.get_columns()}
    with np.errstate(over="ignore", invalid="ignore"):
        for a in range(start, stop, size):
            _block(columns, plan, made, a, min(size, stop - a))
    made.settle()
    return made


def _block(columns: dict[str, pl.Series], plan: Plan, s: Scratch, at: int, n: int) -> None:
    s.block(n)
    for j, (name, bins) in enumerate(plan.bins.items()):
        steps = s.steps[j, :n] if plan.embedding else None
        if name not in columns:
            place = plan.places[name]
            s.vector[place.head + NULLS] += n
            s.vector[place.head + ABSENT] += n
            if steps is not None:
                steps[:] = 0
            continue
        values = columns[name].slice(at, n)
        if bins.numeric:
            _numbers(values, name, bins, plan, s, n)
            s.held[j] += s.weighted @ WHOLE
        else:
            codes_of(as_text(values), bins, s.code[:n])
            s.held[j] += s.ones @ WHOLE
        if steps is not None and plan.embedding is not None:
            # No code is outside: "wrap" only says that nothing need be looked after.
            plan.embedding.scores[j].take(s.code[:n], out=steps, mode="wrap")
    if plan.embedding is not None:
        s.vector[1 : 1 + plan.embedding.size] += plan.embedding.sums(s.steps[:, :n])


def as_text(values: pl.Series) -> pl.Series:
    """Values as text (an Enum stays); what has no text of its own (nested values) by its representation."""
    if values.dtype == pl.String or isinstance(values.dtype, pl.Enum):
        return values
    if values.dtype.is_nested() or values.dtype in (pl.Object, pl.Binary):
        return pl.Series(values.name, [None if v is None else str(v) for v in values.to_list()], dtype=pl.String)
    return values.cast(pl.String)


def read(values: pl.Series) -> Floats:
    """(n,) numbers of a column, whatever its type; NaN for what is none."""
    return numbers_of(values if is_number(values.dtype) else as_text(values).cast(pl.String).cast(pl.Float64, strict=False))


def _numbers(values: pl.Series, name: str, bins: Bins, plan: Plan, s: Scratch, n: int) -> None:
    """Codes and weights of one block of a number column, and what is not counted by code: nulls, squares, far values."""
    before = values.null_count()
    values = values if is_number(values.dtype) else as_text(values).cast(pl.String).cast(pl.Float64, strict=False)
    lost, raw = values.null_count(), np.asarray(numbers_of(values), dtype=np.float64)
    size, code, d = bins.size, s.code[:n], s.d[:n]
    np.subtract(raw, bins.centre, out=d)
    np.multiply(d, 2.0**-bins.exponent, out=d)
    np.copyto(s.y[:n], d, casting="unsafe")
    most = _coded(raw, bins, plan, name, s, n)
    np.add(d, ROUND, out=d)
    np.subtract(d, ROUND, out=d)
    head, v = plan.places[name].head, s.vector
    if most >= size:
        far = _refined(raw, bins, code, d) if most > size + NAN else None
        if far is not None:
            s.far = added(s.far, {name: far})
        np.copyto(d, 0.0, where=code >= size)
    v[head + SQUARES] += int(np.dot(d, d) * UNIT**2)
    np.add(d, ONE, out=s.w[:n])
    if lost:
        v[head + NULLS] += lost
        v[head + NANS] -= lost
        v[head + MISTYPED] += lost - before


def _coded(raw: Floats, bins: Bins, plan: Plan, name: str, s: Scratch, n: int) -> int:
    """The bin of each number, or a code past the last bin, into `s.code`; the largest code."""
    code, cell, short = s.code[:n], s.cell[:n], s.short[:n]
    if n < FEW and name not in plan.tables:
        code[:] = bins.search(raw)
        np.copyto(code, bins.size + RARE, where=(np.abs(s.d[:n]) >= 1) & (code < bins.size))
        return int(code.max())
    lookup = plan.lookup(name)
    np.right_shift(s.y[:n].view(np.uint32), DROP, out=cell)
    lookup.table.take(cell, out=short, mode="wrap")
    np.copyto(code, short)
    if lookup.atoms is not None:
        atom = lookup.atoms.take(code, out=s.atom[:n], mode="wrap")
        for beside, way in ((raw > atom, np.add), (raw < atom, np.subtract)):
            if beside.any():
                way(code, beside, out=code)
    return int(short.max())


def _refined(raw: Floats, bins: Bins, code: NDArray[np.int32], d: Floats) -> dict[int, int] | None:
    """Searches for what the table could not tell; returns the exact sums of values far outside, which count as 0 elsewhere."""
    at = np.flatnonzero(code >= bins.size + LOW)
    values = raw[at]
    found = bins.search(values)
    scaled = (values - bins.centre) * 2.0**-bins.exponent
    far = np.isfinite(values) & (np.abs(scaled) >= 1)
    d[at[far]] = 0.0
    code[at] = found
    return far_sums(values[far], found[far], bins) if far.any() else None


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
