"""Labels as numbers, by the classes or the range that training saw, and which of them nothing can be judged by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from loudly.core.seams import Floats
from loudly.core.values import Role, Schema
from loudly.loop.serving import Ready
from loudly.validate.conform import DTYPES

# A label is not believed beyond so many times the range of those of the training.
FAR = 100.0


def encode(label: pl.Series, classes: Sequence[str]) -> Floats:
    """Labels as numbers: class indices, or the values of a regression; NaN where a label is missing or is none of these."""
    if not classes:
        return label.cast(pl.Float64, strict=False).to_numpy()
    place = {name: number for number, name in enumerate(classes)}
    return np.array([place.get(value, np.nan) for value in _spelled(label, classes)], dtype=np.float64)


def known_labels(label: pl.Series, classes: Sequence[str], schema: Schema | None = None) -> pl.Series:
    """(n,) which labels `encode` has a number for that can be believed; a missing one is no label, and not strange.

    schema: as training saw the label. A number beyond 100 times its range is not believed: one such label hides every loss of its
    window, and of a rollout that is judged by squares. Of a law as heavy as Pareto's without a mean that happens by chance to one
    label in a hundred times as many as were trained on.
    """
    if label.dtype.is_nested() or (label.dtype.is_temporal() and not classes):
        return label.is_null()
    known = _spelled(label, classes).is_in(classes) if classes else _near(label.cast(pl.Float64, strict=False), schema)
    return label.is_null() | known.fill_null(False)


def _near(numbers: pl.Series, schema: Schema | None) -> pl.Series:
    (seen,) = schema.role(Role.LABEL) if schema is not None else (None,)
    if seen is None or seen.low is None or seen.high is None or seen.low == seen.high:
        return numbers.is_finite()
    reach = FAR * (seen.high - seen.low)
    return numbers.is_finite() & numbers.is_between(seen.low - reach, seen.high + reach)


def as_trained(label: pl.Series, ready: Ready) -> pl.Series:
    """(n,) labels that are known, in the type that training saw: those of one column are of one type, however they were sent."""
    field = ready.schema.role(Role.LABEL)[0]
    wanted = DTYPES[field.kind]
    if label.dtype == wanted:
        return label
    texts = _spelled(label, ready.classes) if ready.classes else label
    return texts == "true" if wanted == pl.Boolean else texts.cast(wanted, strict=False)


def _spelled(label: pl.Series, classes: Sequence[str]) -> pl.Series:
    """Labels as the classes are written: a JSON 1 is the class 1.0 of a column of floats."""
    if label.dtype.is_numeric():
        try:
            return label.cast(pl.Float64).replace_strict(
                {float(name): name for name in classes}, default=None, return_dtype=pl.String
            )
        except ValueError:
            return label.cast(pl.String)
    return label.cast(pl.String)
