"""What bandits that choose by context share: one ridge regression an arm, folded by batches, and the verdict on the policy.

Arms have models of their own (disjoint). Put a 1 among the features for an intercept, and scale them: the ridge is the same for
all. A row whose context is not known is spread evenly and not learned from.

Source: Li, Chu, Langford & Schapire 2010, algorithm 1.  Cost: memory and state arms × d²; an update inverts d × d an arm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from loudly.core.canon import finite
from loudly.core.seams import Assignment, Calls, Feedback, Floats
from loudly.core.values import Arm, Decision, Evidence, Verdict
from loudly.deliver.bandit import BanditSpec, begun, counted, floored, patient, pick, rewards, ripe, seen_days, sifted
from loudly.deliver.dropping import kept, out, staying
from loudly.errors import DataError, RolloutError
from loudly.stats.betting import Bernstein, bernstein_of, bounded


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What the models of all arms say of some rows. mean, spread: (n, k) reward and √(xᵀA⁻¹x).  known: (n,) context is there."""

    mean: Floats
    spread: Floats
    known: Any


class LinearRule(Protocol):
    """What tells one linear bandit from another: the shares of the arms for each row. mean, spread: (n, k) -> (n, k)."""

    def shares(self, mean: Floats, spread: Floats) -> Floats: ...


