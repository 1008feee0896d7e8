"""The arms of the rollout that runs: who they are, how rows are routed to them, and which one has won."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import polars as pl

from loudly.core.canon import Json, finite
from loudly.core.clock import span
from loudly.core.values import Arm, Event
from loudly.deliver.rollout import RolloutSpec
from loudly.errors import RolloutError
from loudly.loop.host import Host
from loudly.loop.label_values import encode
from loudly.loop.state import RolloutState
from loudly.loop.strategies import merging_of, ranked
from loudly.loop.system import System
from loudly.metrics.table import RATED, SCALED, Rate, in_traffic, rates_of
from loudly.serve.context import Context, check_columns, context_of, fitted
from loudly.serve.replies import Served, arm_names
from loudly.serve.router import Routing

# Of the training, for the shares of classes.
MOST_ROWS = 20_000


def beside(live: Host, version: str, named: Sequence[str]) -> tuple[str, ...]:
    """The further candidates of a rollout that begins: those named, or else the newest that have passed their gate.

    As many as the stages ask for; only versions newer than the champion, which no traffic has judged.
    Raises: RolloutError for a version that cannot take part.
    """
    state, wanted = live.state, live.system.room
    since = state.versions[state.champion].number if state.champion is not None else 0
    free = [ref for ref in reversed(state.passed) if ref != version and state.versions[ref].number > since]
    for ref in named:
        if ref not in free:
            seen = f"free: {', '.join(free) or 'none'}"
            raise RolloutError(f"{ref} cannot take part: it has not passed its gate, or was judged before.", seen=seen)
    if len(named) > wanted:
        raise RolloutError(
            f"The rollout has {wanted + 2} arms.", seen=f"{2 + len(named)} versions", do='Say "ab among N", or "thompson among N".'
        )
    return tuple(named or islice((ref for ref in free if not unlike(live, ref)), wanted))


def unlike(live: Host, version: str) -> str:
    """Why the scores of a version cannot be held against the champion's, row by row; empty where they can, or need not be."""
    if live.state.champion is None or not live.system.rollout:
        return ""
    live.adopt(version)
    ours, theirs = live.ready[live.state.champion], live.ready[version]
    if (ours.task, ours.classes) == (theirs.task, theirs.classes):
        return ""
    told = (f"{ready.task} of {', '.join(ready.classes)}" if ready.classes else str(ready.task) for ready in (theirs, ours))
    return " is not ".join(told)


def beginning(live: Host, version: str, named: Sequence[str], reason: str) -> tuple[Event, ...]:
    """What the ledger is told when a rollout begins: what it promises less than was asked for, and how it will go.

    named: as of `beside`. Whatever could refuse a rollout does so before it begins: artefacts, and columns to go by.
    """
    others, rates, now = beside(live, version, named), rates_now(live), live.clock.now()
    for one in (version, *others):
        if why := unlike(live, one):
            do = "Without a `rollout` in the system it becomes champion at once."
            raise RolloutError(f"No rollout can hold {one} against the champion: {why}.", do=do)
    for spec in live.system.rollout:
        check_columns(spec.columns, live.ready[live.state.champion or ""].schema)
        if spec.interleaves:
            ranked(live.system, live.ready[live.state.champion or ""].task)
    said: dict[str, Json] = {"version": version, "champion": live.state.champion, "reason": reason}
    said["stages"] = [spec.strategy for spec in live.system.rollout]
    if others:
        said["others"] = list(others)
    if (scale := scale_of(live)) is not None:
        said["scale"] = scale
    if rates:
        said["rates"] = [list(rate) for rate in rates]
    weakened = weaknesses(live, len(others) + 2, bool(rates))
    less = [Event("guarantee_weakened", now, {"version": version, "what": what, "reason": why}) for what, why in weakened]
    return (*less, Event("rollout_started", now, said))


def scale_of(live: Host) -> float | None:
    """By which a margin of the system's metric is one of what is followed in traffic; None where they are the same."""
    if live.system.metric not in SCALED:
        return None
    if live.system.metric == "rmse":
        return finite(live.state.expects(live.state.champion, "rmse"))
    labels = live.retraining.reference()[live.system.label].cast(pl.Float64)
    return finite(float(labels.filter(labels.is_finite()).to_numpy().var()))


def rates_now(live: Host) -> tuple[Rate, ...]:
    """How often each class comes and is decided, as the champion answers the newest rows of its training; () where nobody asks."""
    champion = live.state.champion or ""
    expected, rows = live.state.expects(champion, live.system.metric), live.retraining.reference().tail(MOST_ROWS)
    if live.system.metric not in RATED or expected is None or rows.is_empty():
        return ()
    ready = live.ready[champion]
    return rates_of(live.system.metric, encode(rows[live.system.label], ready.classes), ready.predict(rows), expected)


def weaknesses(live: Host, arms: int, rated: bool) -> Iterator[tuple[str, str]]:
    """What a rollout of so many arms promises less than was asked for, and why. rated: whether there are rates to judge by."""
    room, asked = live.system.room, live.system.metric
    if arms < room + 2:
        why = f"{arms}, for no other version has passed its gate and was not judged yet"
        yield f"a rollout of {room + 2} arms has fewer", why
    judged = in_traffic(asked, live.ready[live.state.champion or ""].task).name
    if rated and not all(spec.rewarded for spec in live.system.rollout):
        why = "of a large change the sign is told, and the size less exactly"
        yield f"a rollout is judged by {asked} row by row, as it changes around control's", why
    if judged != asked and not rated and not all(spec.rewarded for spec in live.system.rollout):
        margin = f"its margin is taken as one of {judged}, and what {judged} does not show is not found"
        if (scale := scale_of(live)) is not None:
            what = "control's rmse was" if asked == "rmse" else "the variance of the label was"
            margin = f"its margin is that of {judged} where {what} {scale:.4g}, as before the rollout"
        why = f"{asked} is no mean over rows; {margin}"
        yield f"a rollout is judged by {judged}, not by {asked}", why


