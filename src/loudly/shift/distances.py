"""How far a window lies from its reference: every distance of every column from counts, each with what it is worth.

KS and Wasserstein-1 use all bins and bound the statistic of the rows from both sides; where every bin is an atom (few distinct
values, categories) both bounds meet. PSI, Jensen-Shannon, Hellinger, Kullback-Leibler, total variation and χ² are taken over
at most 64 pools of neighbouring bins (or over categories): on those they are exact, and by the data-processing inequality
they can only be smaller than over finer bins or over the whole distributions, so `high` is None. Pools are the reference's
own, the same for every window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from loudly.core.seams import Ints
from loudly.core.values import Decision, Evidence, Verdict
from loudly.shift.bins import Bins
from loudly.shift.embedding import mmd2
from loudly.shift.profile import Column, Profile
from loudly.stats import divergence as d

POOLS = 64
# So many bins are compared at once: fewer cost calls, more cost memory.
TOGETHER = 32768
# Below, a window (or a reference) is too small to say where its distribution lies.
FEWEST = 20


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance with bounds on the value that the rows themselves would give, and what sampling alone gives on average.

    high: None where counts cannot bound it.  noise: in the unit of the value.
    """

    name: str
    value: float
    low: float
    high: float | None
    noise: float

    @property
    def excess(self) -> float:
        """What is left above twice the noise; 0 at least."""
        return max(0.0, self.value - 2 * self.noise)

    def evidence(self, about: str, n: int) -> Evidence:
        """As Evidence; the interval is that of the arithmetic, not of sampling."""
        return Evidence(self.name, self.value, self.low, self.high, n, about, confidence=1.0, detail={"noise": self.noise})


@dataclass(frozen=True, slots=True)
class ColumnDistances:
    """A column's distances by name, or why there are none: `answer` names the state in a word, `verdict` says it in full.

    answer: "compared", or "gone", "empty window", "all missing", "no values in the reference", "few rows".
    missing, infinite, mistyped, unseen: shares of the window's rows.  missing_before, infinite_before: of the reference's.
    """

    column: str
    answer: str
    distances: Mapping[str, Distance]
    verdict: Verdict | None
    n: int
    missing: float
    missing_before: float
    infinite: float
    infinite_before: float
    mistyped: float
    unseen: float


@dataclass(frozen=True, slots=True)
class Distances:
    """All columns; mmd2: of the whole rows (None without an embedding).  added: columns the reference does not know."""

    columns: Mapping[str, ColumnDistances]
    mmd2: Distance | None
    added: Mapping[str, int]

    @property
    def undecided(self) -> tuple[Verdict, ...]:
        """Every column that could not be compared, and every column that came new."""
        told = tuple(c.verdict for c in self.columns.values() if c.verdict is not None)
        return told + tuple(_added(n, rows) for n, rows in self.added.items())


def distances(reference: Profile, window: Profile) -> Distances:
    """Every distance of every column. Both profiles must be of one plan.

    Cost: about 40 µs a column of 1,024 bins; columns with as many bins are compared together.
    """
    reference._same(window)
    known = _known(reference)
    now = window.columns
    problems = {name: _problem(bins, known.columns[name], now[name]) for name, bins in reference.plan.bins.items()}
    sound = {name for name, why in problems.items() if why is None or why[0] == "few rows"}
    made = _all(reference.plan.bins, known, now, sound)
    found = {n: _compared(n, known.columns[n], now[n], problems[n], made[n], b.numeric) for n, b in reference.plan.bins.items()}
    return Distances(found, _joint(reference, window), dict(window.added))


def _joint(reference: Profile, window: Profile) -> Distance | None:
    if reference.plan.embedding is None or min(reference.rows, window.rows) < 2:
        return None
    value, noise = mmd2(reference.embedding, reference.rows, window.embedding, window.rows)
    return Distance("squared MMD of random features", value, value, None, noise)


