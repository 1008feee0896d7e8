"""Blue-green: the candidate takes all traffic at once; the old version stays warm and scores along, to go back at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loudly.core.seams import Assignment, Calls, Feedback
from loudly.core.values import Arm, Verdict
from loudly.deliver.evidence import add, add_counts, judge, nothing_yet, settled
from loudly.deliver.forecast import dated
from loudly.deliver.latency import CONTROL
from loudly.deliver.rollout import RolloutSpec
from loudly.metrics.table import MetricSpec

if TYPE_CHECKING:
    from loudly.core.seams import Floats


@dataclass(frozen=True, slots=True)
class BlueGreen:
    """Arms: (control, candidate). All units go to the candidate; control shadows, so that labels can still roll it back."""

    spec: RolloutSpec
    metric: MetricSpec
    name: str = "blue-green"

    def init(self, arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {"since": at, "now": at, "evidence": dict(carry or nothing_yet())}

    def assign(self, state: Mapping[str, Any], draws: Floats, context: Floats | None = None) -> Assignment:
        n = len(draws)
        return Assignment(np.ones(n, dtype=np.int64), np.ones(n), (CONTROL,))

    def shares(self, state: Mapping[str, Any], context: Floats | None = None) -> Floats:
        return np.array([0.0, 1.0])

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
        return dated(found, state["since"] + self.spec.deadline)
