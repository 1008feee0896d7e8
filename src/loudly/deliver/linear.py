"""What bandits that choose by context share: one ridge regression an arm, folded by batches, and the verdict on the policy.

Arms have models of their own (disjoint). Put a 1 among the features for an intercept, and scale them: the ridge is the same for
all. A row whose context is not known is spread evenly and not learned from.

Source: Li, Chu, Langford & Schapire 2010, algorithm 1.  Cost: memory and state arms × d²; an update inverts d × d an arm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loudly.core.canon import finite
from loudly.core.seams import Feedback
from loudly.core.values import Arm, Decision, Evidence, Verdict
from loudly.deliver.bandit import BanditSpec, begun, failing, rewards
from loudly.errors import DataError
from loudly.stats.confidence_sequence import Running, interval, more_needed, running_of

if TYPE_CHECKING:
    from loudly.core.seams import Floats

FEWEST = 50


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What the models of all arms say of some rows. mean, spread: (n, k) reward and √(xᵀA⁻¹x).  known: (n,) context is there."""

    mean: Floats
    spread: Floats
    known: Any


def begun_linear(
    arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None, alpha: float, d: int, ridge: float
) -> dict[str, Any]:
    """The state of models that know nothing yet, of `d` features."""
    state = begun(arms, at, carry, alpha)
    if "gram" in state["evidence"]:
        return state
    gram = np.tile(ridge * np.eye(d), (len(arms), 1, 1))
    models = _models(gram, np.zeros((len(arms), d)))
    return {**state, "evidence": {**state["evidence"], **models, "lift": Running().plain()}}


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


def taught(state: Mapping[str, Any], feedback: Feedback) -> dict[str, Any]:
    """The state with a batch of rewards more. Any finite reward will do; scale them to about 1."""
    old = state["evidence"]
    reward = rewards(feedback, len(old["arms"]))
    if not np.isfinite(reward).all():
        raise DataError("A reward is not a number.", do="Leave rows out until their reward has come.")
    gram, towards = np.asarray(old["gram"]), np.asarray(old["towards"])
    x, known = _checked(feedback.context, towards.shape[1], len(reward))
    gram, towards, pulls, earned = gram.copy(), towards.copy(), list(old["pulls"]), list(old["earned"])
    for arm in range(len(old["arms"])):
        mine = (feedback.arm == arm) & known
        gram[arm] += x[mine].T @ x[mine]
        towards[arm] += x[mine].T @ reward[mine]
        pulls[arm] += int((feedback.arm == arm).sum())
        earned[arm] += float(reward[feedback.arm == arm].sum())
    learned = {**_models(gram, towards), "pulls": pulls, "earned": earned, "lift": _lift(old["lift"], feedback, reward)}
    return {**state, "evidence": {**old, **learned}}


def judge_policy(state: Mapping[str, Any], spec: BanditSpec, subject: str) -> Verdict:
    """PASS: the bandit surely earns more than control alone would have. FAIL: less, or an arm surely errs more.

    Each reward minus the same reward weighted as control's (0 where another arm answered) has the gain of the policy of that
    moment over control as its mean, so their running mean has an asymptotic confidence sequence, whatever was chosen when.
    """
    evidence = state["evidence"]
    broken = failing(evidence, spec, subject)
    if broken is not None:
        return broken
    lift = running_of(evidence["lift"])
    low, high = interval(lift, spec.alpha)
    effect = lift.mean if lift.n > 1 else None
    method = "inverse propensity, asymptotic confidence sequence"
    found = Evidence(method, effect, finite(low), finite(high), lift.n, "policy - control", "reward", 1 - spec.alpha)
    if effect is None or lift.n < FEWEST:
        missing = "propensities and rewards"
        return Verdict(Decision.UNDECIDED, subject, f"{lift.n} rewards with a propensity", (found,), missing=missing)
    told = f"earns {effect:+.4f} [{low:+.4f}, {high:+.4f}] against control alone"
    if low > 0 or high < 0:
        return Verdict(Decision.PASS if low > 0 else Decision.FAIL, subject, f"surely {told}", (found,))
    more = more_needed(lift, spec.alpha, abs(effect))
    missing = f"about {more:,} more rewards" if more else "more rewards"
    return Verdict(Decision.UNDECIDED, subject, told, (found,), missing=missing)


def _models(gram: Floats, towards: Floats) -> dict[str, Any]:
    inverse = np.linalg.inv(gram)
    theta = np.einsum("kij,kj->ki", inverse, towards)
    return {"gram": gram.tolist(), "towards": towards.tolist(), "inverse": inverse.tolist(), "theta": theta.tolist()}


def _lift(old: Mapping[str, float], feedback: Feedback, reward: Floats) -> dict[str, float]:
    if feedback.propensity is None:
        return dict(old)
    control = np.where(feedback.arm == 0, reward / feedback.propensity, 0.0)
    return running_of(old).add(reward - control).plain()


def _checked(context: Floats | None, d: int, rows: int | None = None) -> tuple[Floats, Any]:
    """(n, d) features with 0 for unknown rows, and (n,) which rows are known."""
    if context is None or context.ndim != 2 or context.shape[1] != d or (rows is not None and len(context) != rows):
        seen = "none" if context is None else str(context.shape)
        raise DataError(f"This strategy chooses by a context of {d} features a row.", seen=seen, do="Hand in context (n, d).")
    known = np.isfinite(context).all(axis=1)
    return np.where(known[:, None], context, 0.0), known
