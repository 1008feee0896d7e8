"""Answered rows without a label: how many, what is taken of them, what would overturn it, and when their absence forbids a PASS.

Labels of one kind may come later than those of another (a fraud is reported weeks after a sale). Of young rows only the quick
kinds are there, so no interval on them can promise anything of the others, weighted by class or not: within a class the slow rows
may be the harmed ones. A promotion therefore rests on rows so old that labels of all kinds have had their time.

Source: Chapelle 2014 (KDD), Ktena et al. 2019 (RecSys) and Yasui et al. 2020 (WWW) weight early labels by a model of the delay,
which must be right; `benchmarks/late_labels.py` shows what that leaves, and docs/decisions/0011 why cohorts are judged instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from loudly.core.clock import span
from loudly.core.values import Decision, Evidence, Verdict
from loudly.deliver.latency import CANDIDATE, CONTROL
from loudly.deliver.rollout import RolloutSpec

TOLERATED = 0.05


def unlabelled(overall: Evidence, evidence: Mapping[str, Any], spec: RolloutSpec) -> tuple[Evidence, ...]:
    """The rows without a label, where there are any: taken to be like the labelled ones, with what would overturn that."""
    labelled, rest = evidence["rows"], sum(awaited(evidence, spec))
    if rest <= 0 or overall.effect is None:
        return ()
    overturn = -spec.margin - labelled / rest * (overall.effect + spec.margin)
    young, old = awaited(evidence, spec)
    method, detail = "estimated as the labelled rows are", {"younger": young, "older": old}
    about = "rows without a label"
    return (Evidence(method, overall.effect, n=rest, about=about, unit=overall.unit, tolerance=overturn, detail=detail),)


def awaited(evidence: Mapping[str, Any], spec: RolloutSpec) -> tuple[int, int]:
    """Answered rows without a label: younger than the time that labels need, and older. By the counts where nobody told."""
    if evidence.get("awaited"):
        young, old = evidence["awaited"]
        return int(young), int(old)
    counts = [evidence["answered"][arm] for arm in (CONTROL, CANDIDATE)]
    return 0, (max(counts) if spec.paired else sum(counts)) - evidence["rows"]


def rest_of(found: tuple[Evidence, ...], spec: RolloutSpec) -> str:
    """What a PASS says of them."""
    aged = f" (younger than {span(spec.wait)}: {{younger:,}}, older: {{older:,}})" if spec.wait else ""
    return "".join(
        f"; {e.n:,} {e.about}{aged.format(**e.detail)} taken to be alike (they overturn it below {e.tolerance:+.3f})" for e in found
    )


def early(ripe: Verdict, found: Verdict, spec: RolloutSpec, seen: Mapping[str, int]) -> Verdict:
    """The word of the ripe rows, which may promote and not roll back: that is for all rows, whose risk is spent on them.

    seen: when labels came. Where no row is ripe yet, that is likely when those of the first have had their time, and no sooner.
    """
    waits = f"only rows older than {span(spec.wait or 0)} count for a promotion: {spec.because}"
    if ripe.passed:
        return replace(ripe, reason=f"{ripe.reason}; {waits}")
    told = f"{ripe.reason}; {waits}; with all labels so far: {found.reason}"
    missing = f"{ripe.missing}, of rows older than {span(spec.wait or 0)}" if ripe.missing else "ripe rows and all rows to agree"
    first = seen["first"] + (spec.wait or 0) if seen["rows"] else None
    return replace(ripe, decision=Decision.UNDECIDED, reason=told, missing=missing, expected_at=ripe.expected_at or first)


def unknown(found: Verdict, spec: RolloutSpec) -> Verdict:
    """A PASS is none while nobody knows how late labels come and the user does not want to guess."""
    if not found.passed:
        return found
    missing = "rows that have been followed for as long as labels may take"
    return Verdict(Decision.UNDECIDED, found.subject, f"{spec.because}; {found.reason}", found.evidence, missing=missing)


def fewer(found: Verdict, evidence: Mapping[str, Any], spec: RolloutSpec) -> Verdict:
    """No PASS where surely fewer rows have a label than had one at that age before: labels may have become slower, for some."""
    if not found.passed or not spec.share or not evidence.get("awaited"):
        return found
    labelled, old = evidence["rows"], int(evidence["awaited"][1])
    share, n = labelled / max(1, labelled + old), max(1, labelled + old)
    if share >= spec.share - TOLERATED - 2 * float(np.sqrt(spec.share * (1 - spec.share) / n)):
        return found
    told = f"{share:.0%} of {n:,} rows old enough have a label, {spec.share:.0%} had before: labels may have become slower"
    missing = f"labels of {old:,} rows"
    return Verdict(Decision.UNDECIDED, found.subject, f"{told}; {found.reason}", found.evidence, missing=missing)
