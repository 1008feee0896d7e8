from __future__ import annotations

from collections.abc import Callable
from datetime import date

import numpy as np
import pandas as pd
import polars as pl
import pytest

from conftest import make_world
from loudly.core.clock import instant
from loudly.core.seams import Floats
from loudly.core.values import Decision, Field, Kind, Role, Schema
from loudly.errors import DataError, UserFileError
from loudly.validate.checks import CHECKS, judge_table
from loudly.validate.conform import conform
from loudly.validate.key_predictors import find_key_predictors, judge_key_predictors
from loudly.validate.leakage import find_leaks
from loudly.validate.schema import infer_schema, refuse_odd_numbers

KNOWN_AFTER = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"}
NOW = instant("2024-06-01")


def test_on_the_raw_flights_exactly_the_columns_known_after_the_event_are_blocked(raw_flights: pl.DataFrame) -> None:
    ignored = ["year", "month", "day", "tailnum"]
    schema = infer_schema(raw_flights, label="late", time="scheduled", key="flight_id", ignored=ignored)
    leaks = find_leaks(raw_flights, schema, label="late", time="scheduled")
    assert {v.subject.removeprefix("leakage of ") for v in leaks if v.failed} == KNOWN_AFTER
    assert all("known only after the event" in v.reason or "alone predicts" in v.reason for v in leaks)


def test_leakage_false_alarms_under_the_null_are_rare() -> None:
    fired = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        table = make_world(days=20, per_day=60, seed=seed).with_columns(noise=pl.Series(rng.normal(size=1200)))
        schema = infer_schema(table, label="y", time="at", key="id")
        fired += any(v.failed for v in find_leaks(table, schema, label="y", time="at"))
    assert fired == 0


def test_a_column_that_is_said_to_be_known_before_the_event_passes_with_its_evidence_unless_it_is_missing_with_the_label() -> None:
    table = make_world(days=30)
    strong = table.with_columns(
        lag=pl.col("y").cast(pl.Float64) + 0.2 * pl.Series(np.random.default_rng(0).normal(size=table.height))
    )
    schema = infer_schema(strong, label="y", time="at", key="id")
    (leak,) = find_leaks(strong, schema, label="y", time="at")
    assert leak.failed
    said, rest = find_leaks(strong, schema, label="y", time="at", known_before=["lag"])
    assert (said.decision, said.subject, said.evidence) == ("PASS", leak.subject, leak.evidence)
    assert "nobody has checked" in said.reason
    assert (rest.decision, rest.reason[:16]) == ("PASS", "none of 3 inputs")
    late = strong.with_columns(y=pl.when(pl.int_range(pl.len()) % 3 > 0).then(pl.col("y")))
    late = late.with_columns(lag=pl.when(pl.col("y").is_not_null()).then(pl.col("lag")))
    found = find_leaks(late, schema, label="y", time="at", known_before=["lag"])
    assert [v.decision for v in found] == ["FAIL", "PASS"], (
        "what is missing with the label is known after it, whoever says otherwise"
    )


def test_a_numeric_leak_and_a_categorical_one_are_found() -> None:
    table = make_world(days=30)
    rng = np.random.default_rng(0)
    flip = rng.random(table.height) < 0.03
    told = np.where(flip, ~table["y"].to_numpy(), table["y"].to_numpy())
    leaking = table.with_columns(
        code=pl.Series(np.where(told, "p7", "q2")), amount=pl.Series(told * 5.0 + rng.normal(size=len(told)))
    )
    schema = infer_schema(leaking, label="y", time="at", key="id")
    named = {v.subject for v in find_leaks(leaking, schema, label="y", time="at") if v.failed}
    assert named == {"leakage of code", "leakage of amount"}


