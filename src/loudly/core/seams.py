"""Every seam of loudly on one page: what a replaceable part must be able to do.

Parts are found by name in `plugins.py`; each kind has conformance tests in `loudly.testing` for any third party.
Arrays are numpy, tables are polars; neither is imported here (`arrays.pyi`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Protocol, TypeVar

from loudly.core.arrays import Flags, Table
from loudly.core.arrays import Floats as Floats
from loudly.core.arrays import Ints as Ints
from loudly.core.canon import Json
from loudly.core.values import Arm, Event, Evidence, ModelVersion, Recorded, Run, Verdict

A = TypeVar("A")
B = TypeVar("B")


class Clock(Protocol):
    """Event time in µs."""

    def now(self) -> int: ...


class Ledger(Protocol):
    """The append-only, hash-chained log of everything that was decided or observed.

    `append` is all or nothing and durable on return; it raises StaleWriter unless `after` is the position of the
    last event, so two writers never interleave. It returns the new last position. After `close` another may open it.
    """

    def append(self, events: Sequence[Event], after: int) -> int: ...

    def read(self, after: int = 0) -> Iterator[Recorded]: ...

    def close(self) -> None: ...


class Blobs(Protocol):
    """Immutable bytes under their SHA-256. `put` of known bytes is free; `open` verifies and raises DatasetCorrupt."""

    def put(self, data: bytes) -> str: ...

    def open(self, digest: str) -> BinaryIO: ...

    def has(self, digest: str) -> bool: ...

    def delete(self, digest: str) -> None: ...

    def iterate(self) -> Iterator[str]: ...


class Executor(Protocol):
    """Where independent work runs: here, processes, Ray. Results come in the order of the items.

    workers: how many items are worked on side by side; a search asks for as many points at once, so its result goes by it.
    `map` raises the error of the first item that failed, as what it is, and ExecutorError where the work cannot travel or a
    worker ended in the middle of it; the next `map` works. Work may be any function, also one of the user's file, of a notebook or
    of another function; what it returns is of the parent's own classes. What it changes outside of itself its worker alone sees.
    `close` gives the workers back, also from work that they are at; a later `map` starts them again.
    """

    @property
    def workers(self) -> int: ...

    def map(self, work: Callable[[A], B], items: Iterable[A]) -> list[B]: ...

    def close(self) -> None: ...


class Model(Protocol):
    """A loaded model. `X` is (n, d) float64 with NaN for missing.

    Returns (n,) for binary (probability of the positive class) and regression, (n, k) for multiclass.
    """

    def predict(self, X: Floats) -> Floats: ...


@dataclass(frozen=True, slots=True)
class Contributions:
    """What each column contributed to scores: base + the sum over columns = score, in a space.

    A loaded model that knows it has `contributions(X, background) -> Contributions | None`: X (n, d), background (m, d).
    method: "tree-shap" or "linear".  space: "log-odds" (the logistic function makes the prediction of it), "logits" (softmax)
    or "output" (it is the prediction).  base: (k,), or (n, k) where each row has a base of its own.  parts: (n, d, k).
    """

    method: str
    space: str
    base: Floats
    parts: Floats

    @property
    def score(self) -> Floats:
        """What base and parts add up to. Shapes: (n, k)."""
        made: Floats = self.base + self.parts.sum(axis=1)
        return made


class ModelFormat(Protocol):
    """How fitted estimators become bytes and back. `executes_code` says whether loading could run code."""

    @property
    def name(self) -> str: ...

    @property
    def executes_code(self) -> bool: ...

    def accepts(self, fitted: object) -> bool: ...

    def dump(self, fitted: object) -> bytes: ...

    def load(self, data: bytes) -> Model: ...

    def restore(self, data: bytes) -> object: ...


class FastForm(Protocol):
    """A quicker form of a fitted model: the same function on another engine. It is held against the original before it serves.

    `runs` names the model format that reads its bytes, or "" where the form itself must load them. `compile` raises ModelError
    for what it cannot say; `width` is the number of columns. `cuts` are the (column, threshold) where the model jumps.
    """

    @property
    def name(self) -> str: ...

    @property
    def runs(self) -> str: ...

    def accepts(self, fitted: object) -> bool: ...

    def compile(self, fitted: object, width: int) -> bytes: ...

    def cuts(self, fitted: object) -> Sequence[tuple[int, float]]: ...

    def load(self, data: bytes) -> Model: ...


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who answers a batch of units. Index arrays point into `arms`.

    arm: (n,) the answering arm.  propensity: (n,) its probability, as logged.
    shadows: names of arms that also score every row, unseen by the client.
    share: (n,) of the units, how many take part in what is judged, and 0 where this one does not; None where all do.
    """

    arm: Ints
    propensity: Floats
    shadows: tuple[str, ...] = ()
    share: Floats | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """Labelled rows of a rollout, in order of arrival, with what every arm scored for each row.

    units: who was served.  arm: (n,) who answered.  truth: (n,).  scores: arm name -> (n,) or (n, k), NaN where that
    arm did not score.  slices: slice name -> (n,) membership.  at: event time of the arrival, µs.  days: (n,) the
    event-time day that each row is of, or one for all; none where that is the day of arrival (rows of one day are not independent,
    so days are counted too).
    ripe: these rows came before; now they are so old that labels of all kinds have had their time, and count for a promotion.
    awaited: rows of the rollout that have no label yet, younger than that time and older; None where nobody counts them.
    For bandits: reward: (n,) in [0, 1], what came of each answer.  propensity: (n,) as logged when it was given.
    context: (n, d) as it was then. None where a strategy has no use for it.
    share: (n,) as it was assigned; None where all units took part.
    """

    at: int
    units: Sequence[str]
    arm: Ints
    truth: Floats
    scores: Mapping[str, Floats]
    slices: Mapping[str, Flags]
    days: Sequence[int] | Ints = ()
    reward: Floats | None = None
    propensity: Floats | None = None
    context: Floats | None = None
    ripe: bool = False
    awaited: tuple[int, int] | None = None
    share: Floats | None = None

    def take(self, kept: Flags) -> Feedback:
        """Some of the rows. Shapes: kept (n,)."""

        def some(values: Floats | None) -> Floats | None:
            return None if values is None else values[kept]

        return replace(
            self,
            units=[unit for unit, stays in zip(self.units, kept.tolist(), strict=True) if stays],
            arm=self.arm[kept],
            truth=self.truth[kept],
            scores={arm: score[kept] for arm, score in self.scores.items()},
            slices={name: inside[kept] for name, inside in self.slices.items()},
            reward=some(self.reward),
            propensity=some(self.propensity),
            context=some(self.context),
            share=some(self.share),
            days=self.days if len(self.days) < 2 else [day for day, stays in zip(self.days, kept, strict=True) if stays],
        )


