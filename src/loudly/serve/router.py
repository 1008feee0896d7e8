"""The router: who answers which unit, and what it answered. It never raises at a client.

A `Routing` is an immutable snapshot; swapping it is one assignment, so a new version never fails a request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from loudly.core.canon import unit_draw
from loudly.core.seams import Strategy
from loudly.errors import ModelError
from loudly.serve.attempt import Attempt
from loudly.serve.rows import Rows

if TYPE_CHECKING:
    import polars as pl

    from loudly.core.seams import Floats, Ints

CONTROL, CANDIDATE = "control", "candidate"
ARMS = (CONTROL, CANDIDATE)
NOTHING: Mapping[str, int] = {CONTROL: 0, CANDIDATE: 0}
Timer = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Served:
    """A version ready to answer: rows of the frozen schema in, scores out. quick: the same without a table, where it can."""

    version: str
    predict: Callable[[pl.DataFrame], Floats]
    quick: Callable[[Rows], Floats] | None = None

    def score(self, rows: pl.DataFrame | Rows) -> Floats:
        """Scores (n,) or (n, k). Raises: ModelError for another shape, and whatever the model raises."""
        if not isinstance(rows, Rows):
            made = self.predict(rows)
        else:
            made = self.quick(rows) if self.quick is not None else self.predict(rows.table())
        made = np.asarray(made, dtype=np.float64)
        if made.ndim not in (1, 2) or len(made) != rows.height:
            raise ModelError("The model gave answers of a wrong shape.", seen=f"{made.shape} for {rows.height} rows")
        return made


@dataclass(frozen=True, slots=True)
class Routing:
    """Who answers now. Without a strategy control answers everything. `salt` names the rollout; units stick to it.

    fallback: the constant answer of last resort, marked as such.
    """

    control: Served
    candidate: Served | None = None
    strategy: Strategy | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    salt: str = ""
    fallback: float = 0.0


@dataclass(frozen=True, slots=True)
class Replies:
    """Answers of a batch, row by row.

    answer: (n,) or (n, k).  arm: (n,) index into ("control", "candidate").  propensity: (n,).  fallback: (n,) True where the
    arm that should have answered could not.  scores: arm -> answers of every arm that scored, NaN where it did not.
    failed, answered: counts by arm, of rows.  errors: what was raised, for the log.  seconds: arm -> what its call took,
    where a timer runs.
    """

    answer: Floats
    arm: Ints
    propensity: Floats
    fallback: Any
    scores: Mapping[str, Floats]
    versions: tuple[str, ...]
    answered: Mapping[str, int]
    failed: Mapping[str, int]
    errors: tuple[str, ...]
    seconds: Mapping[str, float]

    def take(self, kept: Ints) -> Replies:
        """The replies of some of the rows; the counts stay."""
        scores = {name: score[kept] for name, score in self.scores.items()}
        return replace(
            self,
            answer=self.answer[kept],
            arm=self.arm[kept],
            propensity=self.propensity[kept],
            fallback=self.fallback[kept],
            scores=scores,
        )


class Router:
    """Holds the current routing and answers batches of rows by it. `timer`: a clock of calls; none in a replay."""

    def __init__(self, routing: Routing, timer: Timer | None = None) -> None:
        self._routing, self._timer = routing, timer

    @property
    def routing(self) -> Routing:
        return self._routing

    def swap(self, routing: Routing) -> None:
        """The next request sees the new routing; those under way finish with the old."""
        self._routing = routing

    def answer(self, table: pl.DataFrame | Rows, units: Sequence[Any], attempt: Attempt | None = None) -> Replies:
        """Answers rows of the frozen schema. Shapes: table (n, columns), units (n,).

        A model that raises or answers NaN is replaced by control, control by the constant fallback; both are counted.
        attempt: is told which arm is at work.
        """
        routing, n = self._routing, table.height
        arm, propensity, scoring = self._assign(routing, units)
        errors: list[str] = []
        scores: dict[str, Floats] = {}
        seconds: dict[str, float] = {}
        for name in ARMS:
            if attempt is not None:
                attempt.scoring = name
            scores[name] = self._timed(routing, name, table, arm, name in scoring, errors, seconds)
        versions = (routing.control.version, routing.candidate.version if routing.candidate else "")
        if routing.candidate is None and bool(np.isfinite(scores[CONTROL]).all()):
            sound = np.zeros(n, dtype=bool)
            return Replies(scores[CONTROL], arm, propensity, sound, scores, versions, {CONTROL: n, CANDIDATE: 0}, NOTHING, (), {})
        picked, fallback = _pick(scores, arm, routing.fallback)
        failed = {name: int((~finite(scores[name]) & _asked(arm, i, name in scoring)).sum()) for i, name in enumerate(ARMS)}
        answered = {name: int(_asked(arm, i, name in scoring).sum()) for i, name in enumerate(ARMS)}
        return Replies(picked, arm, propensity, fallback, scores, versions, answered, failed, tuple(errors), seconds)

    def give_up(self, units: Sequence[Any], scoring: str) -> Replies:
        """The constant fallback for units whose answer did not come in time; `scoring` is the arm that was at work."""
        routing, n = self._routing, len(units)
        arm, propensity, _ = self._assign(routing, units)
        versions = (routing.control.version, routing.candidate.version if routing.candidate else "")
        scores = {name: np.full(n, np.nan) for name in ARMS}
        lost = {name: n if name == scoring else 0 for name in ARMS}
        answer, fallback = np.full(n, routing.fallback), np.ones(n, dtype=bool)
        return Replies(answer, arm, propensity, fallback, scores, versions, lost, lost, ("no answer in time",), {})

    @staticmethod
    def _assign(routing: Routing, units: Sequence[Any]) -> tuple[Ints, Floats, tuple[str, ...]]:
        if routing.strategy is None or routing.candidate is None:
            return np.zeros(len(units), dtype=np.int64), np.ones(len(units)), ()
        draws = np.fromiter((unit_draw(u, routing.salt) for u in units), dtype=np.float64, count=len(units))
        made = routing.strategy.assign(routing.state, draws)
        return made.arm, made.propensity, made.shadows

    def _timed(
        self,
        routing: Routing,
        name: str,
        table: pl.DataFrame | Rows,
        arm: Ints,
        everything: bool,
        errors: list[str],
        seconds: dict[str, float],
    ) -> Floats:
        if self._timer is None or routing.candidate is None or not (everything or (arm == ARMS.index(name)).any()):
            return self._score(routing, name, table, arm, everything, errors)
        begun = self._timer()
        made = self._score(routing, name, table, arm, everything, errors)
        seconds[name] = self._timer() - begun
        return made

    @staticmethod
    def _score(routing: Routing, name: str, table: pl.DataFrame | Rows, arm: Ints, everything: bool, errors: list[str]) -> Floats:
        """The arm's answers for the rows it must score; NaN elsewhere and where it failed."""
        served = routing.control if name == CONTROL else routing.candidate
        nothing = np.full(len(arm), np.nan)
        if served is None:
            return nothing
        wanted = np.ones(len(arm), dtype=bool) if everything else arm == ARMS.index(name)
        if not wanted.any():
            return nothing
        try:
            made = served.score(table if wanted.all() else table.filter(wanted))
        except Exception as wrong:  # noqa: BLE001 - a model may raise anything; the client still gets an answer
            errors.append(f"{served.version}: {type(wrong).__name__}: {wrong}")
            return nothing
        if wanted.all():
            return made
        out = np.full((len(arm), *made.shape[1:]), np.nan)
        out[wanted] = made
        return out


def _asked(arm: Ints, index: int, everything: bool) -> Any:
    return np.ones(len(arm), dtype=bool) if everything else arm == index


def finite(score: Floats) -> Any:
    """(n,) which rows an arm has answered. Shapes: score (n,) or (n, k)."""
    return np.isfinite(score) if score.ndim == 1 else np.isfinite(score).all(axis=1)


def _pick(scores: Mapping[str, Floats], arm: Ints, constant: float) -> tuple[Floats, Any]:
    """The answer of each row's arm; control's where that failed; the constant where both did."""
    control, candidate = scores[CONTROL], scores[CANDIDATE]
    if control.ndim != candidate.ndim:
        wide = max(control.ndim, candidate.ndim)
        shape = (control if control.ndim == wide else candidate).shape
        control = control if control.ndim == wide else np.full(shape, np.nan)
        candidate = candidate if candidate.ndim == wide else np.full(shape, np.nan)
    chosen = arm == 1
    picked = np.where(chosen[:, None] if control.ndim == 2 else chosen, candidate, control)
    fallback = ~finite(picked)
    if fallback.any():
        picked = picked.copy()
        picked[fallback] = control[fallback]
        lost = ~finite(picked)
        picked[lost] = constant
    return picked, fallback
