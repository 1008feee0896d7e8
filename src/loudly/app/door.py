"""A door: HTTP as one of several processes that answer, with the wheel somewhere else.

Rows are answered here, by what the wheel told last; all else is asked of the wheel. While it is away answers go on.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import polars as pl

from loudly.app.server import answered_of, label_table
from loudly.core.clock import WallClock, stopwatch
from loudly.core.saying import loud
from loudly.core.values import Decision, Schema, Verdict
from loudly.errors import LoudlyError, WheelAway, one_line
from loudly.loop.outpost import Outpost, Told
from loudly.loop.stores import Stores
from loudly.loop.system import System
from loudly.serve.attempt import Attempt
from loudly.serve.explanation import Explanation
from loudly.serve.front import Answered
from loudly.serve.rows import Rows

EXPLAIN_SECONDS = 5.0


class Line(Protocol):
    """How a door reaches the wheel.

    told: the routing as it was told last.  check: whether the wheel is there.  hand_over: an answered batch; it returns when that
    cannot be lost any more.  labels: a table of labels, to what became of them.  ask: anything else, by its name.
    lost: records that had no room.  refused: why the disk takes nothing now, or "".
    Raises: WheelAway from `told`, `check` and `ask`.
    """

    @property
    def lost(self) -> int: ...

    @property
    def refused(self) -> str: ...

    def told(self) -> Told | None: ...

    def check(self) -> None: ...

    def hand_over(self, kind: str, payload: bytes) -> None: ...

    def labels(self, table: pl.DataFrame) -> Mapping[str, Any]: ...

    def ask(self, what: str, *given: Any) -> Any: ...

    def flush(self) -> None: ...


class Door:
    """The wheel as a door's HTTP sees it: a `Front`. name: of the door, for what it says."""

    def __init__(self, system: System, stores: Stores, key: bytes, line: Line, name: str, every: float) -> None:
        """every: seconds between two looks at the routing."""
        self._system, self._line, self._name, self._every = system, line, name, every
        self._clock = WallClock()
        self._outpost = Outpost(system, stores, key, self._clock, line.hand_over, stopwatch)
        self._said = (0, 0)
        self._refused = ""
        self._away = ""
        self._status: Mapping[str, Any] = {}
        self._overview: Mapping[str, Any] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_following, name="loudly-door", daemon=True)

    def start(self) -> None:
        """Follows the wheel from now on."""
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """Ends; what has gone wrong since the last look is said."""
        self._stop.set()
        self._outpost.tell_refused()
        self._line.flush()
        self._tell()
        if self._line.refused:
            self._say(f"what waits in memory for the spool is lost with this process: {self._line.refused}")

    @property
    def name(self) -> str:
        return self._system.name

    @property
    def key(self) -> str:
        return self._system.key

    @property
    def label_name(self) -> str:
        return self._system.label

    def schema(self, version: str = "") -> Schema | None:
        return self._outpost.schema(version)

    def classes(self, version: str = "") -> Sequence[str]:
        return self._outpost.classes(version)

    def example(self) -> Mapping[str, Any]:
        try:
            return dict(self._line.ask("example"))
        except WheelAway:
            return {}

    def version(self) -> str | None:
        return self._outpost.version

    def loaded(self) -> Sequence[str]:
        return self._outpost.loaded()

    def repository(self) -> Sequence[tuple[str, bool, str]]:
        return list(self._line.ask("repository"))

    def load(self, version: str, most: int) -> None:
        self._line.ask("load", version, most)
        self._look()

    def unload(self, version: str) -> None:
        self._line.ask("unload", version)
        self._look()

    def promote(self, version: str, position: int, reason: str) -> None:
        self._line.ask("promote", version, position, reason)
        self._look()

    def answer(self, rows: Rows, attempt: Attempt) -> Answered:
        return answered_of(self._outpost.answer(rows, attempt), attempt)

    def give_up(self, rows: Rows, attempt: Attempt) -> Answered:
        return answered_of(self._outpost.give_up(rows, attempt), attempt)

    def lose(self, rows: Rows, attempt: Attempt) -> None:
        self._outpost.lose(rows, attempt)

    def refuse(self, rows: int, why: str) -> None:
        self._outpost.refused.add(rows, why)

    def settle(self) -> None:
        """Nothing waits here: what was answered is handed over."""

    def label(self, labels: list[Mapping[str, Any]]) -> Mapping[str, Any]:
        return self._line.labels(label_table(self._system, labels))

    def explain(self, rows: Rows, seconds: float) -> Sequence[Explanation]:
        made: Sequence[Explanation] = self._line.ask("explain", rows, min(seconds, EXPLAIN_SECONDS))
        return made

    def verdict(self, version: str | None) -> Verdict:
        try:
            made: Verdict = self._line.ask("verdict", version)
        except WheelAway as away:
            return Verdict(Decision.UNDECIDED, version or "rollout", str(away), missing="the wheel")
        return made

    def status(self) -> Mapping[str, Any]:
        """Of the wheel, as it was last where it is away; and what this door has lost."""
        try:
            self._status, away = dict(self._line.ask("status")), False
        except WheelAway:
            away = True
        return {**self._status, **self._own(away)}

    def overview(self) -> Mapping[str, Any]:
        """The same of all that a page shows."""
        try:
            self._overview, away = dict(self._line.ask("overview")), False
        except WheelAway:
            away = True
        return {"name": self.name, **self._overview, "status": {**self._overview.get("status", self._status), **self._own(away)}}

    def _own(self, away: bool) -> dict[str, Any]:
        return {"door": self._name, "wheel_away": away, "door_lost": self._outpost.lost + self._line.lost}

    def flush(self) -> None:
        self._line.flush()

    def _look(self) -> None:
        """Follows what was told last; says once when the wheel goes and when it is back."""
        wrong = ""
        self._outpost.tell_refused()
        try:
            self._outpost.follow(self._line.told())
            self._line.check()
        except LoudlyError as away:
            wrong = f"{type(away).__name__}: {away.what}"
        if wrong != self._away:
            self._away = wrong
            self._say(f"answers go on as told last: {wrong}" if wrong else "the wheel is back")
        self._tell()

    def _tell(self) -> None:
        """Says once what goes wrong here: with the spool, with a model, with rows that had no room."""
        if self._line.refused != self._refused:
            self._refused = self._line.refused
            self._say(
                f"the disk refuses the spool, answers wait in memory: {self._refused}" if self._refused else "it takes them again"
            )
        for raised in self._outpost.raised.fresh():
            self._say(f"a model failed, the fallback answers: {raised}")
        lost = (self._outpost.lost, self._line.lost)
        if lost != self._said:
            self._said = lost
            self._say(f"{lost[0]:,} answered rows and {lost[1]:,} records had no room to wait in: they are in no log")

    def _keep_following(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self._look()
                self._outpost.sides.refresh(self._clock.now())
            except Exception as wrong:  # noqa: BLE001 - whatever it is, the door goes on following
                self._say(one_line(wrong))

    def _say(self, text: str) -> None:
        loud(self._system.name, f"{self._name}: {text}")
