"""What a server needs of the wheel: the seam between HTTP and the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from loudly.core.values import Schema, Verdict


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a request, row by row: prediction, version, arm, propensity, whether a fallback spoke."""

    predictions: tuple[Any, ...]
    versions: tuple[str, ...]
    arms: tuple[str, ...]
    propensities: tuple[float, ...]
    fallbacks: tuple[bool, ...]


class Front(Protocol):
    """The wheel as a server sees it. `verdict` is on a version, or for None on the candidate of the running rollout.

    `answer` and `label` take rows that `serve.request.check` has passed.
    """

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def label_name(self) -> str: ...

    def schema(self) -> Schema | None: ...

    def example(self) -> Mapping[str, Any]: ...

    def answer(self, rows: list[Mapping[str, Any]]) -> Answered: ...

    def label(self, labels: list[Mapping[str, Any]]) -> Mapping[str, Any]: ...

    def verdict(self, version: str | None) -> Verdict: ...

    def status(self) -> Mapping[str, Any]: ...

    def flush(self) -> None: ...
