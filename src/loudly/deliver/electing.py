"""Which of several candidates wins: verdicts on each of them against control, as one.

A candidate that has failed leaves alone, as long as another is left. It goes on until the best is told: it ends as soon as no
candidate that is still open could be better than one that has passed, or the last one has failed; when its time is over, the best
of those that have passed wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loudly.core.values import Decision, Evidence, Verdict
from loudly.deliver.dropping import without


def elect(state: Mapping[str, Any], found: Mapping[str, Verdict], subject: str, over: bool) -> tuple[dict[str, Any], Verdict]:
    """The state without the candidates that have failed, as long as one is left; and the verdict.

    found: on each candidate that has not left, its first evidence being about it by name.  over: time is.
    """
    worse = {name: v for name, v in found.items() if v.failed}
    if len(worse) == len(found):
        return dict(state), Verdict(Decision.FAIL, subject, _told(state, worse), _evidence(worse.values()))
    state, found = without(state, worse), {name: v for name, v in found.items() if name not in worse}
    passed = sorted((v for v in found.values() if v.passed), key=lambda v: -(v.evidence[0].effect or 0.0))
    pending = {name: v for name, v in found.items() if v.decision is Decision.UNDECIDED}
    if passed and (over or not any(_may_be_better(v, passed[0]) for v in pending.values())):
        best, others = passed[0], [v for v in found.values() if v is not passed[0]]
        reason = f"{best.evidence[0].about} wins: {best.reason}"
        return state, Verdict(Decision.PASS, subject, reason, _evidence([best, *others]))
    missing = "; ".join(f"{name}: {v.missing}" for name, v in pending.items())
    return state, Verdict(Decision.UNDECIDED, subject, _told(state, found), _evidence(found.values()), missing=missing)


def _told(state: Mapping[str, Any], found: Mapping[str, Verdict]) -> str:
    """What is said of each candidate, first of those that have left."""
    reasons = {name: v["reason"] for name, v in state["dropped"].items()} | {name: v.reason for name, v in found.items()}
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())


def _evidence(found: Iterable[Verdict]) -> tuple[Evidence, ...]:
    return tuple(e for v in found for e in v.evidence)


def _may_be_better(pending: Verdict, best: Verdict) -> bool:
    """Whether what is still open could have a larger effect than the lower end of the best so far."""
    high, low = pending.evidence[0].high, best.evidence[0].low
    return high is None or low is None or high > low
