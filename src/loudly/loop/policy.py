"""The policy: a pure function from what is known to what happens next.

Evidence is ranked: confirmed performance (labels) > estimated performance (what the shift of the inputs does to the
scores) > new data and age.
Raw shift is not on the list: drift alone never retrains. A broken feed is never data to retrain on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from loudly.core.clock import DAY, iso, span
from loudly.core.values import Evidence, Verdict
from loudly.loop.plan import Confirm, Hold, NextStage, Plan, Promote, Retrain, RollBack, Step


class Stage(StrEnum):
    """The four stages of continual learning (Huyen 2022, ch. 9), one setting."""

    MANUAL = "manual"
    STATELESS = "stateless"
    STATEFUL = "stateful"
    CONTINUAL = "continual"


@dataclass(frozen=True, slots=True)
class Governor:
    """What keeps retraining in bounds. Durations in µs; `at_most` refits in any `period`."""

    cooldown: int = 14 * DAY
    at_most: int = 4
    period: int = 90 * DAY
    enough_labels: int = 1000


@dataclass(frozen=True, slots=True)
class RetrainPolicy:
    """When to retrain. A trigger that is None is off.

    on: ranked triggers among performance, calibration, estimate. growth: share of new labelled rows since the last fit.
    every: time since the last fit.
    """

    stage: Stage = Stage.STATELESS
    on: tuple[str, ...] = ("performance", "estimate")
    growth: float | None = None
    every: int | None = None
    governor: Governor = field(default_factory=Governor)


@dataclass(frozen=True, slots=True)
class Underway:
    """The rollout that runs: who, at which stage of how many, and what its strategy says as of now.

    winner: the version that a PASS promotes, where there are several; `version` by default.
    """

    version: str
    stage: int
    stages: int
    verdict: Verdict
    deadline: int
    winner: str = ""


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """A promotion that waits for labels: what its strategy says by now, how many rows wait, and until when (µs)."""

    version: str
    previous: str
    verdict: Verdict
    waiting: int
    until: int


@dataclass(frozen=True, slots=True)
class Known:
    """All the policy may look at. Times in µs; `refits` are the times of past fits, the first training included."""

    now: int
    champion: str | None
    fitted_at: int | None
    refits: tuple[int, ...]
    trained_rows: int
    new_rows: int
    broken: tuple[str, ...]
    signals: tuple[tuple[str, Verdict], ...]
    underway: Underway | None
    killed: bool
    unconfirmed: Unconfirmed | None = None


def decide(known: Known, policy: RetrainPolicy) -> Plan:
    """What happens next and why. Pure: same arguments, same plan."""
    settled = _settled(known, known.unconfirmed) if known.unconfirmed is not None else None
    if settled is not None and not (isinstance(settled, Hold) and known.underway is not None):
        return Plan(known.now, (settled,))
    if known.underway is not None:
        return _rollout(known, known.underway)
    wanted = _trigger(known, policy)
    if wanted is None:
        return Plan(known.now, (), _idle(known, policy))
    trigger, reason = wanted
    barrier = _barrier(known, policy)
    stateful = policy.stage in (Stage.STATEFUL, Stage.CONTINUAL) and known.champion is not None
    step: Step = Hold(f"retrain on {trigger}", barrier) if barrier else Retrain(trigger, reason, stateful)
    return Plan(known.now, (step,))


def _settled(known: Known, promotion: Unconfirmed) -> Step | None:
    """Back to the champion before, or confirmed; None while labels are still to come and nothing is sure."""
    verdict, version = promotion.verdict, promotion.version
    found = verdict.evidence[0] if verdict.evidence else None
    over = promotion.waiting == 0 or known.now >= promotion.until
    below = found is not None and _nearer_the_margin(found)
    if verdict.failed or (over and below):
        late = f"labels that came after the promotion: {verdict.reason}"
        back = RollBack(version, late, verdict)
        return Hold(f"rollback of {version}", f"the kill switch is set; {late}") if known.killed else back
    if not over:
        return None
    never = f"; {promotion.waiting:,} of its rows never got a label" if promotion.waiting else ""
    return Confirm(version, f"the labels of its rollout have come{never}; {verdict.reason}", verdict)


def _nearer_the_margin(found: Evidence) -> bool:
    """Whether an effect, as far as it is known, is nearer to the margin than to none."""
    return found.effect is not None and found.tolerance is not None and found.effect <= found.tolerance / 2


def _rollout(known: Known, rollout: Underway) -> Plan:
    verdict, version = rollout.verdict, rollout.version
    if verdict.failed:
        return Plan(known.now, (RollBack(version, verdict.reason, verdict),))
    if known.killed:
        return Plan(known.now, (RollBack(version, "the kill switch is set", verdict),))
    if verdict.passed and known.broken:
        held = Hold(f"promotion of {version}", f"the feed is broken: {', '.join(known.broken)}")
        return Plan(known.now, (held,))
    if verdict.passed and rollout.stage + 1 < rollout.stages:
        return Plan(known.now, (NextStage(version, rollout.stage + 1, verdict.reason),))
    if verdict.passed:
        return Plan(known.now, (Promote(rollout.winner or version, verdict.reason, verdict),))
    if known.now >= rollout.deadline:
        reason = f"undecided at its deadline, so the champion stays ({verdict.missing or verdict.reason})"
        return Plan(known.now, (RollBack(version, reason, verdict),))
    return Plan(known.now, (), f"rollout of {version} goes on: {verdict.missing or verdict.reason}")


def _trigger(known: Known, policy: RetrainPolicy) -> tuple[str, str] | None:
    """The highest-ranked reason to retrain, if any."""
    if policy.stage is Stage.MANUAL or known.fitted_at is None:
        return None
    signals = dict(known.signals)
    for name in policy.on:
        verdict = signals.get(name)
        if verdict is not None and verdict.failed:
            return name, verdict.reason
        if verdict is not None and verdict.passed:
            break  # better evidence says that all is well; weaker evidence does not overrule it
    if policy.growth is not None and known.new_rows >= policy.growth * max(1, known.trained_rows):
        share = known.new_rows / max(1, known.trained_rows)
        return "data", f"{known.new_rows:,} new labelled rows, {share:.0%} of those trained on"
    last = max(known.refits, default=known.fitted_at)
    if policy.every is not None and known.now - last >= policy.every:
        return "schedule", f"the last fit was {span(known.now - last)} ago"
    return None


def _barrier(known: Known, policy: RetrainPolicy) -> str:
    """Why the governor does not allow a retraining now, or nothing."""
    governor = policy.governor
    if known.killed:
        return "the kill switch is set"
    if known.broken:
        return f"the feed is broken: {', '.join(known.broken)}; a bug to page about, not data to retrain on"
    if known.new_rows < governor.enough_labels:
        return f"{known.new_rows:,} new labelled rows, {governor.enough_labels:,} are needed"
    last = max(known.refits, default=None)
    if last is not None and known.now - last < governor.cooldown:
        return f"cooldown until {iso(last + governor.cooldown)}"
    recent = sum(1 for at in known.refits if at > known.now - governor.period)
    if recent >= governor.at_most:
        return f"{recent} refits within {span(governor.period)}, {governor.at_most} are allowed"
    return ""


def _idle(known: Known, policy: RetrainPolicy) -> str:
    if known.fitted_at is None:
        return "there is no champion yet: run `loudly train`, then `loudly ship`"
    if policy.stage is Stage.MANUAL:
        return "retraining is manual"
    if known.broken:
        return f"the feed is broken ({', '.join(known.broken)}): paged; nothing is learned from it"
    return "no evidence of harm, not enough new data, not old enough"
