"""Overfit: how much better the model is on rows it has learned from than on held-out ones."""

from __future__ import annotations

from loudly.core.canon import finite
from loudly.core.seams import Floats
from loudly.core.values import Decision, Evidence, Verdict
from loudly.evaluate.report import measure
from loudly.metrics.table import metric

MUCH = 0.25


def overfit(truth: Floats, score: Floats, held_out: float | None, name: str, tolerance: float = MUCH) -> Verdict:
    """FAIL where the metric on seen rows is surely better than on held-out ones by more than the tolerance.

    Shapes: truth (n,), score (n,) or (n, k) of seen rows. The tolerance is in units of a metric of which more is
    better; of losses (brier, log_loss, mae, mse, rmse) it is a share of the held-out value.

    >>> import numpy as np
    >>> y = np.tile([0.0, 1.0], 500)
    >>> overfit(y, 0.1 + 0.8 * y, 0.7, "roc_auc").reason
    'roc_auc 1.0000 on seen rows, 0.7000 on held-out ones, more than 0.25 better'
    """
    spec = metric(name)
    seen = measure(spec, truth, score)
    if seen.effect is None or seen.low is None or seen.high is None or held_out is None:
        return Verdict(Decision.UNDECIDED, "overfit", "the rows cannot tell", (seen,), missing="rows")
    unit = abs(held_out) if spec.better < 0 else 1.0
    least = seen.low - held_out if spec.better > 0 else held_out - seen.high
    gap = spec.better * (seen.effect - held_out)
    evidence = Evidence(
        "seen less held out", finite(gap), finite(least), n=len(truth), about="overfit", unit=name, tolerance=tolerance
    )
    told = f"{name} {seen.effect:.4f} on seen rows, {held_out:.4f} on held-out ones"
    if least <= tolerance * unit:
        return Verdict(Decision.PASS, "overfit", told, (evidence,))
    much = f"{tolerance:g}" if spec.better > 0 else f"{tolerance:.0%}"
    return Verdict(Decision.FAIL, "overfit", f"{told}, more than {much} better", (evidence,))
