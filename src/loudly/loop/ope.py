"""What another policy would have earned on the traffic of a rollout, told from its log: another arm for everybody, other shares, a
bandit that learns, or another version.

By weights (`loudly.stats.off_policy`): each answer carries the probability with which its arm gave it, so arms, shares and bandits
can be judged wherever chance chose. Answers that chance did not choose (of a shadow, of a canary's last step) tell nothing of the
others and are left out, which is told. A bandit learns from the rewards of the log, each when it was known, and not from those that
its own choices would have brought.

Directly: what a version says of every labelled row has its reward, whoever answered. That is right where the answer does not change
the label, and only there; it is said each time.

A reward is what the rollouts' bandits learn from (`loudly.loop.rewards`): `@app.reward`, or 1 minus the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from loudly.core.canon import finite, unit_draw
from loudly.core.clock import HOUR, iso
from loudly.core.late import late
from loudly.core.seams import Feedback, Floats, Ints, Strategy
from loudly.core.values import Arm, Evidence, Recorded
from loudly.deliver.rollout import RolloutSpec, parse_rollout
from loudly.errors import ConfigError, DataError, NotFound, RolloutError, nearest
from loudly.labels.book import LabelBook
from loudly.loop import traffic
from loudly.loop.host import Host
from loudly.loop.label_values import encode, known_labels
from loudly.loop.records import batches
from loudly.loop.rewards import rewards
from loudly.loop.serving import Ready, open_version
from loudly.loop.strategies import strategy_of
from loudly.loop.system import System
from loudly.serve.context import Context, fitted
from loudly.serve.replies import arm_names
from loudly.shift.estimate.labelled import sound
from loudly.stats.off_policy import Logged, dr, ips, snips
from loudly.store.segments import read_segments

ensemble: Any = late("sklearn.ensemble")

FEWEST, FEWEST_FOR_MODEL, FOLDS = 30, 500, 4
# A bandit learns at most so often: rewards of as long as that takes are learned together.
LESSONS = 400
LISTS = {"team-draft", "probabilistic"}
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Rewarded:
    """Labelled answers of a rollout. known: when each reward could be learned from (µs).  answered: with those without a label.

    rows: as logged, with the label, in the order in which they were answered.  unit: (n,) draws, the same for one unit.
    without: labelled answers that have no reward.
    """

    arms: tuple[Arm, ...]
    rows: pl.DataFrame
    at: Ints
    known: Ints
    reward: Floats
    unit: Floats
    answered: int
    without: int

    @property
    def arm(self) -> Ints:
        """(n,) who answered."""
        return self.rows["_arm"].to_numpy().astype(np.int64)

    @property
    def propensity(self) -> Floats:
        """(n,) with which probability."""
        return np.asarray(self.rows["_propensity"].to_numpy(), dtype=np.float64)

    def where(self, keep: Any) -> Rewarded:
        """A part of it."""
        parts = (self.at[keep], self.known[keep], self.reward[keep], self.unit[keep])
        return Rewarded(self.arms, self.rows.filter(keep), *parts, self.answered, self.without)


@dataclass(frozen=True, slots=True)
class Estimated:
    """What is told of a policy: by several methods, and what to hold against it (LOUD lines)."""

    policy: str
    evidence: tuple[Evidence, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """The estimates for a rollout. earned: what its own policy earned.  left_out: labelled answers that chance did not choose.

    warnings: LOUD lines that concern every policy.
    """

    rollout: str
    arms: tuple[Arm, ...]
    answered: int
    labelled: int
    left_out: int
    earned: Evidence
    policies: tuple[Estimated, ...]
    warnings: tuple[str, ...] = ()


def off_policy(
    live: Host, folder: Path, policies: Sequence[str] = (), rollout: int | None = None, progress: Progress = lambda rows: None
) -> Told:
    """Estimates for policies: an arm ("control", "candidate", a version), shares ("80% 20%"), a bandit ("thompson for 14d"), or any
    other version. Each arm for everybody where none is named.

    folder: of the traffic log.  rollout: where it started in the ledger; the newest by default.  progress: is told rows read.
    Cost: one pass over the log; a model of the rewards is fitted four times.
    Raises: RolloutError without a rollout, or for one of lists, DataError where too few answers have a label, ConfigError for a
    policy that is none.
    """
    begun = _started(live, rollout)
    if LISTS & set(begun.event.data["stages"]):  # type: ignore[arg-type]
        raise RolloutError("Its answers were lists of all arms' together, and no arm gave one alone.", do="Name another --rollout.")
    known = _arms(begun)
    control = _opened(live, known[0].version)
    past = _gathered(live, folder, begun.position, known, control, progress)
    chance = past.propensity < 1.0
    drawn = past.where(chance) if chance.sum() >= FEWEST else None
    model = _Model.of(drawn, control) if drawn is not None and drawn.rows.height >= FEWEST_FOR_MODEL else None
    wanted = policies or [arm.name for arm in known]
    made = tuple(_estimated(live, past, drawn, model, control, text) for text in wanted)
    left = past.rows.height - int(chance.sum())
    lost = f"LOUD: {past.without:,} labelled answers have no reward (a class that is not known, or no number); they are left out"
    told = (lost,) if past.without else ()
    return Told(f"{begun.position}", known, past.answered, past.rows.height, left, _mean("as logged", past.reward), made, told)


def _started(live: Host, rollout: int | None) -> Recorded:
    """The record of the rollout that is asked about. Raises: RolloutError, NotFound."""
    found = [r for r in live.stores.ledger.read() if r.event.kind == "rollout_started"]
    if not found:
        raise RolloutError("There was no rollout, so nothing but the champion has answered.", do="Run `loudly ship` first.")
    if rollout is None:
        return found[-1]
    for recorded in found:
        if recorded.position == rollout:
            return recorded
    seen = ", ".join(f"{r.position} ({r.event.data['version']}, {iso(r.event.at)})" for r in found)
    raise NotFound(f"No rollout started at position {rollout} of the ledger.", seen=seen)


def _arms(begun: Recorded) -> tuple[Arm, ...]:
    data: Mapping[str, Any] = begun.event.data
    versions = (data["champion"], data["version"], *data.get("others", ()))
    return tuple(Arm(name, version) for name, version in zip(arm_names(len(versions)), versions, strict=True))


def _opened(live: Host, version: str) -> Ready:
    parts = live.stores
    return open_version(live.state.versions[version], live.system.features, parts.blobs, parts.formats, True, parts.fast)


def _gathered(live: Host, folder: Path, started: int, arms: tuple[Arm, ...], control: Ready, progress: Progress) -> Rewarded:
    """The labelled answers of a rollout, with their rewards. Raises: DataError where these are too few."""
    system = live.system
    book = LabelBook(system.key, system.label, system.labels.keep)
    answered, seen, strange, joined = 0, 0, 0, []
    for kind, _, table in batches(live, read_segments(folder) if folder.exists() else ()):
        if table.is_empty():
            continue
        if kind == "predictions":
            seen += table.height
            progress(seen)
            mine = table.filter(pl.col("_rollout") == started)
            answered += mine.height
            book.predicted(mine, mine["_at"])
        elif kind == "labels":
            known = known_labels(table[system.label], control.classes, control.schema)
            strange += int(book.expects(table.filter(~known)[system.key]).sum())
            arrival = book.arrived(table.filter(known), int(table["_at"][-1]))
            if arrival.joined.height:
                joined.append(arrival.joined.with_columns(pl.Series("_known", arrival.joined["_at"].to_numpy() + arrival.lateness)))
    rows = pl.concat(joined, how="diagonal_relaxed").sort("_at", maintain_order=True) if joined else pl.DataFrame()
    has = np.zeros(0, dtype=bool)
    if rows.height:
        reward, has = _rewards(system, control, rows, traffic.column(rows, "_answer"))
    if has.sum() < FEWEST:
        seen_ = f"{rows.height + strange:,} of {answered:,} answers have a label, {has.sum():,} of them a reward"
        do = f"{FEWEST} are the least: send labels, and ask again."
        raise DataError(f"The rollout that started at {started} cannot be judged.", seen=seen_, do=do)
    rows = rows.filter(has)
    ripe = np.maximum(rows["_known"].to_numpy(), rows["_at"].to_numpy() + system.labels.arrive_within)
    unit = np.array([unit_draw(str(key), "fold") for key in rows[system.key]])
    return Rewarded(arms, rows, rows["_at"].to_numpy(), ripe, reward, unit, answered, strange + int((~has).sum()))


def _rewards(system: System, control: Ready, rows: pl.DataFrame, answers: Floats) -> tuple[Floats, Any]:
    """The rewards of the rows that have one, and (n,) which these are: an answer that is no number earns nothing that is known."""
    truth, has = encode(rows[system.label], control.classes), sound(answers)
    kept = rows.filter(has)
    return (rewards(system, control.task, kept, answers[has], truth[has]) if kept.height else np.zeros(0)), has


def _estimated(live: Host, past: Rewarded, drawn: Rewarded | None, model: _Model | None, control: Ready, text: str) -> Estimated:
    """A policy, by all methods that can judge it."""
    version = _version(live, past.arms, text)
    target = _target(live, past.arms, drawn, control, text, version)
    evidence: list[Evidence] = []
    warnings: list[str] = []
    if target is not None and drawn is not None:
        log = Logged(drawn.reward, drawn.propensity, target[np.arange(len(drawn.arm)), drawn.arm])
        evidence += [ips(log), snips(log)]
        if model is not None:
            evidence.append(dr(log, (target * model.each).sum(axis=1), model.each[np.arange(len(drawn.arm)), drawn.arm]))
        warnings += [str(said) for said in evidence[0].detail["warnings"]]  # type: ignore[union-attr]
        repeated = len(drawn.unit) - len(np.unique(drawn.unit))
        if repeated:
            warnings.append(f"LOUD: {repeated:,} of {len(drawn.unit):,} answers are of units that came before; each counts as one")
    elif target is not None:
        warnings.append("LOUD: chance chose too few of the answers; by weights nothing can be told of other arms")
    if version is not None:
        direct, said = _direct(live, past, control, version)
        evidence += direct
        warnings += said
    return Estimated(text, tuple(evidence), tuple(warnings))


def _version(live: Host, arms: Sequence[Arm], text: str) -> str | None:
    """The version that a policy asks for everybody: of an arm, or by its name. None for shares and bandits."""
    named = {arm.name: arm.version for arm in arms}
    ref = named.get(text, text if "/" in text else f"{live.system.name}/{text}")
    return ref if ref in live.state.versions else None


def _target(
    live: Host, arms: tuple[Arm, ...], drawn: Rewarded | None, control: Ready, text: str, version: str | None
) -> Floats | None:
    """(n, k) probability of each arm under the policy; None for a version that is no arm. Raises: ConfigError."""
    n = len(drawn.at) if drawn is not None else 0
    if version is not None:
        mine = [arm.version == version for arm in arms]
        return np.tile(np.array(mine, dtype=np.float64), (n, 1)) if any(mine) else None
    shares = _shares(text)
    if shares is not None:
        if len(shares) != len(arms) or abs(sum(shares) - 1) > 1e-6:
            seen = f"{text!r}, for {len(arms)} arms: {', '.join(arm.name for arm in arms)}"
            raise ConfigError("Shares are one for each arm, and 100 % together.", seen=seen, do='e.g. "80% 20%"')
        return np.tile(np.array(shares), (n, 1))
    names = [*(arm.name for arm in arms), *live.state.versions]
    if " " not in text:
        raise ConfigError(f"There is no arm and no version {text!r}.", do=nearest(text, names))
    spec = parse_rollout(text)
    if not spec.bandit:
        raise ConfigError("Of strategies a bandit alone is a policy of shares.", seen=text, do='e.g. "thompson for 14d"')
    return _learned(live, spec, drawn, control) if drawn is not None else np.zeros((0, len(arms)))


def _shares(text: str) -> list[float] | None:
    """Shares as said, "80% 20%" or "80/20"; None for what is none."""
    parts = text.replace("/", " ").replace(",", " ").replace("%", " ").split()
    try:
        return [float(part) / 100 for part in parts] if len(parts) > 1 else None
    except ValueError:
        return None


def _learned(live: Host, spec: RolloutSpec, drawn: Rewarded, control: Ready) -> Floats:
    """(n, k) shares that a bandit would have had when each answer was given."""
    context = _context(live, spec, control)
    seen = context.of(drawn.rows) if context is not None else None
    strategy: Strategy = strategy_of(live.system, spec, control.task, context.features if context is not None else 0)
    first, last = int(drawn.at[0]), int(max(drawn.at[-1], drawn.known.max()))
    step = max(HOUR, (last - first) // LESSONS)
    state, taught = strategy.init(drawn.arms, first), np.zeros(len(drawn.at), dtype=bool)
    made = np.empty((len(drawn.at), len(drawn.arms)))
    lesson, given = (drawn.known - first) // step, (drawn.at - first) // step
    for number in np.unique(given).tolist():
        fresh = np.flatnonzero(~taught & (lesson < number))
        if len(fresh):
            fresh = fresh[np.argsort(drawn.known[fresh], kind="stable")]
            state, _ = strategy.update(state, _lesson(live, drawn, fresh, first + number * step, seen))
            taught[fresh] = True
        now = np.flatnonzero(given == number)
        made[now] = strategy.shares(state, seen[now] if seen is not None else None)
    return made


def _context(live: Host, spec: RolloutSpec, control: Ready) -> Context | None:
    if not spec.contextual:
        return None
    return fitted(spec.columns, control.schema, live.retraining.reference(), constant=True)


def _lesson(live: Host, drawn: Rewarded, rows: Ints, at: int, seen: Floats | None) -> Feedback:
    arm, at_of = drawn.arm[rows], drawn.rows[live.system.time].cast(pl.Date).cast(pl.Int32).to_numpy()[rows]
    return Feedback(
        at=at,
        units=[str(n) for n in rows.tolist()],
        arm=arm,
        truth=np.zeros(len(rows)),
        scores={},
        slices={},
        days=at_of.astype(np.int64),
        reward=drawn.reward[rows],
        propensity=drawn.propensity[rows],
        context=seen[rows] if seen is not None else None,
    )


@dataclass(frozen=True, slots=True)
class _Model:
    """What a model of the rewards foresees. each: (n, k) of every arm for every row, by a model that has not seen its unit."""

    each: Floats

    @staticmethod
    def of(drawn: Rewarded, control: Ready) -> _Model:
        """Boosted trees on the champion's features and the arm, fitted on three parts of the units and asked of the fourth."""
        X: Any = np.asarray(control.features.matrix(drawn.rows), dtype=np.float64)
        fold, arm, k = (drawn.unit * FOLDS).astype(np.int64), drawn.arm, len(drawn.arms)
        each = np.empty((len(X), k))
        for number in range(FOLDS):
            own = fold == number
            if not own.any() or own.all():
                each[own] = drawn.reward.mean()
                continue
            trees = ensemble.HistGradientBoostingRegressor(max_iter=60, max_depth=3, early_stopping=False, random_state=0)
            trees.fit(np.column_stack([arm[~own], X[~own]]), drawn.reward[~own])
            for one in range(k):
                each[own, one] = trees.predict(np.column_stack([np.full(own.sum(), one), X[own]]))
        return _Model(each)


