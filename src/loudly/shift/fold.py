"""Rows folded into the counts of a plan: spans of rows, columns within; each pass goes over a whole span of a column.

Where passes are long two threads share out the columns: between any two passes stands Python's lock, and a thread that finds it
taken sleeps for longer than a short pass takes.
Cost: `python benchmarks/floor.py` prints it pass by pass; docs/shift/speed.md tells what the passes are.
Memory: of a span 20 bytes a row and thread, and for the embedding a byte a value; spans of few rows are half as long with it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import scipy
from numpy.typing import NDArray

from loudly.core.seams import Floats, Ints
from loudly.shift.bins import DROP, FEW, NAN, SPECIAL, STEP_BITS, Bins, Lookup, gaps_of, is_number, numbers_of
from loudly.shift.categories import SLOTS, as_text, codes_of, named_slots
from loudly.shift.plan import ABSENT, BITS, HIGHS, MISTYPED, NANS, NULLS, SQUARES, Plan
from loudly.stats.threads import LONG, OneThread, together

Far = dict[str, dict[int, int]]
Places = NDArray[np.intp]
Count = Callable[[int], Ints]

# Rows at a time, fewer than 2**17: a column's table is read once for all of them.
SPAN = 2**17 - 1
# Adding ROUND rounds a number within ±1 to a multiple of 2**-18, which then stands in the lowest bits of the float64, above a
# one at bit ONE: the sum of such words by bin is a sum (within ±HALF) and above it a count. The exponent of all is 1,057: odd.
ONE, HALF = 36, 2**35
ROUND, WORD = 2.0 ** (52 - BITS) + 2.0 ** (ONE - BITS), 2**52 + 2**ONE
UNIT = 2.0**BITS
SQUARED = -1
ALONE = OneThread()


@dataclass(slots=True)
class Scratch:
    """The buffers of a span. weighted: sums the words of `d` by code, of so many rows.  ones: `code` by cell."""

    rows: int
    most: int
    count: Callable[[NDArray[Any], NDArray[Any], int], Count]
    d: Floats = field(init=False)
    cell: Ints = field(init=False)
    code: NDArray[np.int32] = field(init=False)
    weighted: Count = field(init=False)
    ones: Count = field(init=False)

    def __post_init__(self) -> None:
        rows = self.rows
        self.d, self.cell = np.empty(rows), np.zeros(rows, dtype=np.int64)
        self.code = np.zeros(rows, dtype=np.int32)
        self.weighted = self.count(self.d.view(np.int64), self.code, self.most)
        self.ones = self.count(self.code, self.cell, max(self.most, SLOTS + 2))


def _few(values: NDArray[Any], code: NDArray[Any], most: int) -> Count:
    """Sums the first n values by code, of (most,)."""

    def count(n: int) -> Ints:
        held = np.zeros(most, dtype=np.int64)
        np.add.at(held, code[:n], values[:n])
        return held

    return count


def _many(values: NDArray[Any], code: NDArray[Any], most: int) -> Count:
    """The same by a sparse matrix (most, 1) over these very arrays, times one: compiled code that takes half of the time."""
    made: Any = scipy.sparse.csc_array((most, 1), dtype=values.dtype)
    one = np.ones(1, dtype=values.dtype)
    made.data, made.indices, made.indptr = values, code, np.array([0, len(code)], dtype=code.dtype)

    def count(n: int) -> Ints:
        made.indptr[1] = n
        held: Ints = made @ one
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


def fold(table: pl.DataFrame, plan: Plan) -> tuple[Ints, Far]:
    """The vector of a table's counts, and the exact sums of values far outside the reference, by column."""
    n, made = table.height, Sums(plan, plan.zero(), {})
    made.vector[0] = n
    # What waits for the embedding of a table of one span would be an eighth of the table.
    rows = -(-n // max(1, -(-n // (SPAN // 2 if plan.embedding and n <= SPAN else SPAN))))
    steps = np.empty((len(plan.bins), rows), dtype=np.int8) if plan.embedding else None
    with ALONE.held() if plan.embedding or n >= FEW else nullcontext():
        for at in range(0, n, max(1, rows)):
            span = table.slice(at, rows)
            told = None if steps is None else steps[:, : span.height]
            _columns(made, span, told)
            if plan.embedding and told is not None:
                made.vector[1 : 1 + plan.embedding.size] += plan.embedding.sums(told)
    return made.vector, {name: made.far[name] for name in plan.bins if made.far.get(name)}


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


def _columns(made: Sums, span: pl.DataFrame, told: NDArray[np.int8] | None) -> None:
    """The columns of a span. told: (columns, rows), where their steps for the embedding go."""
    plan, n, there = made.plan, span.height, frozenset(span.columns)
    most = max((b.size for b in plan.bins.values()), default=0) + SPECIAL + 1
    words, left = np.zeros((len(plan.bins), most), dtype=np.int64), iter(tuple(enumerate(plan.bins.items())))

    def share() -> None:
        s = Scratch(n, most, _few if n < FEW else _many)
        with np.errstate(over="ignore", invalid="ignore"):
            for j, (name, bins) in left:
                steps = None if plan.embedding is None or told is None else Steps(told[j], plan.embedding.scores[j])
                if name not in there:
                    place = plan.places[name]
                    made.vector[place.head + NULLS] += n
                    made.vector[place.head + ABSENT] += n
                    if steps is not None:
                        steps.row[:] = 0
                elif bins.numeric:
                    words[j] = _numbers(span[name], bins, made, s, steps)
                else:
                    _texts(span[name], bins, made, s, steps)

    together([share] * (2 if n >= LONG else 1))
    _part(words, made)


def read(values: pl.Series) -> Floats:
    """(n,) numbers of a column, whatever its type; NaN for what is none."""
    return numbers_of(as_number(values))


def as_number(values: pl.Series) -> pl.Series:
    """Values of a type that is taken as numbers; what is no number is missing."""
    return values if is_number(values.dtype) else as_text(values).cast(pl.String).cast(pl.Float64, strict=False)


def _texts(values: pl.Series, bins: Bins, made: Sums, s: Scratch, steps: Steps | None) -> None:
    """A span of a category column: by the slots of a perfect hash where there is one, else by codes."""
    place, v, size, n = made.plan.places[bins.name], made.vector, bins.size, len(values)
    text, cell = as_text(values), s.cell[:n]
    names = named_slots(text, bins, s.d[:n].view(np.uint64), cell)
    if names is None:
        codes_of(text, bins, cell)
    s.code[:n] = 1
    counts = s.ones(n)[slice(size + 1) if names is None else names.slots]
    if steps is not None:
        scores = steps.scores if names is None else steps.scores[names.codes]
        # No code is outside: "wrap" only says that nothing need be looked after.
        scores.take(cell, out=steps.row, mode="wrap")
    v[place.counts : place.sums] += counts[:size]
    v[place.head + NULLS] += counts[size]


def _part(words: Ints, made: Sums) -> None:
    """Counts and sums by bin, and what has a code of its own, out of the sums of words."""
    counts = _counts(words)
    words += HALF
    words &= 2 * HALF - 1
    words -= HALF
    for j, (name, bins) in enumerate(made.plan.bins.items()):
        if bins.numeric:
            place, v, size = made.plan.places[name], made.vector, bins.size
            v[place.counts : place.sums] += counts[j, 1 : size + 1]
            v[place.sums : place.end] += words[j, 1 : size + 1]
            v[place.head + NANS : place.head + HIGHS + 1] += counts[j, size + 1 : size + 1 + SPECIAL]


def _counts(words: Any) -> Any:
    """How many words were summed: 17 bits, the highest of which an odd number of exponents has turned."""
    told = (words + HALF) >> ONE & (2**17 - 1)
    return told ^ (told & 1) << 16


def _numbers(values: pl.Series, bins: Bins, made: Sums, s: Scratch, steps: Steps | None) -> Ints:
    """Sums of words by code of a span of a number column; its nulls, squares and far values are counted in."""
    place, v, n = made.plan.places[bins.name], made.vector, len(values)
    raw, gone = _read(values, place.head, v)
    d, code = s.d[:n], s.code[:n]
    np.subtract(raw, bins.centre, out=d)
    np.multiply(d, 2.0**-bins.exponent, out=d)
    if gone is not None:
        d[gone] = 0.0
    if n < FEW and bins.name not in made.plan.tables:
        _searched(raw, gone, bins, d, code, steps)
    else:
        _looked_up(raw, gone, made.plan.lookup(bins.name), s, steps, whole=values.dtype.is_integer())
    np.add(d, ROUND, out=d)
    words = s.weighted(n)
    np.subtract(d, ROUND, out=d)
    squares = float(np.dot(d, d))
    # Near values alone have no more squares than rows. Far ones that count as none must sum to 2**17 at least: by Cauchy and
    # Schwarz the squares of fewer than 2**17 rows are then more than these. Of what is no number they are no number.
    if _counts(int(words[0])) or not squares <= n:
        squares, far = _closer(raw, bins, words, s, steps)
        made.far[bins.name] = added({bins.name: made.far.get(bins.name, {})}, {bins.name: far}).get(bins.name, {})
    v[place.head + SQUARES] += int(squares * UNIT**2)
    return words


def _read(values: pl.Series, head: int, v: Ints) -> tuple[Floats, Places | None]:
    """A span as numbers, and where they are null and NaN does not say it; nulls and mistyped values are counted."""
    nulls = values.null_count()
    mistyped, gone = 0, None
    if values.dtype == pl.Float64:
        raw, gone = gaps_of(values) if nulls else (values.to_numpy(), None)
    else:
        told = as_number(values)
        mistyped = told.null_count() - nulls
        raw = np.asarray(numbers_of(told), dtype=np.float64)
    v[head + NULLS] += nulls + mistyped
    v[head + NANS] -= nulls + mistyped
    v[head + MISTYPED] += mistyped
    return raw, gone


def _searched(raw: Floats, gone: Places | None, bins: Bins, d: Floats, code: NDArray[np.int32], steps: Steps | None) -> None:
    """Codes of a few values: 0 where they are far (look closer), bin + 1, missing, -inf, +inf; and their steps."""
    code[:] = np.where(np.abs(d) < 1, bins.search(raw) + 1, 0)
    if gone is not None:
        code[gone] = bins.size + NAN + 1
    if steps is not None:
        steps.scores.take(code - 1, out=steps.row, mode="wrap")


def _looked_up(raw: Floats, gone: Places | None, lookup: Lookup, s: Scratch, steps: Steps | None, *, whole: bool) -> None:
    """The same out of a table, of the scaled values in `s.d`. whole: all values are whole numbers."""
    n = len(raw)
    d, code, cell = s.d[:n], s.code[:n], s.cell[:n]
    np.right_shift(d.view(np.uint64), DROP, out=cell.view(np.uint64))
    lookup.table.take(cell, out=code, mode="wrap")
    if gone is not None:
        code[gone] = lookup.lost
    if steps is not None:
        np.copyto(steps.row, code, casting="unsafe")
        np.right_shift(code, STEP_BITS, out=code)
    if lookup.atoms is not None and not (whole and lookup.whole):
        _beside(raw, lookup.atoms.take(code, out=cell.view(np.float64), mode="wrap"), code, steps)


def _beside(raw: Floats, atom: Floats, code: NDArray[np.int32], steps: Steps | None) -> None:
    """Values that share a cell with an atom and are another: one bin up or down. Shapes: (n,), atom NaN where there is none."""
    at = np.flatnonzero((raw > atom) | (raw < atom))
    if len(at):
        code[at] += np.where(raw[at] > atom[at], 1, -1)
        if steps is not None:
            steps.row[at] = steps.scores[code[at] - 1]


def _closer(raw: Floats, bins: Bins, words: Ints, s: Scratch, steps: Steps | None) -> tuple[float, dict[int, int]]:
    """Searches for what the table could not tell, counts it into `words`; returns squares and the exact sums of far values.

    Far values and what is no number count as 0 elsewhere: `s.d` holds the scaled values, rounded.
    """
    d, code = s.d[: len(raw)], s.code[: len(raw)]
    missing = np.flatnonzero(code == bins.size + NAN + 1)
    d[missing] = 0.0
    words[0], words[bins.size + NAN + 1] = 0, len(missing) * WORD % 2**53
    far: dict[int, int] = {}
    at = np.flatnonzero(code == 0)
    if len(at):
        values = raw[at]
        found = bins.search(values)
        outside = ~(np.abs((values - bins.centre) * 2.0**-bins.exponent) < 1)
        d[at[outside]] = 0.0
        np.add.at(words, found + 1, (d[at] + ROUND).view(np.int64))
        if steps is not None:
            steps.row[at] = steps.scores[found]
        apart = outside & np.isfinite(values)
        far = far_sums(values[apart], found[apart], bins) if apart.any() else {}
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
