"""Canary: the candidate answers a growing share, against a concurrent control, judged on the quality of its answers.

The verdict is an interval on candidate minus control that is valid at every look. A step lasts at least `hold`; the share
grows while no harm is shown; a PASS promotes from any step but the first moments, a FAIL rolls back at once. With
`paired`, both versions score each row of the rollout, which assumes that the answer does not influence the label;
without it, each row judges the version that answered it and the last step waits for the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from loudly.core.seams import Assignment, Calls, Feedback, Floats
from loudly.core.values import Arm, Decision, Verdict
from loudly.deliver.evidence import SUSPECT, add, add_counts, judge, nothing_yet, settled
from loudly.deliver.forecast import dated
from loudly.deliver.latency import CANDIDATE, CONTROL
from loudly.deliver.rollout import RolloutSpec
from loudly.metrics.table import MetricSpec


@dataclass(frozen=True, slots=True)
class Canary:
    """Arms: (control, candidate). A unit whose draw is below the share meets the candidate, so growing keeps it there."""

    spec: RolloutSpec
    metric: MetricSpec
    name: str = "canary"

    def init(self, arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {"since": at, "now": at, "step": 0, "step_at": at, "evidence": dict(carry or nothing_yet())}

    def assign(self, state: Mapping[str, Any], draws: Floats, context: Floats | None = None) -> Assignment:
        share = self.share(state)
        arm = (draws < share).astype(np.int64)
        propensity = np.where(arm == 1, share, 1.0 - share)
        return Assignment(arm, propensity, (CONTROL, CANDIDATE) if self.spec.paired else ())

    def shares(self, state: Mapping[str, Any], context: Floats | None = None) -> Floats:
        return np.array([1.0 - self.share(state), self.share(state)])

    def update(self, state: Mapping[str, Any], feedback: Feedback) -> tuple[dict[str, Any], Verdict]:
        new = {**state, "evidence": add(state["evidence"], feedback, self.metric, self.spec.paired)}
        return new, self._verdict(new)

    def observe(self, state: Mapping[str, Any], calls: Calls) -> tuple[dict[str, Any], Verdict]:
        share = 0.5 if self.spec.paired else self.share(state)
        new = {**state, "evidence": add_counts(state["evidence"], calls, share)}
        return new, self._verdict(new)

    def advance(self, state: Mapping[str, Any], at: int) -> tuple[dict[str, Any], Verdict]:
        new = {**state, "now": at, "evidence": settled(state["evidence"], self.metric, at)}
        last = len(self.spec.steps) - 1 if self.spec.paired else max(0, len(self.spec.steps) - 2)
        found = self._verdict(new)
        grows = not found.failed and not found.reason.startswith(SUSPECT)
        if at - state["step_at"] >= self.spec.hold and state["step"] < last and grows:
            new |= {"step": state["step"] + 1, "step_at": at}
            found = self._verdict(new)
        return new, found

    def share(self, state: Mapping[str, Any]) -> float:
        """The candidate's share of the units as of now."""
        return float(self.spec.steps[state["step"]])

    def _verdict(self, state: Mapping[str, Any]) -> Verdict:
        found = judge(state["evidence"], self.spec, self.metric, f"{self.name} at {self.share(state):.0%}")
        if found.passed and state["now"] - state["since"] < self.spec.hold:
            wait = f"the first step lasts until {self.spec.hold // 3_600_000_000}h after its start"
            return Verdict(Decision.UNDECIDED, found.subject, wait, found.evidence, wait, state["since"] + self.spec.hold)
        return dated(found, state["since"] + self.spec.deadline)
