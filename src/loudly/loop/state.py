"""What is true: a fold over what happened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from loudly.core.values import Dataset, Decision, ModelVersion, Recorded, dataset_of, version_of
from loudly.metrics.table import Rate


@dataclass(frozen=True, slots=True)
class RolloutState:
    """A rollout as the ledger tells it: `started` is its position and names it.

    others: candidates beside `version`. context: what its stage chooses by, as it was when the stage began. labels: how late they
    come, as it was known when the first stage began that asks. dropped: versions that have left it, and the verdict that says
    why. strategy: of the stage. scale: by which margins of rmse or r2 are margins of mse, and rates: by which F1 and its like
    begin as means over rows (`metrics.table.by_rows`), both as known at the start. step: which of its growing shares it has come
    to, and since when.
    """

    version: str
    started: int
    at: int
    stage: int
    stage_at: int
    others: tuple[str, ...] = ()
    context: Mapping[str, Any] | None = None
    labels: Mapping[str, Any] | None = None
    dropped: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    strategy: str = ""
    step: int = 0
    step_at: int = 0
    scale: float | None = None
    rates: tuple[Rate, ...] = ()


@dataclass(frozen=True, slots=True)
class Promotion:
    """A promotion by a rollout, as it was then, whose labels have not all come yet: who against whom, and since when."""

    version: str
    previous: str
    rollout: RolloutState
    at: int


@dataclass(frozen=True, slots=True)
class CatchingUp:
    """A restart whose past is not folded yet: since when (µs), and why it is folded no further, or ""."""

    since: int
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """The wheel as of a position of the ledger.

    `versions` by ref; `held`: causes of alarms that are held back, and why in one word; `evidence` maps a version to the positions
    of the events that speak about it; `forgetting`: subjects that somebody asked to forget and that are not erased yet, and
    whether old training data of theirs goes too; `passed`: versions that have passed their gate and that no traffic has judged yet,
    the newest last; `expected`: what held-out rows have shown of a version, by metric; `loaded`: versions that answer whoever names
    them, beside the routing.
    """

    position: int = 0
    chain: str = ""
    now: int = 0
    dataset: Dataset | None = None
    key_predictors: tuple[Mapping[str, Any], ...] = ()
    versions: Mapping[str, ModelVersion] = field(default_factory=dict)
    champion: str | None = None
    champion_since: int = 0
    previous: str | None = None
    fitted_at: Mapping[str, int] = field(default_factory=dict)
    trained_rows: Mapping[str, int] = field(default_factory=dict)
    expected: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    refits: tuple[int, ...] = ()
    rollout: RolloutState | None = None
    confirming: Promotion | None = None
    alarms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)
    evidence: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    killed: bool = False
    forgetting: Mapping[str, bool] = field(default_factory=dict)
    passed: tuple[str, ...] = ()
    loaded: tuple[str, ...] = ()
    catching_up: CatchingUp | None = None

    def expects(self, ref: str | None, metric: str) -> float | None:
        """What the held-out rows of a version led to expect of it, by that metric; None where they could not tell."""
        return self.expected.get(ref or "", {}).get(metric)


def fold(state: State, recorded: Recorded) -> State:
    """One more event. Unknown kinds only move the position: an old program reads a newer ledger."""
    event, data = recorded.event, recorded.event.data
    state = replace(state, position=recorded.position, chain=recorded.chain, now=max(state.now, event.at))
    about = _about(data)
    if about:
        seen = {version: (*state.evidence.get(version, ()), recorded.position) for version in about}
        state = replace(state, evidence={**state.evidence, **seen})
    change = _CHANGES.get(event.kind)
    return state if change is None else change(state, recorded, data)


def _about(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The versions that an event speaks about."""
    version, others = data.get("version"), data.get("others", ())
    return (version, *others) if isinstance(version, str) else ()


def fold_all(events: Iterable[Recorded], start: State | None = None) -> State:
    """The state after all events."""
    state = start or State()
    for recorded in events:
        state = fold(state, recorded)
    return state


