"""A Live as its parts see it: what each may ask of the whole and of the others, so that none has to know what they are made of.

Live is built of these parts and so imports them; they import this page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import RLock
from typing import Any, Protocol

import polars as pl

from loudly.core.canon import Json
from loudly.core.seams import Clock, Strategy
from loudly.core.values import Event, Verdict
from loudly.deliver.disagreement import Disagreement
from loudly.labels.book import Arrival, LabelBook
from loudly.loop.calls import Told
from loudly.loop.misfits import Aside
from loudly.loop.past import Past
from loudly.loop.policy import Unconfirmed
from loudly.loop.retraining import Retraining
from loudly.loop.serving import Ready
from loudly.loop.sides import Sides
from loudly.loop.state import State
from loudly.loop.stores import Stores
from loudly.loop.system import System
from loudly.loop.tally import Tally
from loudly.loop.unmatched import Unmatched
from loudly.loop.unripe import Unripe
from loudly.loop.untaught import Untaught
from loudly.monitor.alerts import Alerts
from loudly.monitor.watch import Watch
from loudly.serve.raised import Raised
from loudly.serve.replies import Replies
from loudly.serve.router import Router
from loudly.serve.rows import Rows
from loudly.store.segments import Record


class Answers(Protocol):
    """`answering.Answering`: rows are answered, logged and folded."""

    behind: bool
    raised: Raised
    raised_by_fold: Raised

    def fold(self) -> None: ...

    def caught_up(self) -> int: ...

    def log(self, kind: str, make: Callable[[], bytes]) -> tuple[int, bool]: ...

    def prepared(self, rows: Rows, version: str = "") -> tuple[Rows, list[Any], Router]: ...


class Counts(Protocol):
    """`counting.Counting`: a rollout is told what its calls came to, and the time."""

    resumed: bool

    def answers(self, rows: pl.DataFrame, replies: Replies, calls: Sequence[tuple[Replies, Sequence[Any]]] = ()) -> None: ...

    def time(self, now: int) -> None: ...

    def begun(self) -> None: ...

    def resume(self, records: Iterable[Record]) -> None: ...

    def caught_up(self) -> None: ...

    def log(self) -> None: ...

    def fold(self, told: Told) -> None: ...


class Named(Protocol):
    """`pins.Pins`: versions that are asked by their name."""

    book: LabelBook

    def of(self, version: str) -> tuple[Ready, Router]: ...

    def predicted(self, logged: pl.DataFrame) -> None: ...

    def arrived(self, labels: pl.DataFrame, now: int) -> Arrival: ...

    def tidy(self) -> None: ...


class Confirms(Protocol):
    """`confirming.Confirming`: a promotion that waits for its labels."""

    def forget(self, gone: Callable[[pl.DataFrame], pl.Series]) -> None: ...

    def known(self) -> Unconfirmed | None: ...


class Refuses(Protocol):
    """`asides.Asides`: rows that do not fit the schema."""

    def folded(self, told: Aside, *, again: bool = False) -> None: ...


class Host(Protocol):
    """`live.Live`."""

    system: System
    stores: Stores
    clock: Clock
    key: bytes
    tally: Tally
    lock: RLock
    state: State
    past: Past
    sides: Sides
    book: LabelBook
    watch: Watch
    unmatched: Unmatched
    alerts: Alerts
    retraining: Retraining
    ready: dict[str, Ready]
    router: Router | None
    strategy: Strategy | None
    rollout_state: dict[str, Any]
    rollout_verdict: Verdict | None
    given: dict[str, int]
    unripe: Unripe
    untaught: Untaught
    disagreement: Disagreement

    @property
    def answering(self) -> Answers: ...

    @property
    def counting(self) -> Counts: ...

    @property
    def pins(self) -> Named: ...

    @property
    def asides(self) -> Refuses: ...

    @property
    def confirming(self) -> Confirms: ...

    def record(self, *events: Event) -> None: ...

    def event(self, kind: str, **data: Json) -> None: ...

    def labelled(self, labels: pl.DataFrame, now: int) -> Arrival: ...

    def fold_answers(self, logged: pl.DataFrame, now: int) -> None: ...

    def fold_labels(self, joined: pl.DataFrame, now: int) -> None: ...

    def adopt(self, version: str, state: State | None = None) -> None: ...

    def crown(self, version: str) -> None: ...

    def resume_rollout(self) -> None: ...

    def route(self) -> None: ...
