"""Shadow: the candidate scores every row unseen; the champion answers.

It ends after its time. It passes unless harm was shown: errors, or labels that say the candidate is surely worse.
Cost: one more prediction a row, which a server makes behind the answer, together with others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loudly.core.clock import iso
from loudly.core.seams import Assignment, Calls, Feedback
from loudly.core.values import Arm, Decision, Verdict
from loudly.deliver.evidence import add, add_counts, judge, nothing_yet, settled
from loudly.deliver.latency import CANDIDATE
from loudly.deliver.rollout import RolloutSpec
from loudly.metrics.table import MetricSpec

if TYPE_CHECKING:
    from loudly.core.seams import Floats


@dataclass(frozen=True, slots=True)
class Shadow:
    """Arms: (control, candidate). All units go to control."""

    spec: RolloutSpec
    metric: MetricSpec
    name: str = "shadow"

    def init(self, arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {"since": at, "now": at, "evidence": dict(carry or nothing_yet())}

    def assign(self, state: Mapping[str, Any], draws: Floats, context: Floats | None = None) -> Assignment:
        n = len(draws)
        return Assignment(np.zeros(n, dtype=np.int64), np.ones(n), (CANDIDATE,))

    def shares(self, state: Mapping[str, Any], context: Floats | None = None) -> Floats:
        return np.array([1.0, 0.0])

    def update(self, state: Mapping[str, Any], feedback: Feedback) -> tuple[dict[str, Any], Verdict]:
        new = {**state, "evidence": add(state["evidence"], feedback, self.metric, True)}
        return new, self._verdict(new)

    def observe(self, state: Mapping[str, Any], calls: Calls) -> tuple[dict[str, Any], Verdict]:
        new = {**state, "evidence": add_counts(state["evidence"], calls, 0.5)}
        return new, self._verdict(new)

    def advance(self, state: Mapping[str, Any], at: int) -> tuple[dict[str, Any], Verdict]:
        new = {**state, "now": at, "evidence": settled(state["evidence"], self.metric, at)}
        return new, self._verdict(new)

    def _verdict(self, state: Mapping[str, Any]) -> Verdict:
        found = judge(state["evidence"], self.spec, self.metric, self.name)
        if found.failed:
            return found
        ends = state["since"] + self.spec.hold
        if state["now"] >= ends:
            return Verdict(Decision.PASS, self.name, "its time is over and no harm was shown", found.evidence)
        return Verdict(Decision.UNDECIDED, self.name, "shadowing", found.evidence, f"time until {iso(ends)}", ends)
