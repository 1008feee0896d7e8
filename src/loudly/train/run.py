"""The key of a run: the digest of everything that goes in."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loudly.core.canon import Json, canonical, digest


def source(function: Callable[..., Any]) -> str:
    """The text of a function; its qualified name where there is no text (a notebook's lost cell, a C function)."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return getattr(function, "__qualname__", repr(function))


def run_key(
    dataset: str,
    functions: Sequence[Callable[..., Any]],
    params: Mapping[str, Json],
    seed: int,
    start: str | None,
    features: Mapping[str, Json],
) -> str:
    """Same data, code, parameters, seed, start and features: same key."""
    code = [digest(source(f).encode()) for f in functions]
    return digest(
        canonical(
            {
                "dataset": dataset,
                "code": code,
                "params": dict(params),
                "seed": seed,
                "start": start,
                "features": features,
            }
        )
    )
