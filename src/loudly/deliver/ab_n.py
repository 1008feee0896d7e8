"""A/B/n test: several candidates against one control, each on the rows it answered alone; risk is split over the candidates.

Each candidate is held against control as in a test of two arms, with its part of alpha (Bonferroni: whatever the tests have in
common, control above all, one of them errs with probability alpha at most). Units are sticky, and must split over *all* arms as
planned. A candidate that surely errs more, is late or is worse leaves alone, as long as another is left (`dropping.py`). The test
goes on until the best is told: it ends as soon as no candidate that is still open could be better than one that has passed, or the
last one has failed; when its time is over, the best of those that have passed wins.
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
from loudly.deliver.evidence import add, add_counts, guards, judge, nothing_yet
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
        return self._judged({**state, "now": at})

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
        found = {name: _about(name, judge(evidence[name], spec, self.metric, subject)) for name in staying(state, left)}
        worse = {name: v for name, v in found.items() if v.failed}
        if len(worse) == len(found):
            return state, Verdict(Decision.FAIL, subject, _told(state, worse), tuple(e for v in worse.values() for e in v.evidence))
        state = without(state, worse)
        return state, self._best(state, subject, {name: v for name, v in found.items() if name not in worse})

    def _best(self, state: Mapping[str, Any], subject: str, found: Mapping[str, Verdict]) -> Verdict:
        """PASS for the best candidate as soon as it is told. found: of those that stay, none of which has failed."""
        passed = sorted((v for v in found.values() if v.passed), key=lambda v: -(v.evidence[0].effect or 0.0))
        pending = [v for v in found.values() if v.decision is Decision.UNDECIDED]
        over = state["now"] - state["since"] >= self.spec.deadline
        if passed and (over or not any(_may_be_better(v, passed[0]) for v in pending)):
            return self._passes(state, subject, (passed[0], *(v for v in found.values() if v is not passed[0])))
        everything = tuple(e for v in found.values() for e in v.evidence)
        missing = "; ".join(f"{name}: {self._missing(state, name, v)}" for name, v in found.items() if v in pending)
        return Verdict(Decision.UNDECIDED, subject, _told(state, found), everything, missing=missing)

    def _passes(self, state: Mapping[str, Any], subject: str, found: tuple[Verdict, ...]) -> Verdict:
        """The first of them wins, not before the least time."""
        evidence = tuple(e for v in found for e in v.evidence)
        if state["now"] - state["since"] < self.spec.hold:
            wait = f"an A/B test lasts {self.spec.hold // 3_600_000_000}h at least"
            return Verdict(Decision.UNDECIDED, subject, wait, evidence, wait, state["since"] + self.spec.hold)
        return Verdict(Decision.PASS, subject, f"{evidence[0].about} wins: {found[0].reason}", evidence)

    def _missing(self, state: Mapping[str, Any], name: str, found: Verdict) -> str:
        alpha = self.spec.alpha / len(state["evidence"])
        spec, share = replace(self.spec, alpha=alpha), self._share(state, name)
        return f"{found.missing}; {planned(state['evidence'][name], spec, self.metric, share, state['since'])[0]}"


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


def _told(state: Mapping[str, Any], found: Mapping[str, Verdict]) -> str:
    """What is said of each candidate, first of those that have left."""
    reasons = {name: v["reason"] for name, v in state["dropped"].items()} | {name: v.reason for name, v in found.items()}
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())


def _about(name: str, found: Verdict) -> Verdict:
    """The verdict with its first evidence about the candidate by name."""
    return replace(found, evidence=(replace(found.evidence[0], about=name), *found.evidence[1:]))


def _may_be_better(pending: Verdict, best: Verdict) -> bool:
    """Whether what is still open could have a larger effect than the lower end of the best so far."""
    high, low = pending.evidence[0].high, best.evidence[0].low
    return high is None or low is None or high > low
