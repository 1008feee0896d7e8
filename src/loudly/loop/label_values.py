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
    if label.dtype.is_numeric() and (numbers := _numbers(classes)) is not None:  # a JSON 1 is the class 1.0 of a column of floats
        values, order = label.cast(pl.Float64).to_numpy(), np.argsort(numbers)
        at = order[np.minimum(np.searchsorted(numbers, values, sorter=order), len(order) - 1)]
        return np.where(numbers[at] == values, at, np.nan)
    place = {name: number for number, name in enumerate(classes)}
    return np.array([place.get(value, np.nan) for value in label.cast(pl.String)], dtype=np.float64)


def _numbers(classes: Sequence[str]) -> Floats | None:
    """The classes as numbers; None where one is no number."""
    try:
        return np.array([float(name) for name in classes])
    except ValueError:
        return None


def known_labels(label: pl.Series, classes: Sequence[str], schema: Schema | None = None) -> pl.Series:
    """(n,) which labels `encode` has a number for that can be believed; a missing one is no label, and not strange.

    schema: as training saw the label. A number beyond 100 times its range is not believed: one such label hides every loss of its
    window, and of a rollout that is judged by squares. Of a law as heavy as Pareto's without a mean that happens by chance to one
    label in a hundred times as many as were trained on.
    """
    if label.dtype.is_nested() or (label.dtype.is_temporal() and not classes):
        return label.is_null()
    known = pl.Series(np.isfinite(encode(label, classes))) if classes else _near(label.cast(pl.Float64, strict=False), schema)
    return label.is_null() | known


def _near(numbers: pl.Series, schema: Schema | None) -> pl.Series:
    """(n,) which are of the range of those of the training, or near it; a missing one is not."""
    (seen,) = schema.role(Role.LABEL) if schema is not None else (None,)
    if seen is None or seen.low is None or seen.high is None or seen.low == seen.high:
        return numbers.is_finite().fill_null(False)
    reach = FAR * (seen.high - seen.low)
    return (numbers.is_finite() & numbers.is_between(seen.low - reach, seen.high + reach)).fill_null(False)


def as_trained(label: pl.Series, ready: Ready) -> pl.Series:
    """(n,) labels that are known, in the type that training saw: those of one column are of one type, however they were sent."""
    field = ready.schema.role(Role.LABEL)[0]
    wanted = DTYPES[field.kind]
    if label.dtype == wanted:
        return label
    if not ready.classes:
        return label.cast(wanted, strict=False)
    names = [ready.classes[int(place)] if np.isfinite(place) else None for place in encode(label, ready.classes)]
    texts = pl.Series(label.name, names, dtype=pl.String)
    return texts == "true" if wanted == pl.Boolean else texts.cast(wanted, strict=False)
