"""What every search owes: run these against yours, with a fixture `make`: (space, seed) -> search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from loudly.core.canon import canonical
from loudly.errors import UserFileError

SPACE: dict[str, Any] = {"rate": (1e-4, 1.0, "log"), "share": (0.5, 1.0), "depth": (1, 12), "kind": ["good", "bad"]}
START = {"rate": 0.01, "share": 0.75, "depth": 6, "kind": "bad"}


def loss_of(params: Any) -> float:
    """A bowl with its bottom at depth 5 of the good kind."""
    return float((params["depth"] - 5) ** 2 + (params["kind"] == "bad") * 20 + params["share"] + params["rate"])


def walk(search: Any, trials: int) -> Sequence[dict[str, Any]]:
    """The points of a search that is told the loss of each, with a report for each of three steps on the way."""
    asked = []
    for _ in range(trials):
        params = search.ask()
        asked.append(params)
        for step in range(3):
            if search.report(params, step, loss_of(params)):
                break
        search.tell(params, loss_of(params))
    return asked


class SearchCase:
    """Conformance of a hyper-parameter search."""

    def test_the_same_seed_gives_the_same_search_and_another_another(self, make: Any) -> None:
        assert walk(make(SPACE, 3), 15) == walk(make(SPACE, 3), 15)
        assert walk(make(SPACE, 3), 15) != walk(make(SPACE, 4), 15)

    def test_points_lie_in_the_space_and_are_plain_json(self, make: Any) -> None:
        for params in walk(make(SPACE, 0), 30):
            assert list(params) == list(SPACE)
            assert 1e-4 <= params["rate"] <= 1.0
            assert 0.5 <= params["share"] <= 1.0
            assert params["depth"] in range(1, 13)
            assert isinstance(params["depth"], int)
            assert params["kind"] in ("good", "bad")
            assert canonical(params)

    def test_start_points_are_asked_first_in_their_order_with_the_rest_filled_in(self, make: Any) -> None:
        search = make(SPACE, 0)
        search.start_from(START)
        search.start_from({"depth": 3})
        first, second, third = walk(search, 3)
        assert first == START
        assert second["depth"] == 3
        assert list(second) == list(third) == list(SPACE)

    def test_a_start_point_outside_the_space_is_left_out(self, make: Any) -> None:
        search = make(SPACE, 0)
        search.start_from({**START, "depth": 99})
        search.start_from({**START, "kind": "ugly"})
        search.start_from({**START, "unknown": 1})
        search.start_from(START)
        assert search.ask() == START

    def test_reports_answer_whether_to_stop_and_a_stopped_point_may_be_told(self, make: Any) -> None:
        search = make(SPACE, 0)
        for _ in range(3):
            params = search.ask()
            assert search.report(params, 0, 1.0) in (True, False)
            search.tell(params, 1.0)

    def test_a_loss_that_is_no_number_is_a_point_that_failed_and_the_search_goes_on(self, make: Any) -> None:
        search = make(SPACE, 0)
        for loss in (float("nan"), float("inf"), 1.0, float("nan")):
            params = search.ask()
            search.report(params, 0, loss)
            search.tell(params, loss)
        assert len(walk(search, 10)) == 10

    def test_several_points_may_be_open_at_once_equal_ones_too(self, make: Any) -> None:
        search = make({"kind": ["good", "bad"]}, 0)
        for losses in ((2.0, 2.0, float("nan"), 1.0), (1.0, 3.0, 3.0, 2.0)):
            opened = [search.ask() for _ in losses]
            assert any(one == other for i, one in enumerate(opened) for other in opened[:i])
            for step in range(2):
                for params, loss in zip(opened, losses, strict=True):
                    assert search.report(params, step, loss) in (True, False)
            for params, loss in zip(opened, losses, strict=True):
                search.tell(params, loss)
        assert len(walk(make(SPACE, 0), 5)) == 5

    def test_a_space_that_is_none_is_refused(self, make: Any) -> None:
        with pytest.raises(UserFileError):
            make({"depth": "deep"}, 0)
