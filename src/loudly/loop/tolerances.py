"""Tolerances where nothing is said, and those that say nothing: margins that are no part of what a loss is, or nearly all of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from loudly.core.values import Task
from loudly.deliver.rollout import RolloutSpec
from loudly.evaluate.gate import Gate
from loudly.loop.system import System
from loudly.metrics.table import metric
from loudly.monitor.settings import MonitorSettings

# Of what is expected of a model: beyond the one a margin lets much through, below the other next to nothing.
MUCH, LITTLE = 0.25, 0.001
# Of these a margin is in units of the label.
IN_UNITS = ("mae", "mse", "rmse")
JUDGED = ("canary", "ab", "blue-green")
# What an unsaid tolerance of such a metric is: shares, which mean the same in every unit.
GATE = Gate(margin=0.02, slice_margin=0.05, relative=True)
MONITOR = MonitorSettings(tolerance=0.05, relative=True)
MARGIN, SLICES = 0.05, 0.1


def default_gate(name: str) -> Gate:
    """The gate of an app that says none. name: of its metric.

    >>> default_gate("roc_auc").margin, default_gate("mae").margin, default_gate("mae").relative
    (0.01, 0.02, True)
    """
    return GATE if name in IN_UNITS else Gate()


def default_monitor(name: str) -> MonitorSettings:
    """The monitor's settings of an app that says none. name: of its metric."""
    return MONITOR if name in IN_UNITS else MonitorSettings()


def default_margins(stages: Iterable[RolloutSpec], name: str) -> tuple[RolloutSpec, ...]:
    """The stages of a rollout that names no margin. name: of the app's metric."""
    unsaid = JUDGED if name in IN_UNITS else ()
    return tuple(replace(s, margin=MARGIN, slice_margin=SLICES, relative=True) if s.strategy in unsaid else s for s in stages)


def unfit_tolerances(system: System, expected: float | None) -> tuple[tuple[str, str], ...]:
    """What is said LOUD of margins in units of the label: (what, reason), where they do not fit the loss that is expected.

    expected: the metric on held-out rows.
    """
    spec = metric(system.metric)
    if spec.name not in IN_UNITS or Task.REGRESSION not in spec.tasks or not expected:
        return ()
    given = {} if system.gate.relative else {"the gate": system.gate.margin, "the gate's slices": system.gate.slice_margin}
    given |= {} if system.monitor.relative else {"the monitor": system.monitor.tolerance}
    given |= {f"the {stage.strategy}": stage.margin for stage in system.rollout if stage.strategy in JUDGED and not stage.relative}
    told = []
    for found, why in (
        ({name: m for name, m in given.items() if m > MUCH * expected}, "and models pass that are worse by a quarter and more"),
        ({name: m for name, m in given.items() if m < LITTLE * expected}, "which hardly any number of rows can tell from nothing"),
    ):
        if found:
            named = ", ".join(f"{margin:g} ({name})" for name, margin in found.items())
            told.append(f"tolerances of {named} where {spec.name} is expected to be {expected:.4g}: {why}")
    share = 'a share: app.rollout(margin="5%"), Gate(margin=0.05, relative=True), MonitorSettings(tolerance=0.05, relative=True)'
    do = f"say how much worse is too much, e.g. {expected / 20:.2g}, or {share}"
    return tuple(("tolerances", f"{reason}; {do}") for reason in told)