@pytest.mark.parametrize("label", [float("nan"), float("inf")])
def test_one_label_that_is_no_number_hides_no_leak_and_no_key_predictor(label: float) -> None:
    y = pl.col("y").cast(pl.Float64)
    told = make_world(days=30).with_columns(known=y, y=pl.when(pl.int_range(pl.len()) == 7).then(label).otherwise(y))
    schema = infer_schema(told, label="y", time="at", key="id")
    assert [v.subject for v in find_leaks(told, schema, label="y", time="at") if v.failed] == ["leakage of known"]
    (key, *_) = find_key_predictors(told, schema, label="y", time="at")
    assert key.name == "known"
    (kept,) = judge_key_predictors([key], told, label="y", time="at")
    assert kept.passed


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_column_that_comes_with_the_label_leaks_however_it_says_missing(missing: float | None) -> None:
    open_rows = pl.int_range(pl.len()) % 3 == 0
    table = make_world(days=30).with_columns(
        y=pl.when(~open_rows).then("y"), after=pl.when(open_rows).then(pl.lit(missing, pl.Float64)).otherwise("x2")
    )
    schema = infer_schema(table, label="y", time="at", key="id")
    assert [v.subject for v in find_leaks(table, schema, label="y", time="at") if v.failed] == ["leakage of after"]


