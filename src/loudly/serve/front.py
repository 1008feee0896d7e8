"""What a server needs of the wheel: the seam between HTTP and the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from loudly.core.values import Schema, Verdict
from loudly.serve.attempt import Attempt
from loudly.serve.explanation import Explanation
from loudly.serve.rows import Rows


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a request, row by row: prediction, version, arm, propensity, whether a fallback spoke."""

    predictions: Sequence[Any]
    versions: Sequence[str]
    arms: Sequence[str]
    propensities: Sequence[float]
    fallbacks: Sequence[bool]


class Front(Protocol):
    """The wheel as a server sees it. `label` takes objects that carry key and label.

    `answer` may be called from many threads. What it leaves to be folded is folded by `settle`, which a server calls between
    answers. Where no answer came in time, `give_up` answers by the constant, at once, and `lose` takes note that nobody did.
    `refuse` takes note of rows that do not fit the champion's schema, and why.
    `version` is the champion. `schema` is of a version that is loaded, of the champion for "". `classes` are
    those that scores are of, in their order: of one score the last one, none of a regression. `loaded` can be asked by name;
    `repository` tells of every version that is registered whether it can, and why not; `load` and `unload` change that.
    `promote` makes a version champion where the ledger is still at `position`, and raises StaleWriter where it is not.
    `verdict` is on a version, or for None on the candidate of the running rollout.
    `overview` is what a page shows of all, with `status` in it.
    `explain` logs nothing, and raises TimeoutError after so many seconds.
    """

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def label_name(self) -> str: ...

    def version(self) -> str | None: ...

    def schema(self, version: str = "") -> Schema | None: ...

    def classes(self, version: str = "") -> Sequence[str]: ...

    def loaded(self) -> Sequence[str]: ...

    def repository(self) -> Sequence[tuple[str, bool, str]]: ...

    def load(self, version: str, most: int) -> None: ...

    def unload(self, version: str) -> None: ...

    def promote(self, version: str, position: int, reason: str) -> None: ...

    def example(self) -> Mapping[str, Any]: ...

    def answer(self, rows: Rows, attempt: Attempt) -> Answered: ...

    def give_up(self, rows: Rows, attempt: Attempt) -> Answered: ...

    def lose(self, rows: Rows, attempt: Attempt) -> None: ...

    def refuse(self, rows: int, why: str) -> None: ...

    def settle(self) -> None: ...

    def explain(self, rows: Rows, seconds: float) -> Sequence[Explanation]: ...

    def label(self, labels: list[Mapping[str, Any]]) -> Mapping[str, Any]: ...

    def verdict(self, version: str | None) -> Verdict: ...

    def status(self) -> Mapping[str, Any]: ...

    def overview(self) -> Mapping[str, Any]: ...

    def flush(self) -> None: ...
