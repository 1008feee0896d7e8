from __future__ import annotations

import numpy as np
import pytest

from loudly.deliver.disagreement import Disagreement


def test_it_says_where_two_versions_disagree_most() -> None:
    rng = np.random.default_rng(0)
    control = rng.random(1000)
    inside = rng.random(1000) < 0.2
    candidate = np.where(inside, 1 - control, control)
    whole, parts = Disagreement(), Disagreement()
    slices = {"odd": inside, "even": ~inside, "none": np.zeros(1000, dtype=bool)}
    whole.add(control, candidate, slices, classes=True)
    for first in range(0, 1000, 130):
        rows = slice(first, first + 130)
        parts.add(control[rows], candidate[rows], {n: s[rows] for n, s in slices.items()}, classes=True)
    told = whole.report()
    assert list(told) == ["all", "odd", "even"]
    assert told["odd"]["decided_otherwise"] == 1.0  # type: ignore[index, call-overload]
    assert told["even"]["mean_gap"] == 0.0  # type: ignore[index, call-overload]
    for name, found in parts.report().items():
        assert found == pytest.approx(told[name])


def test_rows_that_only_one_has_scored_do_not_count() -> None:
    found = Disagreement()
    found.add(np.array([0.2, 0.9]), np.array([np.nan, 0.1]), {}, classes=True)
    assert found.report() == {"all": {"rows": 1, "decided_otherwise": 1.0, "mean_gap": 0.8, "mean_shift": -0.8}}
    assert Disagreement().report() == {}
