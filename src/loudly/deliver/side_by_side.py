"""Both arms score every row, one of them answers them all: what shadow and blue-green share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from loudly.core.seams import Assignment, Calls, Feedback, Floats
from loudly.core.values import Arm, Verdict
from loudly.deliver.evidence import add, add_counts, judge, nothing_yet, settled
from loudly.deliver.latency import CANDIDATE, CONTROL
from loudly.deliver.rollout import RolloutSpec
from loudly.metrics.table import MetricSpec

Rule = Callable[[Verdict, Mapping[str, Any], RolloutSpec], Verdict]


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Arms: (control, candidate). answers: the index of the one that does.  rule: (what the evidence says, state, spec) -> verdict.

    Cost: one more prediction a row, which a server makes behind the answer, together with others, where control answers.
    """

    name: str
    answers: int
    rule: Rule
    spec: RolloutSpec
    metric: MetricSpec

    def init(self, arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {"since": at, "now": at, "evidence": dict(carry or nothing_yet())}

    def assign(self, state: Mapping[str, Any], draws: Floats, context: Floats | None = None) -> Assignment:
        n, shadow = len(draws), (CANDIDATE, CONTROL)[self.answers]
        return Assignment(np.full(n, self.answers, dtype=np.int64), np.ones(n), (shadow,))

    def shares(self, state: Mapping[str, Any], context: Floats | None = None) -> Floats:
        return np.array([1.0 - self.answers, self.answers])

    def update(self, state: Mapping[str, Any], feedback: Feedback) -> tuple[dict[str, Any], Verdict]:
        return self._judged({**state, "evidence": add(state["evidence"], feedback, self.metric, True)})

    def observe(self, state: Mapping[str, Any], calls: Calls) -> tuple[dict[str, Any], Verdict]:
        return self._judged({**state, "evidence": add_counts(state["evidence"], calls, 0.5)})

    def advance(self, state: Mapping[str, Any], at: int) -> tuple[dict[str, Any], Verdict]:
        return self._judged({**state, "now": at, "evidence": settled(state["evidence"], self.metric, at)})

    def _judged(self, state: dict[str, Any]) -> tuple[dict[str, Any], Verdict]:
        found = judge(state["evidence"], self.spec, self.metric, self.name)
        return state, self.rule(found, state, self.spec)
