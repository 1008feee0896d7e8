"""Has anything changed beyond what its context explains? Season, time of day and mix may move; within them nothing may.

The window is held against the reference *as it would be in the window's contexts*: each stratum of the reference counts as
often as the window visits it. So a window full of July nights meets July nights, and an expected change pages nobody. The
null distribution comes from exchanging rows of window and reference within their stratum; where rows come in clusters that
share their values (all flights of a day share its weather) whole clusters are exchanged, or every cluster would be taken for
many independent rows. All columns are judged together (Westfall & Young 1993), at one look; `context_log_e` is the e-process
for independent rows at every look. Rows in contexts that the reference never saw are counted, not judged.

Source: Cobb & Van Looveren 2022, "Context-aware drift detection", ICML (the question and the reweighting; with strata in
place of kernels; `context_mmd` has the kernels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from loudly.core.seams import Floats, Ints
from loudly.core.values import Decision, Evidence, Verdict
from loudly.errors import DataError, nearest
from loudly.shift.codes import keys, number_bins
from loudly.shift.table import as_table
from loudly.shift.verdicts import decide
from loudly.stats.multinomial_process import log_e_within

MOST_UNSEEN = 0.2
FEWEST_CLUSTERS = 5


@dataclass(frozen=True, slots=True)
class _Rows:
    """Both tables together. codes: column -> (n,) bins; ordered: whether those have an order."""

    codes: dict[str, Ints]
    sizes: dict[str, int]
    ordered: dict[str, bool]
    stratum: Ints
    group: Ints
    cluster: Ints
    window: Ints


def context_test(
    reference: Any,
    window: Any,
    columns: Sequence[str],
    context: Sequence[str],
    tolerance: float = 0.1,
    cluster: str | None = None,
    alpha: float = 0.05,
    permutations: int = 300,
    seed: int = 0,
) -> tuple[Verdict, ...]:
    """A verdict for each column: KS distance (numbers) or total variation (others) beyond what the context explains.

    reference, window: tables of any maker; `context` and `cluster` name columns of both. The interval is the distance less and
    plus the largest distance that exchanging gives in 1 - alpha of all permutations, for all columns at once: approximate, for
    this one look.
    Cost: O(rows · columns · permutations).

    Raises: DataError where a named column is not there, or holds numbers on one side alone.
    """
    reference, window = as_table(reference)[0], as_table(window)[0]
    _check(reference, window, [*columns, *context, *([cluster] if cluster else [])])
    rows, unseen = _joined(reference, window, columns, context, cluster)
    clusters = [len(np.unique(rows.cluster[rows.window == side])) for side in (0, 1)]
    missing = _missing(unseen, clusters)
    if missing:
        return tuple(_cannot(c, missing, tolerance) for c in columns)
    found = _distances(rows, rows.window)
    null = _null(rows, permutations, np.random.default_rng(seed))
    centre, spread = null.mean(axis=0), null.std(axis=0) + 1e-12
    largest = ((null - centre) / spread).max(axis=1)
    reach = np.maximum(0.0, centre + spread * np.quantile(largest, 1 - alpha))
    p = (1 + (largest[:, None] >= (found - centre) / spread - 1e-9).sum(axis=0)) / (1 + permutations)
    detail = {"context": list(context), "clusters": clusters[1], "unseen": unseen}
    told = []
    for j, name in enumerate(rows.codes):
        unit = "KS distance" if rows.ordered[name] else "total variation"
        low, high = max(0.0, float(found[j] - reach[j])), min(1.0, float(found[j] + reach[j]))
        one = Evidence("within context", float(found[j]), low, high, window.height, name, unit, 1 - alpha, tolerance, float(p[j]))
        told.append(_said(name, one, float(reach[j]), context, detail))
    return tuple(told)


def context_log_e(reference: Any, window: Any) -> Floats:
    """Log of the e-value against "nothing changed within any stratum", valid at every look for independent rows.

    Shapes: reference (strata, k) counts, window (..., strata, k).

    >>> winter, summer = [900, 100], [100, 900]
    >>> bool(context_log_e([winter, summer], [[2, 0], [20, 180]]) < 0)
    True
    >>> bool(context_log_e([winter, summer], [[2, 0], [180, 20]]) > 3)
    True
    """
    return log_e_within(reference, window)


def _said(name: str, one: Evidence, reach: float, context: Sequence[str], detail: dict[str, Any]) -> Verdict:
    assert one.effect is not None
    assert one.low is not None
    assert one.high is not None
    assert one.tolerance is not None
    decision = decide(one.low, one.high, one.tolerance)
    evidence = Evidence(
        one.method, one.effect, one.low, one.high, one.n, name, one.unit, one.confidence, one.tolerance, one.p_value, detail
    )
    told = (
        f"{name}: {one.unit} {one.effect:.3f} [{one.low:.3f}, {one.high:.3f}] within {', '.join(context)}; chance gives {reach:.3f}"
    )
    missing = ""
    if decision is Decision.UNDECIDED:
        more = int(np.ceil(detail["clusters"] * ((reach / max(1e-3, abs(one.tolerance - one.effect))) ** 2 - 1)))
        missing = f"about {max(1, more):,} more {'rows or clusters'} of window and reference, if the effect stays"
    return Verdict(decision, f"shift of {name} within context", told, (evidence,), missing)


def _missing(unseen: float, clusters: list[int]) -> str:
    if min(clusters) == 0:
        return "a row in a context that both the window and the reference have"
    if unseen > MOST_UNSEEN:
        return f"a reference that has seen these contexts: {unseen:.0%} of the window's rows are in none of its contexts"
    if min(clusters) < FEWEST_CLUSTERS:
        return f"{FEWEST_CLUSTERS} independent rows or clusters on each side; there are {clusters[0]} and {clusters[1]}"
    return ""


def _cannot(name: str, missing: str, tolerance: float) -> Verdict:
    evidence = Evidence("within context", None, about=name, tolerance=tolerance)
    return Verdict(Decision.UNDECIDED, f"shift of {name} within context", f"{name}: cannot tell", (evidence,), missing)


def _check(reference: pl.DataFrame, window: pl.DataFrame, names: Sequence[str]) -> None:
    for side, table in (("reference", reference), ("window", window)):
        for name in names:
            if name not in table.columns:
                raise DataError(f"The {side} has no column {name!r}.", do=nearest(name, table.columns))
    for name in names:
        kinds = reference.schema[name], window.schema[name]
        if kinds[0].is_numeric() != kinds[1].is_numeric() and pl.Null not in kinds:
            seen = f"{kinds[0]} in the reference, {kinds[1]} in the window"
            raise DataError(f"{name} is of another type.", seen=seen, do="A changed type is a broken feed.")


def _joined(
    reference: pl.DataFrame, window: pl.DataFrame, columns: Sequence[str], context: Sequence[str], cluster: str | None
) -> tuple[_Rows, float]:
    """Rows of contexts that both sides have; and the share of the window's rows that are in no context of the reference."""
    side = np.r_[np.zeros(reference.height, dtype=np.int64), np.ones(window.height, dtype=np.int64)]
    both = pl.concat(
        [t.select(list(dict.fromkeys([*columns, *context, *([cluster] if cluster else [])]))) for t in (reference, window)],
        how="vertical_relaxed",
    )
    stratum = keys(both, context)
    shared = np.intersect1d(stratum[side == 0], stratum[side == 1])
    kept = np.isin(stratum, shared)
    unseen = float((~kept & (side == 1)).sum() / max(1, window.height))
    both, side, stratum = both.filter(pl.Series(kept)), side[kept], stratum[kept]
    blocks = np.arange(len(side)) if cluster is None else keys(both.with_columns(_side=pl.Series(side)), [cluster, "_side"])
    codes, sizes, ordered = {}, {}, {}
    for name in columns:
        ordered[name] = both[name].dtype.is_numeric()
        codes[name] = number_bins(both[name], side == 0) if ordered[name] else keys(both, [name])
        sizes[name] = int(codes[name].max(initial=0)) + 1
    steady = [c for c in context if cluster is None or _steady(keys(both, [c]), blocks)]
    group = keys(both, steady)
    return _Rows(codes, sizes, ordered, np.unique(stratum, return_inverse=True)[1], group, blocks, side), unseen


