"""Key predictors: the few columns that carry a model's skill, watched specially in every new training table.

They are found when the schema is frozen, with what each knows of the label alone. A key predictor that is gone or constant is a
broken feed and blocks; one whose skill collapsed is said aloud, and the gate judges, since the world may have changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from loudly.core.canon import Json, finite
from loudly.core.values import Decision, Evidence, Kind, Schema, Verdict
from loudly.stats.auc import normal_interval
from loudly.validate.alone import Alone, alone_of, fit_alone, has_label, skill, top_class, truth_of

MOST_KEYS = 5
LEAST_SKILL = 0.05
CARRIED = 0.8
GONE = 0.95
KEPT = 0.25
FEWEST = 200
MOST_ROWS = 50_000
CONFIDENCE = 0.99
GONE_METHOD, CONSTANT_METHOD, SKILL_METHOD = "key predictor gone", "key predictor constant", "key predictor skill"


@dataclass(frozen=True, slots=True)
class KeyPredictor:
    """A column and what it alone knew of the label: AUC of `alone` on the newer half, fitted on the older half.

    missing: its missing share.  still: the longest run of rows, in order of time, with one and the same value.
    top: the class that was told from the others, where the label is a text.
    """

    name: str
    skill: float
    low: float
    high: float
    n: int
    missing: float
    still: int
    top: str
    alone: Alone

    def plain(self) -> dict[str, Json]:
        """As JSON, for the event that freezes the schema."""
        return {**asdict(self), "alone": self.alone.plain()}


def key_predictor_of(data: Mapping[str, Any]) -> KeyPredictor:
    """The inverse of `KeyPredictor.plain`."""
    return KeyPredictor(**{**data, "alone": alone_of(data["alone"])})


def find_key_predictors(table: pl.DataFrame, schema: Schema, *, label: str, time: str) -> tuple[KeyPredictor, ...]:
    """The fewest columns that carry 80 % of all univariate skill (AUC above one half), at most five, the best first.

    Columns whose skill is not surely above 0.55 are none; with fewer than 200 labelled rows there are none.
    Cost: one sort of at most 50,000 rows a column.
    """
    labelled = table.filter(has_label(table[label])).sort(time)
    if labelled.height < FEWEST:
        return ()
    sample = labelled.gather_every(max(1, labelled.height // MOST_ROWS))
    top, half = top_class(sample[label]), sample.height // 2
    truth = truth_of(sample[label], top)
    found = []
    for field in schema.inputs:
        if field.kind in (Kind.TEXT, Kind.TIME):
            continue
        column = sample[field.name]
        alone = fit_alone(column[:half], truth[:half])
        told = skill(alone.score(column[half:]), truth[half:])
        low, high = normal_interval(told.value, told.error, CONFIDENCE)
        if low > 0.5 + LEAST_SKILL:
            still = max(labelled[field.name].rle().struct.field("len").to_list())
            n = sample.height - half
            found.append(KeyPredictor(field.name, told.value, low, high, n, field.missing_rate, still, top, alone))
    found.sort(key=lambda k: (-k.skill, k.name))
    enough, carried, picked = CARRIED * sum(k.skill - 0.5 for k in found), 0.0, []
    for key in found[:MOST_KEYS]:
        if carried < enough:
            picked.append(key)
            carried += key.skill - 0.5
    return tuple(picked)


def judge_key_predictors(keys: Sequence[KeyPredictor], rows: pl.DataFrame, *, label: str, time: str) -> tuple[Verdict, ...]:
    """What became of the key predictors in new labelled rows: a verdict for each that is not well, else one PASS."""
    if not keys:
        return ()
    labelled = rows.filter(has_label(rows[label])).sort(time)
    if labelled.height < FEWEST:
        gone = tuple(_gone(key, labelled, 1.0, labelled.height) for key in keys if key.name not in rows.columns)
        lacking = f"{FEWEST - labelled.height} more labelled rows"
        return gone or (Verdict(Decision.UNDECIDED, "key predictors", "too few new labelled rows to tell", missing=lacking),)
    judged = tuple(_judge(key, labelled, label) for key in keys)
    unwell = tuple(v for v in judged if not v.passed)
    if unwell:
        return unwell
    told = "; ".join(v.reason for v in judged)
    return (Verdict(Decision.PASS, "key predictors", told, tuple(e for v in judged for e in v.evidence)),)


def blocking(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Those of a broken feed: gone and constant. A collapse of skill is for the gate to judge."""
    return tuple(v for v in verdicts if v.failed and v.evidence[0].method in (GONE_METHOD, CONSTANT_METHOD))


