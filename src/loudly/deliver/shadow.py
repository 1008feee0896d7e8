"""Shadow: the candidate scores every row unseen; the champion answers.

It ends after its time. It passes unless harm was shown: errors, or labels that say the candidate is surely worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loudly.core.clock import iso
from loudly.core.values import Decision, Verdict
from loudly.deliver.rollout import RolloutSpec
from loudly.deliver.side_by_side import SideBySide
from loudly.metrics.table import MetricSpec


def shadow(spec: RolloutSpec, metric: MetricSpec) -> SideBySide:
    """All units go to control."""
    return SideBySide("shadow", 0, _unharmed, spec, metric)


def _unharmed(found: Verdict, state: Mapping[str, Any], spec: RolloutSpec) -> Verdict:
    """PASS when its time is over and no harm was shown."""
    if found.failed:
        return found
    ends = state["since"] + spec.hold
    if state["now"] >= ends:
        return Verdict(Decision.PASS, found.subject, "its time is over and no harm was shown", found.evidence)
    return Verdict(Decision.UNDECIDED, found.subject, "shadowing", found.evidence, f"time until {iso(ends)}", ends)
