"""The estimate without labels, held against labels as they come: one that they refute is used no more under this champion."""

from __future__ import annotations

from loudly.core.seams import Floats, Ints
from loudly.core.values import Decision, Verdict
from loudly.shift.estimate.cbpe import Cbpe

DISPROVED = "estimate disproved"


class Checked:
    """Looks whenever `enough` labelled rows more have come; the j-th look has 1/(j(j+1)) of the risk, so all looks have no more."""

    def __init__(self, enough: int) -> None:
        self._enough, self._tolerance = enough, 0.0
        self._looked = self._looks = 0
        self.verdict: Verdict | None = None

    def begin(self, labelled: int, tolerance: float) -> None:
        """A new champion: nothing is disproved. labelled: rows that have come so far.  tolerance: in units of the metric."""
        self._looked, self._looks, self.verdict, self._tolerance = labelled, 0, None, tolerance

    @property
    def disproved(self) -> bool:
        """Whether labels have refuted the estimate of this champion."""
        return self.verdict is not None and self.verdict.failed

    def due(self, labelled: int) -> bool:
        """Whether it is time for a look."""
        return not self.disproved and labelled - self._looked >= self._enough

    def look(self, cbpe: Cbpe, score: Floats, truth: Floats, days: Ints, labelled: int) -> bool:
        """One look; whether it has just been disproved: labels differ by more than chance allows, and by more than is tolerated.

        Shapes: score, truth, days (n,): rows of one day err alike.
        """
        self._looks, self._looked = self._looks + 1, labelled
        found = cbpe.check_against(score, truth, looks=self._looks * (self._looks + 1), days=days)
        gap = found.evidence[0].effect
        if found.failed and gap is not None and abs(gap) <= self._tolerance:
            found = Verdict(
                Decision.PASS, found.subject, f"off by {abs(gap):.4f}, {self._tolerance:g} is tolerated", found.evidence
            )
        self.verdict = Verdict(found.decision, DISPROVED, found.reason, found.evidence) if found.failed else found
        return found.failed
