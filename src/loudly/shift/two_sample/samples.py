"""What a two-sample test is given, checked: two finite matrices with the same columns and enough rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from loudly.core.seams import Floats
from loudly.errors import DataError

# Distances of rows farther apart than this cannot be squared in single precision.
FARTHEST = 1e18


def two_samples(reference: Any, window: Any, *, fewest: int = 2, farthest: float = np.inf) -> tuple[Floats, Floats]:
    """Both samples as (n, d) and (m, d) float64.

    farthest: how far values of a column may lie apart.
    Raises: DataError for other shapes, columns that differ, too few rows, NaN or infinities (a test would turn them into "no
    shift" without a word), naming what was seen.
    """
    one, two = _matrix(reference, "reference"), _matrix(window, "window")
    if one.shape[1] != two.shape[1]:
        raise DataError("Reference and window differ in columns.", seen=f"{one.shape[1]} and {two.shape[1]}")
    for name, sample in (("reference", one), ("window", two)):
        if len(sample) < fewest:
            raise DataError(f"The {name} has too few rows to test.", seen=f"{len(sample)}", do=f"Give at least {fewest}.")
        bad = ~np.isfinite(sample).all(axis=0)
        if bad.any():
            columns = ", ".join(map(str, np.flatnonzero(bad)[:5]))
            do = "Count missing values apart and drop or fill them: `loudly.shift.detect` does."
            raise DataError(f"The {name} has NaN or infinite values.", seen=f"columns {columns}", do=do)
    reach = np.maximum(one.max(axis=0), two.max(axis=0)) / 2 - np.minimum(one.min(axis=0), two.min(axis=0)) / 2
    if (far := reach > farthest / 2).any():
        columns = ", ".join(map(str, np.flatnonzero(far)[:5]))
        raise DataError(
            "Values lie too far apart to be squared.", seen=f"columns {columns}", do="Scale them, or compare their ranks."
        )
    return one, two


def _matrix(sample: Any, name: str) -> Floats:
    made = np.asarray(sample, dtype=np.float64)
    if made.ndim == 1:
        made = made[:, None]
    if made.ndim != 2:
        raise DataError(f"The {name} is not a matrix of rows and columns.", seen=f"shape {made.shape}")
    return made
