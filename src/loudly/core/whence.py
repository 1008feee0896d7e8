"""Errors of the user's own code in one line that names where they came from: nobody should have to read our traceback."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loudly.errors import LoudlyError, TrainingError, one_line


def whence(wrong: BaseException, file: str | Path) -> str:
    """What went wrong, and the line of the file that it came through last.

    >>> try:
    ...     eval(compile("1 / 0", "app.py", "eval"))
    ... except ZeroDivisionError as wrong:
    ...     whence(wrong, "app.py")
    'ZeroDivisionError: division by zero (app.py, line 1)'
    """
    if isinstance(wrong, SyntaxError) and wrong.lineno is not None:
        return f"{type(wrong).__name__}: {wrong.msg} ({Path(wrong.filename or file).name}, line {wrong.lineno})"
    here = [frame.lineno for frame in traceback.extract_tb(wrong.__traceback__) if frame.filename == str(file)]
    return one_line(wrong) + (f" ({Path(file).name}, line {here[-1]})" if here else "")


def asked(what: str, function: Callable[..., Any], *given: Any) -> Any:
    """What a function of the user's gives. Raises: TrainingError where it fails, with its line; errors of ours pass."""
    try:
        return function(*given)
    except LoudlyError:
        raise
    except Exception as wrong:
        name = getattr(function, "__name__", repr(function))
        raise TrainingError(
            f"The {what} {name!r} failed.", seen=whence_of(wrong, function), do="Fix it, or call it by itself to see."
        ) from wrong


def whence_of(wrong: BaseException, function: Callable[..., Any]) -> str:
    """The same for a function of the user's, wherever it was written."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return whence(wrong, code.co_filename if code is not None else "")