@dataclass(frozen=True, slots=True, eq=False)
class _Own:
    """What is known of a reference before any window.

    numbers: columns with as many bins, stacked.  pools: columns with as many pools, stacked.  spread, variation: noise of
    Wasserstein-1 and of total variation in units of sqrt(1/n + 1/m).
    """

    columns: Mapping[str, Column]
    numbers: tuple[_Numbers, ...]
    pools: tuple[_Pools, ...]
    spread: Mapping[str, float]
    variation: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class _Numbers:
    """Number columns (g,) of k bins each, and the reference's own rows in them: (g, k)."""

    names: tuple[str, ...]
    grid: d.Grid
    own: d.Binned

    def some(self, names: set[str]) -> _Numbers:
        """Those of these names: itself where all of them are, which copies nothing."""
        at = [i for i, name in enumerate(self.names) if name in names]
        if len(at) == len(self.names):
            return self
        return _Numbers(tuple(self.names[i] for i in at), self.grid.some(at), self.own.some(at))


@dataclass(frozen=True, slots=True, eq=False)
class _Pools:
    """Columns (g,) of k pools each. starts: the first bin of each pool.  counts: (g, k).  kinds: (g,) pools with rows."""

    names: tuple[str, ...]
    starts: tuple[Ints, ...]
    counts: Ints
    kinds: Ints


@lru_cache(maxsize=8)
def _known(reference: Profile) -> _Own:
    """Once for a reference, whatever windows come."""
    bins, columns = reference.plan.bins, reference.columns
    starts = {name: pools_of(b) for name, b in bins.items()}
    pooled = {name: np.add.reduceat(columns[name].counts, at) for name, at in starts.items()}
    spread, variation = dict.fromkeys(bins, 0.0), dict.fromkeys(bins, 0.0)
    for name, b in bins.items():
        n = columns[name].sound
        if n:
            unit = math.sqrt(1 / n + 1)
            variation[name] = d.total_variation_noise(pooled[name], 1) / unit
            spread[name] = 0.0 if b.edges is None else float(d.wasserstein_noise(b.edges, columns[name].counts, 1) / unit)
    numbers = _alike({name: b.size for name, b in bins.items() if b.numeric and columns[name].sound})
    pools = _alike({name: len(at) for name, at in starts.items()})
    return _Own(
        columns,
        tuple(_numbers(names, bins, columns) for names in numbers),
        tuple(_pools(names, starts, pooled) for names in pools),
        spread,
        variation,
    )


