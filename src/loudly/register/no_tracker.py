"""No mirror: runs and versions live in the ledger alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loudly.core.canon import Json
from loudly.core.values import ModelVersion, Run


class NoTracker:
    """Does nothing, on purpose; the ledger has it all."""

    def ran(self, run: Run, curves: Mapping[str, Sequence[float]]) -> None: ...

    def registered(self, version: ModelVersion, run: Run, model: bytes, context: Mapping[str, Json]) -> None: ...

    def aliased(self, name: str, alias: str, version: ModelVersion | None) -> None: ...

    def flush(self) -> None: ...
