"""How far a window lies from its reference: every distance of every column from counts, each with what it is worth.

KS and Wasserstein-1 use all bins and bound the statistic of the rows from both sides; where every bin is an atom (few distinct
values, categories) both bounds meet. PSI, Jensen-Shannon, Hellinger, Kullback-Leibler, total variation and χ² are taken over
at most 64 pools of neighbouring bins (or over categories): on those they are exact, and by the data-processing inequality
they can only be smaller than over finer bins or over the whole distributions, so `high` is None. Pools are the reference's
own, the same for every window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from loudly.core.values import Decision, Evidence, Verdict
from loudly.shift.bins import Bins
from loudly.shift.embedding import mmd2
from loudly.shift.profile import Column, Profile
from loudly.stats import divergence as d

if TYPE_CHECKING:
    from loudly.core.seams import Ints

POOLS = 64
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

    Cost: about 0.1 ms a column of 1,024 bins.
    """
    reference._same(window)
    known = _known(reference)
    found = {name: _compared(bins, known[name], window.column(name)) for name, bins in reference.plan.bins.items()}
    return Distances(found, _joint(reference, window), dict(window.added))


def _joint(reference: Profile, window: Profile) -> Distance | None:
    if reference.plan.embedding is None or min(reference.rows, window.rows) < 2:
        return None
    value, noise = mmd2(reference.embedding, reference.rows, window.embedding, window.rows)
    return Distance("squared MMD of random features", value, value, None, noise)


@dataclass(frozen=True, slots=True, eq=False)
class _Own:
    """What is known of a reference's column before any window: pools, and noise but for the rows."""

    column: Column
    pools: Ints
    pooled: Ints
    kinds: int
    spread: float
    variation: float


@lru_cache(maxsize=8)
def _known(reference: Profile) -> dict[str, _Own]:
    """Once for a reference, whatever windows come."""
    made = {}
    for name, bins in reference.plan.bins.items():
        column, pools = reference.column(name), pools_of(bins)
        pooled = np.add.reduceat(column.counts, pools)
        n = column.sound
        # Noise in units of sqrt(1/n + 1/m).
        spread = 0.0 if bins.edges is None or not n else d.wasserstein_noise(bins.edges, column.counts, 1) / np.sqrt(1 / n + 1)
        variation = d.total_variation_noise(pooled, 1) / np.sqrt(1 / n + 1) if n else 0.0
        made[name] = _Own(column, pools, pooled, int(np.count_nonzero(pooled)), float(spread), float(variation))
    return made


def _compared(bins: Bins, known: _Own, now: Column) -> ColumnDistances:
    own = known.column
    verdict = _problem(bins, own, now)
    made = {} if verdict is not None and verdict[0] != "few rows" else _all(bins, known, now)
    rows, before = max(1, now.rows), max(1, own.rows)
    unseen = 0.0 if bins.numeric else float(now.counts[-1]) / rows
    return ColumnDistances(
        bins.name,
        "compared" if verdict is None else verdict[0],
        made,
        None if verdict is None else verdict[1],
        now.sound,
        now.missing / rows,
        own.missing / before,
        now.infinite / rows,
        own.infinite / before,
        now.mistyped / rows,
        unseen,
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


def _all(bins: Bins, known: _Own, now: Column) -> dict[str, Distance]:
    own = known.column
    n, m = own.sound, now.sound
    root = float(np.sqrt(1 / n + 1 / m))
    made: dict[str, Distance] = {}
    if bins.edges is not None and own.sums is not None and now.sums is not None:
        low, high = d.ks_bounds(own.counts, now.counts, bins.atoms)
        made["ks"] = Distance("ks", low, low, high, d.ks_noise(n, m))
        low, high = d.wasserstein(bins.edges, bins.centre, (own.counts, own.sums), (now.counts, now.sums), bins.atoms)
        made["wasserstein"] = Distance("wasserstein", low, low, high, known.spread * root)
    q = np.add.reduceat(now.counts, known.pools)
    chi = d.chi2_noise(n, m, known.kinds)
    noise = {
        "js": d.noise(n, m, known.kinds),
        "hellinger": float(np.sqrt(chi / 8)),
        "psi": chi,
        "kl": chi / 2,
        "total_variation": known.variation * root,
        "chi2": float(np.count_nonzero(known.pooled + q) - 1),
    }
    exact = len(known.pools) == bins.size and bool(bins.atoms[own.counts + now.counts > 0].all())
    for name, value in d.all_of(known.pooled, q).items():
        made[name] = Distance(name, value, value, value if exact else None, noise[name])
    return made


@lru_cache(maxsize=4096)
def pools_of(bins: Bins) -> Ints:
    """The first bin of each pool: at most 64 of about equal reference share; categories and few bins stay as they are."""
    if not bins.numeric or bins.size <= POOLS:
        return np.arange(bins.size)
    before = np.r_[0, np.cumsum(bins.counts)[:-1]]
    pool = before * POOLS // max(1, int(bins.counts.sum()))
    return np.flatnonzero(np.r_[True, np.diff(pool) > 0])
