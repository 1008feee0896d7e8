"""The kernel test: false alarms when only the context moved, power when the rows changed within it, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from loudly.errors import DataError
from loudly.shift.context_mmd import context_mmd


def rows(rng: np.random.Generator, n: int, centre: float, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two columns that follow a context of one number, as temperatures follow the season."""
    c = rng.normal(centre, 0.7, size=(n, 1))
    return np.hstack([c, -c]) + 0.5 * rng.normal(size=(n, 2)) + shift, c


def test_a_context_that_moved_raises_no_more_than_promised_and_a_change_within_is_found() -> None:
    rng = np.random.default_rng(0)
    false = found = 0
    for run in range(40):
        (x, c), (y, d) = rows(rng, 150, 0.0), rows(rng, 100, 0.8)
        told = context_mmd(x, y, c, d, permutations=40, seed=run)
        assert told.p_value is not None
        false += told.p_value <= 0.05
        if run < 20:
            y, d = rows(rng, 100, 0.8, shift=0.6)
            found += (context_mmd(x, y, c, d, permutations=40, seed=run).p_value or 0) <= 0.05
    assert false / 40 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 40)
    assert found >= 17


def test_too_few_rows_tell_nothing_and_nan_is_refused() -> None:
    rng = np.random.default_rng(1)
    (x, c), (y, d) = rows(rng, 100, 0.0), rows(rng, 5, 0.0)
    assert context_mmd(x, y, c, d).effect is None
    y, d = rows(rng, 30, 0.0)
    y[3, 0] = np.nan
    with pytest.raises(DataError, match="finite"):
        context_mmd(x, y, c, d)
