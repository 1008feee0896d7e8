"""The router: who answers which unit, and what it answered. It never raises at a client.

A `Routing` is an immutable snapshot; swapping it is one assignment, so a new version never fails a request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from loudly.core.canon import unit_draw
from loudly.core.seams import Assignment, Floats, Ints, Merging, Strategy
from loudly.core.values import Schema
from loudly.errors import one_line
from loudly.serve.attempt import Attempt
from loudly.serve.context import Context
from loudly.serve.merging import merged
from loudly.serve.replies import CONTROL, NOTHING, Replies, Served, arm_names, finite
from loudly.serve.rows import Rows

Timer = Callable[[], float]
# Batches have few sizes, and what is alike for all of a size is made once.
KNOWN_SIZES = 128
# Halves of a batch that a model raised at are asked until so many more calls have raised, and one more for each 64 rows.
MOST_RAISED, ROWS_A_RAISE = 8, 64


@dataclass(frozen=True, slots=True)
class Routing:
    """Who answers now. Without a strategy control answers everything. `salt` names the rollout; units stick to it.

    candidates: the arms after control, in their order.  fallback: the constant answer of last resort, marked as such.
    context: what a strategy that chooses by context sees of the rows.  merging: the strategy, where it merges rankings.
    schema: of the rows that control takes.  rollout: its number, 0 without one.
    """

    control: Served
    candidates: tuple[Served, ...] = ()
    strategy: Strategy | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    salt: str = ""
    fallback: float = 0.0
    context: Context | None = None
    merging: Merging | None = None
    schema: Schema | None = None
    rollout: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arms."""
        return arm_names(1 + len(self.candidates))

    @property
    def versions(self) -> tuple[str, ...]:
        """Of the arms, in the order of `names`; "" where there is no candidate."""
        return (self.control.version, *(c.version for c in self.candidates)) if self.candidates else (self.control.version, "")


class Router:
    """Holds the current routing and answers batches of rows by it. `timer`: a clock of calls; none in a replay."""

    def __init__(self, routing: Routing, timer: Timer | None = None) -> None:
        self._routing, self._timer = routing, timer

    @property
    def routing(self) -> Routing:
        return self._routing

    def held(self) -> Router:
        """The same with the routing of now, whatever is swapped meanwhile: for rows that are brought into its schema first."""
        return Router(self._routing, self._timer)

    def swap(self, routing: Routing) -> None:
        """The next request sees the new routing; those under way finish with the old."""
        self._routing = routing

    def answer(
        self, table: pl.DataFrame | Rows, units: Sequence[Any], attempt: Attempt | None = None, *, behind: bool = False
    ) -> Replies:
        """Answers rows of the frozen schema. Shapes: table (n, columns), units (n,).

        A model that raises or answers NaN is replaced by control, control by the constant fallback; both are counted. Where it
        raises at several rows, those at which it does not have their answer.
        attempt: is told which arm is at work.  behind: where control answers all of the rows, candidates that only shadow are
        not asked but owed.
        """
        routing = self._routing
        if not routing.candidates:
            return _alone(routing, table, attempt)
        assigned = _assign(routing, table, units)
        if behind and routing.merging is None and assigned.shadows and not assigned.arm.any():
            arms = zip(routing.names[1:], routing.candidates, strict=True)
            owed = {name: served for name, served in arms if name in assigned.shadows}
            return _alone(routing, table, attempt, assigned, owed)
        errors: list[str] = []
        asked: dict[str, Any] = {}
        scores: dict[str, Floats] = {}
        seconds: dict[str, float] = {}
        for index, (name, served) in enumerate(zip(routing.names, (routing.control, *routing.candidates), strict=True)):
            if attempt is not None:
                attempt.scoring = name
            asked[name] = np.ones(table.height, dtype=bool) if name in assigned.shadows else assigned.arm == index
            begun = self._timer() if self._timer is not None and asked[name].any() else None
            scores[name] = _score(served, table, asked[name], errors)
            if begun is not None and self._timer is not None:
                seconds[name] = self._timer() - begun
        replies = _replies(routing, assigned, asked, scores, errors, seconds)
        if routing.merging is None:
            return replies
        return merged(replies, routing.merging, routing.state, table, routing.salt, attempt.sizes if attempt is not None else ())

    def give_up(self, table: pl.DataFrame | Rows, units: Sequence[Any], scoring: str) -> Replies:
        """The constant fallback for rows whose answer did not come in time; `scoring` is the arm that was at work."""
        routing, n = self._routing, table.height
        made = _assign(routing, table, units)
        scores = {name: np.full(n, np.nan) for name in routing.names}
        lost = {name: n if name == scoring else 0 for name in routing.names}
        answer, fallback, late = np.full(n, routing.fallback), np.ones(n, dtype=bool), ("no answer in time",)
        arms = made.arm, made.propensity
        return Replies(answer, *arms, fallback, scores, routing.versions, lost, lost, late, {}, share=made.share)


def _alone(
    routing: Routing,
    table: pl.DataFrame | Rows,
    attempt: Attempt | None,
    assigned: Assignment | None = None,
    owed: Mapping[str, Served] | None = None,
) -> Replies:
    """Control answers everything: the hot path."""
    n, errors = table.height, list[str]()
    if attempt is not None:
        attempt.scoring = CONTROL
    everything = assigned or _to_control(n)
    score = tried(routing.control, table, errors)
    nothing = _nothing((n,) if score is None else score.shape)
    scores = {CONTROL: nothing if score is None else score, **dict.fromkeys(routing.names[1:], nothing)}
    if errors or not np.isfinite(scores[CONTROL]).all():
        nobody, everybody = np.zeros(n, dtype=bool), np.ones(n, dtype=bool)
        asked = {CONTROL: everybody, **dict.fromkeys(routing.names[1:], nobody)}
        return replace(_replies(routing, everything, asked, scores, errors, {}), owed=owed or {})
    sound, answered = _nobody(n), {**dict.fromkeys(routing.names, 0), CONTROL: n}
    arm, propensity, versions = everything.arm, everything.propensity, routing.versions
    return Replies(scores[CONTROL], arm, propensity, sound, scores, versions, answered, NOTHING, (), {}, owed or {})


