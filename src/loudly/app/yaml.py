"""Plain data as YAML that people read; what a reader of YAML makes of it is the same data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def to_yaml(data: Any) -> str:
    """Objects, lists, texts, whole numbers, booleans and nothing.

    >>> print(to_yaml({"a": {"b": [1, {"c": "yes"}]}, "d": []}), end="")
    a:
      b:
        - 1
        - c: "yes"
    d: []
    """
    return "\n".join(_lines(data)) + "\n"


def _lines(data: Any) -> list[str]:
    if isinstance(data, Mapping) and data:
        return [line for key, value in data.items() for line in _under(f"{_scalar(key)}:", value)]
    if isinstance(data, Sequence) and not isinstance(data, str) and data:
        made = []
        for value in data:
            first, *rest = _lines(value)
            made += [f"- {first}", *(f"  {line}" for line in rest)]
        return made
    return [_scalar(data)]


def _under(head: str, value: Any) -> list[str]:
    if isinstance(value, Mapping | list | tuple) and value:
        return [head, *(f"  {line}" for line in _lines(value))]
    return [f"{head} {_scalar(value)}"]


def _scalar(value: Any) -> str:
    """A plain word where no reader could take it for something else, and JSON, which is YAML, where one could."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    text = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)