def _alike(sizes: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Names by size, TOGETHER bins at a time."""
    made = []
    for size in sorted(set(sizes.values())):
        names, most = [n for n, own in sizes.items() if own == size], max(1, TOGETHER // size)
        made += [tuple(names[i : i + most]) for i in range(0, len(names), most)]
    return made


def _numbers(names: tuple[str, ...], bins: Mapping[str, Bins], columns: Mapping[str, Column]) -> _Numbers:
    edges, atoms = np.stack([np.asarray(bins[n].edges) for n in names]), np.stack([bins[n].atoms for n in names])
    grid = d.grid_of(edges, np.array([bins[n].centre for n in names]), atoms)
    return _Numbers(names, grid, _binned(names, grid, columns))


def _binned(names: tuple[str, ...], grid: d.Grid, columns: Mapping[str, Column]) -> d.Binned:
    """Columns of as many bins together."""
    counts = np.stack([columns[n].counts for n in names])
    return d.binned(grid, counts, np.stack([np.asarray(columns[n].sums) for n in names]))


def _pools(names: tuple[str, ...], starts: Mapping[str, Ints], pooled: Mapping[str, Ints]) -> _Pools:
    counts = np.stack([pooled[n] for n in names])
    return _Pools(names, tuple(starts[n] for n in names), counts, np.count_nonzero(counts, axis=1))


def _compared(
    name: str, own: Column, now: Column, problem: tuple[str, Verdict] | None, made: Mapping[str, Distance], numeric: bool
) -> ColumnDistances:
    rows, before = max(1, now.rows), max(1, own.rows)
    return ColumnDistances(
        name,
        "compared" if problem is None else problem[0],
        made,
        None if problem is None else problem[1],
        now.sound,
        now.missing / rows,
        own.missing / before,
        now.infinite / rows,
        own.infinite / before,
        now.mistyped / rows,
        0.0 if numeric else float(now.counts[-1]) / rows,
    )


def _problem(bins: Bins, own: Column, now: Column) -> tuple[str, Verdict] | None:
    """Why a column cannot be compared, in a word and as a Verdict; a column that is gone is a broken feed and FAILs."""
    about = f"shift of {bins.name}"
    if now.rows == 0:
        return "empty window", Verdict(Decision.UNDECIDED, about, "the window has no rows", missing="rows in the window")
    if now.absent == now.rows:
        return "gone", Verdict(Decision.FAIL, about, f"the column is gone from all {now.rows:,} rows")
    if own.sound == 0:
        reason = "the reference has no values to compare with"
        return "no values in the reference", Verdict(Decision.UNDECIDED, about, reason, missing="a reference with values")
    if now.sound == 0:
        kind = _lost(now)
        return "all missing", Verdict(
            Decision.UNDECIDED, about, f"all {now.rows:,} rows are {kind}", missing="values in the window"
        )
    if min(own.sound, now.sound) < FEWEST:
        side = "the window" if now.sound < FEWEST else "the reference"
        n = min(now.sound, own.sound) if now.sound < FEWEST else own.sound
        reason = f"{n} {'value' if n == 1 else 'values'} in {side}: distances are noise, told for what they are"
        return "few rows", Verdict(Decision.UNDECIDED, about, reason, missing=f"{FEWEST - n} more values in {side}")
    return None


def _lost(now: Column) -> str:
    if now.mistyped == now.rows:
        return "of a type that is no number"
    return "missing" if now.missing == now.rows else "infinite" if now.infinite == now.rows else "missing or infinite"


def _added(name: str, rows: int) -> Verdict:
    reason = f"the column came new with {rows:,} rows; the reference does not know it"
    return Verdict(Decision.UNDECIDED, f"shift of {name}", reason, missing="a reference that has the column")


def _all(bins: Mapping[str, Bins], known: _Own, now: Mapping[str, Column], sound: set[str]) -> dict[str, dict[str, Distance]]:
    """The distances of every column; none where the column is not `sound`."""
    made: dict[str, dict[str, Distance]] = {name: {} for name in bins}
    size = {name: (known.columns[name].sound, now[name].sound) for name in sound}
    root = {name: math.sqrt(1 / n + 1 / m) for name, (n, m) in size.items()}
    for g in (numbers.some(sound) for numbers in known.numbers):
        if not g.names:
            continue
        window = _binned(g.names, g.grid, now)
        ks, w = d.ks_bounds(g.own, window, g.grid.atoms), d.wasserstein(g.grid, g.own, window)
        for name, low, high, near, far in zip(g.names, *(x.tolist() for x in (*ks, *w)), strict=True):
            made[name]["ks"] = Distance("ks", low, low, high, d.ks_noise(*size[name]))
            made[name]["wasserstein"] = Distance("wasserstein", near, near, far, known.spread[name] * root[name])
    for p in known.pools:
        at = [i for i, name in enumerate(p.names) if name in sound]
        if not at:
            continue
        counts = np.stack([np.add.reduceat(now[p.names[i]].counts, p.starts[i]) for i in at])
        found = {what: values.tolist() for what, values in d.all_of(p.counts[at], counts).items()}
        either = np.count_nonzero(p.counts[at] + counts, axis=1).tolist()
        for row, i in enumerate(at):
            name = p.names[i]
            noise = _noise(*size[name], int(p.kinds[i]), known.variation[name] * root[name], either[row])
            exact = _exact(bins[name], len(p.starts[i]), known.columns[name].counts, now[name].counts)
            for what, values in found.items():
                value = values[row]
                made[name][what] = Distance(what, value, value, value if exact else None, noise[what])
    return made


def _noise(n: int, m: int, kinds: int, variation: float, either: int) -> dict[str, float]:
    """What sampling alone gives each distance over pools, on average. either: pools with rows on one side at least."""
    chi = d.chi2_noise(n, m, kinds)
    return {
        "js": d.noise(n, m, kinds),
        "hellinger": math.sqrt(chi / 8),
        "psi": chi,
        "kl": chi / 2,
        "total_variation": variation,
        "chi2": float(either - 1),
    }


def _exact(bins: Bins, pools: int, own: Ints, now: Ints) -> bool:
    """Whether every pool is one value."""
    return pools == bins.size and bool(bins.atoms[own + now > 0].all())


@lru_cache(maxsize=4096)
def pools_of(bins: Bins) -> Ints:
    """The first bin of each pool: at most 64 of about equal reference share; categories and few bins stay as they are."""
    if not bins.numeric or bins.size <= POOLS:
        return np.arange(bins.size)
    before = np.r_[0, np.cumsum(bins.counts)[:-1]]
    pool = before * POOLS // max(1, int(bins.counts.sum()))
    return np.flatnonzero(np.r_[True, np.diff(pool) > 0])
