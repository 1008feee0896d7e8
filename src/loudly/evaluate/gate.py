"""The gate: what a candidate must pass before it may take traffic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

from loudly.core.values import Decision, Evidence, Verdict, worst
from loudly.metrics.table import FEWEST_OF_A_CLASS

AGAINST = "against the champion"
# Slices that could not be judged are named up to so many.
NAMED = 3


@dataclass(frozen=True, slots=True)
class Gate:
    """Tolerances in units of the metric, oriented so that + is better; where `relative`, in shares of what the champion is worth.

    margin: by how much the candidate may be worse than the champion at most (non-inferiority).
    slice_margin: the same for each declared slice.  rows: held-out rows that are needed.
    overfit: by how much the metric may be better on the training rows than on held-out ones, as of `evaluate.overfit`. None refuses
    nobody, for a forest knows its rows by heart and may be the best on others; what is beyond 0.25 is said LOUD.
    """

    margin: float = 0.01
    slice_margin: float = 0.05
    rows: int = 500
    overfit: float | None = None
    relative: bool = False

    def judge(
        self,
        against: Evidence | None,
        slices: tuple[Evidence, ...] = (),
        others: tuple[Verdict, ...] = (),
        *,
        held_out: int,
        alone: str = "no champion to compare with",
        worth: float | None = None,
    ) -> Verdict:
        """One verdict of all: against the champion (None where it cannot be: `alone` says why), by slice, and what else was judged.

        PASS: surely not worse than the margin, no slice surely worse than its margin, nothing else failed.
        FAIL: surely worse, or a slice is, or a judgment failed.  UNDECIDED: says how many more rows.
        worth: what the champion reached on the held-out rows; None, or NaN, leaves no margin where margins are relative.
        """
        if self.relative:
            unit = abs(worth) if worth is not None and isfinite(worth) else 0.0
            judge = replace(self, margin=self.margin * unit, slice_margin=self.slice_margin * unit, relative=False).judge
            return judge(against, slices, others, held_out=held_out, alone=alone)
        parts = (*self._overall(against, held_out, alone), *map(self._slice, slices), *others)
        decision = worst(parts)
        said = [p for p in parts if p.decision is decision]
        reason = (
            "; ".join(f"{p.subject}: {p.reason}" for p in said[:3]) if decision is not Decision.PASS else _summary(parts, slices)
        )
        missing = "; ".join(p.missing for p in said if p.missing)
        evidence = tuple(e for p in parts for e in p.evidence)
        return Verdict(decision, "gate", reason, evidence, missing)

    def _overall(self, against: Evidence | None, held_out: int, alone: str) -> tuple[Verdict, ...]:
        if held_out < self.rows:
            lacking = f"{self.rows - held_out} more held-out rows"
            return (Verdict(Decision.UNDECIDED, "held-out rows", f"{held_out} of {self.rows}", missing=lacking),)
        if against is None:
            return (Verdict(Decision.PASS, AGAINST, alone),)
        return (_within(against, self.margin, AGAINST, strict=True),)

    def _slice(self, evidence: Evidence) -> Verdict:
        return _within(evidence, self.slice_margin, f"slice {evidence.about}", strict=False)


def _within(evidence: Evidence, margin: float, subject: str, *, strict: bool) -> Verdict:
    """Non-inferiority. Strict demands that harm beyond the margin is excluded; else it fails only where the rows are surely
    worse, and by more than the margin as far as one can tell."""
    if evidence.effect is None or evidence.low is None or evidence.high is None:
        if strict:
            missing = "more held-out rows with finite predictions and labels that differ "
            missing += f"({FEWEST_OF_A_CLASS} of each class where scores are ranked)"
            return Verdict(Decision.UNDECIDED, subject, "the rows cannot tell", (evidence,), missing=missing)
        return Verdict(Decision.PASS, subject, f"too few rows to judge ({evidence.n})", (evidence,))
    told = f"{evidence.effect:+.4f} [{evidence.low:+.4f}, {evidence.high:+.4f}] against -{margin:g}"
    surely = evidence.high < -margin if strict else evidence.high < 0 and evidence.effect < -margin
    if surely:
        return Verdict(Decision.FAIL, subject, f"surely worse: {told}", (evidence,))
    if evidence.low > -margin or not strict:
        return Verdict(Decision.PASS, subject, told, (evidence,))
    spread = (evidence.high - evidence.low) / 2
    room = evidence.effect + margin
    if room <= 0:
        return Verdict(Decision.FAIL, subject, f"probably worse: {told}", (evidence,))
    more = max(1, round(evidence.n * ((spread / room) ** 2 - 1)))
    return Verdict(Decision.UNDECIDED, subject, told, (evidence,), missing=f"about {more:,} more held-out rows")


def _summary(parts: tuple[Verdict, ...], slices: tuple[Evidence, ...]) -> str:
    """What passed, and which slices had too few rows to be judged at all."""
    head = next(p.reason for p in parts if p.subject == AGAINST)
    few = [e.about for e in slices if e.effect is None]
    passed = len(parts) - len(few)
    told = f"{head}; {passed} judgment{'s' if passed > 1 else ''} passed"
    if not few:
        return told
    rest = f" and {len(few) - NAMED} more" if len(few) > NAMED else ""
    return f"{told}; too few rows to judge {', '.join(few[:NAMED])}{rest}"
