"""Streams of single values that were asked for: errors and losses of the champion as labels come, its score, a column.

Each is folded in the order of arrival, exactly once, and any split of it gives the same alarms; so a server, a replay and a
restart come to the same. An alarm waits for the next window that closes and is a cause like others: raised once, within the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from loudly.core.clock import iso
from loudly.core.seams import Floats, Ints
from loudly.core.values import NUMERIC, Decision, Event, Evidence, Role, Schema, Task, Verdict
from loudly.errors import ConfigError, StreamRefused, nearest
from loudly.monitor.judged import Cause
from loudly.shift.estimate.labelled import sound
from loudly.shift.streams.stream import StreamDetector, carried

ERRORS, LOSS, SCORE = "errors", "loss", "score"
OF_LABELS = (ERRORS, LOSS)
NEWEST = 30


@dataclass(frozen=True, slots=True)
class Asked:
    """A detector and what it looks at. text: as it was said.  on: "errors", "loss", "score" or a column."""

    text: str
    detector: StreamDetector
    on: str


@dataclass(frozen=True, slots=True)
class Followed:
    """How far a stream has come. n, total, newest: of the values since the detector's last alarm, or since the champion came."""

    state: Any
    n: int = 0
    total: float = 0.0
    newest: tuple[float, ...] = ()

    def after(self, state: Any, values: Floats) -> Followed:
        """With more values. They are summed one by one, so any split gives the same."""
        return Followed(
            state,
            self.n + len(values),
            float(carried(self.total, values)[-1]),
            (*self.newest, *values[-NEWEST:].tolist())[-NEWEST:],
        )

    @property
    def told(self) -> tuple[float, float]:
        """Mean of the newest values, and of those before them."""
        k = len(self.newest)
        recent = sum(self.newest)
        return recent / k, (self.total - recent) / (self.n - k) if self.n > k else recent / k


def parse_stream(text: str, find: Callable[[str], Any]) -> Asked:
    """What "ddm on errors" or "page-hinkley threshold=20 on temp" asks for. find: the detector by its name.

    Raises: ConfigError for words that are no such sentence, and settings that the detector does not have or cannot go without.
    """
    head, on_, what = text.strip().partition(" on ")
    name, *said = head.split()
    pairs = [word.partition("=") for word in said]
    if not on_ or not what.strip() or not all(sign for _, sign, _ in pairs):
        raise ConfigError(f"{text!r} asks for no stream.", do='say e.g. "ddm on errors" or "page-hinkley threshold=20 on temp"')
    kind = find(name)
    fields = tuple(kind.__dataclass_fields__)
    given: dict[str, Any] = {"missing": "skip"}
    for key, _, value in pairs:
        if key not in fields:
            raise ConfigError(f"The stream {name!r} has no setting {key!r}.", do=nearest(key, fields))
        given[key] = _value(value)
    try:
        return Asked(text.strip(), kind(**given), what.strip())
    except TypeError as lacking:
        raise ConfigError(f"{text!r} does not say enough.", seen=str(lacking), do=f"settings: {', '.join(fields)}") from lacking


def _value(said: str) -> Any:
    for kind in (int, float):
        try:
            return kind(said)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(said, said)


