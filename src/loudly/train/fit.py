"""One seeded call of the user's train function."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from loudly.core.canon import Json
from loudly.core.clock import stopwatch
from loudly.core.seams import Floats, Model
from loudly.core.whence import whence_of
from loudly.errors import LoudlyError, TrainingError, nearest, one_line

# What loudly supplies by name, where the function asks for it.
SUPPLIED = ("seed", "start", "names", "categories")
SHOWN = 8


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted estimator and the seconds it took."""

    estimator: object
    seconds: float


def fit_once(
    train: Callable[..., object],
    X: Any,
    y: Any,
    params: Mapping[str, Json],
    *,
    seed: int,
    start: object | None = None,
    names: tuple[str, ...] = (),
    categories: tuple[int, ...] = (),
) -> Fitted:
    """Calls `train(X, y, **params)`, with `seed`, `start`, `names` and `categories` where it asks for them.

    names: the columns of X.  categories: indices of its categorical columns.  start: the champion's estimator.
    Raises: TrainingError when the function fails, returns nothing that predicts, or does not know a parameter.
    """
    known = inspect.signature(train).parameters
    for name in params:
        if name not in known:
            raise TrainingError(f"The train function takes no {name!r}.", do=nearest(name, list(known)[2:]))
    offered = {"seed": seed, "start": start, "names": list(names), "categories": list(categories)}
    given = {name: offered[name] for name in SUPPLIED if name in known and name not in params}
    random.seed(seed)
    np.random.seed(seed)
    begun = stopwatch()
    try:
        estimator = train(X, y, **params, **given)
    except LoudlyError:
        raise
    except (Exception, SystemExit) as wrong:
        raise TrainingError(
            "The train function failed.",
            seen=whence_of(wrong, train),
            do=f"Fix it, or call it by itself to see. {_told(X, names)}",
        ) from wrong
    if not hasattr(estimator, "predict"):
        raise TrainingError(
            "The train function returned nothing that predicts.",
            seen=type(estimator).__name__,
            do="Return the fitted estimator: `return model.fit(X, y)`.",
        )
    return Fitted(estimator, stopwatch() - begun)


def _told(X: Any, names: tuple[str, ...]) -> str:
    """What X is, and how to get the other."""
    columns = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    of = f" of {X.shape[0]:,} rows; its columns: {columns}" if columns else ""
    if not isinstance(X, np.ndarray):
        return f"X is a polars table{of}."
    other = "@app.train(frame='polars') makes it a table of them, frame='raw' one of the inputs as they are."
    return f"X is a matrix of float64{of}. {other}"


def answers(model: Model, X: Any, rows: int, classes: int = 0) -> Floats:
    """(rows,), of more than two classes (rows, classes): the answers of what a train function has made.

    classes: how many the label has; 0 for a quantity.
    Raises: TrainingError for a model that fails or does not answer each row so, ModelError from the model's format.
    """
    try:
        made = model.predict(X)
    except LoudlyError:
        raise
    except Exception as wrong:
        raise TrainingError(
            "The model that the train function returned cannot predict.",
            seen=one_line(wrong),
            do="Return the fitted estimator: `return model.fit(X, y)`.",
        ) from wrong
    wanted = (rows, classes) if classes > 2 else (rows,)
    if made.shape != wanted:
        label = f"a label of {classes} classes" if classes else "a label that is a quantity"
        seen = f"answers of shape {made.shape} to {rows:,} rows, for {label}"
        do = f"Return a model whose answers have the shape {wanted}: " + (
            "a classifier fitted on the y that is given." if classes else "a regressor."
        )
        raise TrainingError("The model does not answer each row as its label asks.", seen=seen, do=do)
    return made


def takes_start(train: Callable[..., object]) -> bool:
    """Whether the function can continue from a champion."""
    return "start" in inspect.signature(train).parameters
