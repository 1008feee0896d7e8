"""The strategy of a rollout's stage, made from its settings."""

from __future__ import annotations

from dataclasses import replace

from loudly.core.seams import Merging, Strategy
from loudly.core.values import Task
from loudly.deliver.ab import Ab
from loudly.deliver.ab_n import AbN
from loudly.deliver.bandit import BanditSpec
from loudly.deliver.blue_green import blue_green
from loudly.deliver.canary import Canary
from loudly.deliver.epsilon_greedy import epsilon_greedy
from loudly.deliver.interleave import Interleave
from loudly.deliver.linear_thompson import linear_thompson
from loudly.deliver.linucb import linucb
from loudly.deliver.ramp import Ramp
from loudly.deliver.rollout import RolloutSpec
from loudly.deliver.shadow import shadow
from loudly.deliver.thompson import thompson
from loudly.deliver.ucb1 import ucb1
from loudly.errors import ConfigError, RolloutError
from loudly.loop.system import System
from loudly.metrics.table import MetricSpec, Rate, in_traffic, margin_in_traffic


def strategy_of(system: System, spec: RolloutSpec, task: Task, features: int, rates: tuple[Rate, ...] = ()) -> Strategy:
    """Judging by the metric that can be followed row by row, or, a bandit, by rewards.

    features: of the context.  rates: as of `in_traffic`.

    Raises: RolloutError for a strategy that does not exist, ConfigError for lists of answers that are no ranking.
    """
    if spec.interleaves:
        return _interleaving(system, spec, task)
    made = _by_name(spec, in_traffic(system.metric, task, rates), features)
    if not spec.ramp:
        return made
    if not spec.experiments:
        raise ConfigError("Only an A/B test or a bandit is ramped.", seen=spec.strategy)
    return Ramp(made, spec.ramp, spec.hold)


def _by_name(spec: RolloutSpec, judged: MetricSpec, features: int) -> Strategy:
    learns = BanditSpec(spec.floor, spec.alpha, spec.margin, spec.days, spec.hold, alone=True)
    match spec.strategy:
        case "shadow":
            return shadow(spec, judged)
        case "canary":
            return Canary(spec, judged)
        case "blue-green":
            return blue_green(spec, judged)
        case "ab" if spec.arms > 2:
            return AbN(spec, judged)
        case "ab":
            return Ab(spec, judged)
        case "epsilon-greedy":
            return epsilon_greedy(learns)
        case "thompson":
            return thompson(learns)
        case "ucb1":
            return ucb1(learns)
        case "linucb":
            return linucb(features, learns)
        case "linear-thompson":
            return linear_thompson(features, learns)
        case unknown:
            raise RolloutError(f"There is no strategy {unknown!r}.")


def scaled(system: System, spec: RolloutSpec, scale: float | None, expected: float | None) -> RolloutSpec:
    """The settings of a stage with its margins in units of the metric that is followed in traffic.

    expected: of the champion, for margins that are a share of it; None leaves no margin.
    """
    if spec.relative:
        worth = abs(expected or 0.0)
        spec = replace(spec, margin=spec.margin * worth, slice_margin=spec.slice_margin * worth, relative=False)
    if scale is None or spec.rewarded or spec.interleaves:
        return spec
    margin, in_slice = (margin_in_traffic(system.metric, one, scale) for one in (spec.margin, spec.slice_margin))
    return replace(spec, margin=margin, slice_margin=in_slice)


def merging_of(system: System, spec: RolloutSpec) -> Merging | None:
    """The strategy of a stage that merges rankings; None of all others."""
    return _interleaving(system, spec) if spec.interleaves else None


def _interleaving(system: System, spec: RolloutSpec, task: Task | None = None) -> Interleave:
    return Interleave(spec.strategy, ranked(system, task), spec)


def ranked(system: System, task: Task | None = None) -> str:
    """The column whose rows are one list. Raises: ConfigError where no group is declared, or an answer is no single number."""
    if not system.group:
        do = f'Say which rows are one list: loudly.App({system.name!r}, ..., group="query_id").'
        raise ConfigError("Only rankings are interleaved, and no group of rows is declared.", do=do)
    if task is Task.MULTICLASS:
        seen = f"a model of several classes, by {system.metric!r}"
        raise ConfigError(
            "Only rankings are interleaved, and these answers have no order.", seen=seen, do="Rank by one score a row."
        )
    return system.group
