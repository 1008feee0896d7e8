"""Leakage: columns that know the answer. They make a model brilliant on paper and useless in service.

Two rules. *Alone*: a column that by itself predicts the label too well on newer rows. *Known only after*: a column that is
missing just where the label is, because both are written once the event is over.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from loudly.core.canon import finite
from loudly.core.seams import Floats
from loudly.core.values import Decision, Evidence, Kind, Role, Schema, Verdict
from loudly.stats.auc import normal_interval
from loudly.validate.alone import fit_alone, has_label, skill, top_class, truth_of

ALONE = 0.85
AFTER_SHARE = 0.5
AFTER_RATIO = 0.05
MOST_ROWS = 50_000
FEWEST = 200


def find_leaks(
    table: pl.DataFrame, schema: Schema, *, label: str, time: str, known_before: Sequence[str] = ()
) -> tuple[Verdict, ...]:
    """One FAIL for each leaking input; otherwise one PASS (or UNDECIDED with too few rows, or newer labels that are all alike).

    known_before: inputs of which somebody says that; for each that predicts the label alone there is a PASS with its evidence.
    table: all rows, also those without a label: their missing values are the second rule's evidence.
    Cost: two passes over at most 50,000 rows a column.
    """
    inputs = [f.name for f in schema.inputs if f.kind not in (Kind.TEXT, Kind.TIME) or f.role in (Role.INPUT, Role.SIDE)]
    labelled = table.filter(has_label(table[label])).sort(time)
    if labelled.height < FEWEST:
        lacking = f"{FEWEST - labelled.height} more labelled rows"
        return (Verdict(Decision.UNDECIDED, "leakage", "too few labelled rows to tell", missing=lacking),)
    step = max(1, labelled.height // MOST_ROWS)
    sample = labelled.gather_every(step)
    truth = truth_of(sample[label], top_class(sample[label]))
    both = ((_after(table, name, label), _alone(sample[name], truth, name in known_before)) for name in inputs)
    found = tuple(verdict for of_one in both for verdict in of_one if verdict is not None)
    if any(verdict.failed for verdict in found):
        return found
    if np.ptp(truth[len(truth) // 2 :]) == 0:
        told = "the newer half of the labels is all of one class or value: no column can predict it"
        return (Verdict(Decision.UNDECIDED, "leakage", told, missing="newer labels that differ"),)
    told = f"none of {len(inputs) - len(found)} inputs knows the label alone or only after the event"
    return (*found, Verdict(Decision.PASS, "leakage", told))


def _alone(values: pl.Series, truth: Floats, known_before: bool) -> Verdict | None:
    """AUC (or rank correlation as an AUC) on the newer half of a one-column model fitted on the older half."""
    half = len(truth) // 2
    newer = truth[half:]
    found = skill(fit_alone(values[:half], truth[:half]).score(values[half:]), newer)
    low, high = normal_interval(found.value, found.error, 0.99)
    if not low > ALONE:
        return None
    evidence = Evidence(
        "one column alone, newer half", finite(found.value), finite(low), finite(high), len(newer), values.name, "roc_auc",
        0.99, ALONE,
    )  # fmt: skip
    reason = f"{values.name} alone predicts the label with AUC {found.value:.3f} [{low:.3f}, {high:.3f}], above {ALONE}"
    if known_before:
        reason = f"{reason}; that it is known before the event is what the system says, and nobody has checked it"
    return Verdict(Decision.PASS if known_before else Decision.FAIL, f"leakage of {values.name}", reason, (evidence,))


def _after(table: pl.DataFrame, name: str, label: str) -> Verdict | None:
    """Missing in most rows without a label and in nearly none with one."""
    column, open_rows = table[name], ~has_label(table[label])
    missing = column.is_null() | column.is_nan().fill_null(False) if column.dtype.is_float() else column.is_null()
    unlabelled = int(open_rows.sum())
    if unlabelled < FEWEST:
        return None
    without = float((missing & open_rows).sum()) / unlabelled
    within = float((missing & ~open_rows).sum()) / max(1, table.height - unlabelled)
    if without < AFTER_SHARE or within > AFTER_RATIO * without:
        return None
    evidence = Evidence("missing with the label", without - within, n=table.height, about=name, tolerance=AFTER_SHARE)
    reason = f"{name} is known only after the event: missing in {without:.0%} of the rows without a label, {within:.1%} with one"
    return Verdict(Decision.FAIL, f"leakage of {name}", reason, (evidence,))