def _dataset_versioned(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    return replace(state, dataset=dataset_of(data["dataset"]))


def _schema_frozen(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    return replace(state, key_predictors=tuple(data.get("key_predictors", ())))


def _run_finished(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    run = data["run"]
    refits = state.refits if data.get("recipe") else (*state.refits, recorded.event.at)
    return replace(state, runs={**state.runs, run["key"]: run}, refits=refits)


def _version_registered(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    version = version_of(data["model_version"])
    measured = state.runs.get(version.run, {}).get("metrics", {})
    return replace(
        state,
        versions={**state.versions, version.ref: version},
        fitted_at={**state.fitted_at, version.ref: data["fitted_at"]},
        trained_rows={**state.trained_rows, version.ref: data["trained_rows"]},
        expected={**state.expected, version.ref: {**measured, data["metric"]: data["expected"]}},
    )


def _rollout_started(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    at = recorded.event.at
    rates = tuple((share, said, value) for share, said, value in data.get("rates", ()))
    others, scale = tuple(data.get("others", ())), data.get("scale")
    begun = RolloutState(data["version"], recorded.position, at, 0, at, others, scale=scale, rates=rates)
    return replace(state, rollout=begun)


def _stage_started(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    if state.rollout is None:
        return state
    told = {"context": data.get("context"), "labels": data.get("labels", state.rollout.labels)}
    begun = {"stage": data["stage"], "stage_at": recorded.event.at, "strategy": data.get("strategy", ""), "step": 0}
    return replace(state, rollout=replace(state.rollout, **begun, **told))


def _share_grown(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    if state.rollout is None:
        return state
    return replace(state, rollout=replace(state.rollout, step=data["step"], step_at=recorded.event.at))


def _arm_dropped(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    if state.rollout is None:
        return state
    dropped = {**state.rollout.dropped, data["version"]: data["verdict"]}
    return replace(_judged(state, data), rollout=replace(state.rollout, dropped=dropped))


def _gate_judged(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    if data["verdict"]["decision"] != Decision.PASS:
        return _judged(state, data)
    return replace(state, passed=(*state.passed, data["version"]))


def _artefact_queried(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    return state if data["verdict"]["decision"] == Decision.PASS else _judged(state, data)


def _judged(state: State, data: Mapping[str, Any]) -> State:
    """Traffic has judged versions, or their gate has refused them: they wait no more."""
    return replace(state, passed=tuple(ref for ref in state.passed if ref not in _about(data)))


def _rolled_back(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    return replace(_judged(state, data), rollout=None)


def _champion_changed(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    rollout, previous = state.rollout, state.champion
    confirming = None
    if rollout is not None and previous is not None and data["version"] in (rollout.version, *rollout.others):
        confirming = Promotion(data["version"], previous, rollout, recorded.event.at)
    return replace(
        _judged(state, data),
        confirming=confirming,
        champion=data["version"],
        previous=state.champion,
        champion_since=recorded.event.at,
        rollout=None,
        held={},
    )


def _promotion_confirmed(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    return replace(state, confirming=None)


def _alarm_raised(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    alarm = {**data, "position": recorded.position, "at": recorded.event.at}
    held = {k: v for k, v in state.held.items() if k != data["cause"]}
    return replace(state, alarms={**state.alarms, data["cause"]: alarm}, held=held)


def _alarm_cleared(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    cause = data["cause"]
    alarms = {k: v for k, v in state.alarms.items() if k != cause}
    return replace(state, alarms=alarms, held={k: v for k, v in state.held.items() if k != cause})


def _alarms_muted(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    return replace(state, held={**state.held, **data.get("kinds", {})})


def _kill_switch_set(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    return replace(state, killed=bool(data["on"]))


def _subject_forgotten(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    return replace(state, forgetting={**state.forgetting, data["subject"]: bool(data["purge"])})


def _subject_erased(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    return replace(state, forgetting={k: v for k, v in state.forgetting.items() if k != data["subject"]})


def _version_loaded(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    return replace(state, loaded=(*(v for v in state.loaded if v != data["version"]), data["version"]))


def _version_unloaded(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    return replace(state, loaded=tuple(v for v in state.loaded if v != data["version"]))


def _catch_up_begun(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    return replace(state, catching_up=CatchingUp(recorded.event.at))


def _catch_up_stopped(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    since = state.catching_up.since if state.catching_up is not None else recorded.event.at
    return replace(state, catching_up=CatchingUp(since, data["reason"]))


def _caught_up(state: State, recorded: Recorded, data: Mapping[str, Any]) -> State:
    return replace(state, catching_up=None)


_CHANGES = {
    "dataset_versioned": _dataset_versioned,
    "schema_frozen": _schema_frozen,
    "run_finished": _run_finished,
    "version_registered": _version_registered,
    "gate_judged": _gate_judged,
    "artefact_queried": _artefact_queried,
    "rollout_started": _rollout_started,
    "stage_started": _stage_started,
    "share_grown": _share_grown,
    "arm_dropped": _arm_dropped,
    "version_rolled_back": _rolled_back,
    "champion_changed": _champion_changed,
    "promotion_confirmed": _promotion_confirmed,
    "alarm_raised": _alarm_raised,
    "alarm_cleared": _alarm_cleared,
    "alarms_muted": _alarms_muted,
    "kill_switch_set": _kill_switch_set,
    "subject_forgotten": _subject_forgotten,
    "subject_erased": _subject_erased,
    "version_loaded": _version_loaded,
    "version_unloaded": _version_unloaded,
    "catch_up_begun": _catch_up_begun,
    "catch_up_stopped": _catch_up_stopped,
    "caught_up": _caught_up,
}
