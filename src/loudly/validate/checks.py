"""Checks of a table against its schema: each a Verdict with its effect; bad data is a verdict, not an exception."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from loudly.core.clock import DAY, iso, span
from loudly.core.values import Decision, Evidence, Field, Kind, Role, Schema, Verdict

Check = Callable[[pl.DataFrame, Schema, int], Verdict]
LEAST_CLASS = 0.01
MOST_MISSING = 0.95
STALE = 400 * DAY
# A numeric label so many times further out than the middle 90 % of its values reach (where these are one: 99 %) is asked about.
FAR, MIDDLE = 1000.0, (0.05, 0.005)
# A text column that is numbers but for so few values, of so many kinds, is a number that something spoils; a code has no fractions.
FEW_TEXTS, MANY_NUMBERS, FRACTIONS = 0.05, 20, 0.1


def judge_table(table: pl.DataFrame, schema: Schema, *, now: int) -> tuple[Verdict, ...]:
    """All checks of a table, in a fixed order."""
    return tuple(check(table, schema, now) for check in CHECKS.values())


def unique_key(table: pl.DataFrame, schema: Schema, now: int) -> Verdict:
    """The key names one row each."""
    (key,) = schema.role(Role.KEY)
    missing, values = table[key.name].null_count(), table[key.name].drop_nulls()
    if missing:
        evidence = Evidence("rows without a key", missing / table.height, n=table.height, about=key.name, tolerance=0.0)
        return Verdict(Decision.FAIL, "unique key", f"{missing:,} of {table.height:,} rows have no key", (evidence,))
    twice = len(values) - values.n_unique()
    evidence = Evidence("duplicates", twice / max(1, len(values)), n=len(values), about=key.name, tolerance=0.0)
    if twice:
        example = values.filter(values.is_duplicated())[0]
        return Verdict(Decision.FAIL, "unique key", f"{twice:,} rows repeat a key, e.g. {example!r}", (evidence,))
    return Verdict(Decision.PASS, "unique key", f"{len(values):,} keys, none twice", (evidence,))


def known_times(table: pl.DataFrame, schema: Schema, now: int) -> Verdict:
    """Every row has an event time, none of it in the future."""
    (time,) = schema.role(Role.TIME)
    at = table[time.name].dt.epoch("us")
    missing, newest = at.null_count(), at.max()
    evidence = Evidence("missing times", missing / max(1, len(at)), n=len(at), about=time.name, tolerance=0.0)
    if missing:
        return Verdict(Decision.FAIL, "event time", f"{missing:,} rows have no time", (evidence,))
    if isinstance(newest, int) and newest > now:
        return Verdict(Decision.FAIL, "event time", f"the newest row is of {iso(newest)}, after now ({iso(now)})", (evidence,))
    return Verdict(Decision.PASS, "event time", f"{iso(int(at.min()))} to {iso(int(newest))}", (evidence,))  # type: ignore[arg-type]


def fresh(table: pl.DataFrame, schema: Schema, now: int) -> Verdict:
    """The newest row is not older than 400 days."""
    (time,) = schema.role(Role.TIME)
    newest = table[time.name].dt.epoch("us").max()
    if not isinstance(newest, int):
        return Verdict(Decision.UNDECIDED, "freshness", "no times to judge by", missing="times")
    age = now - newest
    evidence = Evidence("age of the newest row", float(age), n=table.height, unit="µs", tolerance=float(STALE))
    decision = Decision.PASS if age <= STALE else Decision.FAIL
    return Verdict(decision, "freshness", f"the newest row is {span(age)} old", (evidence,))


def present(table: pl.DataFrame, schema: Schema, now: int) -> Verdict:
    """No input is missing nearly everywhere."""
    gone = [f for f in schema.inputs if f.missing_rate > MOST_MISSING]
    evidence = tuple(Evidence("missing", f.missing_rate, n=table.height, about=f.name, tolerance=MOST_MISSING) for f in gone)
    if gone:
        named = ", ".join(f"{f.name} ({f.missing_rate:.0%})" for f in gone)
        return Verdict(Decision.FAIL, "inputs present", f"missing nearly everywhere: {named}; ignore them or mend them", evidence)
    return Verdict(Decision.PASS, "inputs present", f"{len(schema.inputs)} inputs", evidence)


def varied(table: pl.DataFrame, schema: Schema, now: int) -> Verdict:
    """No input is the same in every row: a constant column teaches nothing and hides a broken feed."""
    able = [f for f in schema.inputs if f.kind is not Kind.TEXT and f.name in table.columns]
    same = [f.name for f in able if _constant(table[f.name], f)]
    if same:
        reason = f"constant: {', '.join(same)}; ignore them or mend them"
        return Verdict(Decision.FAIL, "inputs vary", reason, (Evidence("constant columns", float(len(same)), n=table.height),))
    return Verdict(Decision.PASS, "inputs vary", f"{len(able)} inputs vary")


def _constant(values: pl.Series, field: Field) -> bool:
    """One value in every row. Whether a value is there may tell something of what is no number."""
    if field.kind in (Kind.NUMBER, Kind.INTEGER):
        return field.low is not None and field.low == field.high
    return len(values) > 1 and not values.null_count() and values.n_unique() == 1


def of_one_type(table: pl.DataFrame, schema: Schema, now: int) -> Verdict:
    """No number is text because of a few values, one "N/A" makes categories of a whole column, or because it was written so."""
    subject, mixed = "inputs of one type", [m for f in schema.inputs if (m := _numbers_as_text(table, f.name)) is not None]
    if not mixed:
        return Verdict(Decision.PASS, subject, "no text column is one of numbers")
    evidence, told = tuple(m[0] for m in mixed), "; ".join(m[1] for m in mixed)
    if any(spoilt for *_, spoilt in mixed):
        do = "leave such values empty, mend them, make the column Categorical if these are names, or ignore it"
        return Verdict(Decision.FAIL, subject, f"{told}: {do}", evidence)
    return Verdict(Decision.UNDECIDED, subject, told, evidence, missing="whether these are names (Categorical) or numbers")


def _numbers_as_text(table: pl.DataFrame, name: str) -> tuple[Evidence, str, bool] | None:
    """A text column of numbers: what is told of it, and whether these have fractions and a few other values spoil them."""
    if name not in table.columns or table[name].dtype != pl.String:
        return None
    values = table[name].drop_nulls().str.strip_chars()
    numbers = values.cast(pl.Float64, strict=False)
    texts, known = values.filter(numbers.is_null()), numbers.drop_nulls()
    if len(texts) > FEW_TEXTS * len(values) or known.n_unique() < MANY_NUMBERS:
        return None
    fractions = float((known != known.round()).mean() or 0.0) > FRACTIONS  # type: ignore[arg-type]
    if not (len(texts) or fractions):
        return None
    evidence = Evidence("values that are no number", len(texts) / len(values), n=len(values), about=name, tolerance=0.0)
    if not len(texts):
        return evidence, f"{name} holds numbers as text, e.g. {values[0]!r}", False
    kind = "a number" if fractions else "a whole number"
    return evidence, f"{name} is text for {len(texts):,} of {len(values):,} values, e.g. {texts[0]!r}, and else {kind}", fractions


def balanced(table: pl.DataFrame, schema: Schema, now: int) -> Verdict:
    """Every class has at least 1 % of the labelled rows, and there are two or more; numbers differ."""
    (label,) = schema.role(Role.LABEL)
    values = table[label.name].drop_nulls()
    if not len(values):
        return Verdict(Decision.UNDECIDED, "class balance", "no row has a label", missing="labels")
    if values.n_unique() == 1:
        return Verdict(Decision.FAIL, "class balance", f"all {len(values):,} labels are {values[0]!r}: there is nothing to learn")
    if label.kind is Kind.NUMBER or (label.kind is Kind.INTEGER and values.n_unique() > 20):
        return _of_one_scale(values)
    counts = values.cast(pl.String).value_counts(sort=True)
    least, share = counts[label.name][-1], counts["count"][-1] / max(1, len(values))
    evidence = Evidence("rarest class", share, n=len(values), about=str(least), tolerance=LEAST_CLASS)
    told = f"the rarest of {counts.height} classes, {least!r}, has {share:.1%} of {len(values):,} labels"
    if share < LEAST_CLASS:
        return Verdict(Decision.UNDECIDED, "class balance", told, (evidence,), missing="rows of the rare class")
    return Verdict(Decision.PASS, "class balance", told, (evidence,))


def _of_one_scale(numbers: pl.Series) -> Verdict:
    """No number is a thousand times further out than the middle 90 % of them reach: squares would be of it alone."""
    subject, known = "class balance", numbers.cast(pl.Float64).drop_nans()
    spans = [(known.quantile(share) or 0.0, known.quantile(1 - share) or 0.0) for share in MIDDLE]
    low, high = next((span for span in spans if span[0] < span[1]), (0.0, 0.0))
    reach = FAR * (high - low)
    far = known.filter((known < low - reach) | (known > high + reach)) if reach else known.clear()
    if not len(far):
        return Verdict(Decision.PASS, subject, "the label is a number")
    evidence = Evidence("labels far from all others", len(far) / len(known), n=len(known), tolerance=0.0)
    told = f"the label is a number, and {len(far):,} of {len(known):,} are far from all others, e.g. {far[0]:g}"
    missing = f"whether {far[0]:g} is a label: metrics of squares, and models fitted by them, are of it alone"
    return Verdict(Decision.UNDECIDED, subject, told, (evidence,), missing=missing)


CHECKS: dict[str, Check] = {
    "unique_key": unique_key,
    "known_times": known_times,
    "fresh": fresh,
    "present": present,
    "varied": varied,
    "of_one_type": of_one_type,
    "balanced": balanced,
}
