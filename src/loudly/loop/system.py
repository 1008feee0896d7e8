"""The user's system as a value: what the decorators of `loudly.App` collect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from loudly.core.canon import Json
from loudly.core.clock import DAY
from loudly.deliver.rollout import RolloutSpec
from loudly.evaluate.behaviours import Behaviour
from loudly.evaluate.gate import Gate
from loudly.features.side import Side
from loudly.loop.policy import RetrainPolicy
from loudly.monitor.settings import MonitorSettings

PromoteOn = Literal["complete", "known", "any"]
PROMOTE_ON: tuple[PromoteOn, ...] = get_args(PromoteOn)


FRAMES = ("numpy", "polars", "raw")


@dataclass(frozen=True, slots=True)
class Labels:
    """When labels come. `arrive_within`: µs after the event by which nearly all are there; later ones still count.

    arrives: name of a column with the arrival time of each label, for replay; without it a label is taken to arrive
    `arrive_within` after its row.
    promote_on: what a promotion may rest on. "complete": rows so old that nearly all labels of each class have come, as those so
    far have told, or older than `arrive_within` while these are too few or too young. "known": the same, and nothing while they
    are. "any": every label as it comes; a harm in a class whose labels are slow is then seen after the promotion.
    nearly_all: which share of the labels of each class that is.
    """

    arrive_within: int = DAY
    arrives: str | None = None
    promote_on: PromoteOn = "complete"
    nearly_all: float = 0.9

    @property
    def keep(self) -> int:
        """How long an answer waits for its label until it is overdue (µs): 30 days, or longer where labels are slow."""
        return max(30 * DAY, 3 * self.arrive_within)


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """How a model is made. `frame` is what the user's function gets as X: one of `FRAMES`, a matrix where nothing is said.

    holdout: the newest stretch of labelled event time (µs) that is kept from the fit and judges it.
    recipe: the name of the recipe that this is; "" for the train function.
    """

    fit: Callable[..., object]
    tune: Mapping[str, Json] = field(default_factory=dict)
    trials: int = 20
    frame: str = "numpy"
    seed: int = 0
    holdout: int = 7 * DAY
    search: str = "optuna"
    recipe: str = ""


@dataclass(frozen=True, slots=True)
class System:
    """Everything one Python file of the user's says. Functions are the user's own and stay callable by themselves.

    group: the column that names the list (a search query) that a row is a part of, where scores are places in it; "" for none.
    known_before: inputs that the user says are known before the event, however well they predict the label.
    recipes: other ways to make a model than `train`, tried beside it where the rollout has arms for what they make.
    """

    name: str
    label: str
    time: str
    key: str
    metric: str
    data: Callable[[], object]
    train: TrainSpec
    group: str = ""
    private: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    known_before: tuple[str, ...] = ()
    sides: tuple[Side, ...] = ()
    features: tuple[Callable[..., Any], ...] = ()
    recipes: tuple[Callable[..., Any], ...] = ()
    rules: tuple[Callable[..., Any], ...] = ()
    slices: tuple[Callable[..., Any], ...] = ()
    reward: Callable[..., Any] | None = None
    behaviours: tuple[Behaviour, ...] = ()
    gate: Gate = field(default_factory=Gate)
    rollout: tuple[RolloutSpec, ...] = ()
    labels: Labels = field(default_factory=Labels)
    monitor: MonitorSettings = field(default_factory=MonitorSettings)
    retrain: RetrainPolicy = field(default_factory=RetrainPolicy)

    @property
    def room(self) -> int:
        """How many candidates the rollout has arms for beside the first."""
        return max((spec.arms for spec in self.rollout), default=2) - 2
