"""The bins that a reference defines for a column: quantile bins with an own bin for every atom, or categories.

A value v that holds at least one bin's share of the reference is an *atom*: it gets the degenerate bin {v}, so that
statistics of columns with few distinct values are exact and not merely close. Bin i is (edges[i-1], edges[i]].

A window is binned by a table over the upper 21 bits of (x - centre) · scale: one load and no search, because
edges are moved to the nearest border of a cell; where a cell alone holds more than a bin's share, its edges stay
inside and its values are searched for. The table is an acceleration only: `search` defines the bins, and tests hold
the two equal.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loudly.core.seams import Floats, Ints
from loudly.shift.categories import as_text, codes_of
from loudly.shift.hashing import text_hash

MOST_BINS = 64
# Fewer rows are searched for and counted by numpy: no table is made for an hour of little traffic, and no library imported.
FEW = 4096
MOST_CATEGORIES = 1000
# Categories of the reference that are known by hash: beyond the named ones, up to here.
MOST_KNOWN = 1_000_000
BUCKETS = 256
# One value in so many may lie far outside on each side: it is searched for and summed by itself.
FAR = 2048
CELL_BITS = 21
DROP = 64 - CELL_BITS
# Cells of an octave, and the first cell of numbers from 1 on.
OCTAVE = 512
FAR_CELL = 1023 * OCTAVE
# Octaves below 1 whose cells a table knows: what lies nearer to the centre is searched for, but for the centre itself.
OCTAVES = 64
# Codes after the last bin: missing, -inf, +inf.
NAN, LOW, HIGH = range(3)
SPECIAL = 3
# A table's entry holds a bin's place in the embedding in its lowest bits.
STEP_BITS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """What the reference says about a column, and its own counts.

    edges: upper edges of number bins (None for categories).  centre, exponent: (x - centre) / 2**exponent is within
    ±1/2 for nearly all of the reference.  categories: named ones.  buckets: how many hashed buckets hold the known rest, whose
    hashes are `known` (sorted).  counts: the reference's own.
    atoms: (size,) bins that hold a single value or category.
    """

    name: str
    edges: Floats | None
    categories: tuple[str, ...]
    counts: Ints
    centre: float = 0.0
    exponent: int = 0
    buckets: int = 0
    known: NDArray[np.uint64] | None = None
    dtype: str = ""
    atoms: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "atoms", self._atoms())

    def _atoms(self) -> NDArray[np.bool_]:
        """(size,) bins that hold one value or one category only."""
        if self.edges is None:
            named = np.arange(self.size) < len(self.categories)
            return named if self.buckets or self.known is not None else np.ones(self.size, dtype=bool)
        made = np.zeros(self.size, dtype=bool)
        if len(self.edges) > 1:
            made[1:-1] = self.edges[1:] <= _next(self.edges[:-1], np.inf)
        return made

    @property
    def size(self) -> int:
        """Bins, the one for unseen categories included."""
        return len(self.counts)

    @property
    def occupied(self) -> int:
        """Bins that the reference has rows in."""
        return int(np.count_nonzero(self.counts))

    @property
    def numeric(self) -> bool:
        """Whether values are numbers (times are numbers of µs)."""
        return self.edges is not None

    def search(self, numbers: Floats) -> Ints:
        """The bin of each number; codes past the last bin for NaN, -inf and +inf. This is the definition of the bins."""
        assert self.edges is not None
        found = np.searchsorted(self.edges, numbers, side="left").astype(np.int64)
        found[np.isnan(numbers)] = self.size + NAN
        found[np.isneginf(numbers)] = self.size + LOW
        found[np.isposinf(numbers)] = self.size + HIGH
        return found


def bins_of(values: pl.Series, most: int = MOST_BINS, most_categories: int = MOST_CATEGORIES) -> Bins:
    """The bins that a column of a reference defines: at most `most` quantile bins between atoms, or categories.

    Cost: one sort of the column.
    """
    if is_number(values.dtype):
        return _number_bins(values, most)
    return _category_bins(values, most_categories)


def is_number(dtype: pl.DataType) -> bool:
    """Whether values of a type are taken as numbers: numbers, booleans, times."""
    return dtype.is_numeric() or dtype == pl.Boolean or dtype.is_temporal()


def numbers_of(values: pl.Series) -> Floats:
    """(n,) numbers, nulls as NaN; times in µs since 1970 UTC (durations in µs, times of day in ns)."""
    dtype = values.dtype
    if dtype.is_temporal():
        fine = values.dt.cast_time_unit("us") if isinstance(dtype, pl.Datetime | pl.Duration) else values
        fine = values.cast(pl.Datetime("us")) if dtype == pl.Date else fine
        values = fine.to_physical()
    elif not dtype.is_numeric() and dtype != pl.Boolean:
        values = values.cast(pl.Float64, strict=False)
    elif dtype.is_decimal() or str(dtype).endswith("128"):
        values = values.cast(pl.Float64)
    made = values.to_numpy()
    return made if made.dtype != object else values.cast(pl.Float64).to_numpy()


def gaps_of(values: pl.Series) -> tuple[Floats, NDArray[np.intp]]:
    """(n,) floats of a Float64 column with nulls as they lie in its buffer, and the places of the nulls.

    A few are copied: the buffer is reached by pyarrow, whose import takes longer than it saves.
    """
    if len(values) < FEW:
        return values.to_numpy(), np.flatnonzero(values.is_null().to_numpy())
    arrow: Any = values.to_arrow()
    sound, data = arrow.buffers()
    span = slice(arrow.offset, arrow.offset + len(arrow))
    bits = np.frombuffer(sound, dtype=np.uint8)[span.start // 8 : -(-span.stop // 8)]
    told = np.unpackbits(~bits, bitorder="little").view(np.bool_)[span.start % 8 :][: len(arrow)]
    return np.frombuffer(data, dtype=np.float64)[span], np.flatnonzero(told)


def _number_bins(values: pl.Series, most: int) -> Bins:
    numbers = np.asarray(numbers_of(values), dtype=np.float64)
    numbers = np.sort(numbers[np.isfinite(numbers)])
    if not len(numbers):
        return Bins(values.name, np.zeros(0), (), np.zeros(1, dtype=np.int64), dtype=str(values.dtype))
    # Minus zero as centre: x - centre is then never minus zero, which would fall into the cell of small negative numbers.
    centre = float(numbers[(len(numbers) - 1) // 2]) or -0.0
    exponent = _exponent(_reach(numbers, centre, len(numbers) // FAR) or _reach(numbers, centre, 0), centre)
    kinds, times = np.unique(numbers, return_counts=True)
    edges = _edges(kinds, times, most, centre, exponent)
    found = np.searchsorted(edges, kinds, side="left")
    counts = np.bincount(found, weights=times, minlength=len(edges) + 1).astype(np.int64)
    return Bins(values.name, edges, (), counts, centre, exponent, dtype=str(values.dtype))


def _reach(numbers: Floats, centre: float, outer: int) -> float:
    """How far sorted numbers lie from the centre, `outer` of them on each side left out."""
    with np.errstate(over="ignore"):
        return float(max(numbers[-1 - outer] - centre, centre - numbers[outer]))


def _exponent(reach: float, centre: float) -> int:
    """The power of two that is at least twice the reach of nearly all of the reference, away from the ends of float64."""
    if not math.isfinite(reach):
        return 1023
    size = reach if reach > 0 else max(abs(centre), 1.0)
    return min(1023, max(-900, math.frexp(size)[1] + 1))


def _edges(kinds: Floats, times: Ints, most: int, centre: float, exponent: int) -> Floats:
    """Both sides of each atom, and quantiles of what lies between, moved to the borders of cells where that is cheap."""
    share = times.sum() / most
    atom = np.ones(len(kinds), dtype=bool) if len(kinds) <= most else times >= share
    values = kinds[atom]
    sides = np.concatenate([_next(values, -np.inf), values])
    rest, weight = kinds[~atom], times[~atom]
    if not len(rest):
        return np.unique(sides)
    mass = np.cumsum(weight)
    wanted = np.searchsorted(mass, _steps(float(mass[-1]), share), side="left")
    cells = cells_of(rest, centre, exponent)
    last = np.r_[np.flatnonzero(np.diff(cells)), len(rest) - 1]
    ends = last[np.searchsorted(last, wanted)]
    before = np.r_[0, mass[last]]
    heavy = np.diff(before)[np.searchsorted(last, wanted)] > share
    inside = rest[np.unique(wanted[heavy])]
    borders = _borders(rest[np.unique(ends[~heavy])], centre, exponent)
    return np.unique(np.concatenate([sides, inside, borders]))


def _steps(total: float, share: float) -> Floats:
    """Masses below which edges are wanted: every share, and towards both ends halves of halves, for the tails' sake."""
    halves = share / 2.0 ** np.arange(1, max(1, math.ceil(math.log2(max(2.0, share)))) + 1)
    made = np.concatenate([np.arange(1, math.ceil(total / share)) * share, halves, total - halves, [1.0, total]])
    return np.unique(np.clip(made, 1.0, total))


