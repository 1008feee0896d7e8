"""Leakage: columns that know the answer. They make a model brilliant on paper and useless in service.

Two rules. *Alone*: a column that by itself predicts the label too well on newer rows. *Known only after*: a column that is
missing just where the label is, because both are written once the event is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from loudly.core.canon import finite
from loudly.core.values import Decision, Evidence, Kind, Role, Schema, Verdict
from loudly.stats.auc import auc, normal_interval

if TYPE_CHECKING:
    from loudly.core.seams import Floats, Ints

ALONE = 0.85
AFTER_SHARE = 0.5
AFTER_RATIO = 0.05
MOST_ROWS = 50_000
FEWEST = 200
BINS = 64


def find_leaks(table: pl.DataFrame, schema: Schema, *, label: str, time: str) -> tuple[Verdict, ...]:
    """One FAIL for each leaking input; otherwise one PASS (or UNDECIDED with too few rows).

    table: all rows, also those without a label: their missing values are the second rule's evidence.
    Cost: two passes over at most 50,000 rows a column.
    """
    inputs = [f.name for f in schema.inputs if f.kind not in (Kind.TEXT, Kind.TIME) or f.role in (Role.INPUT, Role.SIDE)]
    labelled = table.drop_nulls(label).sort(time)
    if labelled.height < FEWEST:
        lacking = f"{FEWEST - labelled.height} more labelled rows"
        return (Verdict(Decision.UNDECIDED, "leakage", "too few labelled rows to tell", missing=lacking),)
    step = max(1, labelled.height // MOST_ROWS)
    sample = labelled.gather_every(step)
    truth = _truth(sample[label])
    found = [v for name in inputs for v in (_after(table, name, label), _alone(sample[name], truth)) if v is not None]
    if found:
        return tuple(found)
    return (Verdict(Decision.PASS, "leakage", f"none of {len(inputs)} inputs knows the label alone or only after the event"),)


def _alone(values: pl.Series, truth: Floats) -> Verdict | None:
    """AUC (or rank correlation as an AUC) on the newer half of a one-column model fitted on the older half."""
    codes = _codes(values)
    half = len(truth) // 2
    sums = np.bincount(codes[:half], weights=truth[:half], minlength=codes.max(initial=0) + 1)
    counts = np.bincount(codes[:half], minlength=len(sums))
    prior = float(truth[:half].mean())
    told = (sums + prior) / (counts + 1)
    newer = (truth[half:] > np.median(truth[half:])).astype(float) if len(np.unique(truth)) > 2 else truth[half:]
    found = auc(newer, told[codes[half:]])
    low, high = normal_interval(found.value, found.error, 0.99)
    if not low > ALONE:
        return None
    evidence = Evidence(
        "one column alone, newer half", finite(found.value), finite(low), finite(high), len(newer), values.name, "roc_auc",
        0.99, ALONE,
    )  # fmt: skip
    reason = f"{values.name} alone predicts the label with AUC {found.value:.3f} [{low:.3f}, {high:.3f}], above {ALONE}"
    return Verdict(Decision.FAIL, f"leakage of {values.name}", reason, (evidence,))


def _after(table: pl.DataFrame, name: str, label: str) -> Verdict | None:
    """Missing in most rows without a label and in nearly none with one."""
    missing, open_rows = table[name].is_null(), table[label].is_null()
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


def _codes(values: pl.Series) -> Ints:
    """Small integers: quantile bins of numbers, category codes otherwise; missing is a code of its own."""
    if values.dtype.is_numeric() or values.dtype == pl.Boolean:
        numbers = values.cast(pl.Float64).to_numpy()
        sound = numbers[np.isfinite(numbers)]
        if not len(sound):
            return np.zeros(len(numbers), dtype=np.int64)
        edges = np.unique(np.quantile(sound, np.linspace(0, 1, BINS + 1)[1:-1]))
        codes = np.searchsorted(edges, numbers)
        codes[~np.isfinite(numbers)] = len(edges) + 1
        return codes.astype(np.int64)
    ranks = values.cast(pl.String).fill_null("").rank("dense").to_numpy()
    return np.asarray(ranks - 1, dtype=np.int64)


def _truth(label: pl.Series) -> Floats:
    """The label as numbers; of several classes, whether it is the most frequent one."""
    if label.dtype == pl.Boolean or label.dtype.is_numeric():
        return np.asarray(label.cast(pl.Float64).to_numpy())
    text = label.cast(pl.String)
    top = text.value_counts(sort=True)[label.name][0]
    return np.asarray((text == top).cast(pl.Float64).to_numpy())