def test_newer_labels_that_are_all_alike_clear_no_column_of_leakage() -> None:
    table = make_world(days=30).sort("at").with_columns(y=pl.col("y") & (pl.int_range(pl.len()) < pl.len() // 2))
    (verdict,) = find_leaks(table, infer_schema(table, label="y", time="at", key="id"), label="y", time="at")
    assert (verdict.decision, verdict.missing) == (Decision.UNDECIDED, "newer labels that differ")


@pytest.mark.parametrize(("label", "decision"), [(True, "FAIL"), ("a", "FAIL"), (2.5, "FAIL"), (None, "UNDECIDED")])
def test_labels_that_are_all_alike_or_none_are_no_balance(label: object, decision: str) -> None:
    table = make_world(days=2).with_columns(y=pl.lit(label, pl.Boolean if label is None else None))
    judged = judge_table(table, infer_schema(table, label="y", time="at", key="id"), now=NOW)
    assert [v.decision for v in judged if v.subject == "class balance"] == [decision]


def test_too_few_labels_are_undecided() -> None:
    table = make_world(days=1)
    schema = infer_schema(table, label="y", time="at", key="id")
    (verdict,) = find_leaks(table, schema, label="y", time="at")
    assert verdict.decision is Decision.UNDECIDED
    assert "more labelled rows" in verdict.missing


def test_schema_says_what_was_seen(world: pl.DataFrame) -> None:
    table = world.with_columns(pl.when(pl.col("x1") > 1).then(None).otherwise(pl.col("x1")).alias("x1"))
    schema = infer_schema(table, label="y", time="at", key="id", private=["group"])
    x1, group = schema.field("x1"), schema.field("group")
    assert x1 is not None
    assert group is not None
    assert x1.nullable
    assert 0.1 < x1.missing_rate < 0.2
    assert group.kind is Kind.CATEGORY
    assert group.role is Role.PRIVATE
    assert group.values == ("a", "b", "c")
    assert schema.version == infer_schema(table, label="y", time="at", key="id", private=["group"]).version


def test_a_misspelt_column_names_the_nearest(world: pl.DataFrame) -> None:
    with pytest.raises(UserFileError, match="did you mean 'group'"):
        infer_schema(world, label="y", time="at", key="id", private=["groop"])
    with pytest.raises(DataError, match="no rows"):
        infer_schema(world.clear(), label="y", time="at", key="id")
    with pytest.raises(DataError, match="holds no times"):
        infer_schema(world, label="y", time="x1", key="id")


def test_conform_sets_aside_with_a_reason_and_loses_nothing(world: pl.DataFrame) -> None:
    schema = infer_schema(world, label="y", time="at", key="id")
    rows = pl.DataFrame(
        {
            "id": ["1", None, "3", "4"],
            "at": ["2024-01-01", "2024-01-01", "soon", "2024-01-02"],
            "x1": ["1.5", "2", "3", "x"],
            "x2": [1, 2, 3, 4],
        }
    )
    found = conform(rows, schema)
    assert found.good.height + found.aside.height == rows.height
    assert found.good["x1"].to_list() == [1.5]
    assert found.absent == ("group",)
    assert found.aside["reason"].to_list() == ["id is no text", "at is no time", "x1 is no number"]


@pytest.mark.parametrize(
    ("kind", "sent", "reads"),
    [
        (Kind.INTEGER, pl.Series([1.5, 2.0, 1e30]), [None, 2, None]),
        (Kind.BOOLEAN, pl.Series([0, 1, 2]), [False, True, None]),
        (Kind.BOOLEAN, pl.Series(["true"]), [None]),
        (Kind.NUMBER, pl.Series([date(2026, 1, 1)]), [None]),
        (Kind.NUMBER, pl.Series([[1.5]]), [None]),
        (Kind.NUMBER, pl.Series([{"a": 1.5}]), [None]),
        (Kind.NUMBER, pl.Series(["1.5"], dtype=pl.Categorical), [1.5]),
        (Kind.TIME, pl.Series([1_767_225_600]), [None]),
    ],
)
def test_what_would_be_another_value_is_set_aside(kind: Kind, sent: pl.Series, reads: list[object]) -> None:
    found = conform(pl.DataFrame({"c": sent}), Schema((Field("c", kind),)), keys=False)
    assert found.good["c"].to_list() == [value for value in reads if value is not None]
    assert found.aside.height == reads.count(None)
    assert "reason" not in found.aside.columns or set(found.aside["reason"]) == {f"c is no {kind.value}"}


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("unique key", lambda t: pl.concat([t, t[:1]])),
        ("event time", lambda t: t.with_columns(at=pl.col("at").dt.offset_by("2y"))),
        ("freshness", lambda t: t.with_columns(at=pl.col("at").dt.offset_by("-3y"))),
        ("inputs present", lambda t: t.with_columns(x1=pl.when(pl.int_range(pl.len()) == 0).then(1.0))),
        ("inputs vary", lambda t: t.with_columns(x1=pl.lit(3.0))),
        (
            "inputs of one type",
            lambda t: t.with_columns(x1=pl.when(pl.int_range(pl.len()) == 7).then(pl.lit("N/A")).otherwise(pl.col("x1").cast(str))),
        ),
    ],
)
def test_each_check_fails_on_its_damage_alone(world: pl.DataFrame, name: str, harm: object) -> None:
    sound = judge_table(world, infer_schema(world, label="y", time="at", key="id"), now=NOW)
    assert all(v.passed for v in sound)
    assert len(sound) == len(CHECKS)
    table = harm(world)  # type: ignore[operator]
    judged = judge_table(table, infer_schema(table, label="y", time="at", key="id"), now=NOW)
    assert name in [v.subject for v in judged if v.failed]


def test_a_column_without_plain_values_is_named(world: pl.DataFrame) -> None:
    names = {"label": "y", "time": "at", "key": "id"}
    mixed = world.with_columns(pl.Series("odd", [1.5, "n/a", *[2.0] * (world.height - 2)], dtype=pl.Object))
    with pytest.raises(DataError, match=r"'odd' holds no plain values.*\n.*types float, str"):
        infer_schema(mixed, **names)
    listed = world.with_columns(odd=pl.lit([1, 2]))
    with pytest.raises(DataError, match=r"'odd' holds no plain values.*\n.*List\(Int64\)"):
        infer_schema(listed, **names)
    assert infer_schema(listed, **names, ignored=["odd"]).field("odd").role is Role.IGNORED  # type: ignore[union-attr]