def _judge(key: KeyPredictor, rows: pl.DataFrame, label: str) -> Verdict:
    n = rows.height
    if key.name not in rows.columns:
        return _gone(key, rows, 1.0, n)
    column = rows[key.name]
    lost = column.null_count() + (int(column.is_nan().sum()) if column.dtype.is_float() else 0)
    if lost / n >= GONE > key.missing:
        return _gone(key, rows, lost / n, n)
    sound = column.drop_nulls().drop_nans() if column.dtype.is_float() else column.drop_nulls()
    if key.still < len(sound) and sound.n_unique() == 1:
        return _constant(key, sound)
    return _skill(key, column, rows[label])


def _gone(key: KeyPredictor, rows: pl.DataFrame, share: float, n: int) -> Verdict:
    evidence = Evidence(GONE_METHOD, share - key.missing, n=n, about=key.name, unit="share missing", tolerance=GONE)
    reason = (
        f"{key.name}, alone worth AUC {key.skill:.3f}, is missing in {share:.0%} of {n:,} new rows ({key.missing:.0%} before); "
        "mend the feed, or list it in ignored=[...]"
    )
    return Verdict(Decision.FAIL, f"key predictor {key.name}", reason, (evidence,))


def _constant(key: KeyPredictor, sound: pl.Series) -> Verdict:
    """One value in all rows: sure where that is twice as long as it ever stood still before."""
    n = len(sound)
    evidence = Evidence(CONSTANT_METHOD, n / key.still, n=n, about=key.name, unit="times its longest run", tolerance=2.0)
    told = (
        f"{key.name}, alone worth AUC {key.skill:.3f}, is {sound[0]} in all {n:,} new rows; it stood still for {key.still:,} before"
    )
    subject = f"key predictor {key.name}"
    if n <= 2 * key.still:
        return Verdict(Decision.UNDECIDED, subject, told, (evidence,), f"{2 * key.still - n + 1:,} more rows of the same value")
    return Verdict(Decision.FAIL, subject, f"{told}; mend the feed, or list it in ignored=[...]", (evidence,))


def _skill(key: KeyPredictor, column: pl.Series, label: pl.Series) -> Verdict:
    """The one-column model of the freeze on new rows: a quarter of what it was above chance must be left."""
    truth = truth_of(label, key.top)
    now = skill(key.alone.score(column), truth)
    low, high = normal_interval(now.value, now.error, CONFIDENCE)
    least = 0.5 + KEPT * (key.skill - 0.5)
    evidence = Evidence(
        SKILL_METHOD, finite(now.value), finite(low), finite(high), len(truth), key.name, "roc_auc", CONFIDENCE, least,
        detail={"before": key.skill},
    )  # fmt: skip
    told = f"{key.name} alone has AUC {now.value:.3f} [{low:.3f}, {high:.3f}], {key.skill:.3f} before"
    subject = f"key predictor {key.name}"
    if high < least:
        return Verdict(
            Decision.FAIL, subject, f"{told}: most of its skill is gone, from a broken feed or a changed world", (evidence,)
        )
    if low > least:
        return Verdict(Decision.PASS, subject, told, (evidence,))
    return Verdict(Decision.UNDECIDED, subject, f"{told}: {least:.3f} is the least", (evidence,), "more labelled rows")
