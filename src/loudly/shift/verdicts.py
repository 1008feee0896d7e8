"""A verdict is an effect against a tolerance: PASS below it, FAIL above it, UNDECIDED where the interval straddles it.

The interval holds at every look, so one may judge after each row of a growing window. More rows make the interval narrower,
never the effect larger: the answer does not flip because n grew, as that of a p-value does. UNDECIDED says what is missing.
Works on counts alone: any summary that can count can be judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from loudly.core.values import Decision, Evidence, Verdict
from loudly.errors import DataError
from loudly.stats.count_intervals import total_variation_interval, total_variation_reach
from loudly.stats.divergence import ks, total_variation
from loudly.stats.dkw import ks_interval
from loudly.stats.multinomial_process import fixed_share_interval, share_interval

Counts = Any
Ends = tuple[float, float]
MOST_ROWS = 10**9


def numeric_verdict(
    reference: Counts, window: Counts, tolerance: float, about: str = "", alpha: float = 0.05, bin_error: float | None = None
) -> Verdict:
    """Whether a numeric column's KS distance to the reference is below the tolerance.

    Shapes: counts (k,) in bins whose edges are quantiles of the reference. `bin_error` is what the distance of the rows
    may exceed the distance of the counts by: 1/k + 1/n of the reference unless the summary states its own.

    >>> same = np.full(64, 500)
    >>> numeric_verdict(same, same, tolerance=0.1, about="temp").decision.value
    'PASS'
    """
    held, seen = _sound(reference, window, tolerance, alpha)
    method = "KS from bin counts"
    if len(held) < 2:
        return _cannot(about, method, tolerance, "a second bin: one bin holds every value, so nothing can be seen to move")
    if min(held.sum(), seen.sum()) == 0:
        return _cannot(about, method, tolerance, _no_rows(held))
    m, n, effect = int(held.sum()), int(seen.sum()), ks(held, seen)
    coarse = 1 / len(held) + 1 / m if bin_error is None else bin_error

    def ends(more_m: int, more_n: int) -> Ends:
        return ks_interval(effect, more_m, more_n, alpha, coarse)

    detail = {"bin_error": coarse, "bins": len(held), "reference_n": m}
    return _judged(about, method, effect, ends(m, n), tolerance, n, alpha, "KS distance", detail, ends, m)


def category_verdict(reference: Counts, window: Counts, tolerance: float, about: str = "", alpha: float = 0.05) -> Verdict:
    """Whether a category's total variation from the reference is below the tolerance. Shapes: counts (k,), unseen last."""
    held, seen = _sound(reference, window, tolerance, alpha)
    method = "total variation from counts"
    if min(held.sum(), seen.sum()) == 0:
        return _cannot(about, method, tolerance, _no_rows(held))
    m, n, effect = int(held.sum()), int(seen.sum()), total_variation(held, seen)

    def ends(more_m: int, more_n: int) -> Ends:
        below, above = total_variation_reach(len(held), more_m, more_n, alpha)
        return max(0.0, effect - below), min(1.0, effect + above)

    span = total_variation_interval(held, seen, alpha)
    detail = {"categories": len(held), "reference_n": m}
    return _judged(about, method, effect, span, tolerance, n, alpha, "total variation", detail, ends, m)


def missing_verdict(
    reference_missing: int, reference_n: int, missing: int, n: int, tolerance: float, about: str = "", alpha: float = 0.05
) -> Verdict:
    """Whether the share of missing values differs from the reference's by less than the tolerance, up or down.

    >>> missing_verdict(10, 10_000, 900, 3_000, tolerance=0.05, about="gust").decision.value
    'FAIL'
    """
    held = np.array([reference_n - reference_missing, reference_missing])
    seen = np.array([n - missing, missing])
    _sound(held, seen, tolerance, alpha)
    method = "missing share"
    if min(reference_n, n) == 0:
        return _cannot(about, method, tolerance, _no_rows(held))
    before, now = reference_missing / reference_n, missing / n

    def ends(more_m: int, more_n: int) -> Ends:
        p = fixed_share_interval(before * more_m, more_m, alpha / 2)
        q = share_interval(now * more_n, more_n, alpha / 2)
        return float(q[0] - p[1]), float(q[1] - p[0])

    detail = {"reference_share": before, "share": now, "reference_n": reference_n}
    return _judged(
        about, method, now - before, ends(reference_n, n), tolerance, n, alpha, "change of share", detail, ends, reference_n
    )


