"""A plain function as a model, stored by its source: loading runs it, so it loads only under a digest the ledger holds."""

from __future__ import annotations

import builtins
import inspect
import json
import textwrap
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from loudly.core.canon import canonical, digest
from loudly.core.seams import Floats
from loudly.errors import ModelError, one_line


class Function:
    """`Function(score, threshold=0.3)`: a function of a matrix, with constants, as a fitted model.

    function: takes X, (n, d) float64, and the constants by name; gives (n,) or (n, k). It may use modules that its file
    imports, and nothing else from outside.  constants: numbers, texts, lists, arrays.
    Raises: ModelError for a lambda, a closure, or a function whose source is not at hand.
    """

    def __init__(self, function: Callable[..., Any], **constants: Any) -> None:
        self.source, self.modules = _told(function)
        self.name, self.constants = function.__name__, {name: _listed(value) for name, value in constants.items()}
        self._function = function

    @property
    def digest(self) -> str:
        """Of the source, its modules and constants."""
        return digest(self.plain())

    def plain(self) -> bytes:
        """All it is, as canonical JSON."""
        said: dict[str, Any] = {"function": self.name, "source": self.source, "modules": self.modules, "constants": self.constants}
        return canonical(said)

    def predict(self, X: Floats) -> Floats:
        return np.asarray(self._function(X.copy(), **_arrays(self.constants)), dtype=np.float64)


class FunctionFormat:
    """Stores `Function`s as their source. Whoever loads must have checked the digest against the ledger."""

    name = "function"
    executes_code = True

    def accepts(self, fitted: object) -> bool:
        return isinstance(fitted, Function)

    def dump(self, fitted: object) -> bytes:
        if not isinstance(fitted, Function):
            raise ModelError("This is no function of ours.", seen=type(fitted).__name__, do="Return Function(your_function).")
        return fitted.plain()

    def load(self, data: bytes) -> Function:
        return self.restore(data)

    def restore(self, data: bytes) -> Function:
        try:
            said = json.loads(data)
            names = {alias: import_module(module) for alias, module in said["modules"].items()}
            exec(compile(said["source"], f"<function {said['function']}>", "exec"), names)
            function: Any = names[said["function"]]
        except (ValueError, KeyError, TypeError, SyntaxError, ImportError, AttributeError) as wrong:
            raise ModelError("These bytes are no function of ours.", seen=one_line(wrong)) from wrong
        made = Function.__new__(Function)
        made.source, made.modules, made.name = said["source"], said["modules"], said["function"]
        made.constants, made._function = said["constants"], function
        return made


def _told(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The source, and the modules that it uses by name."""
    seen = getattr(function, "__qualname__", repr(function))
    if not inspect.isfunction(function) or function.__name__ == "<lambda>":
        raise ModelError("A model must be a function with a name.", seen=seen, do="def score(X): ...")
    outside = inspect.getclosurevars(function)
    if outside.nonlocals:
        raise ModelError(
            f"{seen} closes over values.", seen=", ".join(outside.nonlocals), do="Hand them in: Function(f, name=value)."
        )
    loose = {name: value for name, value in outside.globals.items() if not isinstance(value, ModuleType)}
    loose.update({name: "" for name in outside.unbound if not hasattr(builtins, name) and name in function.__globals__})
    if loose:
        raise ModelError(f"{seen} uses names of its file.", seen=", ".join(sorted(loose)), do="Hand them in as constants.")
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except OSError as wrong:
        raise ModelError(f"The source of {seen} is not at hand.", do="Define it in a file.") from wrong
    if not source.startswith("def "):
        raise ModelError(f"{seen} is decorated.", do="Hand in the plain function.")
    return source, {name: value.__name__ for name, value in sorted(outside.globals.items())}


def _listed(value: Any) -> Any:
    """Arrays and numpy's numbers as plain lists and numbers."""
    if isinstance(value, np.ndarray):
        return {"array": value.astype(np.float64).tolist()}
    return value.item() if isinstance(value, np.generic) else value


def _arrays(constants: dict[str, Any]) -> dict[str, Any]:
    return {n: np.asarray(v["array"]) if isinstance(v, dict) and set(v) == {"array"} else v for n, v in constants.items()}
