"""A/B test: two arms, a fixed share, each judged on the rows it answered alone; stops as soon as the evidence is sure.

Units are sticky and rows of one unit count as one cluster. Whether units split as planned is tested all along: a mismatch stops the
analysis for good, for then no effect can be believed; only the guards on errors and latency go on. A covariate from before
the test (first column of the feedback's context) takes away the spread that it explains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loudly.core.clock import DAY
from loudly.core.seams import Assignment, Calls, Feedback, Floats
from loudly.core.values import Arm, Decision, Verdict
from loudly.deliver.evidence import GUARD, add, add_counts, guards, judge, nothing_yet, settled, spread
from loudly.deliver.forecast import dated
from loudly.deliver.latency import CANDIDATE, CONTROL
from loudly.deliver.rollout import RolloutSpec
from loudly.metrics.table import MetricSpec
from loudly.stats.clusters import Met, hashes, met_of
from loudly.stats.plan import auc_deviation, proportion_deviation, sequential
from loudly.stats.sample_ratio import SampleRatio, sample_ratio_of

POWER = 0.8
MISMATCH = "sample ratio mismatch"
# What the plan takes for granted before there are labels: an AUC of 0.75 with 20 % positives, else a proportion at its widest.
ASSUMED = {"roc_auc": auc_deviation(0.75, 0.2), "average_precision": 2.0}


@dataclass(frozen=True, slots=True)
class Ab:
    """Arms: (control, candidate). A unit whose draw is below the share meets the candidate, for as long as the test lasts."""

    spec: RolloutSpec
    metric: MetricSpec
    name: str = "ab"

    def init(self, arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None = None) -> dict[str, Any]:
        ratio = SampleRatio((1.0 - self.share, self.share))
        units = {"ratio": ratio.plain(), "met": Met().plain()}
        return {"since": at, "now": at, "evidence": dict(carry or nothing_yet()), **units}

    def assign(self, state: Mapping[str, Any], draws: Floats, context: Floats | None = None) -> Assignment:
        arm = (draws < self.share).astype(np.int64)
        return Assignment(arm, np.where(arm == 1, self.share, 1.0 - self.share))

    def shares(self, state: Mapping[str, Any], context: Floats | None = None) -> Floats:
        """(2,) of the arms."""
        return np.array([1.0 - self.share, self.share])

    def update(self, state: Mapping[str, Any], feedback: Feedback) -> tuple[dict[str, Any], Verdict]:
        met, counts = met_of(state["met"]).add(hashes(feedback.units), feedback.arm, 2)
        ratio = sample_ratio_of(state["ratio"]).add(counts)
        before = None if feedback.context is None else feedback.context[:, 0]
        evidence = add(state["evidence"], feedback, self.metric, False, before)
        new = {**state, "evidence": evidence, "ratio": ratio.plain(), "met": met.plain()}
        return new, self._verdict(new)

    def observe(self, state: Mapping[str, Any], calls: Calls) -> tuple[dict[str, Any], Verdict]:
        new = {**state, "evidence": add_counts(state["evidence"], calls, calls.part * self.share)}
        return new, self._verdict(new)

    def advance(self, state: Mapping[str, Any], at: int) -> tuple[dict[str, Any], Verdict]:
        new = {**state, "now": at, "evidence": settled(state["evidence"], self.metric, at)}
        return new, self._verdict(new)

    @property
    def share(self) -> float:
        """The candidate's share of the units, the same all along."""
        return float(self.spec.steps[0])

    def _verdict(self, state: Mapping[str, Any]) -> Verdict:
        subject, spec = f"{self.name} at {self.share:.0%}", replace(self.spec, paired=False)
        broken = guards(state["evidence"], spec, subject)
        off = mismatch(sample_ratio_of(state["ratio"]), (CONTROL, CANDIDATE), spec.alpha, subject)
        if broken is None and off is not None:
            return off
        found = broken or judge(state["evidence"], spec, self.metric, subject)
        if found.passed and state["now"] - state["since"] < spec.hold:
            wait = f"an A/B test lasts {spec.hold // 3_600_000_000}h at least"
            return Verdict(Decision.UNDECIDED, subject, wait, found.evidence, wait, state["since"] + spec.hold)
        if found.decision is Decision.UNDECIDED:
            told, expected = planned(state["evidence"], self.spec, self.metric, self.share, state["since"])
            found = dated(found, state["since"] + spec.deadline)
            return replace(found, missing=f"{found.missing}; {told}", expected_at=found.expected_at or expected)
        return found


def mismatch(ratio: SampleRatio, arms: Sequence[str], alpha: float, subject: str) -> Verdict | None:
    """UNDECIDED for good where the units have surely not split as planned; else None."""
    risk = GUARD * alpha
    if not ratio.off(risk):
        return None
    seen = ratio.evidence(arms, risk)
    arm = list(arms).index(seen.about) if len(arms) > 2 else 1
    whose = f"{arms[arm]}'s" if len(arms) > 2 else "the candidate's"
    told = f"{ratio.counts[arm]:,} of {ratio.n:,} units are {whose}, {ratio.shares[arm]:.0%} were planned"
    missing = "the cause of the mismatch, and a new test; this one decides nothing more"
    return Verdict(Decision.UNDECIDED, subject, f"{MISMATCH}: {told}", (seen,), missing=missing)


def planned(evidence: Mapping[str, Any], spec: RolloutSpec, metric: MetricSpec, share: float, since: int) -> tuple[str, int | None]:
    """How large a test of two arms is to be, from the spread seen or else assumed, and when it is likely to be over (µs).

    share: of the candidate.
    """
    seen = spread(evidence)
    deviation = seen or ASSUMED.get(metric.name, proportion_deviation() * (metric.reach or 1.0))
    if spec.margin <= 0:
        return "no size is planned for a margin of 0", None
    size = sequential(spec.margin, deviation, POWER, spec.alpha, share)
    told = f"planned: {size.control:,} + {size.candidate:,} labelled rows for a power of {POWER:.0%}"
    if not seen:
        return f"{told} at an assumed deviation of {deviation:.2g} a row", None
    days = size.days(evidence["rows"] / max(1, len(evidence["days"])))
    if days is None:
        return told, None
    days = max(days, spec.days)
    late = " (after the deadline)" if days * DAY > spec.deadline else ""
    return f"{told}, about {days:,} labelled days{late}", since + days * DAY