def decide(low: float, high: float, tolerance: float) -> Decision:
    """PASS where all of the interval is nearer to zero than the tolerance, FAIL where none of it is."""
    if max(abs(low), abs(high)) < tolerance:
        return Decision.PASS
    return Decision.FAIL if low > tolerance or high < -tolerance else Decision.UNDECIDED


def rows_until(settled: Callable[[int], bool], n: int) -> int | None:
    """Roughly the number of rows at which a verdict settles if the effect stays (to a tenth); None where never."""
    low = high = max(n, 1)
    while not settled(high):
        low, high = high, high * 2
        if high > MOST_ROWS:
            return None
    while high - low > max(1, high // 10):
        middle = (low + high) // 2
        low, high = (low, middle) if settled(middle) else (middle, high)
    return high


def _judged(
    about: str,
    method: str,
    effect: float,
    span: Ends,
    tolerance: float,
    n: int,
    alpha: float,
    unit: str,
    detail: dict[str, Any],
    ends: Callable[[int, int], Ends],
    reference_n: int,
) -> Verdict:
    low, high = span
    evidence = Evidence(method, effect, low, high, n, about, unit, 1 - alpha, tolerance, detail=detail)
    decision = decide(low, high, tolerance)
    told = f"{about or 'column'}: {unit} {effect:.3f} [{low:.3f}, {high:.3f}], tolerance {tolerance:g}, {n:,} rows"
    missing = _missing(ends, tolerance, n, reference_n) if decision is Decision.UNDECIDED else ""
    return Verdict(decision, f"shift of {about}" if about else "shift", told, (evidence,), missing)


def _missing(ends: Callable[[int, int], Ends], tolerance: float, n: int, reference_n: int) -> str:
    """More rows of the window if they settle it, else more rows of the reference, else the tolerance itself."""

    def settles(m: int, rows: int) -> bool:
        return decide(*ends(m, rows), tolerance) is not Decision.UNDECIDED

    needed = rows_until(lambda rows: settles(reference_n, rows), n)
    if needed is not None:
        return f"about {_round(needed - n):,} more rows, if the effect stays"
    held = rows_until(lambda m: settles(m, MOST_ROWS), reference_n)
    if held is not None:
        return f"a reference of about {_round(held):,} rows; its {reference_n:,} leave too much open for any window"
    return f"a tolerance further from the effect, or finer bins: no number of rows settles {tolerance:g}"


def _round(n: int) -> int:
    """Two digits are enough of a rough number."""
    digits = max(0, len(str(n)) - 2)
    return math.ceil(n / int(10**digits)) * int(10**digits)


def _sound(reference: Counts, window: Counts, tolerance: float, alpha: float) -> tuple[Any, Any]:
    held, seen = np.asarray(reference, dtype=np.float64), np.asarray(window, dtype=np.float64)
    if held.ndim != 1 or held.shape != seen.shape:
        raise DataError(
            "Counts of a window and of its reference must be of the same bins.",
            seen=f"{held.shape} and {seen.shape}",
            do="count the window in the reference's bins",
        )
    if not (np.isfinite(held).all() and np.isfinite(seen).all() and (held >= 0).all() and (seen >= 0).all()):
        raise DataError("Counts must be finite and not negative.", seen="a negative, NaN or infinite count", do="count again")
    if not 0 < alpha < 1:
        raise DataError("An alpha lies between 0 and 1.", seen=f"{alpha}", do="say how often an interval may be wrong")
    if not tolerance > 0:
        raise DataError("A tolerance must be above zero.", seen=f"{tolerance}", do="say what change would not matter")
    return held, seen


def _no_rows(held: Any) -> str:
    return "a row that is not missing, in the " + ("reference" if held.sum() == 0 else "window")


def _cannot(about: str, method: str, tolerance: float, missing: str) -> Verdict:
    evidence = Evidence(method, None, n=0, about=about, tolerance=tolerance)
    told = f"{about or 'column'}: cannot tell, there is lacking {missing}"
    return Verdict(Decision.UNDECIDED, f"shift of {about}" if about else "shift", told, (evidence,), missing)