def rivals(live: Host, version: str) -> dict[str, Json]:
    """The other candidates of the running stage, as the data of an event about one; nothing where there are none."""
    candidates = [arm.version for arm in arms_of(live)[1:]]
    others: list[Json] = [ref for ref in candidates if ref != version]
    return {"others": others} if version in candidates and others else {}


def arms_of(live: Host) -> tuple[Arm, ...]:
    """The arms of the stage that runs, control first; none where no rollout runs."""
    rollout, champion = live.state.rollout, live.state.champion
    if rollout is None or champion is None or rollout.stage >= len(live.system.rollout):
        return ()
    return arms_in(live.system, rollout, champion)


def arms_in(system: System, rollout: RolloutState, champion: str) -> tuple[Arm, ...]:
    """The arms of a rollout's stage while that version was champion, control first."""
    others = rollout.others if system.rollout[rollout.stage].arms > 2 else ()
    versions = (champion, rollout.version, *others)
    return tuple(Arm(name, version) for name, version in zip(arm_names(len(versions)), versions, strict=True))


def decided(live: Host, state: dict[str, Any]) -> dict[str, Any]:
    """The state with what the ledger knows of its stage: the share that it has come to stays, and arms that have left stay out."""
    rollout = live.state.rollout
    if rollout is None or live.strategy is None:
        return state
    last = len(live.system.rollout[rollout.stage].growing) - 1
    if state.get("step", 0) < (step := min(rollout.step, last)):
        state = {**state, "step": step, "step_at": rollout.step_at}
    names = {arm.version: arm.name for arm in arms_of(live)}
    gone = {names[version]: verdict for version, verdict in rollout.dropped.items() if version in names}
    return {**state, "dropped": {**gone, **state.get("dropped", {})}} if gone else state


def advance(live: Host, now: int) -> None:
    """Time has passed for the rollout that runs; the ledger is told of a share that has grown, and of each arm that has left."""
    rollout = live.state.rollout
    if live.strategy is None or rollout is None:
        return
    live.counting.time(now)
    live.counting.log()
    step = live.rollout_state.get("step", 0)
    if step > rollout.step:
        share = live.system.rollout[rollout.stage].growing[step]
        reason = f"no harm was seen for {span(now - max(rollout.step_at, rollout.stage_at))}"
        live.event("share_grown", version=rollout.version, step=step, share=share, reason=reason)
    for arm in arms_of(live)[1:]:
        verdict = live.rollout_state.get("dropped", {}).get(arm.name)
        if verdict is not None and arm.version not in rollout.dropped:
            live.event("arm_dropped", version=arm.version, arm=arm.name, verdict=verdict)


def told(live: Host) -> dict[str, Json]:
    """The arms as a status tells them: version, answers given, share where the strategy keeps one, and why an arm has left."""
    if live.strategy is None:
        return {}
    shares, dropped = live.strategy.shares(live.rollout_state).tolist(), live.rollout_state.get("dropped", {})
    arms: dict[str, Json] = {}
    for index, arm in enumerate(arms_of(live)):
        said: dict[str, Json] = {"version": arm.version, "answers": live.given.get(arm.name, 0)}
        if shares:
            said["share"] = shares[index]
        if arm.name in dropped:
            said["dropped"] = dropped[arm.name]["reason"]
        arms[arm.name] = said
    return arms


def winner(live: Host) -> str:
    """The version that the verdict of now is about: the arm that its first evidence names, or else the candidate."""
    verdict, arms = live.rollout_verdict, arms_of(live)
    about = verdict.evidence[0].about if verdict is not None and verdict.evidence else ""
    return next((arm.version for arm in arms[1:] if arm.name == about), arms[1].version)


def routing_of(live: Host, champion: str) -> Routing:
    """Who answers from now on."""
    rollout = live.state.rollout
    if rollout is None or live.strategy is None:
        return Routing(_served(live, champion), schema=live.ready[champion].schema)
    control, *candidates = (_served(live, arm.version) for arm in arms_of(live))
    spec = live.system.rollout[rollout.stage]
    context, merging = context_now(rollout) if spec.contextual else None, merging_of(live.system, spec)
    return Routing(
        control,
        tuple(candidates),
        live.strategy,
        decided(live, live.rollout_state),
        salt=str(rollout.started),
        context=context,
        merging=merging,
        schema=live.ready[champion].schema,
        rollout=rollout.started,
    )


def new_context(live: Host, spec: RolloutSpec) -> dict[str, Json]:
    """What the record of a stage says of its context; nothing where it has none. Raises: ConfigError, DataError."""
    if not spec.columns or live.state.champion is None:
        return {}
    schema, rows = live.ready[live.state.champion].schema, live.retraining.reference()
    return {"context": fitted(spec.columns, schema, rows, constant=spec.contextual).plain()}


def context_now(rollout: RolloutState | None) -> Context | None:
    """The context of a stage, as the ledger tells it."""
    return context_of(rollout.context) if rollout is not None and rollout.context is not None else None


def _served(live: Host, version: str) -> Served:
    return Served(version, live.ready[version].predict, live.ready[version].quick)