@dataclass(frozen=True, slots=True)
class Calls:
    """What a strategy counts of answers, by arm. answered: how many each gave.  failed: units, each once a rollout, and of one
    call at most one: requests come in bursts.  seconds: what its call took; nothing in a replay, where time is the data's.

    part: of all units, that takes part in what is judged; the others are control's.
    """

    answered: Mapping[str, int]
    failed: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    part: float = 1.0

    def among(self, arms: Mapping[str, str]) -> Calls:
        """Those of some arms, under other names. arms: other name -> name."""

        def some(counts: Mapping[str, Any]) -> dict[str, Any]:
            return {ours: counts[theirs] for ours, theirs in arms.items() if theirs in counts}

        return replace(self, answered=some(self.answered), failed=some(self.failed), seconds=some(self.seconds))


class Strategy(Protocol):
    """Who answers, and for how long. The state is plain JSON data: resumable, replayable, printable.

    `draws` are (n,) numbers in [0, 1) that depend on unit and rollout alone, so units are sticky. `context` is (n, d), what is
    known of each unit, for strategies that choose by it; the others do not look at it.
    `shares` are (k,) of the arms among all units as of now, or (n, k) where they go by the context; empty where none can be told.
    `advance` is told the time; it may move to the next step. `update` folds labelled feedback in, `observe` counts of answers.
    All return the verdict as of now: PASS promotes, FAIL rolls back, UNDECIDED goes on. Where there are several candidates, the
    first evidence of a PASS is about the arm that wins, by its name.
    `carry` hands on the evidence of the stage before.
    """

    @property
    def name(self) -> str: ...

    def init(self, arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None = None) -> dict[str, Any]: ...

    def assign(self, state: Mapping[str, Any], draws: Floats, context: Floats | None = None) -> Assignment: ...

    def shares(self, state: Mapping[str, Any], context: Floats | None = None) -> Floats: ...

    def update(self, state: Mapping[str, Any], feedback: Feedback) -> tuple[dict[str, Any], Verdict]: ...

    def observe(self, state: Mapping[str, Any], calls: Calls) -> tuple[dict[str, Any], Verdict]: ...

    def advance(self, state: Mapping[str, Any], at: int) -> tuple[dict[str, Any], Verdict]: ...