class Streams:
    """The streams of one champion: a state each, and what has alarmed since the last window that closed."""

    def __init__(self, asked: Sequence[Asked]) -> None:
        self._asked = tuple(asked)
        self._live: dict[str, Followed] = {}
        self._alarms: dict[str, Cause] = {}
        self._news: list[Event] = []
        self._task = Task.BINARY

    def begin(self, task: Task, schema: Schema, now: int) -> None:
        """A new champion: everything begins anew; what cannot be looked at under it is told."""
        self._task, self._live, self._alarms = task, {}, {}
        for asked in self._asked:
            lacking = _lacking(asked.on, task, schema)
            if lacking:
                self._stop(asked, lacking, now)
            else:
                self._live[asked.text] = Followed(asked.detector.init())

    def labels(self, truth: Floats, score: Floats, at: Ints) -> None:
        """Labelled rows in the order in which the labels came. Shapes: (n,), (n,) or (n, k), (n,) event time."""
        wanted = [asked for asked in self._live_ones() if asked.on in OF_LABELS]
        for asked in wanted:
            self._take(asked, (wrong if asked.on == ERRORS else loss)(truth, score, self._task), at)

    def rows(self, table: pl.DataFrame, score: Floats, at: Ints) -> None:
        """Answered rows in the order of the answers. Shapes: (rows,), (rows,) event time."""
        for asked in self._live_ones():
            if asked.on == SCORE:
                self._take(asked, score, at)
            elif asked.on not in OF_LABELS and asked.on in table.columns:
                self._take(asked, table[asked.on].cast(pl.Float64).fill_null(float("nan")).to_numpy(), at)

    def causes(self) -> tuple[Cause, ...]:
        """What has alarmed since this was asked last: of each stream the first alarm."""
        found, self._alarms = tuple(self._alarms[a.text] for a in self._asked if a.text in self._alarms), {}
        return found

    def news(self) -> tuple[Event, ...]:
        """Streams that are not looked at, and why; each once."""
        found, self._news = tuple(self._news), []
        return found

    def states(self) -> Mapping[str, Followed]:
        """How far each stream has come, by its text."""
        return dict(self._live)

    def _live_ones(self) -> list[Asked]:
        return [asked for asked in self._asked if asked.text in self._live]

    def _take(self, asked: Asked, values: Floats, at: Ints) -> None:
        before = self._live[asked.text]
        try:
            state, alarms = asked.detector.update(before.state, values)
        except StreamRefused as refused:
            del self._live[asked.text]
            self._stop(asked, str(refused), int(at[-1]))
            return
        first = 0
        for alarm in alarms.tolist():
            seen = before.after(None, _sound(values[first : alarm + 1]))
            self._alarms.setdefault(asked.text, _cause(asked, seen, int(at[alarm])))
            before, first = Followed(None), alarm + 1
        self._live[asked.text] = before.after(state, _sound(values[first:]))

    def _stop(self, asked: Asked, reason: str, now: int) -> None:
        told = f"{asked.text!r} is not looked at until the next champion: {reason}"
        self._news.append(Event("guarantee_weakened", now, {"what": "a stream", "reason": told}))


def wrong(truth: Floats, score: Floats, task: Task) -> Floats:
    """1 where the likelier class was not the true one, NaN where there was no score. Shapes: (n,), (n,) or (n, k) -> (n,)."""
    said = score.argmax(axis=1) if task is Task.MULTICLASS else score >= 0.5
    return np.where(sound(score), said != truth, np.nan)


def loss(truth: Floats, score: Floats, task: Task) -> Floats:
    """Squared errors: of numbers, of probabilities (Brier, in [0, 1]). Shapes: (n,), (n,) or (n, k) -> (n,)."""
    if task is not Task.MULTICLASS:
        return np.asarray((truth - score) ** 2)
    return np.asarray((((np.arange(score.shape[1]) == truth[:, None]) - score) ** 2).sum(axis=1) / 2)


def _sound(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _lacking(on: str, task: Task, schema: Schema) -> str:
    """Why there is nothing to look at; empty where there is."""
    if on == ERRORS and task is Task.REGRESSION:
        return 'numbers have no errors, only a loss: say "on loss"'
    if on == SCORE and task is Task.MULTICLASS:
        return "of several classes there is no single score"
    if on in (ERRORS, LOSS, SCORE):
        return ""
    kinds = {f.name: f.kind for f in schema.fields if f.role in (Role.INPUT, Role.SIDE)}
    if on not in kinds:
        return f"there is no column {on!r}; {nearest(on, (ERRORS, LOSS, SCORE, *kinds))}"
    return "" if kinds[on] in NUMERIC else f"the column {on!r} is no number"


def _cause(asked: Asked, seen: Followed, at: int) -> Cause:
    recent, before = seen.told
    reason = (
        f"{asked.text}: alarmed at {iso(at)} after {seen.n:,} values; the newest {len(seen.newest)} average {recent:.4g}, "
        f"those before {before:.4g}"
    )
    found = Evidence(
        type(asked.detector).__name__, recent - before, n=seen.n, about=asked.on, unit="mean", detail={"since": iso(at)}
    )  # fmt: skip
    return Cause("stream", f"stream: {asked.text}", Verdict(Decision.FAIL, f"stream {asked.text}", reason, (found,)))