@dataclass(frozen=True, slots=True)
class LinearBandit:
    """A strategy whose shares follow a rule on what linear models foresee, mixed with the even floor. Arms: control first.

    features: of the context.  ridge: prior precision of the weights.
    """

    name: str
    features: int
    rule: LinearRule
    spec: BanditSpec
    ridge: float

    def init(self, arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return begun_linear(arms, at, carry, self.spec, self.features, self.ridge)

    def assign(self, state: Mapping[str, Any], draws: Floats, context: Floats | None = None) -> Assignment:
        return pick(self._shares(state, context), draws)

    def shares(self, state: Mapping[str, Any], context: Floats | None = None) -> Floats:
        """(n, k) probability of each arm for each row."""
        return np.empty(0) if context is None else self._shares(state, context)

    def _shares(self, state: Mapping[str, Any], context: Floats | None) -> Floats:
        seen = foresee(state, context)
        shares = evenly_where_unknown(floored(self.rule.shares(seen.mean, seen.spread), self.spec.floor), seen.known)
        return kept(shares, out(state, state["evidence"]["arms"]))

    def update(self, state: Mapping[str, Any], feedback: Feedback) -> tuple[dict[str, Any], Verdict]:
        return self._judged(taught(state, feedback, self.spec))

    def observe(self, state: Mapping[str, Any], calls: Calls) -> tuple[dict[str, Any], Verdict]:
        return self._judged(counted(state, calls, self._chances(state, calls)))

    def advance(self, state: Mapping[str, Any], at: int) -> tuple[dict[str, Any], Verdict]:
        return self._judged({**state, "now": at})

    def _chances(self, state: Mapping[str, Any], calls: Calls) -> dict[str, tuple[float, float]]:
        """As the rows of a batch were dealt; for a call that one arm answered the largest that the floor allows."""
        arms, answered, part = state["evidence"]["arms"], calls.answered, calls.part
        least, total = self.spec.floor / len(arms), sum(answered.values())
        most = 1 - least * (len(staying(state, arms)) - 1)
        dealt = {arm: answered.get(arm, 0) / total if total else 0.0 for arm in arms}
        if 1.0 in dealt.values():
            dealt = {arm: part * most + (1 - part) * (arm == arms[0]) for arm in arms}
        pair = part * most / (1 - part + part * (most + least))
        return {arm: (chance, pair) for arm, chance in dealt.items()}

    def _judged(self, state: dict[str, Any]) -> tuple[dict[str, Any], Verdict]:
        name, spec = self.name, self.spec
        new, broken = sifted(state, spec, name, worse_alone(state, spec, name))
        return new, broken or patient((judge_alone if spec.alone else judge_policy)(new, spec, name), new, spec)


def begun_linear(
    arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None, spec: BanditSpec, d: int, ridge: float
) -> dict[str, Any]:
    """The state of models that know nothing yet, of `d` features. Raises: RolloutError for carried models of others."""
    state = begun(arms, at, carry, spec.alpha)
    if "gram" in state["evidence"]:
        known = len(state["evidence"]["theta"][0])
        if known != d:
            raise RolloutError("Models of another context cannot be carried on.", seen=f"{known} features, not {d}")
        return state
    gram = np.tile(ridge * np.eye(d), (len(arms), 1, 1))
    models = _models(gram, np.zeros((len(arms), d)))
    gains = {"lift": Bernstein(spec.alpha).plain(), "alone": [Bernstein(spec.alpha / (len(arms) - 1)).plain() for _ in arms[1:]]}
    return {**state, "evidence": {**state["evidence"], **models, **gains}}


def foresee(state: Mapping[str, Any], context: Floats | None) -> Foreseen:
    """The models on a batch. Raises: DataError for a context of another shape."""
    evidence = state["evidence"]
    theta, inverse = np.asarray(evidence["theta"]), np.asarray(evidence["inverse"])
    x, known = _checked(context, theta.shape[1])
    spread = np.sqrt(np.maximum(0.0, np.einsum("ni,kij,nj->nk", x, inverse, x)))
    return Foreseen(x @ theta.T, spread, known)


def evenly_where_unknown(shares: Floats, known: Any) -> Floats:
    """Rows without a context are spread evenly over the arms."""
    return np.where(known[:, None], shares, 1.0 / shares.shape[1])


def taught(state: Mapping[str, Any], feedback: Feedback, spec: BanditSpec) -> dict[str, Any]:
    """The state with a batch of rewards in [0, 1] more."""
    old = state["evidence"]
    reward = bounded(rewards(feedback, len(old["arms"])))
    gram, towards = np.asarray(old["gram"]), np.asarray(old["towards"])
    x, known = _checked(feedback.context, towards.shape[1], len(reward))
    gram, towards, pulls, earned = gram.copy(), towards.copy(), list(old["pulls"]), list(old["earned"])
    for arm in range(len(old["arms"])):
        mine = (feedback.arm == arm) & known
        gram[arm] += x[mine].T @ x[mine]
        towards[arm] += x[mine].T @ reward[mine]
        pulls[arm] += int((feedback.arm == arm).sum())
        earned[arm] += float(reward[feedback.arm == arm].sum())
    learned = {**_models(gram, towards), "pulls": pulls, "earned": earned, "days": seen_days(old, feedback)}
    return {**state, "evidence": {**old, **learned, **_gains(old, feedback, reward, x, spec)}}


def judge_policy(state: Mapping[str, Any], spec: BanditSpec, subject: str) -> Verdict:
    """PASS: the bandit surely earns more than control alone would have. FAIL: less. Else UNDECIDED.

    Each reward is held against what control would have earned there: its model's word, corrected by the weighted errors of that
    word where control did answer (doubly robust). Its mean is the gain of the policy of that moment, whatever was chosen when;
    the floor bounds it, so the interval on the mean (empirical Bernstein) is exact in spite of the large weights: where no
    policy gained anything, PASS comes with probability alpha / 2 at most over all looks. Without a floor there is no verdict.
    """
    evidence = state["evidence"]
    lift, most = bernstein_of(evidence["lift"]), _most(spec.floor, len(evidence["arms"]))
    method = "doubly robust, empirical-Bernstein confidence sequence"
    if lift.n == 0 or most is None:
        missing = "a floor, without which no other policy can be judged" if most is None else "rewards with their propensities"
        nothing = Evidence(method, None, about="policy - control", unit="reward", confidence=1 - spec.alpha)
        return Verdict(Decision.UNDECIDED, subject, "nothing to judge the policy by", (nothing,), missing=missing)
    effect, low, high = ((2 * part - 1) * most for part in (lift.mean, lift.low, lift.high))
    found = Evidence(method, effect, finite(low), finite(high), lift.n, "policy - control", "reward", 1 - spec.alpha)
    told = f"earns {effect:+.4f} [{low:+.4f}, {high:+.4f}] against control alone"
    if low > 0 or high < 0:
        return Verdict(Decision.PASS if low > 0 else Decision.FAIL, subject, f"surely {told}", (found,))
    return Verdict(Decision.UNDECIDED, subject, told, (found,), missing="rewards that tell the policy from control alone")


def judge_alone(state: Mapping[str, Any], spec: BanditSpec, subject: str) -> Verdict:
    """PASS: a candidate alone would surely earn no less than control alone, within the margin. FAIL: all surely earn less.

    The doubly robust gain of each candidate that has not left over control, whoever answered; exact as that of `judge_policy`,
    with alpha split over the candidates. The first evidence of a PASS is about the candidate that wins; the last is that on the
    policy.
    """
    policy, gains = judge_policy(state, spec, subject), _gains_alone(state, spec)
    if not gains:
        return policy if policy.missing else Verdict(Decision.UNDECIDED, subject, "no rewards yet", missing="rewards")
    found = sorted(gains.values(), key=lambda gain: -(gain.low or 0.0))
    lead, all_of = found[0], (*found, *policy.evidence)
    told = _alone_told(lead)
    if lead.low is not None and lead.low > -spec.margin:
        return Verdict(Decision.PASS, subject, f"surely not worse than the margin: {told}", all_of)
    if all(gain.high is not None and gain.high < 0 for gain in found):
        return Verdict(Decision.FAIL, subject, f"surely worse: {told}", all_of)
    return Verdict(Decision.UNDECIDED, subject, told, all_of, missing="rewards that tell the candidates from control")


def worse_alone(state: Mapping[str, Any], spec: BanditSpec, subject: str) -> dict[str, Verdict]:
    """Which candidates alone would surely earn less than control alone, where one is to be kept; as `worse`."""
    gains = _gains_alone(state, spec) if spec.alone and ripe(state, spec) else {}
    less = {arm: gain for arm, gain in gains.items() if gain.high is not None and gain.high < 0}
    return {arm: Verdict(Decision.FAIL, subject, f"surely worse: {_alone_told(gain)}", (gain,)) for arm, gain in less.items()}


def _gains_alone(state: Mapping[str, Any], spec: BanditSpec) -> dict[str, Evidence]:
    """The gain over control of each candidate that has not left; nothing before the first reward."""
    evidence = state["evidence"]
    if bernstein_of(evidence["alone"][0]).n == 0:
        return {}
    return {arm: alone(evidence, evidence["arms"].index(arm), spec) for arm in staying(state, evidence["arms"][1:])}


def alone(evidence: Mapping[str, Any], arm: int, spec: BanditSpec) -> Evidence:
    """What a candidate alone would earn more than control alone; nothing before the first reward."""
    stream, most = bernstein_of(evidence["alone"][arm - 1]), len(evidence["arms"]) / spec.floor
    method, name = "doubly robust, empirical-Bernstein confidence sequence", evidence["arms"][arm]
    effect, low, high = ((2 * part - 1) * most for part in (stream.mean, stream.low, stream.high))
    known = effect if stream.n else None
    return Evidence(method, known, low, high, stream.n, name, "reward", 1 - stream.alpha, -spec.margin)


def _alone_told(gain: Evidence) -> str:
    return f"{gain.about} alone would earn {gain.effect:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] against control alone"


def _models(gram: Floats, towards: Floats) -> dict[str, Any]:
    inverse = np.linalg.inv(gram)
    theta = np.einsum("kij,kj->ki", inverse, towards)
    return {"gram": gram.tolist(), "towards": towards.tolist(), "inverse": inverse.tolist(), "theta": theta.tolist()}


def _gains(old: Mapping[str, Any], feedback: Feedback, reward: Floats, x: Floats, spec: BanditSpec) -> dict[str, Any]:
    """The streams of the policy's gain over control alone, and of each candidate's, with a batch more."""
    most, p = _most(spec.floor, len(old["arms"])), feedback.propensity
    if most is None or p is None:
        return {}
    least = spec.floor / len(old["arms"])
    if len(p) and p.min() < least * (1 - 1e-6):
        raise DataError(
            "A propensity is below the floor of this bandit.", seen=f"{p.min():g} < {least:g}", do="Log what assign says."
        )
    foreseen = np.clip(x @ np.asarray(old["theta"]).T, 0.0, 1.0)
    error = reward - foreseen[:, 0]
    gain = np.where(feedback.arm == 0, error * (1 - 1 / p), error)
    lift = bernstein_of(old["lift"]).add(np.clip((gain / most + 1) / 2, 0.0, 1.0)).plain()
    if not spec.alone:
        return {"lift": lift}
    robust = foreseen + (feedback.arm[:, None] == np.arange(len(old["arms"]))) * ((reward[:, None] - foreseen) / p[:, None])
    each = (robust[:, 1:] - robust[:, :1]) * spec.floor / len(old["arms"])
    alone = [bernstein_of(s).add(np.clip((mine + 1) / 2, 0.0, 1.0)).plain() for s, mine in zip(old["alone"], each.T, strict=True)]
    return {"lift": lift, "alone": alone}


def _most(floor: float, arms: int) -> float | None:
    """The largest gain of a single row, by the least propensity; None where there is none."""
    return max(1.0, arms / floor - 1) if floor > 0 else None


def _checked(context: Floats | None, d: int, rows: int | None = None) -> tuple[Floats, Any]:
    """(n, d) features with 0 for unknown rows, and (n,) which rows are known."""
    if context is None or context.ndim != 2 or context.shape[1] != d or (rows is not None and len(context) != rows):
        seen = "none" if context is None else str(context.shape)
        raise DataError(f"This strategy chooses by a context of {d} features a row.", seen=seen, do="Hand in context (n, d).")
    known: Any = np.isfinite(context).all(axis=1)
    return np.where(known[:, None], context, 0.0), known
