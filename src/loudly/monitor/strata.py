"""The contexts of rows as numbers: the combinations of hour, season and mix that the reference has seen, and one for all others.

Shift within them is judged as in `loudly.shift.context`: the reference as it would be in the window's contexts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from loudly.core.canon import Json
from loudly.core.seams import Floats, Ints
from loudly.core.values import Evidence
from loudly.errors import ConfigError, nearest
from loudly.shift.bins import Bins
from loudly.shift.categories import as_text, codes_of
from loudly.shift.context import MOST_UNSEEN, context_log_e
from loudly.shift.fold import read
from loudly.shift.plan import Plan
from loudly.stats.count_intervals import total_variation_reach
from loudly.stats.dkw import ks_interval

CALENDAR: Mapping[str, pl.Expr] = {
    "hour": pl.col("_at").dt.hour(),
    "weekday": pl.col("_at").dt.weekday(),
    "hour_of_week": (pl.col("_at").dt.weekday().cast(pl.Int64) - 1) * 24 + pl.col("_at").dt.hour(),
    "month": pl.col("_at").dt.month(),
    "season": pl.col("_at").dt.month() % 12 // 3,
}
MOST_STRATA = 400
MOST_VALUES = 50
COARSE = 8
FEWEST = 20


@dataclass(frozen=True, slots=True, eq=False)
class Strata:
    """What a reference has seen of its contexts.

    known: text of each context -> its number.  cuts: quartiles of context columns that hold many numbers.
    groups: column -> the coarse bin of each bin.  held: column -> (strata, coarse bins) counts of the reference.
    """

    names: tuple[str, ...]
    time: str
    known: Mapping[str, int]
    cuts: Mapping[str, Floats]
    groups: Mapping[str, Ints]
    held: Mapping[str, Ints]

    def counts(self, rows: pl.DataFrame, plan: Plan) -> dict[str, Ints]:
        """(strata + 1, coarse bins) counts of each column; the last stratum holds rows of contexts that are new."""
        at = self._of(rows)
        return {name: _table(rows, plan.bins[name], at, group, len(self.known)) for name, group in self.groups.items()}

    def _of(self, rows: pl.DataFrame) -> Ints:
        told = _told(rows, self.names, self.time, self.cuts)
        return told.replace_strict(self.known, default=len(self.known), return_dtype=pl.Int64).to_numpy()

    def judge(self, name: str, seen: Ints, numeric: bool, alpha: float) -> Evidence:
        """How far a column lies from the reference as it would be in these contexts, with an interval.

        Shapes: seen (strata + 1, coarse bins). The interval holds at every look for the window; for the reference, whose strata
        are weighted, it takes their effective number of rows, which is approximate. No effect where contexts are new.
        """
        held, inside = self.held[name], seen[:-1]
        rows, known = inside.sum(axis=1), held.sum(axis=1)
        both = (rows > 0) & (known >= FEWEST)
        n, whole = int(rows[both].sum()), int(seen.sum())
        unseen = 1 - n / whole if whole else 0.0  # of a column without any value nobody knows the contexts
        detail: dict[str, Json] = {"context": list(self.names), "unseen": round(unseen, 4)}
        unit = "KS distance" if numeric else "total variation"
        if n == 0 or unseen > MOST_UNSEEN:
            return Evidence("within context", None, n=whole, about=name, unit=unit, detail=detail)
        share = np.where(both, rows, 0) / n
        expected = (share / np.maximum(1, known)) @ held
        gap = inside[both].sum(axis=0) / n - expected
        effect = float(np.abs(np.cumsum(gap)).max() if numeric else np.abs(gap).sum() / 2)
        m = int(1 / float((share**2 / np.maximum(1, known)).sum()))
        if numeric:
            low, high = ks_interval(effect, m, n, alpha, 1 / len(expected))
        else:
            below, above = total_variation_reach(len(expected), m, n, alpha)
            low, high = max(0.0, effect - below), min(1.0, effect + above)
        return Evidence("within context", effect, low, high, n, name, unit, 1 - alpha, detail=detail)

    def log_e(self, name: str, seen: Ints, numeric: bool) -> float:
        """Log e-value against "nothing changed within any context", at every look; half of it on one cut for numbers."""
        held, inside = self.held[name], seen[:-1]
        used = (inside.sum(axis=1) > 0) & (held.sum(axis=1) > 0)
        whole = float(context_log_e(held[used], inside[used])) if used.any() else 0.0
        if not numeric or held.shape[1] < 3 or not used.any():
            return whole
        at = held.shape[1] // 2
        two = [np.stack([t[used][:, :at].sum(axis=1), t[used][:, at:].sum(axis=1)], axis=1) for t in (held, inside)]
        return float(np.logaddexp(whole, context_log_e(*two)) - np.log(2))


def strata_of(reference: pl.DataFrame, names: Sequence[str], time: str, plan: Plan) -> Strata:
    """The contexts of a reference, at most 400: the most frequent ones.

    Raises: ConfigError for a context that is neither a column nor a word of the calendar.
    """
    for name in names:
        if name not in reference.columns and name not in CALENDAR:
            raise ConfigError(f"There is no context {name!r}.", do=nearest(name, [*reference.columns, *CALENDAR]))
    cuts = {n: _cuts(reference[n]) for n in names if n in reference.columns and _many(reference[n])}
    told = _told(reference, names, time, cuts)
    frequent = told.value_counts(sort=False, name="n").sort(["n", told.name], descending=[True, False]).head(MOST_STRATA)
    known = {value: i for i, value in enumerate(sorted(frequent[told.name].to_list()))}
    groups = {name: _coarse(bins) for name, bins in plan.bins.items() if bins.size > 1 and name in reference.columns}
    bare = Strata(tuple(names), time, known, cuts, groups, {})
    held = {name: counts[:-1] for name, counts in bare.counts(reference, plan).items()}
    return Strata(tuple(names), time, known, cuts, groups, held)


def _told(rows: pl.DataFrame, names: Sequence[str], time: str, cuts: Mapping[str, Floats]) -> pl.Series:
    """The context of each row as text."""
    made = rows.select(pl.col(time).alias("_at"), *(pl.col(n) for n in names if n in rows.columns and n != "_at"))
    parts = [
        pl.Series(name, np.searchsorted(cuts[name], read(made[name])))
        if name in cuts
        else made[name]
        if name in made.columns
        else made.select(CALENDAR[name].alias(name)).to_series()
        for name in names
    ]
    texts = [as_text(p).cast(pl.String).fill_null("missing") for p in parts]
    return pl.DataFrame(texts).select(pl.concat_str(pl.all(), separator=" | ").alias("context")).to_series()


def _many(values: pl.Series) -> bool:
    return values.dtype.is_numeric() and values.n_unique() > MOST_VALUES


def _cuts(values: pl.Series) -> Floats:
    """Quartiles: a context of many numbers is cut into four."""
    numbers = np.asarray(read(values), dtype=np.float64)
    return np.unique(np.nanquantile(numbers, [0.25, 0.5, 0.75]))


def _coarse(bins: Bins) -> Ints:
    """(bins,) the coarse bin of each: neighbours of about equal mass for numbers, the most frequent categories and the rest."""
    if bins.numeric:
        below = np.cumsum(bins.counts) - bins.counts / 2
        return np.minimum(COARSE - 1, below * COARSE // max(1, int(bins.counts.sum()))).astype(np.int64)
    made = np.full(bins.size, min(COARSE, bins.size) - 1, dtype=np.int64)
    top = np.argsort(-bins.counts, kind="stable")[: COARSE - 1]
    made[top] = np.arange(len(top))
    return made


def _table(rows: pl.DataFrame, bins: Bins, at: Ints, group: Ints, strata: int) -> Ints:
    """(strata + 1, coarse bins) counts of a column; missing and infinite values are left out."""
    k = int(group.max()) + 1
    if bins.name not in rows.columns:
        return np.zeros((strata + 1, k), dtype=np.int64)
    values = rows[bins.name]
    codes = bins.search(np.asarray(read(values), dtype=np.float64)) if bins.numeric else codes_of(as_text(values), bins)
    sound = codes < bins.size
    found = np.bincount(at[sound] * k + group[codes[sound]], minlength=(strata + 1) * k)
    return found.reshape(strata + 1, k).astype(np.int64)
