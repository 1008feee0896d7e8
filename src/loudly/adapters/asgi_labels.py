"""Labels that clients send, held against what a label is: a wrong one would be folded as no label at all, in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loudly.adapters.asgi_codec import MOST_PROBLEMS, Refused
from loudly.core.values import Field
from loudly.serve.request import expectation, fits


def held(rows: Sequence[Mapping[str, Any]], key: str, label: str, field: Field | None) -> None:
    """Nothing, where every row has a key and a label that fits. field: the label as training saw it.

    Raises: Refused, naming each field that is missing or does not fit.
    """
    problems = [p for i, row in enumerate(rows) for p in (_key(i, row, key), _label(i, row, label, field)) if p is not None]
    if problems:
        raise Refused(422, {"detail": problems[:MOST_PROBLEMS]})


def _key(row: int, given: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    value = given.get(name)
    if value is None:
        return _problem(row, name, "missing", "missing")
    whole = isinstance(value, int) and not isinstance(value, bool)
    return None if isinstance(value, str) or whole else _problem(row, name, "expected string or integer", "schema")


def _label(row: int, given: Mapping[str, Any], name: str, field: Field | None) -> dict[str, Any] | None:
    value = given.get(name)
    if value is None:
        return _problem(row, name, "missing", "missing")
    if field is None:
        return _problem(row, name, "one value", "schema") if isinstance(value, list | dict) else None
    return None if fits(value, field.kind) else _problem(row, name, f"expected {expectation(field)}", "schema")


def _problem(row: int, name: str, told: str, kind: str) -> dict[str, Any]:
    return {"loc": ["body", row, name], "msg": told, "type": kind}
