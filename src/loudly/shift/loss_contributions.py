"""Which columns explain this window's wrong answers: each column's contribution to the loss, now against the reference.

A row's contributions (a model's own, or `loudly.stats.shapley.sampled_rows`) say how far each column pushed its answer; the label
says which way was wrong. Pushes towards the wrong answer, or for a number contribution times residual, are what the column adds to
the loss. A column whose feed is broken adds more now than before; one whose mean |contribution| changes is used otherwise, rightly
or not.

Source: Lundberg et al. 2020, "From local explanations to global understanding" (the loss explained column by column, and watched);
permutation of rows, or of days, with Holm (1979) over all columns and both effects. Cost: one matrix product for the permutations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loudly.core.canon import Json
from loudly.core.seams import Contributions, Floats
from loudly.core.values import Evidence, Task
from loudly.errors import DataError
from loudly.shift.two_sample.kolmogorov_smirnov import holm_p_values
from loudly.stats.clusters import block_difference
from loudly.stats.permutation import p_value, subsets

LOSS, USE = "contribution to the loss", "use of the column"
UNITS = {Task.BINARY: "push to the wrong answer", Task.MULTICLASS: "push to the wrong answer", Task.REGRESSION: "squared error"}
FEWEST = 30
MOST_ROWS = 5_000
AT_ONCE = 250


@dataclass(frozen=True, slots=True)
class Explained:
    """Answers with their labels. contributions: of n rows.  truth: (n,) 0/1, class codes or numbers, NaN where there is none.

    days: (n,) the day of each row, or None.
    """

    contributions: Contributions
    truth: Any
    days: Any = None


def blame_losses(
    reference: Explained,
    window: Explained,
    columns: Sequence[str],
    task: Task = Task.BINARY,
    *,
    alpha: float = 0.05,
    permutations: int = 1999,
    seed: int = 0,
) -> tuple[Evidence, ...]:
    """Two effects a column: how much more it adds to the loss (the surely most harmful first), then how much more it is used.

    The p-value is adjusted by Holm over all of them (permutations grow with the columns, so that it can reach alpha), intervals are
    Bonferroni's. With days, days are permuted and counted, not rows.
    `detail` has both means, and for the loss the column's share of the whole change.

    Raises: DataError for fewer than 30 labelled rows, days on one side alone, or contributions of other columns.

    >>> from loudly.core.seams import Contributions
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 400).astype(float)
    >>> good = np.stack([2 * y - 1, 2 * y - 1], axis=1) + rng.normal(size=(400, 2))
    >>> broken = np.stack([rng.normal(size=400), good[:, 1]], axis=1)
    >>> told = [Contributions("linear", "log-odds", np.zeros(1), values[:, :, None]) for values in (good, broken)]
    >>> sides = [Explained(one, y) for one in told]
    >>> first = blame_losses(*sides, ["price", "age"])[0]
    >>> first.about, first.p_value < 0.01
    ('price', True)
    """
    if (reference.days is None) != (window.days is None):
        raise DataError("Days belong to both or to neither.", seen="days for one of reference and window")
    rng = np.random.default_rng(seed)
    (before, then), (now, at) = (_effects(side, columns, task, rng) for side in (reference, window))
    p = holm_p_values(_permuted(before, now, then, at, max(permutations, math.ceil(4 * len(columns) / alpha)), rng))
    whole = float((now.mean(axis=0) - before.mean(axis=0))[: len(columns)].sum())
    found = []
    for j, about in enumerate([*columns, *columns]):
        made = block_difference(now[:, j], before[:, j], None if then is None else (at, then))
        reach, loss = made.reach(alpha / len(p)), j < len(columns)
        detail: dict[str, Json] = {"reference": float(before[:, j].mean()), "window": float(now[:, j].mean())}
        if loss and whole > 0:
            detail["share"] = made.value / whole
        found.append(
            Evidence(
                LOSS if loss else USE, made.value, made.value - reach, made.value + reach, len(now), about,
                UNITS[task] if loss else "mean |contribution|", 1 - alpha, p_value=float(p[j]), detail=detail,
            )
        )  # fmt: skip
    return tuple(sorted(found, key=lambda e: (e.method == USE, -(e.low or 0.0))))


def harm(contributions: Contributions, truth: Floats, task: Task) -> Floats:
    """What each column adds to the loss of each row. Shapes: truth (n,) -> (n, d)."""
    parts, score = contributions.parts, contributions.score
    match task:
        case Task.BINARY:
            return np.asarray((1 - 2 * truth)[:, None] * parts[:, :, 0])
        case Task.REGRESSION:
            return np.asarray((score - truth[:, None]) * parts[:, :, 0])
        case Task.MULTICLASS:
            row, true = np.arange(len(truth)), truth.astype(int)
            score[row, true] = -np.inf
            return np.asarray(parts[row, :, score.argmax(axis=1)] - parts[row, :, true])


def _effects(side: Explained, columns: Sequence[str], task: Task, rng: np.random.Generator) -> tuple[Floats, Any]:
    """(n, 2 d) harm and use of each column in the rows that have a label, and their days."""
    truth, parts = np.asarray(side.truth, dtype=np.float64), side.contributions.parts
    days = None if side.days is None else np.asarray(side.days)
    seen = f"{parts.shape} contributions, {len(columns)} columns, {truth.shape} labels"
    if (parts.shape[2] > 1) != (task is Task.MULTICLASS) or parts.shape[:2] != (len(truth), len(columns)) or truth.ndim != 1:
        raise DataError("Contributions, columns and labels do not fit each other.", seen=seen)
    if days is not None and days.shape != truth.shape:
        raise DataError("Every row needs its day.", seen=f"{days.shape} days, {len(truth)} rows")
    known = np.flatnonzero(np.isfinite(truth))
    if len(known) < FEWEST:
        raise DataError(f"{len(known)} labelled rows cannot tell.", do=f"Give at least {FEWEST} on either side.")
    if days is None and len(known) > MOST_ROWS:
        known = np.sort(rng.permutation(known)[:MOST_ROWS])
    base = np.broadcast_to(side.contributions.base, (len(parts), parts.shape[2]))
    kept = replace(side.contributions, base=base[known], parts=parts[known])
    return np.concatenate(
        [harm(kept, truth[known], task), np.abs(kept.parts).mean(axis=2)], axis=1
    ), None if days is None else days[known]


def _permuted(before: Floats, now: Floats, then: Any, at: Any, permutations: int, rng: np.random.Generator) -> Floats:
    """(2 d,) two-sided p-values: rows, or whole days, dealt anew to reference and window."""
    both = np.concatenate([before, now])
    both = both - both.mean(axis=0)
    held, mine = (
        np.arange(len(x)) if day is None else np.unique(day, return_inverse=True)[1] for x, day in ((before, then), (now, at))
    )
    first = int(held.max()) + 1
    code = np.concatenate([held, mine + first])
    counts = np.bincount(code).astype(np.float64)
    sums: Floats = np.stack([np.bincount(code, weights=column) for column in both.T], axis=1)
    drawn = subsets(len(counts), int(mine.max()) + 1, permutations, rng)
    gaps = np.concatenate([_gaps(sums, counts, drawn[i : i + AT_ONCE]) for i in range(0, len(drawn), AT_ONCE)])
    return np.array([p_value(np.abs(column)) for column in gaps.T])


def _gaps(sums: Floats, counts: Any, drawn: Any) -> Floats:
    """(b, 2 d) mean of the window less mean of the rest, in each deal."""
    inside = np.zeros((len(drawn), len(counts)))
    np.put_along_axis(inside, drawn, 1.0, axis=1)
    here, rows = inside @ sums, (inside @ counts)[:, None]
    return np.asarray(here / rows - (sums.sum(axis=0) - here) / (counts.sum() - rows))
