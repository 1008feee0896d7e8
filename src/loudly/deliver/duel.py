"""The arm that was promoted against the champion before: its rollout's strategy goes on with labels that come late.

Of several arms the promoted one and control are judged as two, at the risk that each pair had (interleaved ones, too); of a bandit
by the rewards of both (a linear one: doubly robust, whoever answered). What was learned until the promotion counts on, so the
interval stays one sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loudly.core.seams import Feedback, Strategy
from loudly.core.values import Arm, Decision, Verdict
from loudly.deliver.ab import Ab
from loudly.deliver.ab_n import AbN, pair_of, ratio_of
from loudly.deliver.bandit import Bandit, BanditSpec, gap, patient
from loudly.deliver.dropping import staying
from loudly.deliver.interleave import Interleave
from loudly.deliver.linear import LinearBandit, alone
from loudly.deliver.ramp import within
from loudly.stats.sample_ratio import SampleRatio, sample_ratio_of


@dataclass(frozen=True, slots=True)
class Duel:
    """strategy: that promoted.  arms: of its stage, control first.  index: of the one that was promoted."""

    strategy: Strategy
    arms: tuple[Arm, ...]
    index: int

    def init(self, at: int, state: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """From the state in which it was promoted; or from nothing, where all labels are to be folded in again."""
        state = state or self.strategy.init(self.arms, at)
        return self._pair(state) if isinstance(self.strategy, AbN) else dict(state)

    def update(self, state: Mapping[str, Any], feedback: Feedback) -> tuple[dict[str, Any], Verdict]:
        """Late labels of rows of the rollout."""
        feedback = within(feedback)
        if isinstance(self.strategy, AbN):
            return self._ab(state).update(state, pair_of(feedback, self.index, self.arms[self.index].name))
        return self._told(*self.strategy.update(state, feedback))

    def advance(self, state: Mapping[str, Any], at: int) -> tuple[dict[str, Any], Verdict]:
        """Time has passed."""
        if isinstance(self.strategy, AbN):
            return self._ab(state).advance(state, at)
        return self._told(*self.strategy.advance(state, at))

    def _pair(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The state of a test of two arms within that of several."""
        stay = staying(state, state["arms"])
        ratio, mine = ratio_of(state), [0, stay.index(self.arms[self.index].name)]
        shares = np.asarray(ratio.shares)[mine]
        counts = tuple(int(n) for n in np.asarray(ratio.counts)[mine]) if ratio.counts else ()
        pair = SampleRatio(tuple((shares / shares.sum()).tolist()), counts)
        evidence = state["evidence"][self.arms[self.index].name]
        return {"since": state["since"], "now": state["now"], "evidence": evidence, "ratio": pair.plain(), "met": state["met"]}

    def _ab(self, state: Mapping[str, Any]) -> Ab:
        assert isinstance(self.strategy, AbN)
        spec, share = self.strategy.spec, float(sample_ratio_of(state["ratio"]).shares[1])
        alpha = spec.alpha / (len(self.arms) - 1)
        return Ab(replace(spec, arms=2, steps=(share,), shares=(), alpha=alpha), self.strategy.metric)

    def _told(self, state: dict[str, Any], found: Verdict) -> tuple[dict[str, Any], Verdict]:
        if isinstance(self.strategy, Bandit | LinearBandit):
            return state, against_control(state, self.strategy.spec, self.index, self.strategy.name)
        if isinstance(self.strategy, Interleave):
            return state, self.strategy.against_control(state, self.arms[self.index].name)
        return state, found


def against_control(state: Mapping[str, Any], spec: BanditSpec, arm: int, subject: str) -> Verdict:
    """FAIL: the arm surely earns less than control. PASS: at most the margin less."""
    found = (alone if "alone" in state["evidence"] else gap)(state["evidence"], arm, spec)
    if found.effect is None or found.low is None or found.high is None:
        return Verdict(Decision.UNDECIDED, subject, "no rewards yet", (found,), missing="rewards")
    told = f"{found.about} earns {found.effect:+.4f} [{found.low:+.4f}, {found.high:+.4f}] against control"
    if found.high < 0:
        return patient(Verdict(Decision.FAIL, subject, f"surely worse: {told}", (found,)), state, spec)
    if found.low > -spec.margin:
        return patient(Verdict(Decision.PASS, subject, f"surely not worse than the margin: {told}", (found,)), state, spec)
    return Verdict(Decision.UNDECIDED, subject, told, (found,), missing="rewards that tell both apart")
