"""Blue-green: the candidate takes all traffic at once; the old version stays warm and scores along, to go back at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loudly.core.values import Verdict
from loudly.deliver.forecast import dated
from loudly.deliver.rollout import RolloutSpec
from loudly.deliver.side_by_side import SideBySide
from loudly.metrics.table import MetricSpec


def blue_green(spec: RolloutSpec, metric: MetricSpec) -> SideBySide:
    """All units go to the candidate; control shadows, so that labels can still roll it back."""
    return SideBySide("blue-green", 1, _by_deadline, spec, metric)


def _by_deadline(found: Verdict, state: Mapping[str, Any], spec: RolloutSpec) -> Verdict:
    return dated(found, state["since"] + spec.deadline)