def test_a_column_named_as_those_that_are_logged_is_refused_and_may_be_ignored(world: pl.DataFrame) -> None:
    table = world.rename({"x1": "_x1"})
    with pytest.raises(DataError, match="'_x1' begins with an underscore"):
        infer_schema(table, label="y", time="at", key="id")
    assert infer_schema(table, label="y", time="at", key="id", ignored=["_x1"]).role(Role.IGNORED)[0].name == "_x1"


def test_infinite_numbers_are_named_and_those_of_an_ignored_column_pass(world: pl.DataFrame) -> None:
    odd = world.with_columns(z=pl.when(pl.int_range(pl.len()) < 2).then(float("-inf")).otherwise(1.5))
    with pytest.raises(DataError, match=r"The column 'z' holds infinite numbers.*\n.*2 of "):
        refuse_odd_numbers(odd, "y")
    refuse_odd_numbers(odd, "y", ignored=["z", "gone"])
    assert infer_schema(odd, label="y", time="at", key="id").field("z").high == 1.5, "rows of traffic may hold them"  # type: ignore[union-attr]
    ignoring = infer_schema(odd, label="y", time="at", key="id", ignored=["z"])
    field = ignoring.field("z")
    assert field is not None
    assert (field.low, field.high) == (1.5, 1.5)
    assert ignoring.version


def test_a_label_that_is_no_number_is_named(world: pl.DataFrame) -> None:
    odd = world.with_columns(z=pl.when(pl.int_range(pl.len()) < 2).then(float("nan")).otherwise(1.5))
    with pytest.raises(DataError, match=r"The label column 'z' holds NaN.*\n.*2 of .*\n.*fill_nan"):
        refuse_odd_numbers(odd, "z")


