"""How many more labels a verdict needs and when they are likely to be there, as labels have come so far.

The interval narrows as rows come and its middle goes on wandering; told is when it is as likely sure as not. Labels are taken to
go on coming as they have since the first one came, so that a delay is counted once, not for every row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from loudly.core.clock import DAY
from loudly.core.seams import Feedback
from loudly.core.values import Decision, Verdict
from loudly.stats.confidence_sequence import Running, stretch


def nothing_arrived() -> dict[str, int]:
    """Before the first label."""
    return {"first": 0, "last": 0, "rows": 0, "at_first": 0}


def arrived(seen: Mapping[str, int], feedback: Feedback) -> dict[str, int]:
    """When the first and the newest labels came (µs), how many have come, and how many with the first."""
    rows = len(feedback.truth)
    if rows == 0:
        return dict(seen)
    if seen["rows"] == 0:
        return {"first": feedback.at, "last": feedback.at, "rows": rows, "at_first": rows}
    early = rows if feedback.at == seen["first"] else 0
    return {**seen, "last": feedback.at, "rows": seen["rows"] + rows, "at_first": seen["at_first"] + early}


def when(seen: Mapping[str, int], more: int) -> int | None:
    """Event time (µs) by which that many more labels have come; None before labels have come twice.

    >>> when({"first": 0, "last": 100, "rows": 60, "at_first": 10}, 25)
    150
    """
    later = seen["rows"] - seen["at_first"]
    return seen["last"] + round(more * (seen["last"] - seen["first"]) / later) if later > 0 else None


def rows_needed(stream: Running, rows: int, margin: float, alpha: float) -> int | None:
    """Labelled rows until the interval is as likely sure as not, either way; None where that is never."""
    factor = stretch(stream, alpha, margin)
    return None if factor is None else max(1, round((factor - 1) * rows))


def days_needed(seen: Mapping[str, int], days: int) -> int | None:
    """When that many labelled days more are there."""
    return seen["last"] + days * DAY if seen["rows"] else None


def dated(verdict: Verdict, deadline: int) -> Verdict:
    """An undecided verdict, with word of it where what is missing is likely to come after the deadline (µs)."""
    if verdict.decision is not Decision.UNDECIDED or verdict.expected_at is None or verdict.expected_at <= deadline:
        return verdict
    return replace(verdict, missing=f"{verdict.missing} (after the deadline)")