def cells_of(numbers: Floats, centre: float, exponent: int) -> Ints:
    """The cell of each number: the upper 21 bits of its scaled float64 (sign, exponent, nine bits of the mantissa)."""
    with np.errstate(over="ignore", invalid="ignore"):
        near = (numbers - centre) * 2.0**-exponent
    return (near.view(np.uint64) >> DROP).astype(np.int64)


def _borders(numbers: Floats, centre: float, exponent: int) -> Floats:
    """The largest number in the cell of each, by bisection on the bits (the map is monotone)."""
    wanted = cells_of(numbers, centre, exponent)
    low = _ordered(numbers)
    high = _ordered(np.full(len(numbers), np.finfo(np.float64).max))
    for _ in range(64):
        middle = low + ((high - low + np.uint64(1)) >> np.uint64(1))
        same = cells_of(_number(middle), centre, exponent) == wanted
        low, high = np.where(same, middle, low), np.where(same, high, middle - np.uint64(1))
    return _number(low)


def _next(numbers: Floats, towards: float) -> Floats:
    """The neighbours of numbers; the last ones' are infinite."""
    with np.errstate(all="ignore"):
        made: Floats = np.nextafter(numbers, towards)
    return made


def _ordered(numbers: Floats) -> NDArray[np.uint64]:
    """The bits of float64 as integers in the order of the numbers."""
    bits = np.ascontiguousarray(numbers, dtype=np.float64).view(np.uint64)
    top = np.uint64(1 << 63)
    return np.where(bits & top, ~bits, bits | top)


