"""What every executor owes: run these against yours, with a fixture `executor`."""

from __future__ import annotations

import time
from typing import Any

import pytest

from loudly.errors import LoudlyError


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


class ExecutorCase:
    """Conformance of an executor. What it runs is a function of a module, and items that pickle."""

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
