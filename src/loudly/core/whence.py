"""Errors of the user's own code in one line that names where they came from: nobody should have to read our traceback."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


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
    return f"{type(wrong).__name__}: {wrong}" + (f" ({Path(file).name}, line {here[-1]})" if here else "")


def whence_of(wrong: BaseException, function: Callable[..., Any]) -> str:
    """The same for a function of the user's, wherever it was written."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return whence(wrong, code.co_filename if code is not None else "")
