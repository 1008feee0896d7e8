"""What bandits of any number of arms share: settings, what was earned, drawing by shares, the verdict.

A bandit is a strategy whose shares follow the rewards. Arm 0 is control. The state is plain JSON; chance is handed in as draws;
the shares of a moment are part of the state, and a draw falls into them as on a ruler, so that the logged propensity of a
decision *is* its probability, not an estimate of it. Rewards come late, in batches, in any order.

Hand a reward in when its time to come is over, not when it comes: where clicks come sooner than their absence, every arm would
look better than it is, and most so the one that has answered most lately.

An arm that surely errs more or is late leaves alone, as long as another candidate is left (`dropping.py`); where one arm is to be
kept, so does one that surely earns less than control. Where a reward cannot be told the bandit is frozen: what it would learn from
the rest is chosen by the failure.

The shares move, so a unit may meet another arm than before: hand in draws of unit and request, not of the unit alone, where
one unit comes often.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from loudly.core.canon import finite
from loudly.core.clock import iso
from loudly.core.seams import Assignment, Calls, Feedback, Floats, Ints
from loudly.core.values import Arm, Decision, Evidence, Verdict
from loudly.deliver.days import day_of
from loudly.deliver.dropping import kept, out, staying, without
from loudly.deliver.latency import CANDIDATE, CONTROL, SLOW, add_calls, late, nothing_timed
from loudly.errors import DataError, RolloutError
from loudly.stats.arm_process import ArmProcess, arm_process_of
from loudly.stats.betting import Bernstein, bernstein_of, bounded, difference

# Of the risk of a wrong verdict the guard on latency takes a tenth besides.
GUARD = 0.1
# Arm -> its chance of being the one that answers: of all arms, and of itself and control.
Chances = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class BanditSpec:
    """How a bandit behaves.

    floor: share of the units that is spread evenly over all arms whatever is believed. Each propensity is at least
    floor / arms: that bounds the weights when another policy is judged by this log. 0 forgoes it.
    alpha: risk of a wrong verdict, over all looks and arms together.
    margin: reward by which the arm that wins may earn less than any other at most.  days, hold: labelled days, and µs since the
    start, before which no reward decides: rows of one day are not independent. alone: one arm is to be kept, so those that surely
    earn less than control leave, and a linear bandit judges each arm alone against control rather than the policy.
    Raises: RolloutError for a floor outside [0, 1] or an impossible alpha.
    """

    floor: float = 0.05
    alpha: float = 0.05
    margin: float = 0.0
    days: int = 0
    hold: int = 0
    alone: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= 1 or not 0 < self.alpha < 0.5 or self.margin < 0:
            raise RolloutError("An impossible bandit.", seen=f"floor={self.floor}, alpha={self.alpha}", do="e.g. floor=0.05")


class Patience(Protocol):
    """Labelled days, and µs since the start, before which no reward decides."""

    @property
    def days(self) -> int: ...

    @property
    def hold(self) -> int: ...


class Rule(Protocol):
    """What tells one bandit from another: the shares of the arms. pulls, earned: (k,) rewards so far, and their sum -> (k,)."""

    def shares(self, pulls: Floats, earned: Floats) -> Floats: ...


@dataclass(frozen=True, slots=True)
class Bandit:
    """A strategy whose shares follow a rule, mixed with the even floor. Arms: control first."""

    name: str
    rule: Rule
    spec: BanditSpec

    def init(self, arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._shared(begun(arms, at, carry, self.spec.alpha))

    def assign(self, state: Mapping[str, Any], draws: Floats, context: Floats | None = None) -> Assignment:
        return pick(self.shares(state), draws)

    def shares(self, state: Mapping[str, Any], context: Floats | None = None) -> Floats:
        """(k,) of the arms, those that have left without one."""
        return kept(np.asarray(state["shares"]), out(state, state["evidence"]["arms"]))

    def update(self, state: Mapping[str, Any], feedback: Feedback) -> tuple[dict[str, Any], Verdict]:
        return self._judged(self._shared(rewarded(state, feedback)))

    def observe(self, state: Mapping[str, Any], calls: Calls) -> tuple[dict[str, Any], Verdict]:
        shares = dict(zip(state["evidence"]["arms"], diluted(self.shares(state), calls.part).tolist(), strict=True))
        first = next(iter(shares.values()))
        chances = {arm: (share, share / (share + first) if share else 0.0) for arm, share in shares.items()}
        return self._judged(counted(state, calls, chances))

    def advance(self, state: Mapping[str, Any], at: int) -> tuple[dict[str, Any], Verdict]:
        return self._judged({**state, "now": at})

    def _judged(self, state: dict[str, Any]) -> tuple[dict[str, Any], Verdict]:
        left, broken = sifted(state, self.spec, self.name, worse(state, self.spec, self.name))
        new = self._shared(left) if len(left["dropped"]) > len(state["dropped"]) else left
        return new, broken or judge(new, self.spec, self.name)

    def _shared(self, state: dict[str, Any]) -> dict[str, Any]:
        gone = out(state, state["evidence"]["arms"])
        stay = [arm for arm in range(len(state["evidence"]["arms"])) if arm not in gone]
        pulls, earned = (np.asarray(state["evidence"][what], dtype=np.float64) for what in ("pulls", "earned"))
        shares = np.zeros(len(pulls))
        shares[stay] = floored(self.rule.shares(pulls[stay], earned[stay]), self.spec.floor)
        return {**state, "shares": shares.tolist()}


def begun(arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None, alpha: float) -> dict[str, Any]:
    """The state at the start: nothing earned, or what a bandit of the same arms has carried on.

    Raises: RolloutError for fewer than two arms, or two of one name.
    """
    names = [arm.name for arm in arms]
    if len(names) < 2 or len(set(names)) != len(names):
        raise RolloutError("A bandit has two arms or more, each with a name of its own.", seen=", ".join(names) or "none")
    carried = carry if carry and carry.get("arms") == names else None
    nothing = {
        "arms": names,
        "pulls": [0] * len(names),
        "earned": [0.0] * len(names),
        "days": [],
        "means": [Bernstein(alpha / len(names)).plain() for _ in names],
        "errors": [ArmProcess().plain() for _ in names],
        "timed": {name: nothing_timed() for name in names[1:]},
    }
    return {"since": at, "now": at, "dropped": {}, "evidence": dict(carried or nothing)}


def rewarded(state: Mapping[str, Any], feedback: Feedback) -> dict[str, Any]:
    """The state with a batch of rewards more; each arm's mean is followed in the order in which its rewards came."""
    old, reward = state["evidence"], bounded(rewards(feedback, len(state["evidence"]["arms"])))
    each = [reward[feedback.arm == arm] for arm in range(len(old["arms"]))]
    evidence = {
        **old,
        "pulls": [n + len(mine) for n, mine in zip(old["pulls"], each, strict=True)],
        "earned": [sum_ + float(mine.sum()) for sum_, mine in zip(old["earned"], each, strict=True)],
        "days": seen_days(old, feedback),
        "means": [bernstein_of(mean).add(mine).plain() for mean, mine in zip(old["means"], each, strict=True)],
    }
    return {**state, "evidence": evidence}


