"""Rankings of all arms merged into the one list that a client sees: rows of one group in one request are a list.

The answer of a row is a number of control's own, dealt out anew so that high ones come first: it says a place and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from loudly.core.seams import Floats, Ints, Merging
from loudly.serve.replies import Replies
from loudly.serve.rows import Rows


def merged(
    replies: Replies, merging: Merging, state: Mapping[str, Any], table: pl.DataFrame | Rows, salt: str, sizes: Sequence[int]
) -> Replies:
    """The replies with the rows of each list in the order of the merged one. sizes: rows of each request of the batch.

    A list of which an arm that takes part has not scored every row is control's alone: it is marked as the fallback, and no
    other arm's scores of it are told, so that it is no evidence. So are rows without a group, which are no list and no
    fallback.
    """
    names, n = replies.names, table.height
    scores = {name: score.copy() for name, score in replies.scores.items()}
    if any(score.ndim != 1 for score in scores.values()):
        return replies
    answer, arm, propensity = replies.answer.copy(), replies.arm.copy(), replies.propensity.copy()
    fallback = np.array(replies.fallback)
    groups = list(table.columns[merging.group] if isinstance(table, Rows) else table[merging.group])
    for group, rows in _lists(groups, np.repeat(np.arange(len(sizes)), sizes) if sizes else np.zeros(n, dtype=np.int64)):
        each = [scores[name][rows] for name in names]
        made = merging.merge(state, each, str(group), salt) if group is not None else None
        if made is None:
            fallback[rows] |= group is not None
            for name in names[1:]:
                scores[name][rows] = np.nan
            continue
        answer[rows] = _falling(each[0])[made.place]
        arm[rows], propensity[rows] = made.arm, made.propensity
    return replace(replies, answer=answer, arm=arm, propensity=propensity, fallback=fallback, scores=scores)


def _lists(groups: Sequence[Any], requests: Ints) -> list[tuple[Any, Ints]]:
    """The rows of each list: those of one group in one request."""
    found: dict[tuple[int, Any], list[int]] = {}
    for row, (request, group) in enumerate(zip(requests.tolist(), groups, strict=True)):
        found.setdefault((request, group), []).append(row)
    return [(group, np.array(rows)) for (_, group), rows in found.items()]


def _falling(scores: Floats) -> Floats:
    """The scores from the highest to the lowest, equal ones told apart by the least there can be. Shapes: (n,) finite."""
    made = np.sort(scores)[::-1].copy()
    for i in range(1, len(made)):
        if made[i] >= made[i - 1]:
            made[i] = np.nextafter(made[i - 1], -np.inf)
    return made