def _number(ordered: NDArray[np.uint64]) -> Floats:
    top = np.uint64(1 << 63)
    made: Floats = np.where(ordered & top, ordered ^ top, ~ordered).view(np.float64)
    return made


@dataclass(frozen=True, slots=True, eq=False)
class Lookup:
    """cell -> bin + 1 (0: look closer), and below it, where there is an embedding, the bin's step in it.

    lost: the entry of what is missing.  atoms (size + 4,): see `lookup_of`.  whole: no cell of an atom holds two whole numbers.
    """

    table: NDArray[np.int32]
    lost: int
    atoms: Floats | None
    whole: bool


def lookup_of(bins: Bins, scores: NDArray[np.int8] | None = None) -> Lookup:
    """The table of a column's bins. Cost: 260 KB a column and some ms, once. Shapes: scores (size + 4,), a step for each code.

    Cells with edges inside say "look closer", but for a cell with one atom and nothing else: there the atom's bin stands, and a
    comparison with the atom (NaN where a bin is none) moves what is below or above it by one bin.
    """
    assert bins.edges is not None
    at = cells_of(bins.edges, bins.centre, bins.exponent)
    # An edge in a lower cell lies below, one that ends this cell does not: no number of the cell need be known.
    code = np.searchsorted(_rank(at), _rank(NEAR), side="left") + 1
    after = cells_of(_next(bins.edges, np.inf), bins.centre, bins.exponent)
    split = np.flatnonzero(at == after)
    hit, first, times = np.unique(at[split], return_index=True, return_counts=True)
    atom, edge = np.r_[bins.atoms, False], split[first]
    below, above = atom[edge], atom[edge + 1]
    alone = np.where(times == 1, below ^ above, (times == 2) & above & ~below)
    where = np.minimum(np.searchsorted(NEAR, hit), len(NEAR) - 1)
    known = NEAR[where] == hit
    code[where[known]] = np.where(alone, edge + above + 1, 0)[known]
    # Pages that are never written take no memory, and read as "look closer".
    table = np.frombuffer(mmap.mmap(-1, 4 << CELL_BITS, access=mmap.ACCESS_COPY), dtype=np.int32)
    entry = np.arange(bins.size + SPECIAL + 1)
    if scores is not None:
        entry = entry << STEP_BITS | np.roll(scores, 1).view(np.uint8)
    table[NEAR] = entry[code]
    table[LOST] = lost = int(entry[bins.size + NAN + 1])
    if not bins.atoms.any():
        return Lookup(table, lost, None, True)
    values = np.full(bins.size + SPECIAL + 1, np.nan)
    values[1 : bins.size] = np.where(bins.atoms[:-1], bins.edges, np.nan)
    own = bins.edges[bins.atoms[:-1]]
    cells = cells_of(np.concatenate([own - 1, own, own + 1]), bins.centre, bins.exponent).reshape(3, -1)
    apart = (cells[0] != cells[1]) & (cells[1] != cells[2])
    return Lookup(table, lost, values, bool((apart & (own == np.floor(own))).all()))


