"""Where a shift is, and since when: columns ranked by what surely moved, the slice it is in, the hour it began.

Ranking is by the lower end of the interval, not by the effect: a small window with a wild effect does not come first. The
beginning is the start from which the e-process against the reference is largest; its interval holds 95 % of the posterior
over starts, under a flat prior, with the reference's own uncertainty in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import scipy

from loudly.core.seams import Floats
from loudly.core.values import Decision, Verdict
from loudly.errors import DataError, nearest
from loudly.shift.codes import keys, number_bins
from loudly.shift.verdicts import category_verdict, numeric_verdict
from loudly.stats.multinomial_process import WEIGHTS, log_e, log_predictive

MOST_SLICES = 50
FEWEST_ROWS = 50


@dataclass(frozen=True, slots=True)
class Since:
    """The first window that differs, the first and last that it may be, and the log e-value from there on."""

    window: int
    low: int
    high: int
    log_e: float


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice in which a column moved: how it moved inside, and outside of it."""

    name: str
    rows: int
    inside: Verdict
    outside: Verdict

    @property
    def alone(self) -> bool:
        """Whether the shift is here and is not seen elsewhere."""
        return self.inside.failed and not self.outside.failed


@dataclass(frozen=True, slots=True)
class Blamed:
    """A column that moved beyond its tolerance, and since when."""

    column: str
    verdict: Verdict
    since: Since


def since_when(reference: Any, windows: Any, confidence: float = 0.95) -> Since:
    """When the windows began to differ from the reference, for windows known to differ at their end.

    Shapes: reference (k,) counts, windows (t, k) counts in order of time.

    >>> found = since_when([500, 500], [[50, 50]] * 10 + [[20, 80]] * 5)
    >>> found.window, found.low, found.high
    (10, 10, 10)
    """
    held, seen = np.asarray(reference, dtype=np.float64), np.asarray(windows, dtype=np.float64)
    if seen.ndim != 2 or len(seen) == 0 or seen.shape[1:] != held.shape:
        raise DataError("Windows must be (t, k) counts in the reference's k bins.", seen=str(seen.shape), do=f"k is {len(held)}")
    after = np.cumsum(seen[::-1], axis=0)[::-1]
    told = log_e(held, after)
    start = int(np.argmax(told))
    chance = _posterior(held, after)
    order = np.argsort(-chance)
    likely = order[: int(np.searchsorted(np.cumsum(chance[order]), confidence)) + 1]
    return Since(start, int(min(likely.min(), start)), int(max(likely.max(), start)), float(told[start]))


def blame_columns(
    references: Mapping[str, Any], windows: Mapping[str, Any], tolerance: float, numeric: Sequence[str] = (), alpha: float = 0.05
) -> tuple[Blamed, ...]:
    """Which columns moved in these windows, the surest first, each with its beginning.

    Shapes: for each column the reference's counts (k,) and the windows' counts (t, k). A column is judged from its own
    beginning on: what was well before does not dilute what is wrong since. Alpha is split over the columns and over the t
    beginnings there could be, so choosing the beginning by the data costs a little width and no validity.
    """
    found = []
    for name, held in references.items():
        began = since_when(held, windows[name])
        judge = numeric_verdict if name in numeric else category_verdict
        said = judge(
            held,
            np.asarray(windows[name])[began.window :].sum(axis=0),
            tolerance,
            name,
            alpha / (len(references) * len(windows[name])),
        )
        if said.failed:
            found.append(Blamed(name, said, began))
    return tuple(sorted(found, key=lambda b: -_sure(b.verdict)))


def blame_slices(
    reference: pl.DataFrame, window: pl.DataFrame, column: str, by: Sequence[str], tolerance: float = 0.1, alpha: float = 0.05
) -> tuple[Slice, ...]:
    """In which slice (`by` names category columns) a column moved: those that moved inside, the one that explains all first.

    A slice that fails alone explains the shift; where many fail and so does what is outside of them, it is everywhere.
    Slices of fewer than 50 rows in the window are not judged. At most 50 values of a column, the most frequent ones.
    """
    for name in (column, *by):
        for table in (reference, window):
            if name not in table.columns:
                raise DataError(f"There is no column {name!r}.", do=nearest(name, table.columns))
    both = pl.concat([t.select(list(dict.fromkeys([column, *by]))) for t in (reference, window)])
    now = np.arange(both.height) >= reference.height
    ordered = both[column].dtype.is_numeric()
    codes = number_bins(both[column], ~now) if ordered else keys(both, [column])
    judge = numeric_verdict if ordered else category_verdict
    k = int(codes.max(initial=0)) + 1
    members = {
        f"{name} = {value}": (both[name] == value).fill_null(False).to_numpy() for name in by for value in _values(both, name)
    }
    found = []
    for name, inside in members.items():
        if (inside & now).sum() < FEWEST_ROWS:
            continue
        said = []
        for rows in (inside, ~inside):
            counts = [np.bincount(codes[rows & side], minlength=k) for side in (~now, now)]
            said.append(judge(counts[0], counts[1], tolerance, f"{column} in {name}", alpha / (2 * len(members))))
        if said[0].failed:
            found.append(Slice(name, int((inside & now).sum()), said[0], said[1]))
    return tuple(sorted(found, key=lambda s: (not s.alone, -_sure(s.inside))))


def _values(table: pl.DataFrame, name: str) -> list[Any]:
    counted = table[name].drop_nulls().value_counts(sort=True)
    return list(counted[name].head(MOST_SLICES).to_list())


def _sure(verdict: Verdict) -> float:
    assert verdict.decision is not Decision.UNDECIDED
    evidence = verdict.evidence[0]
    return evidence.low if evidence.low is not None else 0.0


def _posterior(held: Floats, after: Floats) -> Floats:
    """(t,) probability of each start: the reference predicts what came before, a mixture of others what came from it on."""
    share = (held + 0.5) / (held.sum() + len(held) / 2)
    moved = scipy.special.logsumexp([log_predictive(after, w * len(held) * share) for w in WEIGHTS], axis=0)
    before = after[0] - after
    score = moved + log_predictive(before, held + 0.5)
    return np.asarray(np.exp(score - scipy.special.logsumexp(score)))
