"""Labelled rows kept by the day that they are of, until they are many and their day is over: what `days` judges.

A row belongs to the day on which it was answered, whenever its label came: the labels of a week that all arrive on one day are of
seven days; a row of a day still to come is one of the day on which its label came. A day is judged once it is over, and again when
later labels of it come. Rows of a day that is over are kept while they are fewer than `ENOUGH`; of more the gap alone is kept, and
later ones are a group of their own within their day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np

from loudly.core.arrays import Flags
from loudly.core.canon import finite
from loudly.core.clock import DAY
from loudly.core.seams import Feedback, Floats
from loudly.deliver.days import DayGap, day_gap, day_of, one_day, with_day
from loudly.deliver.latency import CANDIDATE, CONTROL

ALL = ""  # of all rows, beside the names of slices
ENOUGH = 2_000
Told = dict[str, dict[str, Any]]


def nothing_kept() -> dict[str, Any]:
    """Before the first row. arrival: a day on which rows came that nobody has looked at since.  rows: labelled at the last look."""
    return {"arrival": None, "rows": 0, "open": {}, "told": {}, "folded": {}}


def kept_with(kept: Mapping[str, Any], feedback: Feedback, scores: Mapping[str, Floats], known: Flags) -> dict[str, Any]:
    """The rows kept, with a batch more. scores: what is compared, by arm.  known: (n,) rows that both have scored, or one, with NaN
    for the other.
    """
    of_day, opened, told = np.minimum(day_of(feedback), feedback.at // DAY), {**kept["open"]}, {**kept["told"]}
    for day in np.unique(of_day[known]).tolist():
        of, key = known & (of_day == day), str(day)
        more = {
            "truth": feedback.truth[of].tolist(),
            **{arm: [finite(v) for v in scores[arm][of].tolist()] for arm in (CONTROL, CANDIDATE)},
        }
        opened[key] = _joined(opened.get(key), more, {name: inside[of].tolist() for name, inside in feedback.slices.items()})
        told.pop(key, None)
    arrival = feedback.at // DAY if kept["arrival"] is None else kept["arrival"]
    return {**kept, "arrival": arrival, "open": opened, "told": told}


def _joined(before: Mapping[str, Any] | None, more: Mapping[str, Any], slices: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
    old = before or {"truth": [], CONTROL: [], CANDIDATE: [], "slices": {}}
    n, k = len(old["truth"]), len(more["truth"])
    inside = {name: [*old["slices"].get(name, [False] * n), *slices.get(name, [False] * k)] for name in {**old["slices"], **slices}}
    return {**{of: [*old[of], *more[of]] for of in more}, "slices": inside}


def due(kept: Mapping[str, Any], rows: int, at: int) -> bool:
    """Whether days are to be looked at: on the day after rows have come, and whenever labelled rows have doubled, for many may come
    as one.
    """
    return kept["arrival"] is not None and (at // DAY > kept["arrival"] or rows >= 2 * kept["rows"])


def looked(kept: Mapping[str, Any], rows: int, at: int, ranks: bool) -> dict[str, Any]:
    """With every day judged that is over at `at` (µs). rows: labelled in all."""
    opened, told, folded = {**kept["open"]}, {**kept["told"]}, {**kept["folded"]}
    for day, found in kept["open"].items():
        if int(day) >= at // DAY:
            continue
        if day not in told:
            told[day] = _gaps(found, ranks)
        many = len(found["truth"]) // ENOUGH
        if many and ALL in told[day]:
            folded[day] = [*folded.get(day, ()), told.pop(day)]
            del opened[day]
        elif many:  # of one class: some of them will do when the other comes
            opened[day] = _every(found, many + 1)
    arrival = None if at // DAY > kept["arrival"] else kept["arrival"]
    return {"arrival": arrival, "rows": max(1, rows), "open": opened, "told": told, "folded": folded}


def by_day(kept: Mapping[str, Any]) -> Told:
    """What the days that were judged say together, of all rows and of each slice, in the order of the days."""
    found: Told = {}
    for day in sorted({*kept["told"], *kept["folded"]}, key=int):
        groups = [*kept["folded"].get(day, ()), *([kept["told"][day]] if day in kept["told"] else [])]
        for name in dict.fromkeys(name for group in groups for name in group):
            found[name] = with_day(found.get(name), one_day([DayGap(*group[name]) for group in groups if name in group]))
    return found


def _gaps(rows: Mapping[str, Any], ranks: bool) -> dict[str, list[float]]:
    """Of a day's rows: all of them and each slice, where they can be judged."""
    each = {ALL: day_gap(rows, slice(None), ranks)}
    each |= {name: day_gap(rows, np.asarray(inside, dtype=bool), ranks) for name, inside in rows["slices"].items()}
    return {name: list(astuple(gap)) for name, gap in each.items() if gap is not None}


def _every(rows: Mapping[str, Any], step: int) -> dict[str, Any]:
    """Each so many-th row."""
    kept = {of: rows[of][::step] for of in ("truth", CONTROL, CANDIDATE)}
    return {**kept, "slices": {name: inside[::step] for name, inside in rows["slices"].items()}}
