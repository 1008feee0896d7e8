"""What every executor owes: run these against yours, with a fixture `executor`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest

from loudly.errors import ExecutorError, ExtraMissing, LoudlyError, TrainingError
from loudly.store.travel import USERS

USER_FILE = """
class Estimator:
    def __init__(self, function):
        self.function = function

    def predict(self, X):
        return self.function(X)

    class Part:
        pass


class Unhappy(Exception):
    def __init__(self, why, where):
        super().__init__(why)
        self.where = where


def doubled(X):
    return 2 * X


def fit(start):
    made = Estimator(doubled)
    made.part, made.start = Estimator.Part(), start
    return made


def fail(how):
    raise Unhappy("It is raining.", how) if how else ValueError("It is not.")
"""


def slow_first(item: int) -> int:
    """The square; earlier items take longer, so that later ones are done first."""
    time.sleep(max(0.0, 0.06 - 0.02 * item))
    return item * item


def failing(item: int) -> int:
    """Fails at three."""
    if item == 3:
        raise LoudlyError("The third is broken.", seen=str(item))
    return item


def adding(item: list[int]) -> list[int]:
    """A list with its length behind it."""
    return [*item, len(item)]


def is_here(executor: Any) -> bool:
    """Whether the work is done in this process: it need not travel, and would take us along where it dies."""
    return bool(executor.map(lambda item: os.getpid(), [0]) == [os.getpid()])


class ExecutorCase:
    """Conformance of an executor."""

    @pytest.fixture
    def user(self) -> Iterator[ModuleType]:
        """A user's file, as it is loaded: no worker can import it."""
        module = sys.modules[USERS + "conforming"] = ModuleType(USERS + "conforming")
        exec(compile(USER_FILE, "conforming.py", "exec"), vars(module))
        yield module
        del sys.modules[module.__name__]

    def test_results_come_in_the_order_of_the_items(self, executor: Any) -> None:
        assert executor.map(slow_first, range(6)) == [0, 1, 4, 9, 16, 25]

    def test_nothing_to_do_is_done_and_items_may_come_from_a_generator(self, executor: Any) -> None:
        assert executor.map(slow_first, []) == []
        assert executor.map(slow_first, (i for i in (5, 4))) == [25, 16]

    def test_items_are_left_as_they_were(self, executor: Any) -> None:
        items = [[1], [2, 3]]
        assert executor.map(adding, items) == [[1, 1], [2, 3, 2]]
        assert items == [[1], [2, 3]]

    def test_what_fails_in_the_work_is_raised_here_and_the_next_work_runs(self, executor: Any) -> None:
        with pytest.raises(Exception, match="The third is broken"):
            executor.map(failing, range(5))
        assert executor.map(failing, range(3)) == [0, 1, 2]

    def test_it_says_how_many_items_are_worked_on_side_by_side(self, executor: Any) -> None:
        assert isinstance(executor.workers, int)
        assert executor.workers >= 1

    def test_functions_of_functions_travel_with_what_they_close_over(self, executor: Any) -> None:
        offset = np.arange(3)

        def shifted(item: int) -> list[int]:
            return (offset + item).tolist()

        assert executor.map(shifted, [1, 5]) == [[1, 2, 3], [5, 6, 7]]
        assert executor.map(lambda item: -item, [1, 2]) == [-1, -2]

    def test_what_a_users_file_makes_is_of_its_own_classes(self, executor: Any, user: Any) -> None:
        """A format pickles it by reference, which a copy of the class would not allow."""
        start = user.Estimator(user.doubled)
        one, two = executor.map(user.fit, [None, start])
        for made in (one, two, two.start):
            assert type(made) is user.Estimator
            assert made.function is user.doubled
            assert made.predict(2) == 4
        assert type(one.part) is user.Estimator.Part
        (kind,) = executor.map(lambda item: user.Estimator, [0])
        assert kind is user.Estimator

    def test_arrays_and_tables_travel_and_the_work_may_write_in_its_array(self, executor: Any) -> None:
        def summed(item: tuple[Any, pl.DataFrame]) -> tuple[Any, pl.DataFrame]:
            array, table = item
            array[0] = np.nan
            return np.isnan(array).sum(axis=0), table.select(pl.col("x").sum(), pl.col("at").max())

        table = pl.DataFrame({"x": [1.5, None, 2.0], "at": pl.datetime_range(pl.date(2024, 1, 1), pl.date(2024, 1, 3), eager=True)})
        array = np.arange(400_000.0).reshape(-1, 2)
        for counted, small in executor.map(summed, [(array.copy(), table), (np.asfortranarray(array), table)]):
            assert counted.tolist() == [1, 1]
            assert small.equals(table.select(pl.col("x").sum(), pl.col("at").max()))

    def test_our_errors_come_back_as_what_they_are(self, executor: Any) -> None:
        def wrong(item: int) -> None:
            raise TrainingError("No.", seen="a", do="b") if item else ExtraMissing("Flying", "wings", "feathers")

        with pytest.raises(TrainingError) as raised:
            executor.map(wrong, [1])
        assert (raised.value.what, raised.value.seen, raised.value.do) == ("No.", "a", "b")
        assert str(raised.value) == str(TrainingError("No.", seen="a", do="b"))
        with pytest.raises(ExtraMissing) as missing:
            executor.map(wrong, [0])
        assert missing.value.extra == "wings"

    def test_errors_of_others_are_raised_too_and_told_where_they_do_not_pickle(self, executor: Any, user: Any) -> None:
        with pytest.raises(ValueError, match=r"It is not\."):
            executor.map(user.fail, [""])
        with pytest.raises(Exception, match=r"It is raining\."):
            executor.map(user.fail, ["here"])

    def test_a_worker_that_dies_is_told_and_the_next_work_runs(self, executor: Any) -> None:
        if is_here(executor):
            return
        with pytest.raises(ExecutorError) as raised:
            executor.map(lambda item: os._exit(3) if item else 0, [0, 1])
        assert raised.value.do
        assert executor.map(slow_first, range(3)) == [0, 1, 4]

    def test_what_cannot_travel_is_told(self, executor: Any) -> None:
        with Path(os.devnull).open() as file:
            if is_here(executor):
                assert executor.map(lambda item: item is file, [file]) == [True], "here nothing travels"
                return
            with pytest.raises(ExecutorError, match="cannot travel"):
                executor.map(len, [[sys._getframe()]])
            with pytest.raises(ExecutorError, match="cannot travel back"):
                executor.map(lambda item: sys._getframe(), [0])
        assert executor.map(slow_first, range(3)) == [0, 1, 4]

    def test_after_close_it_works_again(self, executor: Any) -> None:
        executor.close()
        executor.close()
        assert executor.map(slow_first, range(3)) == [0, 1, 4]
