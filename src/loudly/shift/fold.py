"""Rows folded into the counts of a plan: blocks of rows, columns within, threads over stripes of rows.

Cost: about 4 ns a number and 8 ns a category text on one core, plus 2.6 ns a projection of the embedding and row. What takes the
time, measured on one core: one weighted bincount 1.1 ns (counts and sums at once), the table 0.8 ns, centring, scaling and
rounding 0.6 ns, squares 0.1 ns. Memory: a few MB a thread, whatever the rows.
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
from threadpoolctl import ThreadpoolController

from loudly.shift.bins import DROP, HIGH, LOW, NAN, RARE, Bins, is_number, numbers_of
from loudly.shift.categories import codes_of
from loudly.shift.plan import ABSENT, BITS, HIGHS, LOWS, MISTYPED, NANS, NULLS, SQUARES, Place, Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from loudly.core.seams import Floats, Ints

    Far = dict[str, dict[int, int]]

BLOCK = 32768
# Fewer rows are searched for: no table is made for an hour of little traffic.
FEW = 4096
THREADS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
# Adding this and taking away ROUND - ONE rounds a number within ±1 to a multiple of 2**-18 and adds ONE, so that one weighted
# count gives both the count and the sum of a bin: 32,768 such numbers need 15 + 16 + 18 bits, and every sum of them is exact.
ROUND, ONE = 1.5 * 2.0 ** (52 - BITS), 2.0**17
UNIT = 2.0**BITS
SQUARED = -1
BLAS = ThreadpoolController()


@dataclass(slots=True)
class Scratch:
    """The buffers and the sums of one thread."""

    vector: Ints
    rows: int
    columns: int
    far: Far = field(default_factory=dict)
    d: Floats = field(init=False)
    atom: Floats = field(init=False)
    cell: Ints = field(init=False)
    code: Ints = field(init=False)
    y: NDArray[np.float32] = field(init=False)
    short: NDArray[np.int16] = field(init=False)
    steps: NDArray[np.int16] = field(init=False)

    def __post_init__(self) -> None:
        self.d, self.atom = np.empty(self.rows), np.empty(self.rows)
        self.cell, self.code = np.empty(self.rows, dtype=np.int64), np.empty(self.rows, dtype=np.int64)
        self.y, self.short = np.empty(self.rows, dtype=np.float32), np.empty(self.rows, dtype=np.int16)
        self.steps = np.empty((self.columns, self.rows), dtype=np.int16)


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
    made = Scratch(plan.zero(), size, len(plan.bins) if plan.embedding else 0)
    columns = {series.name: series for series in table.get_columns()}
    with np.errstate(over="ignore", invalid="ignore"):
        for a in range(start, stop, size):
            _block(columns, plan, made, a, min(size, stop - a))
    return made


def _block(columns: dict[str, pl.Series], plan: Plan, s: Scratch, at: int, n: int) -> None:
    s.vector[0] += n
    for j, (name, bins) in enumerate(plan.bins.items()):
        place = plan.places[name]
        steps = s.steps[j, :n] if plan.embedding else None
        if name not in columns:
            s.vector[place.head + NULLS] += n
            s.vector[place.head + ABSENT] += n
            if steps is not None:
                steps[:] = 0
            continue
        values = columns[name].slice(at, n)
        if bins.numeric:
            _numbers(values, name, bins, place, plan, s, n)
            codes = s.code[:n]
        else:
            codes = _texts(values, bins, place, s)
        if steps is not None and plan.embedding is not None:
            plan.embedding.scores[j].take(codes, out=steps, mode="clip")
    if plan.embedding is not None:
        s.vector[1 : 1 + plan.embedding.size] += plan.embedding.sums(s.steps[:, :n])


def _texts(values: pl.Series, bins: Bins, place: Place, s: Scratch) -> Ints:
    codes = codes_of(as_text(values), bins)
    counts = np.bincount(codes, minlength=bins.size + 1)
    s.vector[place.counts : place.counts + bins.size] += counts[: bins.size]
    s.vector[place.head + NULLS] += counts[bins.size]
    return codes


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


def _numbers(values: pl.Series, name: str, bins: Bins, place: Place, plan: Plan, s: Scratch, n: int) -> None:
    """Counts, sums and squares of one block of a number column."""
    before = values.null_count()
    values = values if is_number(values.dtype) else as_text(values).cast(pl.String).cast(pl.Float64, strict=False)
    lost, raw = values.null_count(), numbers_of(values)
    size, code, d, y = bins.size, s.code[:n], s.d[:n], s.y[:n]
    np.subtract(raw, np.float64(bins.centre), out=d)
    np.multiply(d, 2.0**-bins.exponent, out=d)
    np.copyto(y, d, casting="unsafe")
    _coded(raw, bins, plan, name, s, n)
    np.add(d, ROUND, out=d)
    np.subtract(d, ROUND - ONE, out=d)
    both: Floats = np.bincount(code, d, size + 4).astype(np.float64, copy=False)
    odd = int(code.max()) >= size
    if odd:
        far = _refined(raw, bins, code, d, both)
        if far is not None:
            s.far = added(s.far, {name: far})
    counts = np.rint(both * (1 / ONE))
    np.subtract(d, ONE, out=d)
    if odd:
        np.copyto(d, 0.0, where=code >= size)
    head, v = place.head, s.vector
    v[head + SQUARES] += int(np.dot(d, d) * UNIT**2)
    v[place.counts : place.sums] += counts[:size].astype(np.int64)
    v[place.sums : place.end] += ((both[:size] - counts[:size] * ONE) * UNIT).astype(np.int64)
    v[head + NULLS] += lost
    v[head + MISTYPED] += lost - before
    if odd:
        v[head + NANS] += int(np.count_nonzero(code == size + NAN)) - lost
        v[head + LOWS] += int(np.count_nonzero(code == size + LOW))
        v[head + HIGHS] += int(np.count_nonzero(code == size + HIGH))


def _coded(raw: Any, bins: Bins, plan: Plan, name: str, s: Scratch, n: int) -> None:
    """The bin of each number, or a code past the last bin, into `s.code`."""
    code, cell = s.code[:n], s.cell[:n]
    if n < FEW and name not in plan.tables:
        code[:] = bins.search(np.asarray(raw, dtype=np.float64))
        np.copyto(code, bins.size + RARE, where=(np.abs(s.d[:n]) >= 1) & (code < bins.size))
        return
    lookup = plan.lookup(name)
    np.right_shift(s.y[:n].view(np.uint32), DROP, out=cell)
    lookup.table.take(cell, out=s.short[:n], mode="clip")
    np.copyto(code, s.short[:n])
    if lookup.atoms is not None:
        atom = lookup.atoms.take(code, out=s.atom[:n], mode="clip")
        np.add(code, raw > atom, out=code)
        np.subtract(code, raw < atom, out=code)


def _refined(raw: Any, bins: Bins, code: Ints, d: Floats, both: Floats) -> dict[int, int] | None:
    """Searches for what the table could not tell and adds it to `both`; returns the exact sums of values far outside."""
    at = np.flatnonzero(code >= bins.size + LOW)
    values = np.asarray(raw[at], dtype=np.float64)
    found = bins.search(values)
    scaled = (values - bins.centre) * 2.0**-bins.exponent
    far = np.isfinite(values) & (np.abs(scaled) >= 1)
    d[at[far]] = ONE
    code[at] = found
    inside = found < bins.size
    both[: bins.size] += np.bincount(found[inside], d[at[inside]], bins.size)
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