def seen_days(evidence: Mapping[str, Any], feedback: Feedback) -> list[int]:
    """The event-time days of which rewards have come, with a batch more."""
    return sorted({*evidence["days"], *day_of(feedback).tolist()})


def rewards(feedback: Feedback, arms: int) -> Floats:
    """(n,) what came of each answer. Raises: DataError where there are none, or an arm is unknown."""
    if feedback.reward is None or len(feedback.reward) != len(feedback.arm):
        raise DataError(
            "A bandit learns from rewards, and this feedback has none.", do="Give Feedback(reward=...) a value per row."
        )
    if len(feedback.arm) and not 0 <= int(feedback.arm.min()) <= int(feedback.arm.max()) < arms:
        raise DataError("Feedback about an arm that this bandit has not.", seen=f"{int(feedback.arm.max())} of {arms} arms")
    return feedback.reward


def counted(state: Mapping[str, Any], calls: Calls, chances: Chances) -> dict[str, Any]:
    """The state with a stretch of answers more: each arm's errors against those of all others together, and who was late.

    chances: by assignment, or the largest there can be, which only ever finds less.
    """
    old = state["evidence"]
    wrong = sum(calls.failed.get(arm, 0) for arm in old["arms"])
    errors, timed = [], dict(old["timed"])
    for arm, process in zip(old["arms"], old["errors"], strict=True):
        mine = calls.failed.get(arm, 0)
        errors.append(arm_process_of(process).add(mine, wrong - mine, chances[arm][0]).plain())
    for arm in staying(state, timed) if calls.seconds else ():
        timed[arm] = add_calls(timed[arm], calls.among({CONTROL: old["arms"][0], CANDIDATE: arm}), chances[arm][1])
    seen = {arm: old.get("answered", {}).get(arm, 0) + calls.answered.get(arm, 0) for arm in old["arms"]}
    return {**state, "evidence": {**old, "errors": errors, "timed": timed, "answered": seen}}


