"""Ramp: another strategy (an A/B test, a bandit) on a share of the units that grows step by step; all others meet control.

Whether a unit takes part and which arm it meets are drawn independently: by the high and the low bits of its draw. So units only
ever enter, and meet the arm that they always would have met. Rows of units that did not take part are no evidence, whatever is
asked of them later: the log tells with each row which share took part when it was answered.

What was learned at small shares counts on when the share grows. An experiment whose candidate grows from 1 % to half of the units
while all others are its control compares few early rows with many late ones: where days differ, equal models look different
(Simpson's paradox). Here the arms split the units that take part alike at every step, so days weigh the same in each arm, and
neither the effect nor the sample ratio knows of the ramp. (The shares of a bandit move by themselves, and it takes the means of its
arms to be constant, with a ramp as without.) Errors and latency are judged on all answers, at the shares of the moment, which
their exact tests allow to move.

A share grows while no harm is shown. FAIL holds at any step, PASS at the end of the last one alone: small shares find what is
broken, the whole of the units tells what is better.

Source: Kohavi, Tang & Xu 2020, "Trustworthy Online Controlled Experiments", chapters 3 (Simpson's paradox) and 15 (ramping).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loudly.core.clock import DAY, iso, span
from loudly.core.seams import Assignment, Calls, Feedback, Floats, Strategy
from loudly.core.values import Arm, Decision, Verdict
from loudly.deliver.ab import MISMATCH
from loudly.deliver.bandit import diluted

# Of the 53 bits of a draw those that say whether a unit takes part; the others are the draw that the inner strategy sees.
HIGH = 2.0**26


@dataclass(frozen=True, slots=True)
class Ramp:
    """inner: an A/B test or a bandit.  steps: shares of the units that take part in it, growing to 1.  hold: least µs of a step.

    The state is that of the inner strategy, with `step` and `step_at` beside it.
    """

    inner: Strategy
    steps: tuple[float, ...]
    hold: int = DAY
    name: str = "ramp"

    def init(self, arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {**self.inner.init(arms, at, carry), "step": 0, "step_at": at}

    def assign(self, state: Mapping[str, Any], draws: Floats, context: Floats | None = None) -> Assignment:
        share = self.share(state)
        high, low = np.divmod(draws * HIGH, 1.0)
        made, inside = self.inner.assign(state, low, context), high < share * HIGH
        if share == 1:
            return made
        control = self.shares(state, context)[..., 0]
        arm = np.where(inside, made.arm, 0)
        return Assignment(arm, np.where(arm == 0, control, share * made.propensity), share=np.where(inside, share, 0.0))

    def update(self, state: Mapping[str, Any], feedback: Feedback) -> tuple[dict[str, Any], Verdict]:
        new, found = self.inner.update(state, within(feedback))
        return new, self._told(new, found)

    def observe(self, state: Mapping[str, Any], calls: Calls) -> tuple[dict[str, Any], Verdict]:
        new, found = self.inner.observe(state, replace(calls, part=self.share(state)))
        return new, self._told(new, found)

    def advance(self, state: Mapping[str, Any], at: int) -> tuple[dict[str, Any], Verdict]:
        new, found = self.inner.advance(state, at)
        grows = not (found.failed or found.reason.startswith(MISMATCH) or "frozen" in new)
        if grows and at - new["step_at"] >= self.hold and new["step"] < len(self.steps) - 1:
            new |= {"step": new["step"] + 1, "step_at": at}
        return new, self._told(new, found)

    def share(self, state: Mapping[str, Any]) -> float:
        """Of the units, that takes part as of now."""
        return float(self.steps[state["step"]])

    def shares(self, state: Mapping[str, Any], context: Floats | None = None) -> Floats:
        return diluted(self.inner.shares(state, context), self.share(state))

    def _told(self, state: Mapping[str, Any], found: Verdict) -> Verdict:
        """The verdict of the inner strategy; a PASS counts when all of the units have taken part for the time of a step."""
        found = replace(found, subject=f"{found.subject}, ramped to {100 * self.share(state):.3g}%")
        left = len(self.steps) - state["step"]
        ends = state["step_at"] + left * self.hold
        if not found.passed or (left == 1 and state["now"] >= ends):
            return found
        missing = f"the ramp to be over: all units for {span(self.hold)}, {iso(ends)} at the earliest"
        return Verdict(Decision.UNDECIDED, found.subject, f"{missing}; {found.reason}", found.evidence, missing, ends)


def within(feedback: Feedback) -> Feedback:
    """The rows of units that took part, with the propensity that the inner strategy gave them."""
    if feedback.share is None:
        return feedback
    rows = feedback.take(feedback.share > 0)
    assert rows.share is not None
    rest = np.where(rows.arm == 0, 1 - rows.share, 0.0)
    inner = None if rows.propensity is None else (rows.propensity - rest) / rows.share
    return replace(rows, propensity=inner, share=None)