@dataclass(frozen=True, slots=True)
class Merged:
    """One list of several rankings. place: (n,) of each row, from 0.  arm: (n,) index of the arm that has placed it there.

    propensity: (n,) of that arm to place that row there, given what stands above it, as logged.
    """

    place: Ints
    arm: Ints
    propensity: Floats


class Merging(Protocol):
    """A strategy that answers by all arms at once: rows of one group are a list, and each arm has ranked it.

    group: the column that names the list.  merge: scores are (n,) of each arm, high ones first; the same unit and salt give the
    same list in the same state, on every worker and after a restart. None where an arm that takes part lacks a score.
    """

    @property
    def group(self) -> str: ...

    def merge(self, state: Mapping[str, Any], scores: Sequence[Floats], unit: str, salt: str) -> Merged | None: ...


class Detector(Protocol):
    """Turns a reference and a window into Evidence. The state is plain data."""

    @property
    def name(self) -> str: ...

    def init(self, reference: Any) -> Any: ...

    def update(self, state: Any, window: Any) -> tuple[Any, Evidence]: ...


class Check(Protocol):
    """A judgment on a table."""

    def __call__(self, table: Table) -> Verdict: ...


class Metric(Protocol):
    """A number for (truth, prediction, weight); all (n,), prediction (n, k) for multiclass scores."""

    def __call__(self, truth: Floats, prediction: Floats, weight: Floats | None = None) -> float: ...


class Search(Protocol):
    """A hyper-parameter search: ask for a point, tell its loss (lower is better).

    Several points may be open at once, equal ones too: these are reported and told in the order in which they were asked for.
    A loss that is no number (NaN, infinity) is a point that failed. After a `report` that answered True the point is told
    once more, with the last loss it reported, and counts as stopped.
    """

    def start_from(self, params: Mapping[str, Json]) -> None:
        """A point to ask before all others, such as the champion's; what it leaves open the search fills in.

        A point that does not lie in the space is left out.
        """
        ...

    def ask(self) -> dict[str, Json]: ...

    def tell(self, params: Mapping[str, Json], loss: float) -> None: ...

    def report(self, params: Mapping[str, Json], step: int, loss: float) -> bool:
        """Intermediate loss; True means: stop this point here (pruned)."""
        ...


class Tracker(Protocol):
    """An outside mirror of runs and versions (MLflow). The ledger stays the truth; a mirror can be rebuilt from it."""

    def ran(self, run: Run, curves: Mapping[str, Sequence[float]]) -> None: ...

    def registered(self, version: ModelVersion, run: Run, model: bytes, context: Mapping[str, Json]) -> None: ...

    def aliased(self, name: str, alias: str, version: ModelVersion | None) -> None: ...

    def flush(self) -> None: ...


class Notify(Protocol):
    """Where alarms go: terminal, webhook, file."""

    def __call__(self, verdict: Verdict) -> None: ...