def _direct(live: Host, past: Rewarded, control: Ready, version: str) -> tuple[list[Evidence], list[str]]:
    """What a version's own answers to all labelled rows would have earned, and what to hold against it."""
    ready = _opened(live, version)
    if (ready.task, ready.classes) != (control.task, control.classes):
        raise DataError(f"{version} answers otherwise than the control.", seen=f"{ready.task} {', '.join(ready.classes)}")
    lacking = [name for name in ready.features.inputs if name not in past.rows.columns]
    if lacking:
        return [], [f"LOUD: the log has no {', '.join(lacking)}, which {version} reads; `direct` cannot be told"]
    answers = np.asarray(ready.predict(past.rows), dtype=np.float64)
    reward, has = _rewards(live.system, control, past.rows, answers)
    told = ["LOUD: `direct` takes it that the answer does not change the label"]
    if not has.all():
        told.append(f"LOUD: {version} has no number for {(~has).sum():,} of {len(has):,} rows; `direct` leaves them out")
    return ([_mean("direct", reward)] if len(reward) else []), told


def _mean(method: str, reward: Floats) -> Evidence:
    """A mean with its interval, rows taken as independent."""
    n, value = len(reward), float(reward.mean())
    reach = 1.96 * float(reward.std(ddof=1)) / np.sqrt(n) if n > 1 else float("inf")
    return Evidence(method, finite(value), finite(value - reach), finite(value + reach), n, "the target policy", "reward")