def pick(shares: Floats, draws: Floats) -> Assignment:
    """The arm into whose share each draw falls, and that share. Shapes: shares (k,) or (n, k); draws (n,) in [0, 1).

    >>> made = pick(np.array([0.25, 0.75]), np.array([0.1, 0.25, 0.9]))
    >>> made.arm, made.propensity
    (array([0, 1, 1]), array([0.25, 0.75, 0.75]))
    """
    ends = np.cumsum(shares, axis=-1)
    ends = ends / ends[..., -1:]
    if shares.ndim == 1:
        arm: Ints = np.searchsorted(ends[:-1], draws, side="right").astype(np.int64)
        return Assignment(arm, shares[arm])
    arm = (draws[:, None] >= ends[:, :-1]).sum(axis=1).astype(np.int64)
    return Assignment(arm, np.take_along_axis(shares, arm[:, None], axis=1)[:, 0])


def diluted(shares: Floats, part: float) -> Floats:
    """Shares of the arms among all units, where a part of these takes part and all others are control's. Shapes: (..., k).

    >>> diluted(np.array([0.5, 0.5]), 0.1)
    array([0.95, 0.05])
    """
    return np.asarray(part * shares + (1 - part) * (np.arange(shares.shape[-1]) == 0))


def floored(shares: Floats, floor: float) -> Floats:
    """Shares mixed with an even spread; none falls below floor / arms. Shapes: (..., k)."""
    return np.asarray((1 - floor) * shares + floor / shares.shape[-1])


def greedy(values: Floats) -> Floats:
    """All of the share to the largest value, evenly among equals. Shapes: (..., k).

    >>> greedy(np.array([1.0, 3.0, 3.0]))
    array([0. , 0.5, 0.5])
    """
    best = (values == values.max(axis=-1, keepdims=True)).astype(np.float64)
    return np.asarray(best / best.sum(axis=-1, keepdims=True))


def judge(state: Mapping[str, Any], spec: BanditSpec, subject: str) -> Verdict:
    """PASS: another arm than control surely earns most, or within the margin of it. FAIL: control does.

    The means of the arms are taken to be constant; each is followed by an exact confidence sequence on its own rewards. Arms
    that have left are nobody's rivals. The first evidence of a PASS is about the arm that wins.
    """
    streams = _streams(state)
    each = tuple(_mean(name, stream) for name, stream in streams.items())
    rest = {arm: max(s.high for other, s in streams.items() if other != arm) for arm in streams}
    control, *candidates = streams
    lead = max(candidates, key=lambda arm: streams[arm].low)
    sure = next((arm for arm in (control, lead) if streams[arm].low > rest[arm]), None)
    if sure is not None or streams[lead].low > rest[lead] - spec.margin:
        best = lead if sure is None else sure
        most = f"surely earns at most {spec.margin:g} less than any other" if sure is None else "surely earns most"
        bar = rest[best] - (spec.margin if sure is None else 0.0)
        told = f"{best} {most}: {streams[best].mean:.4f} > {bar:.4f}"
        first = gap(state["evidence"], state["evidence"]["arms"].index(best), spec)
        found = Verdict(Decision.FAIL if best == control else Decision.PASS, subject, told, (first, *each))
        return patient(found, state, spec)
    bar = max(stream.low for stream in streams.values())
    near = [name for name, stream in streams.items() if stream.high >= bar]
    told = f"{len(near)} of {len(streams)} arms may be the best: {', '.join(near)}"
    return patient(Verdict(Decision.UNDECIDED, subject, told, each, missing="rewards that tell the best arms apart"), state, spec)


def gap(evidence: Mapping[str, Any], arm: int, spec: BanditSpec) -> Evidence:
    """What an arm earns more than control, by the rewards of both; nothing where one of them has none."""
    control, mine = (bernstein_of(evidence["means"][k]) for k in (0, arm))
    known, (low, high) = control.n > 0 and mine.n > 0, difference(control, mine) if arm else (0.0, 0.0)
    method, effect = "difference of empirical-Bernstein confidence sequences", mine.mean - control.mean if known else None
    return Evidence(method, effect, low, high, mine.n, evidence["arms"][arm], "reward", 1 - spec.alpha, -spec.margin)


