"""A/B/n test: several candidates against one control, each on the rows it answered alone; risk is split over the candidates.

Each candidate is held against control as in a test of two arms, with its part of alpha (Bonferroni: whatever the tests have in
common, control above all, one of them errs with probability alpha at most). Units are sticky, and must split over *all* arms as
planned. A candidate that surely errs more, is late or is worse leaves alone, as long as another is left (`dropping.py`); the test
goes on until the best is told (`electing.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loudly.core.seams import Assignment, Calls, Feedback, Floats
from loudly.core.values import Arm, Decision, Verdict
from loudly.deliver.ab import mismatch, planned
from loudly.deliver.bandit import diluted, pick
from loudly.deliver.dropping import deal, kept, out, staying, without
from loudly.deliver.electing import elect
from loudly.deliver.evidence import add, add_counts, guards, judge, nothing_yet, settled
from loudly.deliver.latency import CANDIDATE, CONTROL
from loudly.deliver.rollout import RolloutSpec
from loudly.errors import RolloutError
from loudly.metrics.table import MetricSpec
from loudly.stats.clusters import Met, hashes, met_of
from loudly.stats.sample_ratio import SampleRatio, sample_ratio_of


@dataclass(frozen=True, slots=True)
class AbN:
    """Arms: control first. A draw falls into the shares as on a ruler, so a unit keeps its arm for as long as the test lasts.

    Where fewer arms come than the spec has shares for, these are scaled up; none are an even split.
    """

    spec: RolloutSpec
    metric: MetricSpec
    name: str = "ab-n"

    def init(self, arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None = None) -> dict[str, Any]:
        names = [arm.name for arm in arms]
        if len(names) < 2 or len(set(names)) != len(names) or names[0] != CONTROL:
            raise RolloutError("An A/B/n test has control and candidates, each with a name of its own.", seen=", ".join(names))
        wanted = np.asarray(self.spec.shares[: len(names)] if len(self.spec.shares) >= len(names) else np.ones(len(names)))
        shares = (wanted / wanted.sum()).tolist()
        carried = carry if carry and list(carry) == names[1:] else {name: nothing_yet() for name in names[1:]}
        units = {"ratio": SampleRatio(tuple(shares)).plain(), "met": Met().plain()}
        return {"since": at, "now": at, "arms": names, "shares": shares, "dropped": {}, "evidence": dict(carried), **units}

    def assign(self, state: Mapping[str, Any], draws: Floats, context: Floats | None = None) -> Assignment:
        shares, gone = np.asarray(state["shares"]), out(state, state["arms"])
        return deal(shares, draws, gone) if gone else pick(shares, draws)

    def shares(self, state: Mapping[str, Any], context: Floats | None = None) -> Floats:
        """(k,) of the arms, those that have left without one."""
        return kept(np.asarray(state["shares"]), out(state, state["arms"]))

    def update(self, state: Mapping[str, Any], feedback: Feedback) -> tuple[dict[str, Any], Verdict]:
        met, counts = met_of(state["met"]).add(hashes(feedback.units), feedback.arm, len(state["arms"]))
        stay = [state["arms"].index(name) for name in staying(state, state["arms"])]
        ratio = ratio_of(state).add([counts[arm] for arm in stay])
        evidence = dict(state["evidence"])
        for arm in stay[1:]:
            name = state["arms"][arm]
            pair = pair_of(feedback, arm, name)
            evidence[name] = add(evidence[name], pair, self.metric, False, None if pair.context is None else pair.context[:, 0])
        return self._judged({**state, "evidence": evidence, "ratio": ratio.plain(), "met": met.plain()})

    def observe(self, state: Mapping[str, Any], calls: Calls) -> tuple[dict[str, Any], Verdict]:
        evidence = dict(state["evidence"])
        for name in staying(state, evidence):
            pair = calls.among({CONTROL: CONTROL, CANDIDATE: name})
            evidence[name] = add_counts(evidence[name], pair, self._share(state, name, calls.part))
        return self._judged({**state, "evidence": evidence})

    def advance(self, state: Mapping[str, Any], at: int) -> tuple[dict[str, Any], Verdict]:
        evidence = {name: settled(found, self.metric, at) for name, found in state["evidence"].items()}
        return self._judged({**state, "now": at, "evidence": evidence})

    def _share(self, state: Mapping[str, Any], name: str, part: float = 1.0) -> float:
        """The candidate's share of what it and control answer."""
        shares = diluted(self.shares(state), part)
        mine = shares[state["arms"].index(name)]
        return float(mine / (mine + shares[0]))

    def _judged(self, state: dict[str, Any]) -> tuple[dict[str, Any], Verdict]:
        """The state without the candidates that have failed, as long as one is left; and the verdict on those."""
        subject, evidence = f"ab of {len(state['arms'])} arms", state["evidence"]
        spec = replace(self.spec, paired=False, alpha=self.spec.alpha / len(evidence))
        left = staying(state, evidence)
        broken = {name: seen for name in left if (seen := guards(evidence[name], spec, f"{subject}: {name}"))}
        off = mismatch(ratio_of(state), [CONTROL, *left], self.spec.alpha, subject)
        if broken and (off is not None or len(broken) == len(left)):
            return state, next(iter(broken.values()))
        if off is not None:
            return state, off
        state = without(state, broken)
        found = {name: self._found(state, name, spec, subject) for name in staying(state, left)}
        state, best = elect(state, found, subject, state["now"] - state["since"] >= spec.deadline)
        if best.passed and state["now"] - state["since"] < spec.hold:
            wait = f"an A/B test lasts {spec.hold // 3_600_000_000}h at least"
            return state, Verdict(Decision.UNDECIDED, subject, wait, best.evidence, wait, state["since"] + spec.hold)
        return state, best

    def _found(self, state: Mapping[str, Any], name: str, spec: RolloutSpec, subject: str) -> Verdict:
        """On one candidate against control, at its part of the risk; with what is planned where that is not enough yet."""
        evidence = state["evidence"][name]
        found = judge(evidence, spec, self.metric, subject)
        if found.decision is Decision.UNDECIDED:
            told, _ = planned(evidence, spec, self.metric, self._share(state, name), state["since"])
            found = replace(found, missing=f"{found.missing}; {told}")
        return replace(found, evidence=(replace(found.evidence[0], about=name), *found.evidence[1:]))


def pair_of(feedback: Feedback, arm: int, name: str) -> Feedback:
    """The rows that control or one candidate has answered, as those of a test of two arms."""
    rows = feedback.take((feedback.arm == 0) | (feedback.arm == arm))
    scores = {CONTROL: rows.scores[CONTROL], CANDIDATE: rows.scores[name]}
    return replace(rows, arm=(rows.arm == arm).astype(np.int64), scores=scores, slices={})


def ratio_of(state: Mapping[str, Any]) -> SampleRatio:
    """How the units split; of the arms that stay, once some have left: that is what was planned given these arms."""
    ratio, gone = sample_ratio_of(state["ratio"]), out(state, state["arms"])
    stay = [share for arm, share in enumerate(state["shares"]) if arm not in gone]
    return ratio if len(ratio.shares) == len(stay) else ratio.planned(tuple(share / sum(stay) for share in stay))