def _steady(values: Ints, blocks: Ints) -> bool:
    """Whether each block has one value."""
    return len(np.unique(np.stack([values, blocks]), axis=1).T) == len(np.unique(blocks)) if len(blocks) else True


def _distances(rows: _Rows, window: Ints) -> Floats:
    """(columns,) distance of the window to the reference reweighted to the window's contexts."""
    strata = int(rows.stratum.max(initial=0)) + 1
    seen = np.bincount(rows.stratum[window == 1], minlength=strata).astype(np.float64)
    held = np.bincount(rows.stratum[window == 0], minlength=strata).astype(np.float64)
    usable = (seen > 0) & (held > 0)
    share = np.where(usable, seen, 0) / max(1.0, seen[usable].sum())
    each = np.where(window == 1, (share / np.maximum(seen, 1))[rows.stratum], -(share / np.maximum(held, 1))[rows.stratum])
    out = []
    for name, codes in rows.codes.items():
        gap = np.bincount(codes, weights=each, minlength=rows.sizes[name])
        out.append(np.abs(np.cumsum(gap)).max() if rows.ordered[name] else np.abs(gap).sum() / 2)
    return np.array(out)


def _null(rows: _Rows, permutations: int, rng: np.random.Generator) -> Floats:
    """(permutations, columns) distances after exchanging clusters of window and reference within their group."""
    _, first, where = np.unique(rows.cluster, return_index=True, return_inverse=True)
    side, group = rows.window[first], rows.group[first]
    order = np.argsort(group, kind="stable")
    out = np.empty((permutations, len(rows.codes)))
    for i in range(permutations):
        shuffled = np.empty_like(side)
        shuffled[order] = side[np.lexsort((rng.random(len(side)), group))]
        out[i] = _distances(rows, shuffled[where])
    return out