def test_a_number_that_a_few_texts_spoil_is_named_and_codes_are_asked_after() -> None:
    world = make_world(days=20)
    n = world.height

    def judged(values: list[str]) -> tuple[str, str]:
        table = world.with_columns(odd=pl.Series(values))
        found = CHECKS["of_one_type"](table, infer_schema(table, label="y", time="at", key="id"), NOW)
        return found.decision, found.reason

    measured = [f"{i / 7:.3f}" for i in range(n)]
    decision, reason = judged(["n/a", "-", *measured[2:]])
    assert decision == "FAIL"
    assert f"odd is text for 2 of {n:,} values, e.g. 'n/a', and else a number: leave such values empty" in reason
    decision, reason = judged(["K1A", *(f"{10_000 + i % 50}" for i in range(1, n))])
    assert decision == "UNDECIDED", "codes of digits and letters are codes"
    assert "else a whole number" in reason
    assert judged([f" {value}" for value in measured]) == ("UNDECIDED", "odd holds numbers as text, e.g. '0.000'")
    spoilt = world.with_columns(odd=pl.Series(["n/a", *measured[1:]]).cast(pl.Categorical))
    assert CHECKS["of_one_type"](spoilt, infer_schema(spoilt, label="y", time="at", key="id"), NOW).passed, (
        "it was said to be names"
    )
    for calm in (
        [f"{10_000 + i % 50}" for i in range(n)],
        [f"V{i}" if i % 8 == 0 else f"{400 + i / 10}" for i in range(n)],
        ["a", "b"] * (n // 2),
        ["1", "x"] * (n // 2),
    ):
        assert judged(calm)[0] == "PASS"


@pytest.mark.parametrize(
    ("law", "asked"),
    [
        (lambda rng: rng.normal(200, 30, 5000), False),
        (lambda rng: np.exp(rng.normal(0, 2.5, 5000)), False),
        (lambda rng: np.where(rng.random(5000) < 0.02, np.exp(rng.normal(8, 2, 5000)), 0.0), False),  # most of them nothing
        (lambda rng: np.append(rng.normal(200, 30, 5000), 1e12), True),
        (lambda rng: np.append(rng.normal(200, 30, 5000), np.full(80, 1e12)), True),  # more of them, and more to ask about
        (lambda rng: np.append(rng.normal(200, 30, 5000), [-1e6, np.nan]), True),
    ],
)
def test_a_numeric_label_a_thousand_times_further_out_is_asked_about(law: Callable[..., Floats], asked: bool) -> None:
    label = law(np.random.default_rng(0))
    table = make_world(days=30, per_day=200).head(len(label)).with_columns(y=pl.Series(label))
    schema = infer_schema(table, label="y", time="at", key="id")
    found = CHECKS["balanced"](table, schema, NOW)
    assert (found.decision is Decision.UNDECIDED) is asked
    assert (f"e.g. {label[5000]:g}" in found.reason and "is a label" in found.missing) if asked else found.passed


def test_rows_without_a_key_fail_and_are_no_key_that_stands_twice() -> None:
    table = make_world(days=5).with_columns(id=pl.when(pl.int_range(pl.len()) % 7 > 0).then("id"))
    schema = infer_schema(table, label="y", time="at", key="id")
    found = CHECKS["unique_key"](table, schema, NOW)
    assert found.failed
    assert found.reason == f"{table['id'].null_count()} of {table.height} rows have no key"


@pytest.mark.parametrize("kind", ["duration", "hours", "period"])
def test_columns_that_hold_no_plain_values_are_refused_by_name_and_pass_where_ignored(kind: str) -> None:
    table = make_world(days=5)
    if kind == "period":
        months = pd.DataFrame({"p": pd.period_range("2024-01", periods=table.height, freq="M")})
        try:
            odd: pl.Series | pl.Expr = pl.from_pandas(months)["p"]
        except pl.exceptions.ComputeError as unknown:
            pytest.skip(f"LOUD: this polars reads no periods of pandas: {unknown}")
    else:
        odd = pl.duration(hours=pl.int_range(pl.len())) if kind == "duration" else pl.col("at").dt.time()
    table = table.with_columns(odd=odd)
    with pytest.raises(DataError, match="column 'odd' holds no plain values"):
        infer_schema(table, label="y", time="at", key="id")
    assert infer_schema(table, label="y", time="at", key="id", ignored=["odd"]).field("odd") is not None
    with pytest.raises(DataError, match="time column 'odd' holds no times"):
        infer_schema(table, label="y", time="odd", key="id")


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ([1700000000, 1700000060], r"Int64, e\.g\. 1700000000\n.*from_epoch"),
        (["2026-01-02", "soon", "2026-01-03"], r"1 of 3 texts are no ISO 8601 times: 'soon'\n.*Mend them"),
        (["1.2.2026", None, "2.2.2026"], r"texts, e\.g\. '1\.2\.2026'\n.*in your format"),
        ([True, False], "Boolean"),
    ],
)
def test_a_time_column_without_times_says_what_stands_there(times: list[object], told: str) -> None:
    table = pl.DataFrame({"id": [str(i) for i in range(len(times))], "at": times, "y": [0] * len(times)})
    with pytest.raises(DataError, match=rf"'at' holds no times\.\n.*{told}"):
        infer_schema(table, label="y", time="at", key="id")


@pytest.mark.parametrize("value", ["eu", True, 3, 2.5])
def test_an_input_with_one_value_fails_whatever_its_kind(value: object) -> None:
    table = make_world(days=5).with_columns(same=pl.lit(value))
    found = CHECKS["varied"](table, infer_schema(table, label="y", time="at", key="id"), NOW)
    assert (found.passed, found.reason.startswith("constant: same;")) == (False, True)
    ignored = CHECKS["varied"](table, infer_schema(table, label="y", time="at", key="id", ignored=["same"]), NOW)
    assert ignored.passed
    if isinstance(value, str | bool):
        sparse = table.with_columns(same=pl.when(pl.int_range(pl.len()) % 3 == 0).then("same"))
        assert CHECKS["varied"](sparse, infer_schema(sparse, label="y", time="at", key="id"), NOW).passed, "there, or not there"
