"""Where things are: the parts that `loudly.toml` chooses, resolved and handed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from loudly.core.seams import Blobs, Executor, FastForm, Ledger, ModelFormat, Notify, Search, Tracker
from loudly.loop.sampling import EVERYBODY, Sample
from loudly.store.shelf import Shelf


class Traffic(Protocol):
    """Where requests, predictions and labels are logged: `serve` appends, `store.segments` keeps.

    `refused`: why the disk refuses now, or "".  `lost`: records that had no room.  `untaken`: those that wait in memory.
    `before`: is called before each write.  `sequence`: of the newest record.  `stir`: something is kept back for `before`.
    """

    before: Callable[[bool], None]

    @property
    def refused(self) -> str: ...

    @property
    def lost(self) -> int: ...

    @property
    def untaken(self) -> int: ...

    @property
    def sequence(self) -> int: ...

    def append(self, kind: str, payload: bytes, origin: str = "") -> int: ...

    def stir(self) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class MakeSearch(Protocol):
    """Makes a search over a space, seeded."""

    def __call__(self, space: Mapping[str, object], seed: int) -> Search: ...


@dataclass(frozen=True, slots=True)
class Stores:
    """The resolved parts. `formats` are tried in order when a model is stored.

    fast: makers of fast forms in the order in which they are tried; None for one that is not installed; empty switches them off.
    executor: where points of a search and fits are worked on.
    sample: the units whose traffic is logged.  shelf: where rows are that wait for their label or a fit, beyond its room in memory.
    """

    ledger: Ledger
    blobs: Blobs
    tracker: Tracker
    executor: Executor
    formats: tuple[ModelFormat, ...]
    notify: tuple[Notify, ...] = ()
    traffic: Traffic | None = None
    searches: Mapping[str, MakeSearch] = field(default_factory=dict)
    fast: Mapping[str, Callable[[], FastForm | None]] = field(default_factory=dict)
    sample: Sample = EVERYBODY
    shelf: Shelf | None = None

    def close(self) -> None:
        """The log of requests is on disk and sealed, workers end, and the ledger's file or connection is given back."""
        self.executor.close()
        if self.traffic is not None:
            self.traffic.close()
        self.ledger.close()
