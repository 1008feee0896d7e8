"""What the user's functions must take, told where they are given: before anything is trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from loudly.core.canon import Json
from loudly.errors import ConfigError, UserFileError, nearest
from loudly.loop.system import FRAMES, TrainSpec


def only_once(what: str, value: object) -> None:
    """Raises: UserFileError where there is one already."""
    if value is not None:
        raise UserFileError(f"@app.{what} is given twice.", do="One model, one table, one train function an app.")


def a_function(what: str, given: object) -> None:
    """Raises: UserFileError for anything else than a function, such as the path of a table."""
    if not callable(given):
        seen = repr(given) if isinstance(given, str) else f"a {type(given).__name__}"
        do = f"@app.{what} above a function that returns it." if what in ("data", "side") else f"Put @app.{what} above a function."
        raise UserFileError(f"app.{what} decorates a function.", seen=seen, do=do)


def takes(what: str, function: Callable[..., Any], count: int) -> None:
    """Raises: UserFileError for a function that cannot be called with `count` positional arguments, or for none."""
    a_function(what, function)
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError as wrong:
        arguments = ("no arguments", "one argument, the rows", "two arguments, the rows and the answers")[count]
        raise UserFileError(f"@app.{what} wants a function of {arguments}.", seen=f"{name_of(function)}: {wrong}") from wrong


def name_of(function: Callable[..., Any]) -> str:
    """What a function is called; a partial one and an object have no name of their own."""
    return getattr(function, "__name__", "") or repr(function)


def takes_data(what: str, fit: Callable[..., Any]) -> Mapping[str, Any]:
    """The parameters of a function that fits. Raises: UserFileError for one that starts with anything but X and y, or for none."""
    a_function(what, fit)
    if list(inspect.signature(fit).parameters)[:2] != ["X", "y"]:
        raise UserFileError(f"The {what} function starts with X and y.", seen=str(inspect.signature(fit)))
    return inspect.signature(fit).parameters


def train_spec(fit: Callable[..., Any], tune: Mapping[str, Json], trials: int, frame: str, seed: int, holdout: int) -> TrainSpec:
    """How a model is made. Raises: UserFileError or ConfigError for what cannot be."""
    parameters = takes_data("train", fit)
    for name in tune:
        if name not in parameters:
            raise UserFileError(f"tune names {name!r}, which the train function does not take.", do=nearest(name, parameters))
    if frame not in FRAMES:
        raise UserFileError(f"X cannot be {frame!r}.", do=nearest(frame, FRAMES))
    if trials < 1 or holdout <= 0:
        raise ConfigError("A search needs trials, and a fit needs a hold-out.", seen=f"trials={trials}, holdout={holdout}µs")
    return TrainSpec(fit, dict(tune), trials, frame, seed, holdout)