@lru_cache(KNOWN_SIZES)
def _to_control(n: int) -> Assignment:
    return Assignment(_fixed(np.zeros(n, dtype=np.int64)), _fixed(np.ones(n)))


@lru_cache(KNOWN_SIZES)
def _nothing(shape: tuple[int, ...]) -> Floats:
    nothing: Floats = _fixed(np.full(shape, np.nan))
    return nothing


@lru_cache(KNOWN_SIZES)
def _nobody(n: int) -> Any:
    return _fixed(np.zeros(n, dtype=bool))


def _fixed(values: Any) -> Any:
    """Nobody may write into what many batches share."""
    values.flags.writeable = False
    return values


def _assign(routing: Routing, table: pl.DataFrame | Rows, units: Sequence[Any]) -> Assignment:
    """Who answers each row."""
    if routing.strategy is None or not routing.candidates:
        return _to_control(len(units))
    draws = np.fromiter((unit_draw(u, routing.salt) for u in units), dtype=np.float64, count=len(units))
    return routing.strategy.assign(routing.state, draws, None if routing.context is None else routing.context.of(table))


def tried(served: Served, table: pl.DataFrame | Rows, errors: list[str]) -> Floats | None:
    """Scores of all rows, NaN for those at which the model raised, which is noted; None where it raised at all of them."""
    try:
        return served.score(table)
    except Exception as wrong:  # noqa: BLE001 - a model may raise anything; the client still gets an answer
        errors.append(f"{served.version}: {one_line(wrong)}")
        return _apart(served, table)


def _apart(served: Served, table: pl.DataFrame | Rows) -> Floats | None:
    """Scores where the model raised at the whole: it is asked for halves, and their halves, so that no row fails for another.

    What still waits when it has raised too often has failed together.
    """
    n = table.height
    parts, left = deque(_halves(np.arange(n))), MOST_RAISED + n // ROWS_A_RAISE
    found: list[tuple[Ints, Floats]] = []
    while parts and left:
        part = parts.popleft()
        try:
            found.append((part, served.score(table.filter(np.isin(np.arange(n), part)))))
        except Exception:  # noqa: BLE001 - as it raised at the whole, which is noted
            left -= 1
            parts.extend(_halves(part))
    if not found:
        return None
    out = np.full((n, *found[0][1].shape[1:]), np.nan)
    for part, scores in found:
        if scores.shape[1:] == out.shape[1:]:
            out[part] = scores
    return out


def _halves(rows: Ints) -> Sequence[Ints]:
    """None of a single row. Shapes: rows (n,)."""
    return (rows[: len(rows) // 2], rows[len(rows) // 2 :]) if len(rows) > 1 else ()


def _score(served: Served, table: pl.DataFrame | Rows, asked: Any, errors: list[str]) -> Floats:
    """The arm's answers for the rows that ask it; NaN elsewhere and where it failed. Shapes: asked (n,)."""
    n, count = len(asked), int(np.count_nonzero(asked))
    made = tried(served, table if count == n else table.filter(asked), errors) if count else None
    if made is None:
        return np.full(n, np.nan)
    if count == n:
        return made
    out = np.full((n, *made.shape[1:]), np.nan)
    out[asked] = made
    return out


def _replies(
    routing: Routing,
    assigned: Assignment,
    asked: Mapping[str, Any],
    scores: Mapping[str, Floats],
    errors: Sequence[str],
    seconds: Mapping[str, float],
) -> Replies:
    """What is told of scores that may lack some: the fallback where an arm failed, and the counts."""
    fitting = _alike(scores)
    lacking = {name: ~finite(score) for name, score in fitting.items()}
    picked, fallback = _pick(tuple(fitting.values()), assigned.arm, routing.fallback)
    failed = {name: int((lacking[name] & mine).sum()) for name, mine in asked.items()}
    answered = {name: int(mine.sum()) for name, mine in asked.items()}
    given = scores if not routing.candidates else fitting
    arms, counts = (assigned.arm, assigned.propensity), (answered, failed)
    return Replies(picked, *arms, fallback, given, routing.versions, *counts, tuple(errors), seconds, share=assigned.share)


def _alike(scores: Mapping[str, Floats]) -> Mapping[str, Floats]:
    """Scores in one shape: that of control where it gave any, or else of an arm that gave a row of numbers; others count as NaN."""
    control = scores[CONTROL]
    shape = control.shape if np.isfinite(control).any() else max((score.shape for score in scores.values()), key=len)
    return {name: score if score.shape == shape else np.full(shape, np.nan) for name, score in scores.items()}


def _pick(scores: Sequence[Floats], arm: Ints, constant: float) -> tuple[Floats, Any]:
    """The answer of each row's arm; control's where that failed; the constant where both did. Scores of one shape."""
    picked = np.stack(scores)[arm, np.arange(len(arm))]
    fallback = ~finite(picked)
    if fallback.any():
        picked[fallback] = scores[0][fallback]
        picked[~finite(picked)] = constant
    return picked, fallback