def _near() -> Ints:
    """Cells of numbers within ±1: the centre's own, and those of OCTAVES; first positive ones, then negative ones."""
    own = np.r_[0, np.arange(FAR_CELL - OCTAVES * OCTAVE, FAR_CELL)]
    return np.concatenate([own, (1 << (CELL_BITS - 1)) + own])


NEAR = _near()
# Cells of what is no number, and not infinite.
LOST = np.r_[2047 * OCTAVE + 1 : 2048 * OCTAVE, 4095 * OCTAVE + 1 : 4096 * OCTAVE]


def _rank(cells: Ints) -> Ints:
    """Cells in the order of the numbers in them: the upper half is negative and runs backwards."""
    half = 1 << (CELL_BITS - 1)
    return np.where(cells < half, cells + half, 2 * half - 1 - cells)


def _category_bins(values: pl.Series, most: int) -> Bins:
    text = as_text(values).cast(pl.String).drop_nulls()
    ranked = text.rename("value").value_counts(sort=True, name="n").sort(["n", "value"], descending=[True, False])
    named = ranked.head(most)
    categories = tuple(sorted(named["value"].to_list()))
    rest = ranked.slice(most, MOST_KNOWN - most) if ranked.height > most else ranked.clear()
    buckets = BUCKETS if rest.height else 0
    known = np.sort(text_hash(rest["value"])) if rest.height else None
    made = Bins(values.name, None, categories, np.zeros(len(categories) + buckets + 1, dtype=np.int64), 0.0, 0, buckets, known)
    counts = np.bincount(codes_of(ranked["value"], made), weights=ranked["n"].to_numpy(), minlength=made.size)
    counts = counts[: made.size].astype(np.int64)
    return Bins(values.name, None, categories, counts, 0.0, 0, buckets, known, str(values.dtype))


def bins_from(data: Mapping[str, Any]) -> Bins:
    """The inverse of `plain_bins`."""
    edges, known = data["edges"], data["known"]
    return Bins(
        data["name"],
        None if edges is None else np.array([float.fromhex(e) for e in edges]),
        tuple(data["categories"]),
        np.array(data["counts"], dtype=np.int64),
        data["centre"],
        data["exponent"],
        data["buckets"],
        None if known is None else np.array([int(k, 16) for k in known], dtype=np.uint64),
        data["dtype"],
    )


def plain_bins(bins: Bins) -> dict[str, Any]:
    """Bins as plain JSON; edges in hexadecimal, so that not a bit is lost."""
    return {
        "name": bins.name,
        "edges": None if bins.edges is None else [float(e).hex() for e in bins.edges],
        "categories": list(bins.categories),
        "counts": bins.counts.tolist(),
        "centre": bins.centre,
        "exponent": bins.exponent,
        "buckets": bins.buckets,
        "known": None if bins.known is None else [f"{k:x}" for k in bins.known.tolist()],
        "dtype": bins.dtype,
    }
