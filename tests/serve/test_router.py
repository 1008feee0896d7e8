"""The router with any number of arms: who is asked, what fails falls back, and what is logged reads back."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loudly.core.values import Arm
from loudly.deliver.bandit import BanditSpec
from loudly.deliver.thompson import thompson
from loudly.loop import traffic
from loudly.serve.replies import Served, arm_names
from loudly.serve.router import Router, Routing
from loudly.serve.rows import of_table
from loudly.validate.schema import infer_schema

EVEN = thompson(BanditSpec(floor=1.0))


def table(n: int) -> pl.DataFrame:
    at = pl.Series("at", np.arange(n), dtype=pl.Int64).cast(pl.Datetime("us"))
    return pl.DataFrame({"id": [f"u{i}" for i in range(n)], "at": at, "x": np.arange(n, dtype=float), "y": [True] * n})


def constant(version: str, value: float, wide: int = 0) -> Served:
    return Served(version, lambda rows: np.full((rows.height, wide) if wide else rows.height, value))


def broken(version: str) -> Served:
    def fails(_: pl.DataFrame) -> Any:
        raise RuntimeError("out of order")

    return Served(version, fails)


def routing(*arms: Served, fallback: float = -1.0) -> Routing:
    names = arm_names(len(arms))
    state = EVEN.init(tuple(Arm(name, one.version) for name, one in zip(names, arms, strict=True)), 0)
    return Routing(arms[0], arms[1:], EVEN, state, "salt", fallback)


def units(n: int) -> list[str]:
    return [f"u{i}" for i in range(n)]


def test_each_row_is_answered_by_its_own_arm_and_only_that_one_is_asked() -> None:
    seen: dict[str, int] = {}

    def counting(version: str, value: float) -> Served:
        def predict(rows: pl.DataFrame) -> Any:
            seen[version] = seen.get(version, 0) + rows.height
            return np.full(rows.height, value)

        return Served(version, predict)

    made = Router(routing(*(counting(f"m/{i}", float(i)) for i in range(4)))).answer(table(400), units(400))
    assert made.names == ("control", "candidate", "candidate2", "candidate3")
    assert (made.answer == made.arm).all()
    assert set(made.arm.tolist()) == {0, 1, 2, 3}
    assert np.allclose(made.propensity, 0.25)
    assert [made.versions[a] for a in made.arm[:5]] == [f"m/{a}" for a in made.arm[:5]]
    assert made.answered == {name: seen[f"m/{i}"] for i, name in enumerate(made.names)}
    assert sum(made.answered.values()) == 400
    assert set(made.failed.values()) == {0}
    for i, name in enumerate(made.names):
        assert (np.isfinite(made.scores[name]) == (made.arm == i)).all()


@given(arms=st.integers(2, 6), n=st.integers(1, 60), down=st.sets(st.integers(0, 5)), wide=st.sampled_from([0, 3]))
def test_what_fails_is_answered_by_control_and_control_by_the_constant(arms: int, n: int, down: set[int], wide: int) -> None:
    served = [broken(f"m/{i}") if i in down else constant(f"m/{i}", float(i), wide) for i in range(arms)]
    made = Router(routing(*served)).answer(table(n), units(n))
    # an arm that failed is answered by control, and control is asked for its own rows only: all else is the constant
    first = made.answer if made.answer.ndim == 1 else made.answer[:, 0]
    for row, arm in enumerate(made.arm.tolist()):
        assert first[row] == (-1.0 if arm in down else arm)
        assert made.fallback[row] == (arm in down)
    for i, name in enumerate(made.names):
        assert made.answered[name] == int((made.arm == i).sum())
        assert made.failed[name] == (made.answered[name] if i in down else 0)
    assert len(made.errors) == len({int(a) for a in made.arm} & down)


def test_control_speaks_for_an_arm_that_failed_where_it_has_scored_the_row() -> None:
    class Paired:
        name = "paired"

        def assign(self, state: Any, draws: Any, context: Any = None) -> Any:
            made = EVEN.assign(state, draws)
            return type(made)(made.arm, made.propensity, ("control",))

    base = routing(constant("m/0", 0.5), broken("m/1"), constant("m/2", 2.0))
    made = Router(Routing(base.control, base.candidates, Paired(), base.state, "salt")).answer(table(90), units(90))  # type: ignore[arg-type]
    assert (made.answer[made.arm == 1] == 0.5).all()
    assert made.fallback[made.arm == 1].all()
    assert made.answered["control"] == 90


def test_classes_of_another_number_are_a_failure_of_that_arm_and_no_error_for_the_client() -> None:
    made = Router(routing(constant("m/0", 0.0, 3), constant("m/1", 1.0, 4), constant("m/2", 2.0, 3))).answer(table(60), units(60))
    assert made.answer.shape == (60, 3)
    assert made.failed == {"control": 0, "candidate": made.answered["candidate"], "candidate2": 0}
    assert (made.answer[made.arm == 2] == 2.0).all()
    assert (made.answer[made.arm == 1] == -1.0).all()


def test_a_candidate_that_answers_a_number_with_several_fails_and_control_does_not() -> None:
    made = Router(routing(constant("m/0", 0.5), constant("m/1", 1.0, 2), constant("m/2", 0.25))).answer(table(60), units(60))
    assert made.answer.shape == (60,)
    assert made.failed == {"control": 0, "candidate": made.answered["candidate"], "candidate2": 0}
    assert (made.answer[made.arm == 0] == 0.5).all()
    assert (made.answer[made.arm == 2] == 0.25).all()


@pytest.mark.parametrize("wide", [0, 3])
def test_one_row_at_a_time_and_many_are_alike_and_what_is_logged_of_them_reads_back(wide: int) -> None:
    rows, router = table(40), Router(routing(*(constant(f"m/{i}", i / 4, wide) for i in range(3))))
    schema = infer_schema(rows, label="y", time="at", key="id")
    asked = rows.drop("y")
    whole = router.answer(asked, units(40))
    singles = [router.answer(of_table(asked[i : i + 1], schema), [f"u{i}"]) for i in range(40)]
    together = traffic.all_of(singles)
    assert (together.answer == whole.answer).all()
    assert together.arm.tolist() == whole.arm.tolist()
    assert together.answered == whole.answered
    logged = traffic.logged(asked, whole, 7, 99)
    assert traffic.from_bytes(traffic.to_bytes(logged)).equals(logged)
    compact = [traffic.entry(traffic.compact(of_table(asked[i : i + 1], schema), one, 7, 99)) for i, one in enumerate(singles)]
    assert traffic.table_of([e for e in compact if e is not None]).select(logged.columns).equals(logged)
    assert [c for c in logged.columns if c.startswith("_cand")] == ["_candidate", "_candidate2"]


def test_given_up_rows_name_their_arm_and_the_one_that_was_at_work() -> None:
    three = routing(*(constant(f"m/{i}", float(i)) for i in range(3)), fallback=0.25)
    made = Router(three).give_up(table(9), units(9), "candidate2")
    assert (made.answer == 0.25).all()
    assert made.fallback.all()
    assert made.failed == {"control": 0, "candidate": 0, "candidate2": 9}
    assert set(made.names) == set(made.scores)


def test_control_alone_is_logged_as_it_always_was() -> None:
    made = Router(Routing(constant("m/0", 0.5))).answer(table(3), units(3))
    assert made.names == tuple(made.scores) == ("control", "candidate")
    assert made.versions == ("m/0", "")
    assert made.answered == {"control": 3, "candidate": 0}
    failed = Router(Routing(broken("m/0"), fallback=0.1)).answer(table(3), units(3))
    assert failed.answer.tolist() == [0.1] * 3
    assert failed.fallback.all()
    assert failed.failed == {"control": 3, "candidate": 0}


@pytest.mark.parametrize("arms", [1, 2])
@pytest.mark.parametrize("hot", [True, False], ids=["rows", "table"])
@given(n=st.integers(1, 200), poisoned=st.sets(st.integers(0, 199), max_size=1))
def test_a_row_at_which_a_model_raises_fails_itself_and_no_other_of_its_batch(
    arms: int, hot: bool, n: int, poisoned: set[int]
) -> None:
    def refusing(rows: pl.DataFrame) -> Any:
        if poisoned & set(rows["x"].cast(int)):
            raise ValueError("unknown category")
        return rows["x"].to_numpy() / 1000

    given_rows = table(n)
    asked = of_table(given_rows, infer_schema(given_rows, label="y", time="at", key="id")) if hot else given_rows
    made = routing(*(Served(f"m/{i}", refusing) for i in range(arms))) if arms > 1 else Routing(Served("m/0", refusing))
    replies = Router(made).answer(asked, units(n))
    bad = [i in poisoned for i in range(n)]
    assert replies.fallback.tolist() == bad
    assert replies.answer.tolist() == [made.fallback if worse else i / 1000 for i, worse in enumerate(bad)]
    assert sum(replies.failed.values()) == sum(bad)
    assert len(replies.errors) == (1 if any(bad) else 0)


def test_a_model_that_always_raises_is_not_asked_again_and_again() -> None:
    asked: list[int] = []

    def fails(rows: pl.DataFrame) -> Any:
        asked.append(rows.height)
        raise RuntimeError("out of order")

    replies = Router(Routing(Served("m/0", fails))).answer(table(64), units(64))
    assert replies.fallback.all()
    assert len(asked) == 1 + 8 + 1
    assert replies.errors == ("m/0: RuntimeError: out of order",)