def worse(state: Mapping[str, Any], spec: BanditSpec, subject: str) -> dict[str, Verdict]:
    """Which candidates surely earn less than control, where one is to be kept and there were days and time enough."""
    streams = _streams(state)
    control, *candidates = streams
    found = {}
    for arm in candidates if spec.alone and ripe(state, spec) else ():
        if streams[arm].high < streams[control].low:
            told = f"{arm} surely earns less than control: {streams[arm].mean:.4f} against {streams[control].mean:.4f}"
            found[arm] = Verdict(Decision.FAIL, subject, told, (_mean(arm, streams[arm]), _mean(control, streams[control])))
    return found


def sifted(
    state: dict[str, Any], spec: BanditSpec, subject: str, less: Mapping[str, Verdict]
) -> tuple[dict[str, Any], Verdict | None]:
    """The state without the arms that fail or earn less, as long as one is left; FAIL where all that are left fail.

    less: arms that surely earn less, and the verdict on each.
    """
    left = staying(state, state["evidence"]["arms"][1:])
    broken = {arm: found for arm in left if (found := failing(state["evidence"], spec, subject, arm))}
    if len(broken) == len(left):
        return state, next(iter(broken.values()))
    state = without(state, broken)
    return state if set(staying(state, left)) <= set(less) else without(state, less), None


def ripe(state: Mapping[str, Any], spec: Patience) -> bool:
    """Whether rewards may decide: there were days and time enough, and each of them could be told."""
    return "frozen" not in state and len(state["evidence"]["days"]) >= spec.days and state["now"] >= state["since"] + spec.hold


def frozen(state: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """The state of a bandit that learns nothing more, for what an answer was worth cannot be told: its shares stay as they are."""
    return {**state, "frozen": reason}


def patient(found: Verdict, state: Mapping[str, Any], spec: Patience) -> Verdict:
    """The verdict, or UNDECIDED where rewards would decide before the days and the time wanted, or could not be told."""
    if ripe(state, spec):
        return found
    if "frozen" in state:
        missing = f"a reward that can be told, and a new start: {state['frozen']}"
        return Verdict(Decision.UNDECIDED, found.subject, f"frozen: {state['frozen']}", found.evidence, missing)
    wanting, ends = spec.days - len(state["evidence"]["days"]), state["since"] + spec.hold
    missing = f"{wanting} more labelled days" if wanting > 0 else f"time until {iso(ends)}"
    reason = f"too early to judge: {missing} wanting"
    return Verdict(Decision.UNDECIDED, found.subject, reason, found.evidence, missing, None if wanting > 0 else ends)


def failing(evidence: Mapping[str, Any], spec: BanditSpec, subject: str, arm: str) -> Verdict | None:
    """FAIL where the arm surely errs more than the others, or is late more often than control; None where it does not."""
    alpha, answered = spec.alpha / (len(evidence["arms"]) - 1), evidence.get("answered", {})
    process, total = arm_process_of(evidence["errors"][evidence["arms"].index(arm)]), sum(answered.values())
    wrong = process.candidate + process.control
    if total and process.worse(alpha, answered[arm] / total):
        seen = Evidence("which arm erred", float(process.candidate), n=wrong, about=arm)
        return Verdict(Decision.FAIL, subject, f"{process.candidate} of {wrong} failed answers are those of {arm}", (seen,))
    slow = late(evidence["timed"][arm], GUARD * alpha)
    if slow is not None:
        told = f"{slow.effect:.0%} of {slow.n} slow calls are those of {arm}: above {SLOW:g} × the control's 95th percentile"
        return Verdict(Decision.FAIL, subject, told, (slow,))
    return None


def _streams(state: Mapping[str, Any]) -> dict[str, Bernstein]:
    """The rewards of each arm that has not left."""
    means = dict(zip(state["evidence"]["arms"], state["evidence"]["means"], strict=True))
    return {arm: bernstein_of(means[arm]) for arm in staying(state, means)}


def _mean(name: str, stream: Bernstein) -> Evidence:
    low, high = finite(stream.low), finite(stream.high)
    method = "empirical-Bernstein confidence sequence"
    return Evidence(method, finite(stream.mean), low, high, stream.n, name, "reward", 1 - stream.alpha)
