"""How an estimate is told: as Evidence that names its assumption, and as a Verdict once labels confirm or refute it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from loudly.core.canon import Json, finite
from loudly.core.seams import Floats
from loudly.core.values import Decision, Evidence, Verdict
from loudly.errors import ConfigError, DataError
from loudly.shift.estimate.expected import BETTER, Expected, expected
from loudly.stats.clusters import block_mean

SUBJECT = "estimated performance"
CONFIRMED = "estimate against labels"
FEWEST_LABELS = 30
FEWEST_ROWS = 20
# More rows without a score than this share: the others alone do not speak for the window.
MOST_UNUSABLE = 0.05
WAYS = {**BETTER, "mae": -1, "mse": -1, "rmse": -1}
BOUNDED = ("roc_auc", "accuracy", "f1", "precision", "recall")


def told(
    method: str, metric: str, value: float, error: float, n: int, assumes: str, confidence: float, detail: Mapping[str, Json]
) -> Evidence:
    """The estimate with its interval, value ± z · error, and the assumption it stands on; none from fewer than 20 rows."""
    if n < FEWEST_ROWS:
        return untold(method, metric, n, assumes, f"at least {FEWEST_ROWS} rows: an interval from {n} would be a guess", detail)
    if not np.isfinite(value):
        return untold(method, metric, n, assumes, "rows that can tell (both classes likely, some row called positive)", detail)
    reach = float(scipy.special.ndtri(0.5 + confidence / 2)) * error
    low, high = value - reach, value + reach
    if metric in BOUNDED:
        low, high = max(0.0, low), min(1.0, high)
    else:
        low = max(0.0, low)
    said = {"assumes": assumes, "error": finite(error), **detail}
    return Evidence(method, value, finite(low), finite(high), n, SUBJECT, metric, confidence, detail=said)


def untold(method: str, metric: str, n: int, assumes: str, missing: str, detail: Mapping[str, Json] | None = None) -> Evidence:
    """No estimate, and what is missing for one: never a quiet number."""
    return Evidence(
        method, None, n=n, about=SUBJECT, unit=metric, detail={**(detail or {}), "assumes": assumes, "missing": missing}
    )


def left_out(kept: NDArray[np.bool_]) -> dict[str, Json]:
    """How many rows of a window have no score; loud where they are more than one in twenty. Shapes: kept (n,) rows that have one.

    >>> left_out(np.array([True] * 3 + [False]))["loud"]
    'LOUD: 1 of 4 rows have no score, and the estimate speaks for the others alone'
    """
    gone = int((~kept).sum())
    if gone <= MOST_UNUSABLE * len(kept):
        return {"unusable": gone}
    loud = f"LOUD: {gone:,} of {len(kept):,} rows have no score, and the estimate speaks for the others alone"
    return {"unusable": gone, "loud": loud, "missing": "scores of all rows, or labels"}


def harm(found: Evidence, reference: float, tolerance: float, *, better: int | None = None) -> Verdict:
    """The estimate against what the reference led to expect: FAIL when surely worse by more than the tolerance.

    better: +1 where more is better, -1 where less is; known for the metrics that have an estimator.
    Raises: ConfigError for another metric without it, DataError for a tolerance below zero.

    >>> harm(Evidence("CBPE", 0.70, 0.68, 0.72, 900, unit="roc_auc"), 0.80, 0.02).decision.value
    'FAIL'
    """
    if found.effect is None or found.low is None or found.high is None:
        missing = str(found.detail.get("missing", "an estimate"))
        return Verdict(Decision.UNDECIDED, SUBJECT, "nothing could be estimated", (found,), missing=missing)
    if not tolerance >= 0:
        raise DataError("A tolerance lies at or above zero.", seen=f"{tolerance}", do="say what loss would not matter")
    if better is None and found.unit not in WAYS:
        raise ConfigError(f"Which way {found.unit!r} is better is not known.", do="say better=+1 or better=-1")
    if not np.isfinite([found.effect, found.low, found.high, reference]).all():
        missing = "an estimate that is a number" if np.isfinite(reference) else "what the reference led to expect"
        return Verdict(Decision.UNDECIDED, SUBJECT, "there is nothing to compare", (found,), missing=missing)
    sign = better if better is not None else WAYS[found.unit]
    best = found.high if sign > 0 else found.low
    said = f"estimated {found.unit} {found.effect:.4f} [{found.low:.4f}, {found.high:.4f}], expected {reference:.4f}"
    said += f"; assumes {found.detail.get('assumes', 'what its method assumes')}"
    if found.detail.get("loud"):
        missing = str(found.detail.get("missing", "reference rows that are like the window, or labels"))
        return Verdict(Decision.UNDECIDED, SUBJECT, f"{found.detail['loud']}; {said}", (found,), missing=missing)
    failed = sign * (best - reference) < -tolerance
    return Verdict(Decision.FAIL if failed else Decision.PASS, SUBJECT, said, (found,))


def confirmed(
    found: Evidence, realised: float, error: float, n: int, assumes: str, *, looks: int = 1, freedom: float = np.inf
) -> Verdict:
    """What labels say against what was estimated for the same rows: FAIL where they differ by more than chance allows.

    error: standard error of (realised - estimated) for these rows.  looks: how often one means to look in all; the risk of
    a false FAIL is shared among them.  freedom: days less one, where the error is of days and not of rows.
    """
    if found.effect is None or not np.isfinite(realised) or n < FEWEST_LABELS:
        missing = f"at least {FEWEST_LABELS} labelled rows, of every class"
        return Verdict(Decision.UNDECIDED, CONFIRMED, f"{n} labelled rows cannot tell", (found,), missing=missing)
    if not np.isfinite(error) or freedom < 1:
        missing = "labelled rows of at least two days"
        return Verdict(Decision.UNDECIDED, CONFIRMED, "rows of one day cannot tell", (found,), missing=missing)
    reach = -float(scipy.special.stdtrit(freedom, (1 - found.confidence) / 2 / max(looks, 1))) * error
    low, high = found.effect - reach, found.effect + reach
    gap = realised - found.effect
    seen = Evidence(
        f"{found.method}, confirmed by labels", gap, gap - reach, gap + reach, n, CONFIRMED, found.unit, found.confidence,
        detail={"estimated": found.effect, "confirmed": realised, "low": low, "high": high, "looks": looks},
    )  # fmt: skip
    said = f"{found.unit} confirmed {realised:.4f}, estimated {found.effect:.4f} [{low:.4f}, {high:.4f}] over {n:,} labelled rows"
    if low <= realised <= high:
        return Verdict(Decision.PASS, CONFIRMED, said, (seen, found))
    reason = f"LOUD: the estimate was wrong: {said}. It assumed {assumes}: concept shift suspected, do not rely on it"
    return Verdict(Decision.FAIL, CONFIRMED, reason, (seen, found))


def of_days(values: Floats, days: Any, error: float) -> tuple[float, float]:
    """The error of a mean of rows and its degrees of freedom: `error` where rows are independent; by days never less than that.

    Shapes: values (n,), days (n,) or None.
    """
    if days is None:
        return error, np.inf
    made = block_mean(values, days)
    return max(error, made.error), made.freedom


def day_of(days: Any, kept: Any) -> Any:
    """The days of the rows that are kept. Raises: DataError where not every row has one."""
    if days is None:
        return None
    made = np.asarray(days)
    if made.shape != kept.shape:
        raise DataError("Every row needs its day.", seen=f"{made.shape} days, {len(kept)} rows")
    return made[kept]


def by_labels(metric: str, score: Floats, truth: Floats) -> Expected:
    """The metric by labels; NaN where the labelled rows cannot tell."""
    return expected(metric, score, truth if score.ndim == 1 else np.eye(score.shape[1])[truth.astype(int)])


def realised(metric: str, score: Floats, truth: Floats) -> tuple[float, float]:
    """The metric by labels and its standard error over independent rows."""
    found = by_labels(metric, score, truth)
    return found.value, found.error
